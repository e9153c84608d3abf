"""Runs in buckets: they end as on a disk, or report a mistake in one sentence."""

import contextlib
import importlib.util
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import clips
import numpy as np
import pytest
import tiny_world
from buckets import Buckets, register, unregister
from small_network import encode
from tiny_run import left_by

from uhman_jax import main as main_lib
from uhman_jax import run, train
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.dataset.view import View
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError
from uhman_jax.train.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).parents[1]


HOW = {"num_epochs": 3, "eval_every": 5, "checkpoint_every": 5}


def config_of(root):
    """Returns the config of `tiny_world.write_config` for the arguments `HOW`."""
    config = tiny_world.smooth(tiny_world.make_config(root, num_seeds=2, **HOW))
    config.model.dropout = 0.1
    return config


@contextlib.contextmanager
def stopped_after(count):
    """Replaces `stop.graceful_stop`: a signal comes after `count` checks."""
    asked = iter(range(count))
    yield lambda: next(asked, None) is None


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory):
    """Returns the content of a run on a disk."""
    workdir = tmp_path_factory.mktemp("local") / "run"
    run.run(config_of(root), workdir, log=lambda line: None)
    return left_by(workdir)


@pytest.mark.slow
def test_a_run_in_a_bucket_is_stopped_goes_on_and_ends_as_one_on_a_disk(
    bucket, root, undisturbed, monkeypatch
):
    config, workdir, lines = config_of(bucket.upload(root, "data")), "gs://bucket/runs/one", []
    with monkeypatch.context() as patch:
        patch.setattr(run.signals, "graceful_stop", lambda: stopped_after(17))
        assert not run.run(config, workdir, log=lines.append)
    (step,) = re.findall(r"Saved at step (\d+) in gs://bucket/runs/one/checkpoints.", str(lines))
    assert 5 < int(step) < int(undisturbed["step"].removesuffix(".npz"))
    assert "metrics.json" not in bucket.contents("runs/one")
    assert run.run(config, workdir, log=lines.append)
    assert f"Resumed at step {step}" in str(lines)
    assert left_by(workdir) == undisturbed
    assert len(steps_in(bucket)) == 2

    before, page = bucket.contents("runs/one"), bucket.contents("runs/one")["report.html"]
    assert page.startswith(b"<!doctype html>") or page.startswith(b"<!DOCTYPE html>")
    bucket.calls.clear()
    assert run.run(config, workdir, log=lines.append)
    assert "Run: finished earlier, reused gs://bucket/runs/one." in lines
    assert bucket.contents("runs/one") == before and not bucket.paths("put_file")

    bucket.file("runs/one/metrics.json").unlink()
    assert run.run(config, workdir, mode="evaluate", log=lines.append)
    assert left_by(workdir) == undisturbed


def steps_in(bucket):
    """Returns the steps of the checkpoints in the run's bucket."""
    names = bucket.contents("runs/one/checkpoints")
    return sorted(int(name.removesuffix(".npz")) for name in names)


def test_of_two_checkpoints_in_a_bucket_the_whole_one_is_used(bucket, root, undisturbed):
    config, workdir, lines = config_of(bucket.upload(root, "data")), "gs://bucket/runs/one", []
    run.run(config, workdir, log=lines.append)
    first, last = steps_in(bucket)
    newest = bucket.file(f"runs/one/checkpoints/{last}.npz")
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(bytes(damaged))
    bucket.file("runs/one/metrics.json").unlink()
    lines.clear()
    assert run.run(config, workdir, log=lines.append)
    assert left_by(workdir) == undisturbed and steps_in(bucket) == [first, last]
    said = "\n".join(lines)
    assert f"Passed over a damaged checkpoint (step {last}: " in said
    assert f"Resumed at step {first}" in said


