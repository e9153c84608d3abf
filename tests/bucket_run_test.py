"""Runs in buckets: they end as on a disk, or report a mistake in one sentence."""

import contextlib
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import time

import clips
import numpy as np
import pytest
import tiny_world
from buckets import Buckets
from small_network import encode
from tiny_run import left_by

from uhman_jax import run, train
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.dataset.view import View
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError
from uhman_jax.train.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).parents[1]


WORKDIR = "gs://bucket/runs/one"
HOW = {"num_epochs": 3, "eval_every": 5, "checkpoint_every": 5}


@contextlib.contextmanager
def stopped_after(count):
    """Replaces `stop.graceful_stop`: a signal comes after `count` checks."""
    asked = iter(range(count))
    yield lambda: next(asked, None) is None


@pytest.fixture(scope="module")
def local(root, tmp_path_factory):
    """Returns the directory of a run on a disk."""
    workdir = tmp_path_factory.mktemp("local") / "run"
    run.run(tiny_world.population(root, **HOW), workdir, log=lambda line: None)
    return workdir


@pytest.mark.slow
def test_a_run_in_a_bucket_is_stopped_goes_on_and_ends_as_one_on_a_disk(
    bucket, root, local, monkeypatch
):
    config, lines = tiny_world.population(bucket.upload(root, "data"), **HOW), []
    with monkeypatch.context() as patch:
        patch.setattr(run.signals, "graceful_stop", lambda: stopped_after(17))
        assert not run.run(config, WORKDIR, log=lines.append)
    (step,) = re.findall(r"Saved at step (\d+) in gs://bucket/runs/one/checkpoints.", str(lines))
    assert 5 < int(step) < int(left_by(local)["step"].removesuffix(".npz"))
    assert "metrics.json" not in bucket.contents("runs/one")
    assert run.run(config, WORKDIR, log=lines.append)
    assert f"Resumed at step {step}" in str(lines)
    assert left_by(WORKDIR) == left_by(local) and len(steps_in(bucket)) == 2

    before = bucket.contents("runs/one")
    assert before["report.html"].lower().startswith(b"<!doctype html>")
    bucket.calls.clear()
    assert run.run(config, WORKDIR, log=lines.append)
    assert f"Run: finished earlier, reused {WORKDIR}." in lines
    assert bucket.contents("runs/one") == before and not bucket.paths("put_file")

    bucket.file("runs/one/metrics.json").unlink()
    assert run.run(config, WORKDIR, mode="evaluate", log=lines.append)
    assert left_by(WORKDIR) == left_by(local)


def steps_in(bucket):
    """Returns the steps of the checkpoints in the run's bucket."""
    names = bucket.contents("runs/one/checkpoints")
    return sorted(int(name.removesuffix(".npz")) for name in names)


def test_of_two_checkpoints_in_a_bucket_the_whole_one_is_used(bucket, root, local):
    bucket.upload(local, "runs/one")
    first, last = steps_in(bucket)
    newest = bucket.file(f"runs/one/checkpoints/{last}.npz")
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(bytes(damaged))
    bucket.file("runs/one/metrics.json").unlink()
    lines = []
    assert run.run(tiny_world.population(root, **HOW), WORKDIR, log=lines.append)
    assert left_by(WORKDIR) == left_by(local) and steps_in(bucket) == [first, last]
    logged = "\n".join(lines)
    assert f"Skipped a damaged checkpoint (step {last}: " in logged
    assert f"Resumed at step {first}" in logged


