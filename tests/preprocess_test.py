import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import clips
import numpy as np
import pytest
from clips import contents
from shared_files import WEIGHTS, shared
from small_network import SmallNetwork, small_config
from small_network import encode as run

from uhman_jax.config import Storage
from uhman_jax.preprocess import feature_client, find_videos, ledger, pipeline, shard_builder
from uhman_jax.preprocess.decode_pool import DecoderPool
from uhman_jax.preprocess.decode_process import LibraryFault
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards import quantize
from uhman_jax.shards.store import FrameStore

FIXTURES = Path(__file__).parent / "fixtures"
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{FIXTURES.parents[1]}{os.pathsep}{FIXTURES}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven clips: five good ones of 1 to 4 frames, a text and an empty file."""
    root = tmp_path_factory.mktemp("clips")
    clips.write_noise(root, (1, 2, 4, 3, 2))
    (root / "5_text.mp4").write_text("no video")
    (root / "6_empty.mp4").touch()
    return root


@pytest.fixture(scope="module")
def inputs(folder):
    return find_videos.list_inputs(folder)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """Features of the folder; tests only read them."""
    output = tmp_path_factory.mktemp("whole")
    run(folder, output)
    return output


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of these features."""
    return shutil.copytree(whole, tmp_path / "copy")


def test_every_input_is_in_the_ledger_once_and_the_good_ones_in_the_store(folder, tmp_path):
    summary = run(folder, tmp_path)
    empty = {"short": 0, "no_video": 0, "unsupported": 0, "timeout": 0}
    assert summary.counts == {"ok": 5, "corrupt": 2} | empty
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [line["video_id"] for line in lines] == sorted(p.name for p in folder.glob("*"))
    assert [line["frames"] for line in lines] == [1, 2, 3, 3, 2, 0, 0]
    expected = {"video_id", "path", "state", "frames", "seconds", "reason", "content"}
    assert set(lines[0]) == expected and "empty" in lines[6]["reason"]
    hashes = [line["content"] for line in lines]
    assert [len(text) for text in hashes] == [32] * 5 + [0] * 2 and len(set(hashes)) == 6
    assert ledger.read_ledger(tmp_path) == list(summary.entries)
    store = FrameStore(tmp_path)
    assert store.video_ids == tuple(f"{i}.mp4" for i in range(5))
    assert store.info["extractor"] == "random numbers" and store.info["weights"] == "random"
    assert len(store.info["fingerprint"]) == 64 and store.info["max_frames"] == 3


def test_features_are_those_of_each_clip_by_itself_and_codes_are_near(folder, whole, tmp_path):
    run(folder, tmp_path, storage=Storage.FLOAT32)
    extractor = shard_builder.restore_extractor(tmp_path, SmallNetwork)
    exact, codes = FrameStore(tmp_path), FrameStore(whole)
    paths = [str(folder / name) for name in exact.video_ids]
    with DecoderPool(paths, small_config(), max_frames=3, size=8) as pool:
        for i, clip in enumerate(pool):
            np.testing.assert_array_equal(exact[i].codes_FMC, extractor.features(clip.images))
            np.testing.assert_array_equal(exact[i].times_F, clip.times_F)
            _, *quantized, _ = codes[i]
            bound = 0.51 * codes[i].scale_C.max()
            near = quantize.decode(quantized)
            np.testing.assert_allclose(near, exact[i].codes_FMC, atol=bound)


@pytest.mark.parametrize(
    "changes",
    [{"batch_frames": 1, "num_decoders": 2}, {"videos_per_shard": 5, "batch_frames": 7}],
)
def test_batches_shards_and_decoders_do_not_change_features(folder, whole, tmp_path, changes):
    """The small network is exact per image; `extractor_test` shows the same of the backbones."""
    run(folder, tmp_path, **changes)
    found, expected = FrameStore(tmp_path), FrameStore(whole)
    for i in range(len(expected)):
        for one, other in zip(found[i], expected[i], strict=True):
            np.testing.assert_array_equal(one, other)


