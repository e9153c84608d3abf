"""Preparation of the data: new and reused parts, and their messages."""

import copy
import errno
import json
import pathlib
import runpy
import shutil
import types

import av
import clips
import numpy as np
import pytest
import small_network
import tiny_world

from uhman_jax import channel_statistics, clip_means, prepare
from uhman_jax.config import Config, Duplicates, SimulatorConfig, SimulatorOutput
from uhman_jax.dataset.raw import User, Video, write_raw_dataset
from uhman_jax.dataset.view import TRAIN
from uhman_jax.preprocess import ledger, pipeline
from uhman_jax.runtime.errors import UserError


@pytest.fixture
def logged():
    return []


@pytest.fixture
def root(tmp_path):
    return tiny_world.write_dataset(tmp_path / "data")


def test_a_dataset_with_features_needs_nothing_made(root, logged):
    prepared = prepare.prepare(tiny_world.make_config(root), logged.append)
    assert len(prepared.raw.videos) == len(prepared.store) == 150
    assert prepared.truth is None
    text = "\n".join(logged)
    assert f"Dataset: 150 videos of 150 users in {root}." in text
    assert "108 train, 12 validation, 30 test videos, 9 hashtags." in text


def test_bad_rows_are_counted_and_the_first_are_shown(root, logged):
    videos = root / "videos.csv"
    lines = videos.read_text().splitlines()
    bad = [line.rsplit(",", 1)[0] for line in lines[1:8]]  # a field too few
    videos.write_text("\n".join([lines[0], *bad, *lines[8:]]) + "\n")
    prepared = prepare.prepare(tiny_world.make_config(root), logged.append)
    assert len(prepared.raw.videos) == 143
    shown = [line for line in logged if line.startswith("  videos.csv:")]
    assert len(shown) == prepare.MAX_PROBLEMS and "videos.csv:2" in shown[0]
    assert any("data.strict" in line for line in logged)
    config = tiny_world.make_config(root)
    config.data.strict = True
    with pytest.raises(UserError, match=r"videos\.csv:8"):
        prepare.prepare(config, logged.append)


def test_a_simulated_world_is_made_once(tmp_path, logged):
    config = Config()
    config.data.simulated_dir = str(tmp_path)
    config.view.min_count = 1
    sizes = dict(num_videos=40, num_users=10, num_channels=12, posterior_samples=16)
    config.simulator = SimulatorConfig(door=SimulatorOutput.FEATURES, **sizes)
    first = prepare.prepare(config, logged.append)
    assert any(line.startswith("Simulating 40 clips into") for line in logged)
    assert first.truth is not None and len(first.truth.video_ids) == 40
    assert first.raw.root.parent == tmp_path and first.raw.root.name.startswith("features-")
    logged.clear()
    again = prepare.prepare(config, logged.append)
    assert any(line.startswith("Simulated dataset: reused") for line in logged)
    assert again.view.fingerprint == first.view.fingerprint


