"""Paths of buckets: single files, features, and whole runs that end as they do on a disk."""

import contextlib
import importlib.util
import json
import os
import pathlib
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time

import clips
import numpy as np
import pytest
import tiny_world
from buckets import FOLDER, FolderBuckets, MemoryBuckets, register, unregister
from small_network import SmallNetwork, small_config

from uhman_jax import main as main_lib
from uhman_jax import run, storage, train
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.errors import UserError
from uhman_jax.preprocess import pipeline
from uhman_jax.preprocess.inputs import list_inputs
from uhman_jax.report import thumbnails
from uhman_jax.shards.store import FrameStore

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """gs://bucket in memory, and a cache of its own."""
    monkeypatch.setenv(storage.CACHE, str(tmp_path / "cache"))
    MemoryBuckets.start()
    register(MemoryBuckets)
    yield MemoryBuckets
    unregister()


def calls(method):
    return [path for name, path in MemoryBuckets.calls if name == method]


# Single files


def test_a_local_path_stays_one():
    path = storage.path("runs/natural")
    assert type(path) is type(pathlib.Path()) and str(path) == "runs/natural"
    assert storage.cached("runs/natural") == path


def test_a_path_of_a_bucket_keeps_its_name(bucket):
    path = storage.path("gs://bucket/data")
    child = path / "clips" / "a.mp4"
    assert str(child) == "gs://bucket/data/clips/a.mp4" and child.suffix == ".mp4"
    assert str(child.parent) == "gs://bucket/data/clips"
    assert str(child.relative_to(path)) == "clips/a.mp4"
    assert str(child.with_name("b.mp4")) == "gs://bucket/data/clips/b.mp4"
    assert pickle.loads(pickle.dumps(child)) == child and child.absolute() == child
    assert storage.is_remote(child) and storage.path(child) == child


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("s3://bucket/x", "must be local or begin with gs://, got 's3://bucket/x'"),
        ("gs://", "gs:// must name a bucket, got 'gs://'"),
    ],
)
def test_other_addresses_are_refused(bucket, name, said):
    with pytest.raises(UserError, match=said):
        storage.path(name)


def test_a_bucket_answers_as_a_folder_does(bucket, tmp_path):
    files = {"a.txt": "one", "b-1-of-2": "", "b-2-of-2": "x", "in/c.txt": "wörd", "in/d/e": "e"}
    for name, text in files.items():
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_text(text, "utf-8")
    local, remote = tmp_path / "local", storage.path(bucket.upload(tmp_path / "local", "data"))

    def seen(root):
        names = ["", "a.txt", "in", "in/c.txt", "none", "in/none", "a"]
        paths = [root / name for name in names]
        return {
            "kinds": [(p.exists(), p.is_dir(), p.is_file(), p.is_symlink()) for p in paths],
            "texts": [p.read_text("utf-8") for p in paths if p.is_file()],
            "bytes": [p.read_bytes() for p in paths if p.is_file()],
            "sizes": [p.stat().st_size for p in paths if p.is_file()],
            "listed": sorted(p.name for p in root.iterdir()),
            "found": sorted(p.name for p in root.glob("b-*-of-*")),
            "nothing": list((root / "none").glob("*")),
            "below": storage.files_below(root),
        }

    assert seen(remote) == seen(local)
    with pytest.raises(FileNotFoundError) as caught:
        (remote / "none").read_bytes()
    assert caught.value.filename == "gs://bucket/data/none" and caught.value.strerror
    for root in (remote, local):
        (root / "a.txt").replace(root / "in" / "f")
        (root / "b-1-of-2").unlink()
        (root / "b-1-of-2").unlink(missing_ok=True)
        with pytest.raises(FileNotFoundError):
            (root / "b-1-of-2").unlink()
    assert seen(remote) == seen(local)


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_file_is_replaced_whole_or_not_at_all(bucket, tmp_path, kind):
    path = tmp_path / "x" if kind == "local" else storage.path("gs://bucket/x")
    with storage.replacing(path) as file:
        file.write(b"first")
    with pytest.raises(ZeroDivisionError), storage.replacing(path) as file:
        file.write(b"second")
        raise ZeroDivisionError
    assert path.read_bytes() == b"first"
    with pytest.raises(ZeroDivisionError), storage.making(path) as temporary:
        temporary.write_bytes(b"third")
        raise ZeroDivisionError
    assert path.read_bytes() == b"first" and not temporary.exists()
    with storage.making(path) as temporary:
        temporary.write_bytes(b"fourth")
    assert path.read_bytes() == b"fourth"
    assert [p.name for p in path.parent.iterdir()] == ["x"]


