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
from hypothesis import given
from hypothesis import strategies as st
from small_network import SmallNetwork, small_config
from small_network import encode as run

from uhman_jax.config import Storage
from uhman_jax.preprocess import (
    clip_file,
    feature_client,
    find_videos,
    ledger,
    pipeline,
    shard_builder,
)
from uhman_jax.preprocess.decode_pool import DecoderPool
from uhman_jax.preprocess.decode_process import LibraryFault
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards import quantize
from uhman_jax.shards.store import FrameStore

FIXTURES = Path(__file__).parent / "fixtures"
OPTIONS = {"max_frames": 3, "size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven clips: five good ones of 1 to 4 frames, a text and a folder's worth of nothing."""
    root = tmp_path_factory.mktemp("clips")
    clips.write_noise(root, (1, 2, 4, 3, 2))
    (root / "5_text.mp4").write_text("no video")
    (root / "6_empty.mp4").touch()
    return root


def test_every_input_is_in_the_ledger_once_and_the_good_ones_in_the_store(folder, tmp_path):
    summary = run(folder, tmp_path)
    assert summary.counts == {
        "ok": 5, "short": 0, "corrupt": 2, "no_video": 0, "unsupported": 0, "timeout": 0
    }  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [line["video_id"] for line in lines] == sorted(p.name for p in folder.glob("*"))
    assert [line["frames"] for line in lines] == [1, 2, 3, 3, 2, 0, 0]
    expected = {"video_id", "path", "state", "frames", "seconds", "reason", "content"}
    assert set(lines[0]) == expected
    assert [len(line["content"]) for line in lines] == [32] * 5 + [0] * 2
    assert len({line["content"] for line in lines[:5]}) == 5
    assert "empty" in lines[6]["reason"]
    assert ledger.read_ledger(tmp_path) == list(summary.entries)
    store = FrameStore(tmp_path)
    assert store.video_ids == tuple(f"{i}.mp4" for i in range(5))
    assert store.info["extractor"] == "random numbers" and store.info["weights"] == "random"
    assert len(store.info["fingerprint"]) == 64 and store.info["max_frames"] == 3


def test_features_of_a_clip_do_not_depend_on_other_clips(folder, tmp_path):
    run(folder, tmp_path, storage=Storage.FLOAT32)
    extractor = shard_builder.restore_extractor(tmp_path, SmallNetwork)
    store = FrameStore(tmp_path)
    with DecoderPool(
        [str(folder / n) for n in store.video_ids], OPTIONS, num_decoders=1, timeout=60
    ) as pool:
        for i, clip in enumerate(pool):
            np.testing.assert_array_equal(store[i].codes_FMC, extractor.features(clip.images))
            np.testing.assert_array_equal(store[i].times_F, clip.times_F)


def test_quantised_features_are_near(folder, tmp_path):
    run(folder, tmp_path / "exact", storage=Storage.FLOAT32)
    run(folder, tmp_path / "codes")
    exact, codes = FrameStore(tmp_path / "exact"), FrameStore(tmp_path / "codes")
    for i in range(len(exact)):
        record = codes[i]
        near = quantize.decode((record.codes_FMC, record.scale_C, record.offset_C))
        bound = record.scale_C.max() * 0.51
        np.testing.assert_allclose(near, exact[i].codes_FMC, atol=bound)


def test_batches_shards_and_decoders_do_not_change_features(folder, tmp_path):
    """The small network is exact per image; `extractor_test` shows the same of the backbones."""
    stores = []
    for name, changes in {
        "a": {},
        "b": {"batch_frames": 1, "num_decoders": 2},
        "c": {"videos_per_shard": 5, "batch_frames": 7},
    }.items():
        run(folder, tmp_path / name, **changes)
        stores.append(FrameStore(tmp_path / name))
    for store in stores[1:]:
        for i in range(len(store)):
            for one, other in zip(store[i], stores[0][i], strict=True):
                np.testing.assert_array_equal(one, other)


def test_order_of_inputs_changes_no_byte(folder, tmp_path):
    run(folder, tmp_path / "a", sorted(find_videos.list_inputs(folder)))
    run(folder, tmp_path / "b", sorted(find_videos.list_inputs(folder), reverse=True))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_interrupted_work_goes_on_where_it_was(folder, tmp_path):
    run(folder, tmp_path / "whole")
    for calls in range(5):

        class Dying(SmallNetwork):
            fail_after = calls

        output = tmp_path / f"cut{calls}"
        try:
            run(folder, output, network=Dying)
            assert calls == 4  # three shards with frames: 3, 6 and 2 frames in batches of 4
        except KeyboardInterrupt:
            assert not (output / "extractor.json").exists()
        before = {path: path.stat().st_ino for path in output.glob("*.tfrecord-*")}
        summary = run(folder, output)
        assert summary.reused == min(7, 2 * len(before) + (len(before) == 4) * -1)
        assert all(path.stat().st_ino == inode for path, inode in before.items())
        assert contents(output) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "repeat", [pytest.param(n, marks=[pytest.mark.long] if n > 2 else []) for n in range(20)]
)
def test_killed_work_goes_on(folder, tmp_path, repeat):
    """At a random time: every third time from the start on, else after the first ledger."""
    run(folder, tmp_path / "whole")
    output = tmp_path / "cut"
    command = [sys.executable, FIXTURES / "small_network.py", "preprocess", folder, output]
    slow = environment() | {"SMALL_NETWORK_SECONDS": "0.4"}
    process = subprocess.Popen(command, env=slow, stderr=subprocess.DEVNULL)
    if repeat % 3:
        while not list(output.glob("ledger/*.jsonl")) and process.poll() is None:
            time.sleep(0.02)
    time.sleep(random.Random(repeat).uniform(0, 0.8 if repeat % 3 else 2.5))
    process.kill()
    process.wait()
    assert list(output.glob("ledger/*.jsonl")) or repeat % 3 == 0
    subprocess.run(command, env=environment(), stderr=subprocess.DEVNULL, check=True)
    assert contents(output) == contents(tmp_path / "whole")


