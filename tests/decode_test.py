import os
import struct
import wave

import av
import clips
import numpy as np
import pytest
from clips import levels, lightest, refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_files import shared

from uhman_jax.preprocess import decode, video_index
from uhman_jax.preprocess.decode import sample_frames
from uhman_jax.preprocess.video_index import DecodeError

# State and reason of the broken ones among the real clips; all others are "ok" without a note.
BROKEN = {
    "audio_nasa.mp3": ("no_video", "holds audio"),
    "audio_only_aac.mp4": ("no_video", "holds audio"),
    "small_min.mp4": ("no_video", "holds nothing"),
    "small_min.avi": ("short", "no frame"),
    "zero_length.webm": ("corrupt", "empty"),
    "chrome_no_streams.webm": ("corrupt", "cannot be opened"),
    "media_bad_free.mp4": ("corrupt", "cannot be opened"),
    "mp4parse_chunk_oor.mp4": ("corrupt", "cannot be opened"),
    "small_min.webm": ("ok", "the header promises 1.0 s"),
    "decord_corrupted.mp4": ("ok", "some packets could not be decoded"),
    "mp4parse_no_timescale.mp4": ("ok", "decoded 15 of 16 sampled frames"),
}


def test_frames_are_those_shown_at_the_sampling_times(tmp_path):
    images = [clips.gray(20 + 8 * i) for i in range(25)]
    path = clips.write_clip(tmp_path / "a.mp4", images, clips.SECOND)
    frames = sample_frames(path, size=32)
    np.testing.assert_allclose(frames.times_F, [0, 0.2, 0.4, 0.6, 0.8])
    assert frames.images.shape == (5, 32, 32, 3) and frames.images.dtype == np.uint8
    np.testing.assert_allclose(levels(frames), [20, 60, 100, 140, 180], atol=4)
    assert (frames.width, frames.height, frames.reason) == (64, 48, "")
    assert frames.seconds == pytest.approx(1.0, abs=0.05)


def test_variable_frame_rate_repeats_no_frame(tmp_path):
    times = [0, 70, 450, 460, 1300, 1310]
    images = [clips.gray(30 + 30 * i) for i in range(6)]
    path = clips.write_clip(tmp_path / "a.mkv", images, times)
    frames = sample_frames(path)
    # At 0.0: frame 0; 0.2 and 0.4: frame 1; 0.6 to 1.2: frame 3; after 1.3: frame 5 until the end,
    # which is one usual gap after 1.31 s, so 1.4 s is within the clip only if the gap reaches it.
    assert levels(frames)[:3] == pytest.approx([30, 60, 120], abs=4)
    np.testing.assert_allclose(frames.times_F[:3], [0, 0.2, 0.6])


def slow_choice(times_s, end_s, frames_per_second):
    """(frame, time) pairs by walking through the sampling times."""
    chosen = {}
    for k in range(int(end_s * frames_per_second) + 2):
        time = k / frames_per_second
        if time < end_s - 1e-6:
            shown = [i for i, t in enumerate(times_s) if t <= time + 1e-7]
            chosen.setdefault(shown[-1], time)
    return list(chosen.items())


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 700), min_size=1, max_size=40),
    st.integers(1, 400),
    st.sampled_from([1.0, 2.5, 5.0]),
    st.randoms(use_true_random=False),
)
def test_choice_equals_a_walk_through_the_sampling_times(gaps, last, rate, random):
    begins = np.cumsum([0, *gaps])
    order = list(range(len(begins)))
    random.shuffle(order)  # files hold packets in decoding order
    index = video_index.Index(
        key=begins[order] + 12345,
        segment=np.zeros(len(begins), np.int64),
        shown=np.ones(len(begins), bool),
        counted=False,
        time_base=0.001,
        last_duration=last,
        content="",
        encrypted=np.zeros(len(begins), bool),
    )
    expected = slow_choice(begins / 1000, (begins[-1] + last) / 1000, rate)
    chosen = video_index.choose(index, rate, 10**6)
    assert list(chosen) == [begins[i] + 12345 for i, _ in expected]
    np.testing.assert_allclose(list(chosen.values()), [time for _, time in expected])
    few = video_index.choose(index, rate, 7)
    assert len(few) == min(7, len(chosen)) and set(few.items()) <= set(chosen.items())