def test_a_temporary_copy_is_gone_after_the_block(bucket, tmp_path):
    path = storage.path("gs://bucket/clip.with.dots.mp4")
    with storage.replacing(path) as file:
        file.write(b"film")
    with storage.local_copy(path) as copy:
        assert copy.read_bytes() == b"film" and copy.suffix == ".mp4"
    assert not copy.parent.exists()
    (tmp_path / "a").touch()
    with storage.local_copy(tmp_path / "a") as copy:
        assert copy == tmp_path / "a"
    assert copy.exists()


def test_a_kept_copy_is_made_once_for_each_version(bucket, tmp_path):
    path = storage.path("gs://bucket/shard")

    def write(data):
        with storage.replacing(path) as file:
            file.write(data)

    write(b"one")
    copy = storage.cached(path)
    assert copy.read_bytes() == b"one" and copy.parent == tmp_path / "cache"
    assert storage.cached(path) == copy and len(calls("get_file")) == 1
    write(b"two")  # as long as before
    assert storage.cached(path).read_bytes() == b"two" and len(calls("get_file")) == 2
    storage.cached(path).write_bytes(b"t")  # cut short, as on a disk that lost power
    assert storage.cached(path).read_bytes() == b"two"
    assert copy.read_bytes() == b"one"  # who has mapped it goes on


def test_a_copy_is_kept_whole_or_not_at_all(bucket, tmp_path, monkeypatch):
    path = storage.path("gs://bucket/shard")
    with storage.replacing(path) as file:
        file.write(b"content")
    monkeypatch.setattr(bucket, "get_file", lambda self, _, to: pathlib.Path(to).write_bytes(b"c"))
    with pytest.raises(UserError, match="must have the 7 bytes that its bucket states, got 1"):
        storage.cached(path)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [".lock"]


# Features


def encode(root, output, **changes):
    inputs = list_inputs(storage.path(root))
    how = {"network": SmallNetwork, "progress": False}
    return pipeline.preprocess(root, inputs, output, small_config(**changes), **how)


def test_features_of_a_bucket_are_those_of_a_folder(bucket, tmp_path):
    clips.write_noise(tmp_path / "clips", (1, 4, 2, 3))
    (tmp_path / "clips" / "4_text.mp4").write_text("no video")
    (tmp_path / "clips" / "5_empty.mp4").touch()
    (tmp_path / "clips" / "6_large.mp4").write_bytes(bytes(100_000))
    (tmp_path / "clips" / "notes.txt").touch()
    root = bucket.upload(tmp_path / "clips", "clips")
    limits = {"max_megabytes": 0.05, "calibration_frames": 4}
    local = encode(tmp_path / "clips", tmp_path / "features", **limits)
    remote = encode(root, "gs://bucket/features", **limits)
    assert remote.entries == local.entries
    states = ["ok", "ok", "ok", "ok", "corrupt", "corrupt", "unsupported"]
    assert [entry.state for entry in local.entries] == states
    expected = clips.contents(tmp_path / "features")
    del expected[".lock"]
    assert bucket.contents("features") == expected

    decoded = {path for path in calls("get_file") if path.startswith("bucket/clips/")}
    assert decoded == {f"bucket/clips/{i}.mp4" for i in range(4)} | {"bucket/clips/4_text.mp4"}
    assert not [path for path in calls("get_file") if "tfrecord" in path]
    assert encode(root, "gs://bucket/features", **limits).reused == 7  # nothing is made again
    assert encode(root, tmp_path / "mixed", **limits).entries == local.entries

    store, again = FrameStore.open("gs://bucket/features"), FrameStore.open(tmp_path / "features")
    assert store.video_ids == again.video_ids and store.info == again.info
    for i in range(len(store)):
        for one, other in zip(store[i], again[i], strict=True):
            np.testing.assert_array_equal(one, other)
    assert pickle.loads(pickle.dumps(store)).video_ids == store.video_ids
    assert len([path for path in calls("get_file") if "tfrecord" in path]) == len(store._paths)