def environment():
    return os.environ | {"PYTHONPATH": str(FIXTURES.parents[1])}


def test_nothing_is_done_twice(folder, tmp_path):
    run(folder, tmp_path)
    before = contents(tmp_path)
    assert pipeline.is_complete(tmp_path, find_videos.list_inputs(folder), small_config())

    class Unused:
        BACKBONE = SmallNetwork.BACKBONE  # any other attribute raises AttributeError

    summary = run(folder, tmp_path, network=Unused)
    assert summary.reused == 7 and summary.frames == 0 and summary.counts["ok"] == 5
    assert contents(tmp_path) == before


@pytest.mark.parametrize("lost", ["extractor.json", "ledger.jsonl", "features.json"])
def test_lost_summaries_are_written_again(folder, tmp_path, lost):
    run(folder, tmp_path)
    before = contents(tmp_path)
    (tmp_path / lost).unlink()
    assert not pipeline.is_complete(tmp_path, find_videos.list_inputs(folder), small_config())
    assert run(folder, tmp_path).reused == 7
    assert contents(tmp_path) == before


def test_lost_and_damaged_parts_are_made_again(folder, tmp_path):
    run(folder, tmp_path)
    before = contents(tmp_path)
    next(tmp_path.glob("*-00001-of-00004")).unlink()
    (tmp_path / "ledger" / "00002.jsonl").write_text('{"key": "')
    assert not pipeline.is_complete(tmp_path, find_videos.list_inputs(folder), small_config())
    assert run(folder, tmp_path).reused == 3
    assert contents(tmp_path) == before
    (tmp_path / "extractor.weights.h5").unlink()
    next(tmp_path.glob("*-00001-of-00004")).unlink()
    assert run(folder, tmp_path).reused == 0
    assert contents(tmp_path) == before


