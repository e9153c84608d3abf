"""Paths of buckets: single files and features, as on a disk."""

import importlib.util
import pathlib
import pickle
import signal
import subprocess
import sys

import clips
import numpy as np
import pytest
from small_network import SmallNetwork, encode, small_config

from uhman_jax.preprocess import pipeline
from uhman_jax.report import thumbnails
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards.store import FrameStore

# Single files


def test_a_local_path_stays_one():
    path = storage.path("runs/natural")
    assert type(path) is type(pathlib.Path()) and str(path) == "runs/natural"
    assert storage.cached_copy("runs/natural") == path


def test_a_path_of_a_bucket_keeps_its_name(bucket):
    path = storage.path("gs://bucket/data")
    child = path / "clips" / "a.mp4"
    assert str(child) == "gs://bucket/data/clips/a.mp4" and child.suffix == ".mp4"
    assert str(child.parent) == "gs://bucket/data/clips"
    assert str(child.relative_to(path)) == "clips/a.mp4"
    assert str(child.with_name("b.mp4")) == "gs://bucket/data/clips/b.mp4"
    assert pickle.loads(pickle.dumps(child)) == child and child.absolute() == child
    assert storage.is_remote(child) and storage.path(child) == child
    assert storage.path("gs://bucket//data/") == path and path / "./clips//a.mp4" == child


def test_other_addresses_are_refused(bucket):
    with pytest.raises(UserError, match="must be local or begin with gs://, got 's3://bucket/x'"):
        storage.path("s3://bucket/x")
    with pytest.raises(UserError, match="gs:// must name a bucket, got 'gs://'"):
        storage.path("gs://")


def test_a_bucket_answers_as_a_folder_does(bucket, tmp_path):
    files = {"a.txt": "one", "b-1-of-2": "", "b-2-of-2": "x", "in/c.txt": "wörd", "in/d/e": "e"}
    files["in/[a]*?"] = "read as no pattern"
    for name, text in files.items():
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_text(text, "utf-8")
    local, remote = tmp_path / "local", storage.path(bucket.upload(tmp_path / "local", "data"))

    def seen(root):
        names = ["", "a.txt", "in", "in/c.txt", "in/[a]*?", "none", "in/none", "a"]
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
        (root / "in" / "[a]*?").unlink()
        (root / "b-1-of-2").unlink()
        (root / "b-1-of-2").unlink(missing_ok=True)
        with pytest.raises(FileNotFoundError):
            (root / "b-1-of-2").unlink()
    assert seen(remote) == seen(local)