def test_thinning_takes_the_middles_of_equal_parts(tmp_path):
    images = [clips.gray(10 + 2 * i) for i in range(100)]
    path = clips.write_clip(tmp_path / "a.mp4", images, [200 * i for i in range(100)])
    frames = sample_frames(path, max_frames=4)
    np.testing.assert_allclose(frames.times_F, np.array([12, 37, 62, 87]) / 5)  # of 100
    np.testing.assert_allclose(levels(frames), [34, 84, 134, 184], atol=4)


def test_skipping_changes_no_image(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)
    images = [np.roll(noise, 3 * i, axis=1) for i in range(120)]
    path = clips.write_clip(
        tmp_path / "a.mp4", images, [40 * i for i in range(120)], "libx264", g="13", bf="3"
    )
    index, _, _ = video_index.read_index(path, 64, 60)
    wanted = video_index.choose(index, 5, 3)
    needed = video_index.needed_segments(index, wanted)
    assert 0 < len(needed) < len(set(index.segment.tolist()))
    passes = []
    for skip in (True, False):
        passes.append(decode._Decoding(wanted, 32))
        passes[-1].run(path, index, 64, skip=skip)
        assert not passes[-1].missing and not passes[-1].error
    for key in wanted:
        np.testing.assert_array_equal(passes[0].images[key], passes[1].images[key])


IDENTITY = (1, 0, 0, 1)


@pytest.mark.parametrize(
    ("matrix", "corner", "turned"),
    [
        (IDENTITY, (0, 0), False),
        ((0, 1, -1, 0), (0, 1), True),  # a quarter clockwise: top left goes to top right
        ((-1, 0, 0, -1), (1, 1), False),
        ((0, -1, 1, 0), (1, 0), True),
        ((-1, 0, 0, 1), (0, 1), False),  # mirrored
        ((0, 1, 1, 0), (0, 0), True),  # transposed
        ((0, 0, 0, 0), (0, 0), False),  # garbage is ignored
        ((1, 1, 0, 1), (0, 0), False),
    ],
)
def test_display_matrix(tmp_path, matrix, corner, turned):
    image = clips.gray(10)
    image[:24, :32] = 240  # top left
    path = clips.write_clip(tmp_path / "a.mp4", [image] * 3, [0, 40, 80])
    data = bytearray((tmp_path / "a.mp4").read_bytes())

    def packed(a, b, c, d):
        one = 1 << 16
        return struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)

    begin = data.index(packed(*IDENTITY), data.index(b"tkhd"))
    data[begin : begin + 36] = packed(*matrix)
    (tmp_path / "a.mp4").write_bytes(data)
    frames = sample_frames(path, size=40)
    assert (frames.width, frames.height) == ((48, 64) if turned else (64, 48))
    assert lightest(frames.images[0]) == corner