def test_a_run_of_an_earlier_version_in_a_bucket_goes_on(bucket, tmp_path):
    with tarfile.open(ROOT / "tests" / "fixtures" / "stored_run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    bucket.upload(tmp_path / "run", "runs/one")
    path = storage.path(WORKDIR)
    config, view = run.read_config(path)[0], View.load(path / "view.npz")
    state = train.restore(config, view, path)
    with Checkpoints(path) as checkpoints:
        for step in (7, 8):
            checkpoints.save(state._replace(step=np.int32(step)))
    assert steps_in(bucket) == [7, 8]


KILLED = """
import os, pathlib, sys
import buckets
from uhman_jax import main
buckets.register(pathlib.Path(os.environ[buckets.FOLDER]))
sys.exit(main.main(sys.argv[1:]))
"""


def test_a_killed_run_in_a_bucket_ends_as_if_it_had_not_been(bucket, root, local, tmp_path):
    data = bucket.upload(root, "data")
    flags = [f"--config={tiny_world.write_config(tmp_path / 'tiny.py', data, **HOW)}"]
    command = [sys.executable, "-c", KILLED, *flags, f"--workdir={WORKDIR}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(bucket.file("runs/one/checkpoints").glob("*.npz")):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    lines = []
    assert run.run(tiny_world.population(data, **HOW), WORKDIR, log=lines.append)
    assert "Resumed at step" in str(lines)
    assert left_by(WORKDIR) == left_by(local)


# Mistakes


@pytest.fixture
def mistake(bucket, root, tmp_path, refused):
    """A function that runs a wrong command line, by default on a bucket."""
    config = tiny_world.write_config(tmp_path / "tiny.py", bucket.upload(root, "data"))

    def call(*flags, workdir="gs://bucket/run"):
        return refused(f"--config={config}", f"--workdir={workdir}", *flags)

    return call


def test_a_missing_bucket_is_reported_in_one_sentence(mistake):
    message = "must be in a bucket that exists, got no bucket 'none'"
    assert message in mistake(workdir="gs://none/run")
    message = "a raw dataset must be a folder with videos.csv, got gs://none/data"
    assert message in mistake("--config.data.root=gs://none/data")
    message = "data.simulated_dir must be a local folder"
    assert message in mistake("--config.data.simulated_dir=gs://bucket/worlds")
    Buckets.file("data/videos.csv").unlink()
    assert "a raw dataset must hold videos.csv" in mistake()


def test_missing_weights_are_reported_in_one_sentence(bucket, mistake, tmp_path):
    clips.write_noise(tmp_path / "clips", (1,))
    (tmp_path / "clips" / "videos.csv").write_text(
        "video_id,path,user_id,hashtags,timestamp\na,0.mp4,u,#x,\nb,1.mp4,u,#x,\n"
    )
    flags = [f"--config.data.root={bucket.upload(tmp_path / 'clips', 'clips')}"]
    flags += ["--config.preprocess.weights=gs://bucket/none.h5"]
    message = "got 'gs://bucket/none.h5' (No such file or directory)"
    assert message in mistake(*flags, workdir=tmp_path / "run")
    raw = read_raw_dataset("gs://bucket/clips", strict=False)
    assert [video.video_id for video in raw.videos] == ["a"]
    assert "path must name an existing file, got '1.mp4'" in str(raw.problems[0])


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ("info", OSError("Forbidden: bucket/run\nno access"), "can't be written or read: Perm"),
        ("put_file", PermissionError("no"), "can't be written or read: Permission denied"),
        ("cat_file", RuntimeError("token\nexpired"), "must be reachable, got 'token'"),
        ("get_file", ConnectionResetError(104, "reset by peer"), "must be reachable, got"),
        ("get_file", OSError(28, "No space left on device"), "can't be written or read: No s"),
    ],
)
def test_errors_of_a_bucket_are_reported_in_one_sentence(mistake, method, error, message):
    Buckets.trouble[method] = error
    assert message in mistake()


def test_a_failed_upload_is_reported_in_one_sentence(bucket, mistake, monkeypatch):
    put = bucket.put_file

    def refuse(self, file, path, **options):
        if "/checkpoints/" in path:
            raise OSError("Forbidden: " + path)
        put(self, file, path)

    monkeypatch.setattr(bucket, "put_file", refuse)
    message = "checkpoints must be written to gs://bucket/run/checkpoints, got 'Permission"
    assert message in mistake()


def test_gcsfs_against_an_emulator(root, local, tmp_path, monkeypatch):
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
        config = tiny_world.population("gs://bucket/data", **HOW)
        with monkeypatch.context() as patch:
            patch.setattr(run.signals, "graceful_stop", lambda: stopped_after(17))
            assert not run.run(config, WORKDIR)
        assert run.run(config, WORKDIR)
        assert left_by(WORKDIR) == left_by(local)
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
            storage.path("gs://none/file").upload(root / "videos.csv")
    finally:
        emulator.stop()
