"""Clips whose timestamps start again, wrap, are wrong or are missing."""

import pathlib
import struct

import clips
import numpy as np
import pytest
from clips import levels, refusal, second
from hypothesis import given, settings
from hypothesis import strategies as st

from uhman_jax.preprocess import packet_times
from uhman_jax.preprocess.decode import sample_frames

NOTE = "timestamps start again {}; later frames are shown after earlier ones"


def joined(path, *parts, drop=0):
    """Bytes of files one after another; without the first `drop` of all but the first."""
    data = [pathlib.Path(part).read_bytes() for part in parts]
    path.write_bytes(data[0] + b"".join(part[drop:] for part in data[1:]))
    return str(path)


@pytest.mark.parametrize(
    ("container", "codec", "start", "drop"),
    [
        ("mpegts", "libx264", 0, 0),
        ("mpegts", "mpeg4", 0, 0),
        ("mpegts", "libx264", 5000, 0),  # a jump forward
        ("mpegts", "libx264", 95_443.2, 0),  # timestamps wrap within the second piece
        ("webm", "libvpx", 0, 0),
        ("webm", "libvpx", 7200, 0),
        ("matroska", "libx264", 7200, 0),
        ("flv", "libx264", 0, 13),  # without the second header
    ],
)
def test_pieces_whose_times_start_again_follow_one_another(tmp_path, container, codec, start, drop):
    one = second(tmp_path / "1", 50, codec, container)
    two = second(tmp_path / "2", 200, codec, container, start)
    for name, parts, gray in (("ab", (one, two), (50, 200)), ("ba", (two, one), (200, 50))):
        frames = sample_frames(joined(tmp_path / name, *parts, drop=drop), size=32)
        np.testing.assert_allclose(frames.times_F, np.arange(10) / 5, atol=0.011)
        np.testing.assert_allclose(levels(frames), np.repeat(gray, 5), atol=4)
        assert frames.reason == NOTE.format("once")
        assert frames.seconds == pytest.approx(2.0, abs=0.05)


def test_many_pieces(tmp_path):
    grays = [20, 60, 100, 140, 180, 220]
    parts = [second(tmp_path / f"{gray}", gray, container="mpegts") for gray in grays]
    path = joined(tmp_path / "all.ts", *parts)
    frames = sample_frames(path, max_frames=6, size=32)
    np.testing.assert_allclose(levels(frames), grays, atol=4)
    assert frames.reason == NOTE.format("5 times")
    assert refusal(path, max_seconds=5.5) == (
        "unsupported", "the clip is longer than the limit of 5.5 s"
    )  # fmt: skip
    # Under rule 1 all pieces are shown at once.
    before = sample_frames(path, size=32, frame_times=1)
    assert len(before.images) == 5 and before.reason == ""


@pytest.mark.parametrize(
    ("container", "codec", "start"),
    [
        ("matroska", "libx264", 50),
        ("mp4", "libx264", 50),
        ("asf", "wmv2", 50),
        ("flv", "flv", 50),
        ("mpegts", "libx264", 50),
        ("mpegts", "libx264", 2**33 / 90_000 - 0.5),  # timestamps wrap within the clip
    ],
)
def test_a_late_start_is_no_fault(tmp_path, container, codec, start):
    clip = sample_frames(second(tmp_path / "a", 90, codec, container, start), size=32)
    np.testing.assert_allclose(clip.times_F, np.arange(5) / 5)
    assert clip.reason == "" and clip.seconds == pytest.approx(1.0, abs=0.05)


def test_no_duration_and_no_timestamps_in_the_file(tmp_path):
    images = [clips.gray(20 + 4 * i) for i in range(50)]
    times = [40 * i for i in range(50)]
    raw = clips.write_clip(tmp_path / "a.h264", images, times, "libx264", container="h264")
    live = clips.write_clip(tmp_path / "a.ts", images, times, "libx264", container="mpegts")
    for path in (raw, live):
        frames = sample_frames(path)
        np.testing.assert_allclose(frames.times_F, np.arange(10) / 5, err_msg=path)
        np.testing.assert_allclose(levels(frames), 20 + 20 * np.arange(10), atol=5, err_msg=path)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 90), min_size=2, max_size=9), min_size=1, max_size=5),
    st.data(),
)
def test_joined_times_equal_a_walk_through_the_pieces(gaps, data):
    """Against adding up gaps: pieces start anywhere, the frames of each in any order."""

    class Packet:
        duration, is_keyframe, is_discard = 0, True, False

        def __init__(self, pts, dts):
            self.pts, self.dts = pts, dts

        def has_sidedata(self, name):
            return False

    reading = packet_times.PacketTimes(0.01, 3600.0)
    expected, previous = [], None
    for steps in gaps:
        times = np.cumsum([0, *steps[1:]])
        low = 0 if previous is None else previous - int(times[-1]) - 1000
        start = data.draw(st.integers(low - 5000, low))
        order = data.draw(st.permutations(range(len(times))))
        for decoded, shown in enumerate(order):
            reading.add(Packet(start + int(times[shown]), start + int(times[decoded])))
        previous = start
        expected.append((order, times))
    index = reading.index(25.0, "", 2)
    flat = np.array(sorted(step for steps in gaps for step in steps[1:]))
    gap = int(np.median(flat)) if len(flat) else 4
    walk, begin = [], int(reading._pts[0] - expected[0][1][expected[0][0][0]])
    for order, times in expected:
        walk += [begin + int(times[shown]) for shown in order]
        begin += int(times[-1]) + gap
    assert index.key.tolist() == walk
    assert index.moved == (len(gaps) > 1) and len(reading.pieces) == len(gaps)


def test_a_wrong_rate_in_the_header_changes_nothing(tmp_path):
    path = tmp_path / "a.flv"
    times = [40 * i for i in range(100)]
    clips.write_clip(path, [clips.gray(20 + 2 * i) for i in range(100)], times, "flv")
    right = sample_frames(path, size=32, max_seconds=5)
    data = path.read_bytes()
    begin = data.index(b"\x00\x09framerate\x00") + 12
    for rate in (0.5, 1.0, 1000.0):
        path.write_bytes(data[:begin] + struct.pack(">d", rate) + data[begin + 8 :])
        frames = sample_frames(path, size=32, max_seconds=5)
        np.testing.assert_array_equal(frames.images, right.images)
        assert frames.seconds == pytest.approx(4.0, abs=0.05) and frames.reason == ""
        assert "longer than the limit of 3.9 s" in refusal(path, max_seconds=3.9)[1]


def test_a_wrong_length_of_each_frame_in_the_header_changes_nothing(tmp_path):
    """Matroska's DefaultDuration is the only hint for the last frame."""
    times = [40 * i for i in range(100)]
    images = [clips.gray(20 + 2 * i) for i in range(100)]
    seconds = {}
    for rate in (25, 1):
        path = clips.write_clip(tmp_path / f"{rate}.mkv", images, times, rate=rate)
        frames = sample_frames(path, size=32, max_frames=30)
        seconds[rate] = frames.seconds, len(frames.images)
    assert seconds == {25: (pytest.approx(4.0), 20), 1: (pytest.approx(4.0), 20)}


def test_garbage_times_bound_the_work_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(packet_times, "_MIN_PACKETS", 30)
    path = clips.write_clip(tmp_path / "a.mkv", [clips.gray(9)] * 40, range(40))
    assert refusal(path, max_seconds=0.1) == ("unsupported", "the clip has more than 30 pictures")
    assert sample_frames(path, size=32, max_seconds=0.14).reason == ""  # 300 a second