def test_lost_shards_of_a_bucket_are_made_again(bucket, tmp_path):
    clips.write_noise(tmp_path / "clips", (2, 1, 3, 1))
    root = bucket.upload(tmp_path / "clips", "clips")
    encode(root, "gs://bucket/features")
    whole = bucket.contents("features")
    del bucket.store["/bucket/features/frames-train.tfrecord-00001-of-00002"]
    assert encode(root, "gs://bucket/features").reused == 2
    assert bucket.contents("features") == whole


def test_a_clip_that_is_no_longer_there_costs_nothing_but_itself(bucket, tmp_path):
    clips.write_noise(tmp_path / "clips", (2, 1))
    root = bucket.upload(tmp_path / "clips", "clips")
    inputs = [(name, name) for name in ("0.mp4", "gone.mp4", "../clips/1.mp4", "1.mp4")]
    how = {"network": SmallNetwork, "progress": False}
    summary = pipeline.preprocess(root, inputs, "gs://bucket/features", small_config(), **how)
    found = {entry.path: (entry.state, entry.reason) for entry in summary.entries}
    assert found["0.mp4"] == found["1.mp4"] == ("ok", "")
    assert found["gone.mp4"] == ("corrupt", "the file cannot be read: No such file or directory")
    assert found["../clips/1.mp4"] == ("unsupported", "the file lies outside the folder")


def test_a_report_shows_clips_of_a_bucket(bucket, tmp_path):
    clips.write_noise(tmp_path / "clips", (3,))
    root = storage.path(bucket.upload(tmp_path / "clips", "clips"))
    times = np.float32([0, 0.4])
    shown = thumbnails.frames_at(root / "0.mp4", times, 5, 3)
    for one, other in zip(
        shown, thumbnails.frames_at(tmp_path / "clips" / "0.mp4", times, 5, 3), strict=True
    ):
        assert one.tobytes() == other.tobytes()
    with pytest.raises(thumbnails.DecodeError, match="the file cannot be read"):
        thumbnails.frames_at(root / "none.mp4", times, 5, 3)


# Runs


def config_of(root):
    config = tiny_world.make_config(root, num_seeds=2, num_epochs=3, eval_every=5)
    config.train.checkpoint_every = 5
    config.model.dropout = 0.1
    return config


@contextlib.contextmanager
def stopped_after(count):
    """Stands in for `stop.between_steps`: a signal comes after so many questions."""
    asked = iter(range(count))
    yield lambda: next(asked, None) is None


def outcome(config, workdir):
    """What a run is judged by: figures, predictions, examples and all arrays of its last state."""
    path, store = storage.path(workdir), FrameStore.open(config.data.root + "/features/simulated")
    log = [json.loads(line) for line in (path / "metrics.jsonl").read_text("utf-8").splitlines()]
    prepared = run.prepare(config, lambda line: None)
    state = train.restore(config, prepared.view, store.num_channels, workdir)
    times = ("seconds", "steps_per_second")
    with (path / "examples.npz").open("rb") as file:
        examples = {name: part.tobytes() for name, part in np.load(file).items()}
    return {
        "log": [{key: entry[key] for key in entry if key not in times} for entry in log],
        "metrics": json.loads((path / "metrics.json").read_text("utf-8")),
        "predictions": (path / "predictions.parquet").read_bytes(),
        "examples": examples,
        "view": (path / "view.npz").read_bytes(),
        "step": int(state.step),
        "state": [np.asarray(leaf).tobytes() for leaf in train.state.jax.tree.leaves(state)],
    }


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory):
    """The outcome of a run on a disk."""
    workdir = tmp_path_factory.mktemp("local") / "run"
    config = config_of(root)
    run.run(config, workdir, say=lambda line: None)
    return outcome(config, workdir)