def test_added_and_changed_videos(folder, tmp_path):
    root, output = tmp_path / "clips", tmp_path / "out"
    shutil.copytree(folder, root)
    run(root, output)
    shutil.copy(root / "0.mp4", root / "7.mp4")
    shutil.copy(root / "0.mp4", root / "8.mp4")
    summary = run(root, output)  # 9 videos, 5 shards: only the last two are new
    assert summary.reused == 6 and summary.counts["ok"] == 7
    assert sorted(FrameStore(output).video_ids)[-1] == "8.mp4"
    assert len(list(output.glob("*-of-00005"))) == 5 == len(list(output.glob("*.tfrecord-*")))
    shutil.copy(root / "2.mp4", root / "0.mp4")
    assert pipeline.is_complete(output, find_videos.list_inputs(root), small_config())
    assert not pipeline.is_complete(output, find_videos.list_inputs(root), small_config(), root)
    assert run(root, output).reused == 7
    for name in ("2.mp4", "3.mp4", "4.mp4", "5_text.mp4", "6_empty.mp4", "7.mp4", "8.mp4"):
        (root / name).unlink()
    run(root, output)
    assert FrameStore(output).video_ids == ("0.mp4", "1.mp4")
    assert [path.name for path in output.glob("*.tfrecord-*")] == [
        "frames-train.tfrecord-00000-of-00001"
    ]


def test_other_settings_are_refused_by_name(folder, tmp_path):
    run(folder, tmp_path)
    with pytest.raises(UserError) as error:
        run(folder, tmp_path, max_frames=2, weights_seed=1)
    assert "max_frames 3 -> 2, weights_seed 0 -> 1" in str(error.value)
    assert "name another folder for the features" in str(error.value)
    run(folder, tmp_path, num_decoders=1, clip_timeout=9.0)  # these decide nothing


def test_a_folder_of_other_shards_is_refused(folder, tmp_path):
    (tmp_path / "frames-train.tfrecord-00000-of-00001").touch()
    with pytest.raises(UserError, match="folder of their own"):
        run(folder, tmp_path)


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


def test_inputs_must_be_there_and_have_one_id_each(folder, tmp_path):
    with pytest.raises(UserError, match="got none"):
        run(folder, tmp_path, [])
    with pytest.raises(UserError, match="'a' twice"):
        run(folder, tmp_path, [("a", "0.mp4"), ("a", "1.mp4")])


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
    videos = [
        *find_videos.list_inputs(root),
        ("dots", "../root/../root/good.mp4"),
        ("out", str(folder / "0.mp4")),
    ]
    summary = run(root, tmp_path / "out", videos)
    states = {entry.video_id: entry.state for entry in summary.entries}
    assert states == {
        "good.mp4": "ok", "alias.mp4": "ok", "dots": "ok", "link.mp4": "unsupported",
        "out": "unsupported", "loop.mp4": "corrupt", "pipe.mp4": "corrupt",
    }  # fmt: skip


def test_unwritable_output_is_one_sentence(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="must be written below .*Not a directory"):
        run(folder, tmp_path / "file" / "out")


def test_calibration_frames_are_spread_and_failures_replaced(folder, tmp_path):
    assert shard_builder.spread(10, 3) == [1, 5, 8] and shard_builder.spread(2, 5) == [0, 1]
    shapes = []

    class Watching(SmallNetwork):
        @classmethod
        def load(cls, backbone, weights, *, calibration_images, **rest):
            shapes.append(calibration_images.shape)
            return super().load(backbone, weights, calibration_images=calibration_images, **rest)

    run(folder, tmp_path / "a", network=Watching, calibration_frames=2)
    run(folder, tmp_path / "b", network=Watching, calibration_frames=9)
    run(folder, tmp_path / "c", network=Watching, calibration_frames=100)
    assert shapes == [(2, 8, 8, 3), (9, 8, 8, 3), (12, 8, 8, 3)]


def test_timeouts_are_kept_until_a_retry_is_asked_for(folder, tmp_path):
    output = tmp_path / "out"
    run(folder, output)
    path = output / "ledger" / "00000.jsonl"
    path.write_text(path.read_text().replace('"ok"', '"timeout"'))
    (output / "extractor.json").unlink()
    assert run(folder, output).counts["timeout"] == 2
    summary = run(folder, output, retry=("timeout",))
    assert summary.counts["timeout"] == 0 and summary.reused == 5


@pytest.mark.parametrize(
    "module", ["uhman_jax.preprocess.decode_worker", "uhman_jax.preprocess.pipeline"]
)
def test_decoders_and_checks_import_no_heavy_library(module):
    program = f"import {module}, sys; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    loaded = set(found.stdout.split())
    assert module in loaded and not loaded & {"tensorflow", "keras", "jax", "flax"}
    # The processes that need a library report that it cannot be imported.
    assert ("av" in loaded) == module.endswith("decode_worker")