def test_colours_follow_the_matrix_of_the_file(tmp_path):
    for colourspace, height in ((1, 96), (2, 720)):  # BT.709, said or meant by 720 lines
        yuv = np.empty((height * 3 // 2, 960), np.uint8)  # pure red in BT.709
        yuv[:height], yuv[height : height * 5 // 4], yuv[height * 5 // 4 :] = 63, 102, 240
        frame = av.VideoFrame.from_ndarray(yuv, "yuv420p")
        frame.colorspace = colourspace
        image = decode._Decoding({0: 0.0}, 32)._convert(frame)
        np.testing.assert_allclose(image[16, 16], [255, 0, 0], atol=3)


def test_damaged_packets_are_noted(tmp_path):
    images = [clips.gray(20 + 8 * i) for i in range(25)]
    path = tmp_path / "a.mp4"
    clips.write_clip(path, images, [40 * i for i in range(25)], "libx264", g="5", bf="0")
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][10]
        begin, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[begin : begin + size] = b"\xff" * size
    path.write_bytes(data)
    frames = sample_frames(path)
    assert "Invalid data" in frames.reason and str(tmp_path) not in frames.reason
    assert 3 <= len(frames.images) <= 5


def test_one_frame_still_images_and_odd_sizes(tmp_path):
    path = clips.write_clip(tmp_path / "a.mp4", [clips.gray(90)], [0])
    assert levels(sample_frames(path)) == pytest.approx([90], abs=3)
    path = clips.write_clip(tmp_path / "a.mkv", [clips.gray(50, 121, 161)] * 3, [0, 40, 80], "ffv1")
    clip = sample_frames(path)
    assert (clip.width, clip.height, levels(clip)) == (161, 121, [50])
    path = tmp_path / "still.png"
    av.VideoFrame.from_ndarray(clips.gray(70, 33, 21), "rgb24").to_image().save(path)
    clip = sample_frames(path)
    assert (clip.width, clip.height, levels(clip), clip.times_F.tolist()) == (21, 33, [70], [0])


def kind_of(path, **options):
    return refusal(path, **options)[0]


def test_what_is_no_video(tmp_path):
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")  # a decoder does not wait for a writer
    assert kind_of(tmp_path / "sound.wav") == "no_video"
    for name in ("text.mp4", "empty.mp4", "missing.mp4", "pipe.mp4", ""):
        assert kind_of(tmp_path / name) == "corrupt"


def test_unknown_codec_and_whatever_is_too_large(tmp_path):
    path = tmp_path / "a.mp4"
    clips.write_clip(path, [clips.gray(9)] * 3, [0, 40, 80])
    size = path.stat().st_size / 1e6
    for limit, too_small, enough in (
        ("max_megapixels", 0.003, 0.0031),  # 64 x 48 = 0.003072
        ("max_megabytes", 0.9 * size, 1.1 * size),
        ("max_seconds", 0.1, 0.13),  # 3 frames of 25 a second
    ):
        assert kind_of(path, **{limit: too_small}) == "unsupported"
        assert sample_frames(path, **{limit: enough}).reason == ""
    other = tmp_path / "b.mkv"
    clips.write_clip(other, [clips.gray(9)] * 3, [0, 40, 80], "ffv1")
    other.write_bytes(other.read_bytes().replace(b"V_FFV1", b"V_ZZZ9"))
    assert kind_of(other) == "unsupported"


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile 'secret.mkv'\n",
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mkv\n#EXT-X-ENDLIST\n",
    ],
    ids=["concat", "hls"],
)
def test_playlists_open_no_other_file(tmp_path, playlist):
    clips.write_clip(tmp_path / "secret.mkv", [clips.gray(9)] * 3, [0, 40, 80])
    for name in ("list.mp4", "list.m3u8", "list.ffconcat"):
        (tmp_path / name).write_text(playlist)
        assert kind_of(tmp_path / name) in ("unsupported", "corrupt")


def test_real_clips():
    folder = shared("videos")
    names = sorted(n for n in os.listdir(folder) if not n.endswith(".csv"))
    light = [n for n in names if os.path.getsize(os.path.join(folder, n)) < 110_000]
    for name in light:
        state, part = BROKEN.get(name, ("ok", ""))
        try:
            frames = sample_frames(os.path.join(folder, name), size=32)
            found, reason = "ok", frames.reason
            assert 1 <= len(frames.images) <= 16 and frames.images.shape[1:] == (32, 32, 3)
            assert (np.diff(frames.times_F) > 0.19).all()
        except DecodeError as error:
            found, reason = error.kind, error.reason
        assert found == state and part in reason, (name, found, reason)
        assert bool(part) == bool(reason), (name, reason)