def test_a_run_in_a_bucket_is_stopped_goes_on_and_ends_as_one_on_a_disk(
    bucket, root, undisturbed, monkeypatch
):
    config, workdir, lines = config_of(bucket.upload(root, "data")), "gs://bucket/runs/one", []
    with monkeypatch.context() as patch:
        patch.setattr(run.stop, "between_steps", lambda: stopped_after(17))
        assert not run.run(config, workdir, say=lines.append)
    (step,) = re.findall(r"Saved at step (\d+) in gs://bucket/runs/one/checkpoints.", str(lines))
    assert 5 < int(step) < undisturbed["step"]
    assert "metrics.json" not in bucket.contents("runs/one")
    assert run.run(config, workdir, say=lines.append)
    assert f"Resumed at step {step}" in str(lines)
    assert outcome(config, workdir) == undisturbed
    assert len(steps_in(bucket)) == 2

    before, page = bucket.contents("runs/one"), bucket.contents("runs/one")["report.html"]
    assert page.startswith(b"<!doctype html>") or page.startswith(b"<!DOCTYPE html>")
    bucket.calls.clear()
    assert run.run(config, workdir, say=lines.append)
    assert "Run: finished earlier, reused gs://bucket/runs/one." in lines
    assert bucket.contents("runs/one") == before and not calls("put_file")

    del bucket.store["/bucket/runs/one/metrics.json"]
    assert run.run(config, workdir, mode="evaluate", say=lines.append)
    assert outcome(config, workdir) == undisturbed


def steps_in(bucket):
    """Steps of the checkpoints that the run of these tests has in its bucket."""
    names = bucket.contents("runs/one/checkpoints")
    return sorted({int(name.split("/")[0]) for name in names})


def check_that_a_seal_comes_last_and_goes_first(bucket):
    """Of every checkpoint that was uploaded or removed: so a part of one never counts as one."""
    events = {}
    for place, (method, path) in enumerate(bucket.calls):
        if "/checkpoints/" in path and method in ("put_file", "rm_file"):
            step, name = path.split("/checkpoints/")[1].split("/", 1)
            events.setdefault((method, step), []).append((place, name))
    assert len({step for method, step in events if method == "put_file"}) > 2
    assert any(method == "rm_file" for method, _ in events)
    for (method, _), found in events.items():
        assert found[-1 if method == "put_file" else 0][1] == "crc32c.json" and len(found) > 5