@pytest.mark.parametrize("how", ["atomic_write", "atomic_path"])
def test_only_leftovers_of_killed_processes_are_removed(tmp_path, how):
    code = f"""if True:
        import os, pathlib, signal
        from uhman_jax.runtime import storage
        with storage.{how}({str(tmp_path / "x.npz")!r}) as made:
            made.write(b"half") if {how == "atomic_write"} else made.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    others = (".x.tmp", "x.12ab34cd.tmp", ".tmp.x", ".vimrc", "x.npz")
    for name in others:
        (tmp_path / name).touch()
    storage.remove_leftovers(tmp_path)
    assert not left.exists() and len(list(tmp_path.iterdir())) == len(others)
    storage.remove_leftovers(tmp_path / "absent")


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_file_is_replaced_whole_or_not_at_all(bucket, tmp_path, kind):
    path = tmp_path / "x" if kind == "local" else storage.path("gs://bucket/x")
    with storage.atomic_write(path) as file:
        file.write(b"first")
    with pytest.raises(ZeroDivisionError), storage.atomic_write(path) as file:
        file.write(b"second")
        raise ZeroDivisionError
    assert path.read_bytes() == b"first"
    with pytest.raises(ZeroDivisionError), storage.atomic_path(path) as temporary:
        temporary.write_bytes(b"third")
        raise ZeroDivisionError
    assert path.read_bytes() == b"first" and not temporary.exists()
    with storage.atomic_path(path) as temporary:
        temporary.write_bytes(b"fourth")
    assert path.read_bytes() == b"fourth"
    assert [p.name for p in path.parent.iterdir()] == ["x"]


def test_a_temporary_copy_is_gone_after_the_block(bucket, tmp_path):
    path = storage.path("gs://bucket/clip.with.dots.mp4")
    with storage.atomic_write(path) as file:
        file.write(b"film")
    with storage.temporary_copy(path) as copy:
        assert copy.read_bytes() == b"film" and copy.suffix == ".mp4"
    assert not copy.parent.exists()
    (tmp_path / "a").touch()
    with storage.temporary_copy(tmp_path / "a") as copy:
        assert copy == tmp_path / "a"
    assert copy.exists()


def test_a_kept_copy_is_made_once_for_each_version(bucket, tmp_path):
    path = storage.path("gs://bucket/shard")

    def write(data):
        with storage.atomic_write(path) as file:
            file.write(data)

    write(b"one")
    copy = storage.cached_copy(path)
    assert copy.read_bytes() == b"one" and copy.parent == tmp_path / "cache"
    assert storage.cached_copy(path) == copy and len(bucket.paths("get_file")) == 1
    write(b"two")  # as long as before
    assert storage.cached_copy(path).read_bytes() == b"two" and len(bucket.paths("get_file")) == 2
    storage.cached_copy(path).write_bytes(b"t")  # cut short, as on a disk that lost power
    assert storage.cached_copy(path).read_bytes() == b"two"
    assert copy.read_bytes() == b"one"  # a process may have mapped it


def test_a_copy_is_kept_whole_or_not_at_all(bucket, tmp_path, monkeypatch):
    path = storage.path("gs://bucket/shard")
    with storage.atomic_write(path) as file:
        file.write(b"content")
    monkeypatch.setattr(bucket, "get_file", lambda self, _, to: pathlib.Path(to).write_bytes(b"c"))
    with pytest.raises(UserError, match="must have the 7 bytes that its bucket states, got 1"):
        storage.cached_copy(path)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_without_gcsfs_the_message_names_the_package():
    with pytest.raises(UserError, match=r"needs gcsfs, .* pip install -e '\.\[gcs\]'"):
        storage.path("gs://bucket/run")


# Features


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
    index = expected.pop("index.npz")  # the first store of a bucket writes it
    assert bucket.contents("features") == expected

    decoded = {path for path in bucket.paths("get_file") if path.startswith("bucket/clips/")}
    assert decoded == {f"bucket/clips/{i}.mp4" for i in range(4)} | {"bucket/clips/4_text.mp4"}
    assert not [path for path in bucket.paths("get_file") if "tfrecord" in path]
    assert encode(root, "gs://bucket/features", **limits).reused == 7  # no clip is encoded again
    assert encode(root, tmp_path / "mixed", **limits).entries == local.entries

    store, again = FrameStore("gs://bucket/features"), FrameStore(tmp_path / "features")
    assert bucket.contents("features")["index.npz"] == index
    assert store.video_ids == again.video_ids and store.info == again.info
    for i in range(len(store)):
        for one, other in zip(store[i], again[i], strict=True):
            np.testing.assert_array_equal(one, other)
    assert pickle.loads(pickle.dumps(store)).video_ids == store.video_ids
    read = [path for path in bucket.paths("get_file") if "tfrecord" in path]
    assert len(read) == len(store._paths)


def test_lost_shards_of_a_bucket_are_written_again(bucket, tmp_path):
    clips.write_noise(tmp_path / "clips", (2, 1, 3, 1))
    root = bucket.upload(tmp_path / "clips", "clips")
    encode(root, "gs://bucket/features")
    whole = bucket.contents("features")
    bucket.file("features/frames-train.tfrecord-00001-of-00002").unlink()
    assert encode(root, "gs://bucket/features").reused == 2
    assert bucket.contents("features") == whole


def test_a_missing_clip_costs_only_itself(bucket, tmp_path):
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
    expected = thumbnails.frames_at(tmp_path / "clips" / "0.mp4", times, 5, 3)
    assert [frame.tobytes() for frame in shown] == [frame.tobytes() for frame in expected]
    with pytest.raises(thumbnails.DecodeError, match="the file cannot be read"):
        thumbnails.frames_at(root / "none.mp4", times, 5, 3)