def test_order_of_inputs_changes_no_byte(folder, inputs, whole, tmp_path):
    run(folder, tmp_path, inputs[::-1])
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize("calls", [0, 2, 4])
def test_interrupted_work_goes_on_where_it_was(folder, whole, tmp_path, calls):
    class Dying(SmallNetwork):
        fail_after = calls

    try:
        run(folder, tmp_path, network=Dying)
        assert calls == 4  # three shards with frames: 3, 6 and 2 frames in batches of 4
    except KeyboardInterrupt:
        assert not (tmp_path / "extractor.json").exists()
    before = {path: path.stat().st_ino for path in tmp_path.glob("*.tfrecord-*")}
    assert run(folder, tmp_path).reused == min(7, 2 * len(before))
    assert all(path.stat().st_ino == inode for path, inode in before.items())
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize(
    "repeat", [pytest.param(n, marks=[pytest.mark.long] if n > 1 else []) for n in range(20)]
)
def test_killed_work_goes_on(folder, whole, tmp_path, repeat):
    """At a random time: every third time from the start on, else after the first ledger."""
    command = [sys.executable, FIXTURES / "small_network.py", "preprocess", folder, tmp_path]
    slow = ENVIRONMENT | {"SMALL_NETWORK_SECONDS": "0.4"}
    process = subprocess.Popen(command, env=slow, stderr=subprocess.DEVNULL)
    if repeat % 3:
        while not list(tmp_path.glob("ledger/*.jsonl")) and process.poll() is None:
            time.sleep(0.02)
    time.sleep(random.Random(repeat).uniform(0, 0.8 if repeat % 3 else 2.5))
    process.kill()
    process.wait()
    assert list(tmp_path.glob("ledger/*.jsonl")) or repeat % 3 == 0
    subprocess.run(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, check=True)
    assert contents(tmp_path) == contents(whole)


def test_nothing_is_done_twice(folder, inputs, whole, copy):
    assert pipeline.is_complete(copy, inputs, small_config())

    class Unused:
        BACKBONE = SmallNetwork.BACKBONE  # any other attribute raises AttributeError

    # The changed settings do not decide the features.
    summary = run(folder, copy, network=Unused, num_decoders=2, clip_timeout=9.0)
    assert summary.reused == 7 and summary.frames == 0 and summary.counts["ok"] == 5
    assert contents(copy) == contents(whole)


@pytest.mark.parametrize(
    ("lost", "damaged", "reused"),
    [
        ("extractor.json", "", 7),
        ("ledger.jsonl", "", 7),
        ("features.json", "", 7),
        ("*-00001-of-00004", "ledger/00002.jsonl", 3),
        ("*-00001-of-00004", "extractor.weights.h5", 0),
    ],
)
def test_lost_and_damaged_parts_are_made_again(folder, inputs, whole, copy, lost, damaged, reused):
    next(copy.glob(lost)).unlink()
    if damaged.endswith("jsonl"):
        (copy / damaged).write_text('{"key": "')
    elif damaged:
        (copy / damaged).unlink()
    assert not pipeline.is_complete(copy, inputs, small_config())
    assert run(folder, copy).reused == reused
    assert contents(copy) == contents(whole)


def test_added_and_changed_videos(folder, tmp_path):
    root, output = tmp_path / "clips", tmp_path / "out"
    shutil.copytree(folder, root)
    run(root, output)
    for name in ("7.mp4", "8.mp4"):
        shutil.copy(root / "0.mp4", root / name)
    summary = run(root, output)  # 9 videos, 5 shards: only the last two are new
    assert summary.reused == 6 and summary.counts["ok"] == 7
    assert sorted(FrameStore(output).video_ids)[-1] == "8.mp4"
    assert len(list(output.glob("*-of-00005"))) == 5 == len(list(output.glob("*.tfrecord-*")))
    shutil.copy(root / "2.mp4", root / "0.mp4")
    assert pipeline.is_complete(output, find_videos.list_inputs(root), small_config())
    assert not pipeline.is_complete(output, find_videos.list_inputs(root), small_config(), root)
    assert run(root, output).reused == 7
    for path in root.glob("[2-9]*.mp4"):
        path.unlink()
    run(root, output)
    assert FrameStore(output).video_ids == ("0.mp4", "1.mp4")
    (shard,) = output.glob("*.tfrecord-*")
    assert shard.name == "frames-train.tfrecord-00000-of-00001"


@pytest.mark.parametrize(
    ("output", "videos", "changes", "message"),
    [
        ("copy", None, {"max_frames": 2, "weights_seed": 1},
         "max_frames 3 -> 2, weights_seed 0 -> 1.*name another folder for the features"),
        ("shards", None, {}, "folder of their own"),
        ("file/out", None, {}, "must be written below .*Not a directory"),
        ("new", [], {}, "got none"),
        ("new", [("a", "0.mp4"), ("a", "1.mp4")], {}, "'a' twice"),
    ],
)  # fmt: skip
def test_refusals(folder, copy, tmp_path, output, videos, changes, message):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "frames-train.tfrecord-00000-of-00001").touch()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        run(folder, tmp_path / output, videos, **changes)