def test_of_two_checkpoints_in_a_bucket_the_whole_one_is_used(bucket, root, undisturbed):
    config, workdir, lines = config_of(bucket.upload(root, "data")), "gs://bucket/runs/one", []
    run.run(config, workdir, say=lines.append, report=False)
    check_that_a_seal_comes_last_and_goes_first(bucket)
    first, last = steps_in(bucket)
    folder = f"/bucket/runs/one/checkpoints/{last}/"
    files = [name for name in bucket.store if name.startswith(folder)]
    whole = {name: bucket.store[name].getvalue() for name in files}

    def go_on():
        del bucket.store["/bucket/runs/one/metrics.json"]
        lines.clear()
        assert run.run(config, workdir, say=lines.append, report=False)
        assert outcome(config, workdir) == undisturbed and steps_in(bucket) == [first, last]
        return "\n".join(lines)

    largest = max(whole, key=lambda name: len(whole[name]))
    damaged = bytearray(whole[largest])
    damaged[len(damaged) // 2] ^= 1
    bucket().pipe_file(largest, bytes(damaged))
    said = go_on()
    assert f"Passed over a damaged checkpoint (step {last}: " in said
    assert f"Resumed at step {first}" in said
    (seal,) = [name for name in bucket.store if name == folder + "crc32c.json"]
    del bucket.store[seal]  # as where an upload was cut off
    said = go_on()
    assert "Passed over" not in said and f"Resumed at step {first}" in said


KILLED = """
import os, pathlib, sys
sys.path.insert(0, {tests!r})
import buckets
buckets.register(buckets.FolderBuckets)
sys.argv[0] = "main"
import storage_test
from uhman_jax import run
sys.exit(not run.run(storage_test.config_of("gs://bucket/data"), "gs://bucket/runs/one"))
"""


def test_a_killed_run_in_a_bucket_ends_as_if_it_had_not_been(
    root, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv(storage.CACHE, str(tmp_path / "cache"))
    shutil.copytree(root, tmp_path / "bucket" / "data")
    command = [sys.executable, "-c", KILLED.format(tests=str(ROOT / "tests"))]
    checkpoints = tmp_path / "bucket" / "runs" / "one" / "checkpoints"
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None and not any(checkpoints.glob("*/crc32c.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Resumed at step" in result.stdout
    register(FolderBuckets)
    try:
        assert outcome(config_of("gs://bucket/data"), "gs://bucket/runs/one") == undisturbed
    finally:
        unregister()


# What a person can mend


@pytest.fixture
def config_file(bucket, root, tmp_path):
    return tiny_world.write_config(tmp_path / "tiny.py", bucket.upload(root, "data"))


def said_by(capsys, *argv):
    """What the command line says before it ends with status 2."""
    assert main_lib.main(list(argv)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    last = error.splitlines()[-1]  # after progress bars
    assert last.startswith("error: ")
    return last


def test_a_bucket_that_is_not_there_is_a_sentence(config_file, capsys):
    said = said_by(capsys, f"--config={config_file}", "--workdir=gs://none/run")
    assert "must be in a bucket that exists, got none called 'none'" in said
    flags = [f"--config={config_file}", "--workdir=gs://bucket/run"]
    said = said_by(capsys, *flags, "--config.data.root=gs://none/data")
    assert "a raw dataset must be a folder with videos.csv, got gs://none/data" in said
    said = said_by(capsys, *flags, "--config.data.simulated_dir=gs://bucket/worlds")
    assert "data.simulated_dir must be a local folder" in said
    MemoryBuckets.store.pop("/bucket/data/videos.csv")
    assert "a raw dataset must hold videos.csv" in said_by(capsys, *flags)


def test_weights_that_are_not_there_are_a_sentence(bucket, config_file, tmp_path, capsys):
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
        ("cat_file", RuntimeError("token\nexpired"), "must be within reach, got 'token'"),
        ("get_file", ConnectionResetError(104, "reset by peer"), "must be within reach, got"),
        (
            "get_file",
            OSError(28, "No space left on device"),
            "a file can't be written or read: No s",
        ),
    ],
)
def test_a_bucket_that_refuses_is_a_sentence(config_file, capsys, method, error, said):
    MemoryBuckets.trouble[method] = error
    flags = [f"--config={config_file}", "--workdir=gs://bucket/run"]
    assert said in said_by(capsys, *flags)


def test_a_checkpoint_that_can_not_be_uploaded_is_a_sentence(
    bucket, config_file, capsys, monkeypatch
):
    put = bucket.put_file

    def refuse(self, file, path, **options):
        if "/checkpoints/" in path:
            raise OSError("Forbidden: " + path)
        put(self, file, path)

    monkeypatch.setattr(bucket, "put_file", refuse)
    said = said_by(capsys, f"--config={config_file}", "--workdir=gs://bucket/run")
    assert "checkpoints must be written to gs://bucket/run/checkpoints, got 'Permission" in said


@pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is not None, reason="needs a place without gcsfs"
)
@pytest.mark.parametrize("module", ["uhman_jax.main", "uhman_jax.preprocess"])
def test_without_gcsfs_a_sentence_says_what_to_install(module):
    flags = {
        "uhman_jax.main": ["--config=configs/smoke.py", "--workdir=gs://bucket/run"],
        "uhman_jax.preprocess": ["--root=gs://bucket/clips", "--weights=random"],
    }
    command = [sys.executable, "-m", module, *flags[module]]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 2
    assert "needs gcsfs, which is not installed; pip install -e '.[gcs]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_gcsfs_against_an_emulator(root, undisturbed, tmp_path, monkeypatch):
    """The client itself, over HTTP; runs where both are installed, which the pins do not."""
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
            patch.setattr(run.stop, "between_steps", lambda: stopped_after(17))
            assert not run.run(config, "gs://bucket/runs/one")
        assert run.run(config, "gs://bucket/runs/one")
        assert outcome(config, "gs://bucket/runs/one") == undisturbed
        clips.write_noise(tmp_path / "clips", (1, 4, 2))
        for path in (tmp_path / "clips").iterdir():
            storage.path(f"gs://bucket/clips/{path.name}").upload(path)
        encode(tmp_path / "clips", tmp_path / "features")
        encode("gs://bucket/clips", "gs://bucket/features")
        remote = storage.path("gs://bucket/features")
        expected = clips.contents(tmp_path / "features")
        del expected[".lock"]
        assert {name: (remote / name).read_bytes() for name in storage.sizes(remote)} == expected
        with pytest.raises(UserError, match="in a bucket that exists, got none called 'none'"):
            storage.path("gs://none/file").upload(tmp_path / "clips" / "0.mp4")
    finally:
        emulator.stop()