def test_a_run_of_an_earlier_version_in_a_bucket_goes_on(bucket, tmp_path):
    with tarfile.open(ROOT / "tests" / "fixtures" / "stored_run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    bucket.upload(tmp_path / "run", "runs/one")
    path = storage.path("gs://bucket/runs/one")
    config, view = run.read_config(path)[0], View.load(path / "view.npz")
    state = train.restore(config, view, path)
    with Checkpoints(path) as checkpoints:
        for step in (7, 8):
            checkpoints.save(state._replace(step=np.int32(step)))
    assert steps_in(bucket) == [7, 8]


KILLED = """
import pathlib, sys
import buckets
from uhman_jax import main
buckets.register(pathlib.Path(sys.argv[1]))
sys.exit(main.main(sys.argv[2:]))
"""


def test_a_killed_run_in_a_bucket_ends_as_if_it_had_not_been(
    root, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setenv(storage.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests" / "fixtures")]))
    shutil.copytree(root, tmp_path / "bucket" / "data")
    config = tiny_world.write_config(tmp_path / "tiny.py", "gs://bucket/data", **HOW)
    flags = [f"--config={config}", "--workdir=gs://bucket/runs/one"]
    command = [sys.executable, "-c", KILLED, str(tmp_path), *flags]
    checkpoints = tmp_path / "bucket" / "runs" / "one" / "checkpoints"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(checkpoints.glob("*.npz")):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    register(tmp_path)
    try:
        lines = []
        assert run.run(config_of("gs://bucket/data"), "gs://bucket/runs/one", log=lines.append)
        assert "Resumed at step" in str(lines)
        assert left_by("gs://bucket/runs/one") == undisturbed
    finally:
        unregister()


# Mistakes


@pytest.fixture
def config_file(bucket, root, tmp_path):
    return tiny_world.write_config(tmp_path / "tiny.py", bucket.upload(root, "data"))


def said_by(capsys, *argv):
    """Returns the error message of a command line that ends with status 2."""
    assert main_lib.main(list(argv)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    last = error.splitlines()[-1]  # after progress bars
    assert last.startswith("error: ")
    return last


def test_a_missing_bucket_is_reported_in_one_sentence(config_file, capsys):
    said = said_by(capsys, f"--config={config_file}", "--workdir=gs://none/run")
    assert "must be in a bucket that exists, got no bucket 'none'" in said
    flags = [f"--config={config_file}", "--workdir=gs://bucket/run"]
    said = said_by(capsys, *flags, "--config.data.root=gs://none/data")
    assert "a raw dataset must be a folder with videos.csv, got gs://none/data" in said
    said = said_by(capsys, *flags, "--config.data.simulated_dir=gs://bucket/worlds")
    assert "data.simulated_dir must be a local folder" in said
    Buckets.file("data/videos.csv").unlink()
    assert "a raw dataset must hold videos.csv" in said_by(capsys, *flags)


def test_missing_weights_are_reported_in_one_sentence(bucket, config_file, tmp_path, capsys):
    clips.write_noise(tmp_path / "clips", (1,))
    (tmp_path / "clips" / "videos.csv").write_text(
        "video_id,path,user_id,hashtags,timestamp\na,0.mp4,u,#x,\nb,1.mp4,u,#x,\n"
    )
    flags = [f"--config={config_file}", f"--workdir={tmp_path / 'run'}"]
    flags.append(f"--config.data.root={bucket.upload(tmp_path / 'clips', 'clips')}")
    said = said_by(capsys, *flags, "--config.preprocess.weights=gs://bucket/none.h5")
    assert "got 'gs://bucket/none.h5' (No such file or directory)" in said
    raw = read_raw_dataset("gs://bucket/clips", strict=False)
    assert [video.video_id for video in raw.videos] == ["a"]
    assert "path must name an existing file, got '1.mp4'" in str(raw.problems[0])


@pytest.mark.parametrize(
    ("method", "error", "said"),
    [
        ("info", OSError("Forbidden: bucket/run\nno access"), "can't be written or read: Perm"),
        ("put_file", PermissionError("no"), "can't be written or read: Permission denied"),
        ("cat_file", RuntimeError("token\nexpired"), "must be reachable, got 'token'"),
        ("get_file", ConnectionResetError(104, "reset by peer"), "must be reachable, got"),
        ("get_file", OSError(28, "No space left on device"), "can't be written or read: No s"),
    ],
)
def test_errors_of_a_bucket_are_reported_in_one_sentence(config_file, capsys, method, error, said):
    Buckets.trouble[method] = error
    flags = [f"--config={config_file}", "--workdir=gs://bucket/run"]
    assert said in said_by(capsys, *flags)


def test_a_failed_upload_is_reported_in_one_sentence(bucket, config_file, capsys, monkeypatch):
    put = bucket.put_file

    def refuse(self, file, path, **options):
        if "/checkpoints/" in path:
            raise OSError("Forbidden: " + path)
        put(self, file, path)

    monkeypatch.setattr(bucket, "put_file", refuse)
    said = said_by(capsys, f"--config={config_file}", "--workdir=gs://bucket/run")
    assert "checkpoints must be written to gs://bucket/run/checkpoints, got 'Permission" in said


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ["uhman_jax.main", "--config=configs/smoke.py", "--workdir=gs://bucket/run"],
        ["uhman_jax.preprocess", "--root=gs://bucket/clips", "--weights=random"],
    ],
)
def test_without_gcsfs_the_message_names_the_package(arguments):
    command = [sys.executable, "-m", *arguments]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 2
    assert "needs gcsfs, which is not installed; pip install -e '.[gcs]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_gcsfs_against_an_emulator(root, undisturbed, tmp_path, monkeypatch):
    """Checks the client over HTTP, if both packages are installed; the pins have neither."""
    gcsfs = pytest.importorskip("gcsfs")
    server = pytest.importorskip("gcp_storage_emulator.server")
    emulator = server.create_server("localhost", 0, in_memory=True, default_bucket="bucket")
    emulator.start()
    try:
        port = emulator._api._httpd.server_address[1]
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
        monkeypatch.setenv(storage.CACHE, str(tmp_path / "cache"))
        gcsfs.GCSFileSystem.clear_instance_cache()
        for path in root.rglob("*"):
            if path.is_file():
                name = path.relative_to(root).as_posix()
                storage.path(f"gs://bucket/data/{name}").upload(path)
        config = config_of("gs://bucket/data")
        with monkeypatch.context() as patch:
            patch.setattr(run.signals, "graceful_stop", lambda: stopped_after(17))
            assert not run.run(config, "gs://bucket/runs/one")
        assert run.run(config, "gs://bucket/runs/one")
        assert left_by("gs://bucket/runs/one") == undisturbed
        clips.write_noise(tmp_path / "clips", (1, 4, 2))
        for path in (tmp_path / "clips").iterdir():
            storage.path(f"gs://bucket/clips/{path.name}").upload(path)
        encode(tmp_path / "clips", tmp_path / "features")
        encode("gs://bucket/clips", "gs://bucket/features")
        remote = storage.path("gs://bucket/features")
        expected = clips.contents(tmp_path / "features")
        del expected[".lock"], expected["index.npz"]  # of the first store
        assert {name: (remote / name).read_bytes() for name in storage.sizes(remote)} == expected
        with pytest.raises(UserError, match="in a bucket that exists, got no bucket 'none'"):
            storage.path("gs://none/file").upload(tmp_path / "clips" / "0.mp4")
    finally:
        emulator.stop()