def test_features_dir_depends_on_what_decides_the_features(tmp_path):
    names = {
        pipeline.features_dir(tmp_path, small_config(**changes)).name
        for changes in ({}, {"max_frames": 2}, {"weights_seed": 1}, {"weights": "imagenet"})
    }
    assert len(names) == 4 and all(len(name) == 12 for name in names)
    same = pipeline.features_dir(tmp_path, small_config(num_decoders=7))
    assert same == pipeline.features_dir(tmp_path, small_config())
    assert same.parent == tmp_path / "features"
    with pytest.raises(UserError, match="nowhere.h5.*No such file"):
        pipeline.features_dir(tmp_path, small_config(weights="nowhere.h5"))


def test_without_any_good_clip_the_ledger_is_still_written(folder, tmp_path):
    broken = [(name, name) for name in ("5_text.mp4", "6_empty.mp4", "absent.mp4")]
    for _ in range(2):
        with pytest.raises(UserError, match="got 3 corrupt; the reasons are in .*ledger.jsonl"):
            run(folder, tmp_path, broken)
    assert len(ledger.read_ledger(tmp_path)) == 3


def test_nothing_outside_the_folder_is_read(folder, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(folder / "1.mp4", root / "good.mp4")
    (root / "alias.mp4").symlink_to(root / "good.mp4")
    (root / "link.mp4").symlink_to(folder / "0.mp4")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    os.mkfifo(root / "pipe.mp4")
    videos = [("dots", "../root/../root/good.mp4"), ("out", str(folder / "0.mp4"))]
    summary = run(root, tmp_path / "out", find_videos.list_inputs(root) + videos)
    states = {entry.video_id: entry.state for entry in summary.entries}
    assert states == {
        "good.mp4": "ok", "alias.mp4": "ok", "dots": "ok", "link.mp4": "unsupported",
        "out": "unsupported", "loop.mp4": "corrupt", "pipe.mp4": "corrupt",
    }  # fmt: skip


def test_calibration_frames_are_spread_and_failures_replaced(folder, tmp_path):
    assert shard_builder.spread(10, 3) == [1, 5, 8] and shard_builder.spread(2, 5) == [0, 1]
    shapes = []

    class Watching(SmallNetwork):
        @classmethod
        def load(cls, backbone, weights, *, calibration_images, **rest):
            shapes.append(calibration_images.shape)
            return super().load(backbone, weights, calibration_images=calibration_images, **rest)

    for count in (2, 9, 100):
        run(folder, tmp_path / f"{count}", network=Watching, calibration_frames=count)
    assert shapes == [(2, 8, 8, 3), (9, 8, 8, 3), (12, 8, 8, 3)]


def test_timeouts_are_kept_until_a_retry_is_asked_for(folder, copy):
    path = copy / "ledger" / "00000.jsonl"
    path.write_text(path.read_text().replace('"ok"', '"timeout"'))
    (copy / "extractor.json").unlink()
    assert run(folder, copy).counts["timeout"] == 2
    summary = run(folder, copy, retry=("timeout",))
    assert summary.counts["timeout"] == 0 and summary.reused == 5


def command_line(*arguments, program=("-m", "uhman_jax.preprocess")):
    command = [sys.executable, *program, *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, cwd=FIXTURES)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--root=/nowhere"], "--root must be a folder of videos, got '/nowhere'"),
        (["--root=.", "--max_frames=-1"], "max_frames must be in [0, inf), got -1"),
        (["--root=.", "--weights=no.h5"], "got 'no.h5' (No such file or directory)"),
        (["--root=.", "--retry=later"], "--retry must name states"),
        (["--root=.", "extra"], "all arguments must be flags, got 'extra'"),
    ],
)
def test_mistakes_at_the_command_line_are_one_sentence(arguments, sentence):
    result = command_line(*arguments)
    assert result.returncode == 2, result.stderr
    assert sentence in result.stderr and "Traceback" not in result.stderr
    assert not result.stdout


SMALL_COMMAND = """if True:
    import sys
    from small_network import SmallNetwork
    from uhman_jax.runtime import streams
    from uhman_jax.preprocess import __main__ as command, pipeline
    real = pipeline.preprocess
    pipeline.preprocess = lambda *a, **k: real(*a, network=SmallNetwork, **k)
    streams.run_app(command.main, known_only=command._for_beam)
"""