@pytest.mark.parametrize("complete", [True, False])
def test_clips_are_encoded_only_where_features_are_missing(tmp_path, logged, monkeypatch, complete):
    """Replaces the pipeline that encodes the clips."""
    root = tmp_path / "clips"
    root.mkdir()
    videos = [Video(f"v{v}", f"v{v}.mp4", "u", ("a",), None) for v in range(10)]
    for video in videos:
        (root / video.path).write_bytes(b"film")
    write_raw_dataset(root, videos, [User("u", "", None, "", ())])
    config = Config()
    config.data.root, config.view.min_count = str(root), 1
    calls = []
    features = types.SimpleNamespace(video_ids=tuple(video.video_id for video in videos))
    monkeypatch.setattr(pipeline, "is_complete", lambda *arguments: complete)
    monkeypatch.setattr(pipeline, "preprocess", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(prepare, "FrameStore", lambda directory: features)
    lost = [ledger.Entry(f"v{v}", f"v{v}.mp4", "corrupt", 0, 0.0, "no film") for v in range(7)]
    fine = [ledger.Entry(f"v{v}", f"v{v}.mp4", "ok", 1, 0.2, "") for v in range(7, 10)]
    monkeypatch.setattr(ledger, "read_ledger", lambda directory: fine + lost)
    prepare.prepare(config, logged.append)
    assert "Features: 7 of 10 clips could not be used:" in logged
    assert "  v0.mp4: corrupt, no film" in logged
    assert sum("no film" in line for line in logged) == prepare.MAX_PROBLEMS
    directory = pipeline.features_dir(root, config.preprocess)
    if complete:
        assert not calls and f"Features: reused {directory}." in logged
    else:
        inputs = [(video.video_id, video.path) for video in videos]
        assert calls == [(root, inputs, directory, config.preprocess)]
    config.preprocess.output_dir = str(tmp_path / "elsewhere")
    prepare.prepare(config, logged.append)
    assert any(str(tmp_path / "elsewhere") in line for line in logged)


def test_channel_statistics_are_kept_beside_the_shards_and_made_again_if_damaged(
    root, logged, monkeypatch
):
    prepared = prepare.prepare(tiny_world.make_config(root), logged.append)
    statistics = prepare.channel_statistics(prepared, logged.append)
    rows = [prepared.view.video_ids[row] for row in prepared.view.rows(TRAIN)]
    records = [prepared.store[index] for index in prepared.store.rows(rows)]
    values_NC = np.concatenate(
        [(r.codes_FMC * r.scale_C + r.offset_C).reshape(-1, len(r.scale_C)) for r in records]
    )
    np.testing.assert_allclose(statistics.mean_C, values_NC.mean(0), atol=1e-5)
    np.testing.assert_allclose(statistics.std_C, values_NC.std(0), rtol=1e-4)
    (path,) = (prepared.store.directory / "statistics").iterdir()

    with monkeypatch.context() as patch:
        patch.setattr(channel_statistics, "measure", None)  # must not be called
        again = prepare.channel_statistics(prepared, logged.append)
    np.testing.assert_array_equal(again, statistics)
    path.write_bytes(path.read_bytes()[:50])
    again = prepare.channel_statistics(prepared, logged.append)
    np.testing.assert_array_equal(again, statistics)
    assert logged[-1] == f"{path} is damaged; it is written again."
    # Another view has other training videos, hence other statistics.
    config = tiny_world.make_config(root)
    config.view.seed = 1
    other = prepare.prepare(config, logged.append)
    others = prepare.channel_statistics(other, logged.append)
    assert not np.array_equal(others.mean_C, statistics.mean_C)


def test_mean_features_are_kept_beside_the_shards_and_made_again_if_damaged(
    root, logged, monkeypatch
):
    prepared = prepare.prepare(tiny_world.make_config(root), logged.append)
    means = prepare.clip_means(prepared, logged.append)
    assert means.rows_V.tolist() == list(range(len(prepared.view.video_ids)))
    (path,) = (prepared.store.directory / "clip_means").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(clip_means, "measure", None)  # must not be called
        again = prepare.clip_means(prepared, logged.append)
    for first, second in zip(means, again, strict=True):
        np.testing.assert_array_equal(first, second)
    path.write_bytes(path.read_bytes()[:50])
    again = prepare.clip_means(prepared, logged.append)
    np.testing.assert_array_equal(again.means_VC, means.means_VC)
    assert logged[-1] == f"{path} is damaged; it is written again."
    # A file of other rows, as after a change of the limits, is not used.
    monkeypatch.setattr(clip_means, "MAX_CLIPS", {TRAIN: 10})
    assert len(prepare.clip_means(prepared, logged.append).rows_V) == 10


def test_channel_statistics_that_cannot_be_kept_are_used_all_the_same(root, logged, monkeypatch):
    prepared = prepare.prepare(tiny_world.make_config(root), logged.append)

    def refuse(path):
        raise OSError(errno.EROFS, "read-only", str(path))

    monkeypatch.setattr(prepare.storage, "atomic_write", refuse)
    statistics = prepare.channel_statistics(prepared, logged.append)
    assert np.shape(statistics) == (2, tiny_world.NUM_CHANNELS)
    assert logged[-1].startswith("Channel statistics are not kept in ")
    assert logged[-1].endswith(": Read-only file system.")


# ---- Duplicates


def remux(source, target):
    """Writes the packets of a file into another container."""
    with av.open(str(source)) as clip, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(clip.streams.video[0]):
            if packet.size:
                packet.stream = stream
                output.mux(packet)


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Returns the config of twelve clips, copies of some, and features of a small network.

    Clip 0 has two copies under other names and one in another container, clip 1 has two ids. Each
    id has its own user.
    """
    root = tmp_path_factory.mktemp("clips")
    clips.write_noise(root, [1 + i % 3 for i in range(12)])
    shutil.copy(root / "0.mp4", root / "copy.mp4")
    shutil.copy(root / "0.mp4", root / "again.avi")
    remux(root / "0.mp4", root / "other.mkv")
    assert (root / "other.mkv").read_bytes() != (root / "0.mp4").read_bytes()
    paths = {f"v{i:02}": f"{i}.mp4" for i in range(12)}
    paths |= {"w0": "copy.mp4", "w1": "again.avi", "w2": "other.mkv", "w3": "1.mp4"}
    videos = [
        Video(video_id, path, f"u{video_id}", ("a",), 100 - index)
        for index, (video_id, path) in enumerate(paths.items())
    ]
    write_raw_dataset(root, videos, [User("uv00", "", None, "", ())])
    config = Config()
    config.data.root, config.view.min_count = str(root), 1
    config.preprocess = small_network.small_config(output_dir=str(root / "features"))
    settings, how = config.preprocess, {"network": small_network.SmallNetwork, "progress": False}
    pipeline.preprocess(root, list(paths.items()), settings.output_dir, settings, **how)
    return config


def test_copies_of_a_clip_are_named_and_used_as_the_setting_says(copied, logged):
    config = copy.deepcopy(copied)
    view = prepare.prepare(config, logged.append).view
    part = dict(zip(view.video_ids, view.split_V.tolist(), strict=True))
    assert len(part) == 16
    assert part["v00"] == part["w0"] == part["w1"] == part["w2"] and part["v01"] == part["w3"]
    (line,) = (line for line in logged if line.startswith("Duplicates: "))
    assert "2 contents have several ids, 6 videos in all. All videos of a content" in line
    apart = view.report["duplicate_contents_in_several_parts_if_kept"]
    assert f"{apart} of the contents would otherwise be in several" in line
    assert logged[logged.index(line) + 1 :] == [
        "  other.mkv (w2) = again.avi (w1) and 2 more",
        "  1.mp4 (w3) = 1.mp4 (v01)",
    ]
    config.data.duplicates = Duplicates.DROP
    view = prepare.prepare(config, logged.append).view
    assert len(view.video_ids) == 12
    assert {"w2", "w3"} <= set(view.video_ids)  # of the earliest time
    assert view.report["duplicate_videos_left_out"] == 4
    assert "Only the first video of each is kept, which leaves out 4" in "\n".join(logged)


def test_a_users_folder_called_simulated_is_not_the_simulators(copied, logged, tmp_path):
    config = copy.deepcopy(copied)
    root = shutil.copytree(copied.data.root, tmp_path / "clips")
    shutil.move(root / "features", tmp_path / "shards")
    shutil.copytree(tmp_path / "shards", root / "features" / "simulated")
    config.data.root, config.preprocess.output_dir = str(root), str(tmp_path / "shards")
    assert prepare.features_dir(config) == tmp_path / "shards"
    config.preprocess.output_dir = str(root / "features" / "simulated")
    prepare.prepare(config, logged.append)
    assert f"Features: reused {root / 'features' / 'simulated'}." in logged


def test_features_of_an_earlier_version_say_nothing_of_duplicates(copied, logged, tmp_path):
    """Checks that a ledger without hashes is reported, and that no clip is encoded again."""
    config = copy.deepcopy(copied)
    config.preprocess.output_dir = str(tmp_path / "old")
    shutil.copytree(copied.preprocess.output_dir, tmp_path / "old")
    for path in (tmp_path / "old").rglob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        old = [{k: v for k, v in line.items() if k != "content"} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in old))
    before = clips.contents(tmp_path / "old")
    view = prepare.prepare(config, logged.append).view
    assert clips.contents(tmp_path / "old") == before
    (line,) = (line for line in logged if line.startswith("Duplicates: "))
    assert line.startswith("Duplicates: not known for 16 of 16 clips, whose features are of an")
    assert not any(name.startswith("duplicate") for name in view.report)
    logged.clear()
    config.data.duplicates = Duplicates.KEEP
    assert prepare.prepare(config, logged.append).view.fingerprint == view.fingerprint
    assert not any("Duplicates" in line for line in logged)


CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def config_of(name):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.py")))
def test_every_config_uses_16_frames_of_own_clips_or_the_number_that_is_set(tmp_path, name):
    config = config_of(name)
    config.data.root = str(tmp_path)
    assert prepare.extraction_settings(config).max_frames == 16
    config.preprocess.max_frames = 3
    assert prepare.extraction_settings(config) is config.preprocess


@pytest.mark.parametrize(
    ("name", "number"), [("natural", 4), ("balanced", 4), ("ua", 4), ("smoke", 1)]
)
def test_simulated_clips_have_a_number_of_their_own(tmp_path, name, number):
    config = config_of(name)
    assert prepare.extraction_settings(config).max_frames == number
    config.data.root = str(tmp_path)
    (tmp_path / "simulated.json").touch()
    assert prepare.extraction_settings(config).max_frames == number


def test_features_that_commit_bf341f2_made_are_found(tmp_path):
    config = config_of("natural")
    assert prepare.features_dir(config).name == "f2cbd5b98c59"
    assert prepare.features_dir(config_of("smoke")).name == "f7dc9953732c"
    config.data.root = str(tmp_path)
    assert prepare.features_dir(config) == tmp_path / "features" / "7d47556f71cf"


@pytest.mark.parametrize(("share", "warned"), [(0.1, True), (0.2, False), (0, False)])
def test_a_validation_split_with_few_users_warns(root, logged, share, warned):
    """Each of the 150 videos has its own user; 12, 24 or none are in validation."""
    config = tiny_world.make_config(root)
    config.view.validation_share = share
    prepare.prepare(config, logged.append)
    found = [line for line in logged if line.startswith("Warning: validation")]
    assert bool(found) == warned
    if warned:
        assert "has 12 videos of only 12 users" in found[0]
        assert "raise view.validation_share" in found[0]
