"""The two outputs of the simulator: video files and region features."""

import dataclasses

import av
import numpy as np
import pytest
from clips import contents
from small_worlds import tiny

from uhman_jax import simulator
from uhman_jax.config import SimulatorOutput
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.shards.store import FrameStore
from uhman_jax.simulator import motion, posts, render_features, render_videos
from uhman_jax.simulator.truth import SIMULATED_FEATURES, load_truth

# --- video files


def drawn_frames(plan: motion.ClipPlan):
    """The frames before encoding, as (640 + 320, 360) planes of Y, U and V like PyAV's."""
    paint = render_videos.painter(plan)
    for index in range(plan.num_frames):
        planes = np.zeros((640, 360), np.uint8), *np.zeros((2, 320, 180), np.uint8)
        paint(index, *planes)
        yield np.concatenate([planes[0], *(plane.reshape(160, 360) for plane in planes[1:])])


def pixel_plan(clip: int = 0, **changes) -> motion.ClipPlan:
    config = tiny(door=SimulatorOutput.PIXELS, **changes)
    looks_O3 = np.array([[0, 1, 2], [5, 3, 1], [8, 0, 3]])  # star, fish, cube
    return motion.plan_clip(config, looks_O3, clip)


def test_rendered_clip_is_portrait_h264_of_its_duration(tmp_path):
    for clip in range(4):
        plan = pixel_plan(clip)
        render_videos.render_clip(tmp_path / "clip.mp4", plan)
        with av.open(str(tmp_path / "clip.mp4")) as container:
            video = container.streams.video[0]
            assert video.codec_context.name == "h264"
            assert (video.width, video.height) == (360, 640)
            assert video.codec_context.pix_fmt == "yuv420p"
            assert video.average_rate == plan.rate and 24 <= plan.rate <= 30
            assert 0.55 < plan.seconds < 1.05
            frames = [(frame.time, frame.to_ndarray()) for frame in container.decode(video)]
        assert [time for time, _ in frames] == pytest.approx(
            [index / plan.rate for index in range(plan.num_frames)]
        )
        for (_, decoded), drawn in zip(frames, drawn_frames(plan), strict=True):
            assert np.abs(decoded.astype(int) - drawn).mean() < 4


def test_blending_by_hand():
    target = np.uint8([[50, 200, 50, 50, 200, 255]])
    values = np.uint8([[200, 50, 200, 200, 50, 0]])
    opacity = np.uint8([[128, 128, 0, 64, 64, 128]])
    render_videos._blend(target, values, opacity)
    assert target.tolist() == [[200, 50, 50, 125, 125, 0]]


def test_objects_are_where_the_truth_says():
    num_checked = 0
    for clip in range(6):
        plan = pixel_plan(clip, max_seconds=2.0)
        empty = dataclasses.replace(plan, paths=())
        for path in plan.paths:
            single = dataclasses.replace(plan, paths=(path,))
            times_F = np.arange(plan.num_frames) / plan.rate
            boxes_F4, visible_F = path.boxes(times_F)
            pictures = zip(drawn_frames(single), drawn_frames(empty), strict=True)
            for index, (with_object, without) in enumerate(pictures):
                differs = np.abs(with_object[:640].astype(int) - without[:640]) > 8
                if not visible_F[index]:
                    continue
                rows, columns = np.nonzero(differs)
                found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                expected = boxes_F4[index] * [360, 640, 360, 640]
                whole = (boxes_F4[index] > 0).all() and (boxes_F4[index] < 1).all()
                if whole:
                    np.testing.assert_allclose(found, expected, atol=4)
                    num_checked += 1
                else:  # the rest of a shape that the frame cuts may be narrower than its box
                    assert (np.array([1, 1, -1, -1]) * (found - expected) > -4).all()
                assert differs.sum() > 0.2 * np.prod(expected[2:] - expected[:2])
    assert num_checked > 50


def test_objects_enter_and_leave():
    shares = []
    for clip in range(60):
        plan = pixel_plan(clip, min_seconds=2.0, max_seconds=6.0)
        shares += [path.boxes(plan.grid_times())[1].mean() for path in plan.paths]
    assert 0.35 < np.mean(shares) < 0.7  # in the mean over half of the clip, and
    assert np.mean(np.array(shares) == 1) < 0.05  # hardly ever in all of it
    assert np.mean(np.array(shares) == 0) < 0.02