def test_a_folder_whose_names_are_not_utf8(folder, tmp_path):
    """The command line; the name of the folder is not UTF-8 either."""
    root, output = os.path.join(os.fsencode(tmp_path), b"f\xf6lder"), tmp_path / "features"
    arguments = [b"--root=" + root, "--calibration_frames=0"]
    os.mkdir(root)
    shutil.copy(folder / "1.mp4", os.path.join(root, b"a.mp4"))
    shutil.copy(folder / "1.mp4", os.path.join(root, b"caf\xe9.mp4"))
    found = command_line(*arguments, f"--output={output}", program=("-c", SMALL_COMMAND))
    assert found.returncode == 0, found.stderr
    assert "ok                  2" in found.stdout and "Traceback" not in found.stderr
    names = [entry.video_id for entry in ledger.read_ledger(output)]
    assert names == ["./caf\\xe9.mp4", "a.mp4"]
    refused = command_line(*arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith("--output must be a name in UTF-8, got ")


def test_old_folders_keep_their_rules_and_new_ones_record_theirs(tmp_path, monkeypatch):
    """A clip of two pieces: rule 2 samples both, rule 1 only the first."""
    root = tmp_path / "clips"
    root.mkdir()
    with open(root / "a.ts", "wb") as file:
        for gray in (50, 200):
            part = clips.second(tmp_path / f"{gray}", gray, container="mpegts")
            file.write(Path(part).read_bytes())
    (root / "b.srt").touch()
    config = small_config(max_frames=16)
    command = (sys.executable, str(FIXTURES / "small_network.py"), "serve")
    monkeypatch.setattr(feature_client, "COMMAND", command)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    ledger.write_json(old / "settings.json", {"settings": ledger.settings(config)})
    for output, rule, expected in ((old, 1, {"a.ts": 5, "b.srt": 0}), (new, 2, {"a.ts": 10})):
        listed = find_videos.list_inputs(root, ledger.frame_times(output))
        summary = run(root, output, listed, max_frames=16)
        assert {entry.video_id: entry.frames for entry in summary.entries} == expected
        settings, info = (ledger.read_json(output / n) for n in ("settings.json", "extractor.json"))
        assert ledger.frame_times(output) == rule and "frame_times" not in settings["settings"]
        assert [x.get("frame_times", 1) for x in (settings, info["info"])] == [rule, rule]
        assert pipeline.is_complete(output, listed, config, root)
        assert run(root, output, listed, max_frames=16).reused == len(listed)
        with feature_client.OnDemand(output, config) as client:
            (encoded,) = client.encode([root / "a.ts"])
        assert len(encoded.record.times_F) == expected["a.ts"]
    ledger.write_json(new / "settings.json", {"frame_times": 3})
    with pytest.raises(UserError, match="frame_times must be 1 or 2 in .*got 3; use the version"):
        ledger.frame_times(new)


def test_shards_made_before_a_fault_of_the_library_are_made_again(folder, tmp_path, monkeypatch):
    def five_clips_and_a_fault(pool, real=DecoderPool.__iter__):
        yield from itertools.islice(real(pool), 5)
        raise LibraryFault("av 99 must decode our clip")

    with monkeypatch.context() as patch, pytest.raises(LibraryFault, match="av 99"):
        patch.setattr(DecoderPool, "__iter__", five_clips_and_a_fault)
        run(folder, tmp_path)
    assert len(list(tmp_path.glob("*.tfrecord-*"))) == 2
    assert not list((tmp_path / "ledger").glob("*.jsonl"))
    summary = run(folder, tmp_path)
    assert summary.reused == 0 and summary.counts["ok"] == 5


@pytest.mark.slow
def test_real_clips_with_real_weights(tmp_path):
    import tensorflow_datasets as tfds

    folder, weights = shared("videos"), shared(WEIGHTS)
    result = command_line(
        f"--root={folder}", f"--output={tmp_path}", f"--weights={weights}", "--max_frames=2"
    )
    assert result.returncode == 0, result.stderr
    entries = ledger.read_ledger(tmp_path)
    others = (".csv", ".mp3")  # no suffixes of videos
    names = sorted(path.name for path in folder.iterdir() if path.suffix not in others)
    assert [entry.video_id for entry in entries] == names
    good = sum(entry.state == "ok" for entry in entries)
    assert tfds.builder_from_directory(tmp_path).info.splits["train"].num_examples == good
    assert good == 64