def command_line(*arguments):
    command = [sys.executable, "-m", "uhman_jax.preprocess", *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, cwd=FIXTURES)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--root=/nowhere"], "--root must be a folder of videos, got '/nowhere'"),
        (["--root=.", "--max_frames=0"], "max_frames must be in [1, inf), got 0"),
        (["--root=.", "--weights=no.h5"], "got 'no.h5' (No such file or directory)"),
        (["--root=.", "--retry=later"], "--retry must name states"),
        (["--root=.", "extra"], "everything is a flag, got 'extra'"),
    ],
)
def test_mistakes_at_the_command_line_are_one_sentence(arguments, sentence):
    result = command_line(*arguments)
    assert result.returncode == 2, result.stderr
    assert sentence in result.stderr and "Traceback" not in result.stderr
    assert not result.stdout


BESIDE = """s.srt s.vtt n.nfo d.mp4.part d.mp4.part-Frag3 d.mp4.ytdl d.mp4.aria2 l.url l.desktop
    l.webloc s.m4a s.mp3 s.opus s.wav t.jpg t.jpeg t.webp t.png t.avif t.heic v.lrv README noext
    c.xml c.description c.info.json c.csv notes.md""".split()


def test_inputs_without_a_table(tmp_path, capsys):
    names = ["b.mp4", "sub/a.webm", ".hidden/c.mp4", ".d.mp4", "features/x/e.mp4", *BESIDE]
    names += ["out/settings.json", "out/x.tfrecord-00000-of-00001", "out/ledger/00000.jsonl"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_videos.list_inputs(tmp_path)
    assert found == [("b.mp4", "b.mp4"), ("sub/a.webm", "sub/a.webm")]
    message = capsys.readouterr().err
    assert message.startswith("25 files are no clips by their suffix (2 without one, 1 .")
    assert message.count("\n") == 1
    # Folders of features that were begun before the rule go on with all files but tables and texts.
    old = [name for name, _ in find_videos.list_inputs(tmp_path, rule=1)]
    expected = [name for name in BESIDE if not name.endswith((".md", ".json", ".csv"))]
    assert old == sorted(["b.mp4", "sub/a.webm", *expected])
    assert find_videos.clips_of([str(tmp_path)]) == [f"{tmp_path}/b.mp4", f"{tmp_path}/sub/a.webm"]
    assert find_videos.clips_of([f"{tmp_path}/s.srt"]) == [f"{tmp_path}/s.srt"]  # named: tried


@pytest.mark.parametrize(
    "suffix", "mp4 MP4 mov m4v mkv webm avi flv ts m2ts MTS mpg 3gp wmv gif".split()
)
def test_containers_of_videos(tmp_path, suffix):
    (tmp_path / f"a.b.{suffix}").touch()
    assert find_videos.files_below(tmp_path) == [f"a.b.{suffix}"]


def test_long_folders_are_listed_in_linear_time(tmp_path):
    seconds = []
    for folder, count in (("a", 500), ("b", 4000)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            os.mknod(tmp_path / folder / f"{i}.mp4")
        begin = time.process_time()
        assert len(find_videos.files_below(tmp_path / folder)) == count
        seconds.append(time.process_time() - begin)
    assert seconds[1] < 5 and seconds[1] < 8 * 3 * seconds[0] + 0.1


# A clip may have such a name, or one that looks like its spelling.
NAMES = [b"a.mp4", b"caf\xe9.mp4", rb"caf\xe9.mp4", b"a\nb.mp4", b"\x1b[31m.mp4", b"c\xc2\x85.mp4"]
NAMES += ["caf\u00e9.mp4".encode(), "cafe\u0301.mp4".encode(), b"c\x85.mp4", b"\xff\xfe.mp4"]


def test_every_name_has_its_own_printable_spelling(folder, tmp_path):
    for name in NAMES:
        shutil.copy(folder / "1.mp4", os.path.join(os.fsencode(tmp_path), name))
    listed = find_videos.list_inputs(tmp_path)
    ids = {video_id for video_id, _ in listed}
    assert len(listed) == len(ids) and {os.fsencode(path) for _, path in listed} == set(NAMES)
    for video_id, path in listed:
        video_id.encode()
        assert "\n" not in video_id and "\x1b" not in video_id
        if video_id.startswith("./"):  # undo the spelling
            name = video_id[2:].encode().decode("unicode_escape").encode("latin-1")
            assert name == os.fsencode(path)
        else:
            assert video_id == path
    output = tmp_path / "out"
    summary = run(tmp_path, output, listed)
    assert summary.counts["ok"] == len(NAMES)
    assert {entry.video_id for entry in ledger.read_ledger(output)} == ids
    assert all(entry.path.encode() for entry in summary.entries)
    assert set(FrameStore(output).video_ids) == ids


@given(st.lists(st.binary(min_size=1, max_size=9), unique=True))
def test_spellings_are_unambiguous(names):
    names = {os.fsdecode(name) for name in names if b"/" not in name} | {"a\\n", "\\xe9", "\udce9"}
    assert len({clip_file.printable(name) for name in names}) == len(names)
    for name in map(clip_file.printable, names):
        assert all(ord(c) >= 32 and not "\ud800" <= c <= "\udfff" for c in name)


SMALL_COMMAND = """if True:
    import sys
    from small_network import SmallNetwork
    from uhman_jax.runtime import streams
    from uhman_jax.preprocess import __main__ as command, pipeline
    real = pipeline.preprocess
    pipeline.preprocess = lambda *a, **k: real(*a, network=SmallNetwork, **k)
    streams.run_app(command.main, known_only=command._for_beam)
"""


def preprocess_command(root, *arguments):
    environ = environment() | {"PYTHONPATH": f"{FIXTURES.parents[1]}{os.pathsep}{FIXTURES}"}
    command = [sys.executable, "-c", SMALL_COMMAND, b"--root=" + root, "--calibration_frames=0"]
    return subprocess.run([*command, *arguments], env=environ, capture_output=True, text=True)


def test_a_folder_whose_names_are_not_utf8(folder, tmp_path):
    """The command line; the name of the folder is not UTF-8 either."""
    root, output = os.path.join(os.fsencode(tmp_path), b"f\xf6lder"), tmp_path / "features"
    os.mkdir(root)
    shutil.copy(folder / "1.mp4", os.path.join(root, b"a.mp4"))
    shutil.copy(folder / "1.mp4", os.path.join(root, b"caf\xe9.mp4"))
    found = preprocess_command(root, f"--output={output}")
    assert found.returncode == 0, found.stderr
    assert "ok                  2" in found.stdout and "Traceback" not in found.stderr
    names = [entry.video_id for entry in ledger.read_ledger(output)]
    assert names == ["./caf\\xe9.mp4", "a.mp4"]
    refused = preprocess_command(root)
    assert refused.returncode == 2
    assert refused.stderr.startswith("--output must be a name in UTF-8, got ")


def test_old_folders_keep_their_rules_and_new_ones_record_theirs(tmp_path, monkeypatch):
    """A clip of two pieces: rule 2 samples both, rule 1 only the first."""
    root = tmp_path / "clips"
    root.mkdir()
    for gray in (50, 200):
        images, times = [clips.gray(gray)] * 25, range(0, 1000, 40)
        part = clips.write_clip(tmp_path / f"{gray}", images, times, container="mpegts")
        with open(root / "a.ts", "ab") as file:
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


def test_shards_made_before_a_fault_of_the_library_was_found_are_made_again(
    folder, tmp_path, monkeypatch
):
    def five_clips_and_a_fault(pool, real=DecoderPool.__iter__):
        yield from itertools.islice(real(pool), 5)
        raise LibraryFault("av 99 must decode our clip")

    with monkeypatch.context() as patch:
        patch.setattr(DecoderPool, "__iter__", five_clips_and_a_fault)
        with pytest.raises(LibraryFault, match="av 99"):
            run(folder, tmp_path)
    assert len(list(tmp_path.glob("*.tfrecord-*"))) == 2
    assert not list((tmp_path / "ledger").glob("*.jsonl"))
    summary = run(folder, tmp_path)
    assert summary.reused == 0 and summary.counts["ok"] == 5


@pytest.mark.slow
def test_real_clips_with_real_weights(tmp_path):
    import tensorflow_datasets as tfds

    folder = Path(clips.shared_videos())
    weights = folder.parent / "weights" / "inception_v3_imagenet_partial.weights.h5"
    if not weights.exists():
        pytest.skip("no weights in ../shared/weights")
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