def test_grid_times_are_five_per_second_before_the_end():
    plan = motion.ClipPlan((0, 0), 25, 25, ())
    np.testing.assert_allclose(plan.grid_times(), [0.0, 0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(dataclasses.replace(plan, num_frames=26).grid_times()[-1:], [1.0])


def test_interrupted_rendering_goes_on_and_a_complete_dataset_stays_as_it_is(tmp_path):
    config = tiny(door=SimulatorOutput.PIXELS, num_videos=4, num_users=3, objects_per_clip=2)
    simulator.simulate(tmp_path, config, num_workers=1)
    raw = read_raw_dataset(tmp_path, strict=True)
    assert [video.path for video in raw.videos] == [f"clips/v0000{i}.mp4" for i in range(1, 5)]
    before = contents(tmp_path)
    for name in ("v00002.mp4", "v00003.mp4"):
        (tmp_path / "clips" / name).unlink()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").iterdir()}
    simulator.simulate(tmp_path, config, num_workers=2)
    assert contents(tmp_path) == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    simulator.simulate(tmp_path, config, num_workers=2)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps


# --- region features


OBJECTS_O = np.array([4, 0, 6])


def covered_FM(blocks):
    """Returns the regions that an object covers in five frames."""
    covered_FYX = np.zeros((5, 8, 8), bool)
    for block in blocks:
        covered_FYX[block.frame, block.top : block.bottom, block.left : block.right] = True
    return covered_FYX.reshape(5, 64)


def test_features_hold_the_objects_where_the_truth_says():
    config = tiny(num_channels=64, noise=0.5)
    prototypes = render_features.draw_prototypes(config)
    for clip in range(5):
        features_FMC = render_features.clip_features(
            config, prototypes, OBJECTS_O, np.zeros(3, int), clip
        )
        assert features_FMC.dtype == np.float32 and (features_FMC >= 0).all()
        plain_FMC = features_FMC / prototypes.scale_C
        likeness_OFM = np.moveaxis(plain_FMC @ prototypes.class_GC[OBJECTS_O].T / 64, 2, 0)
        plan = render_features.plan_clip(config, clip)
        for blocks, likeness_FM in zip(plan, likeness_OFM, strict=True):
            holds_FM = covered_FM(blocks)
            assert len(blocks) == config.frames_per_object and holds_FM.sum() == 2 * 6
            assert likeness_FM[holds_FM].mean() > likeness_FM[~holds_FM].mean() + 0.4


def test_a_style_shows_where_its_object_is_and_nowhere_else():
    config = tiny(num_channels=64, num_styles=3, noise=0.0)
    prototypes = render_features.draw_prototypes(config)
    plain = render_features.draw_prototypes(dataclasses.replace(config, num_styles=1))
    assert not plain.style_JC.any()
    np.testing.assert_array_equal(plain.class_GC, prototypes.class_GC)
    first_FMC, second_FMC = (
        render_features.clip_features(config, prototypes, OBJECTS_O, np.array(styles), 2)
        for styles in ([0, 1, 2], [0, 2, 2])
    )
    holds_FM = covered_FM(render_features.plan_clip(config, 2)[1])
    difference_FMC = (second_FMC - first_FMC) / prototypes.scale_C
    assert not difference_FMC[~holds_FM].any()
    expected_C = render_features.STYLE_STRENGTH * (prototypes.style_JC[2] - prototypes.style_JC[1])
    up_C = expected_C >= 0  # what falls may be cut off at 0
    np.testing.assert_allclose(
        difference_FMC[holds_FM][:, up_C], np.tile(expected_C[up_C], (12, 1)), atol=1e-4
    )


def test_features_are_read_back_from_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(render_features, "VIDEOS_PER_SHARD", 16)
    config = tiny()
    simulator.simulate(tmp_path, config)
    directory = tmp_path / SIMULATED_FEATURES
    frames = FrameStore(directory)
    assert frames.video_ids == load_truth(tmp_path).video_ids
    assert (frames.num_channels, frames.num_regions, frames.max_frames) == (11, 64, 5)
    assert frames.info["weights"] == "simulated"
    record = frames[37]
    np.testing.assert_allclose(record.times_F, [0.0, 0.2, 0.4, 0.6, 0.8], rtol=1e-6)
    played = posts.build_world(config).posts
    seen = played.objects_VO[37], played.styles_VO[37]
    truth_FMC = render_features.clip_features(
        config, render_features.draw_prototypes(config), *seen, 37
    )
    values_FMC = record.codes_FMC * record.scale_C + record.offset_C
    assert (np.abs(values_FMC - truth_FMC) <= 0.51 * record.scale_C + 1e-6).all()
    shards = sorted(directory.glob("*.tfrecord-*"))
    assert len(shards) == 3  # 16 + 16 + 8
    before = contents(tmp_path)
    (directory / "extractor.json").unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:1000])  # as after a crash of the disk
    kept = shards[0].stat().st_mtime_ns
    simulator.simulate(tmp_path, config)
    assert contents(tmp_path) == before
    assert shards[0].stat().st_mtime_ns == kept
