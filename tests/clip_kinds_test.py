"""Unusual clips: side data, joined pieces, odd names, encryption, files that are cut."""

import io
import os
import pathlib
import shutil
import struct
import subprocess
import sys
from fractions import Fraction

import av
import clips
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from uhman_jax.preprocess import clip_file, packet_times, video_index
from uhman_jax.preprocess.decode import DecodeError, sample_frames

SAMPLES = pathlib.Path(__file__).parents[2] / "shared" / "strangers"
SECOND = [40 * i for i in range(25)]  # 25 frames
ORIENTATION = 0x112  # of EXIF


def levels(frames):
    return frames.images.mean(axis=(1, 2, 3)).round().astype(int).tolist()


def refusal(path, **options):
    with pytest.raises(DecodeError) as caught:
        sample_frames(path, size=32, **options)
    return caught.value.kind, caught.value.reason


def second(path, level, codec="libx264", container=None, start=0, **options):
    """A clip of one second and one gray."""
    muxer = {"output_ts_offset": str(start)} if start else {}
    return clips.write_clip(
        path, [clips.gray(level)] * 25, SECOND, codec, container=container, muxer=muxer, **options
    )


# Side data.


def corner(orientation=1, kind="jpeg"):
    """A picture whose top left is light, with EXIF, as bytes."""
    pixels = clips.gray(20)
    pixels[:24, :32] = 240
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(buffer, kind, exif=exif, quality=95)
    return buffer.getvalue()


def lightest(image):
    """(row, column) of the lightest quarter."""
    side = len(image) // 2
    quarters = image.reshape(2, side, 2, side, 3).mean(axis=(1, 3, 4))
    return tuple(int(i) for i in np.unravel_index(quarters.argmax(), (2, 2)))


def motion_jpeg(path, pictures):
    """Muxes JPEG pictures as they are, five a second."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i, picture in enumerate(pictures):
            packet = av.Packet(picture)
            packet.pts = packet.dts = i
            packet.time_base, packet.stream = Fraction(1, 5), stream
            packet.is_keyframe = True
            output.mux(packet)
    return str(path)


# Where the light quarter is shown, by the table of EXIF: 1 as stored, 3 half a turn, 6 and 8 a
# quarter turn clockwise and back, the even ones mirrored.
SHOWN = {
    1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["avi", "mov", "mkv"])
def test_exif_in_the_frames_of_a_camera_is_not_the_clip(tmp_path, suffix):
    path = motion_jpeg(tmp_path / f"a.{suffix}", [corner()] * 4)
    frames = sample_frames(path, size=40)
    assert frames.reason == "" and len(frames.images) == 4
    assert lightest(frames.images[0]) == (0, 0)


@pytest.mark.parametrize("orientation", sorted(SHOWN))
def test_photos_are_shown_as_their_exif_says(tmp_path, orientation):
    path = tmp_path / "photo"
    path.write_bytes(corner(orientation))
    frames = sample_frames(path, size=40)
    assert lightest(frames.images[0]) == SHOWN[orientation] and frames.reason == ""
    assert (frames.width, frames.height) == ((48, 64) if orientation > 4 else (64, 48))


# Messages (SEI) that H.264 carries beside the pictures: their numbers, and a payload that is valid.
MESSAGES = {
    "captions": (4, b"\xb5\x00\x31GA94\x03\x41\xff\xfc\x94\x2c\xff"),
    "user data": (5, bytes(range(16)) + b"any text"),
    "stereo": (45, b"\x81\xc0\x80\x00\x00\x00\x20"),
    "mastering display": (137, struct.pack(">8H2I", *range(1, 9), 10_000, 1)),
    "content light": (144, struct.pack(">2H", 1000, 400)),
    "ambient light": (148, struct.pack(">I2H", 10_000, 15_635, 16_450)),
    "spherical": (150, bytes(16)),
    "unknown": (199, b"\x01\x02\x03"),
}


def with_messages(path, target, messages):
    """Copies an MP4 with H.264; before each picture come these messages."""
    units = b""
    for number, payload in messages:
        unit = bytes([6, number, len(payload)]) + payload + b"\x80"
        for zeros in (b"\0\0\0", b"\0\0\1", b"\0\0\2"):
            unit = unit.replace(zeros, zeros[:2] + b"\3" + zeros[2:])
        units += struct.pack(">I", len(unit)) + unit
    with av.open(path) as source, av.open(target, "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if not packet.size:
                continue
            copy = av.Packet(units + bytes(packet))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            output.mux(copy)
    return target


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """An MP4 of one second, H.264."""
    path = tmp_path_factory.mktemp("plain") / "a.mp4"
    images = [clips.gray(20 + 8 * i) for i in range(25)]
    return clips.write_clip(path, images, SECOND, "libx264", bf="0")


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from(sorted(MESSAGES)), min_size=1, max_size=4, unique=True))
def test_messages_beside_the_pictures_change_no_image(tmp_path_factory, plain, names):
    target = str(tmp_path_factory.mktemp("sei") / "b.mp4")
    with_messages(plain, target, [MESSAGES[name] for name in names])
    frames, before = sample_frames(target, size=32), sample_frames(plain, size=32)
    assert frames.reason == ""
    np.testing.assert_array_equal(frames.images, before.images)


def test_a_message_may_turn_the_pictures(tmp_path, plain):
    """Display orientation, a quarter turn: the one message that is read."""
    payload = struct.pack(">B", 0) + b"\x80\x00\x50"  # no cancel, no flip, 0x4000/65536 of a turn
    bits = "0" + "00" + f"{0x4000:016b}" + "1" + "0" + "1"
    payload = int(bits.ljust(24, "0"), 2).to_bytes(3, "big")
    target = with_messages(plain, str(tmp_path / "b.mp4"), [(47, payload), MESSAGES["stereo"]])
    frames = sample_frames(target, size=32)
    assert (frames.width, frames.height, frames.reason) == (48, 64, "")


def test_side_data_of_every_number_has_a_type():
    kind = av.sidedata.sidedata.Type
    assert kind["DISPLAYMATRIX"].name == "DISPLAYMATRIX"
    assert {kind(number).value for number in range(300)} == set(range(300))
    with pytest.raises(ValueError, match="'EXIFF' is not a valid Type"):
        kind("EXIFF")


# Times.

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


def test_times_that_wrap_within_a_clip_do_not_start_again(tmp_path):
    start = 2**33 / 90_000 - 0.5
    path = second(tmp_path / "a.ts", 90, container="mpegts", start=start)
    frames = sample_frames(path, size=32)
    np.testing.assert_allclose(frames.times_F, np.arange(5) / 5)
    assert frames.reason == ""


@pytest.mark.parametrize(
    "kind", ["matroska libx264", "mp4 libx264", "asf wmv2", "flv flv", "mpegts libx264"]
)
def test_a_late_start_is_no_fault(tmp_path, kind):
    container, codec = kind.split()
    path = second(tmp_path / "a", 90, codec, container, start=50)
    frames = sample_frames(path, size=32)
    np.testing.assert_allclose(frames.times_F, np.arange(5) / 5)
    assert frames.reason == "" and frames.seconds == pytest.approx(1.0, abs=0.05)


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
    place = data.index(b"\x00\x09framerate\x00") + 12
    for rate in (0.5, 1.0, 1000.0):
        path.write_bytes(data[:place] + struct.pack(">d", rate) + data[place + 8 :])
        frames = sample_frames(path, size=32, max_seconds=5)
        np.testing.assert_array_equal(frames.images, right.images)
        assert frames.seconds == pytest.approx(4.0, abs=0.05) and frames.reason == ""
        assert "longer than the limit of 3.9 s" in refusal(path, max_seconds=3.9)[1]


def test_a_wrong_length_of_each_frame_in_the_header_changes_nothing(tmp_path):
    """Matroska's DefaultDuration: of the last frame nothing else is known."""
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


def sample(name):
    """A file that failed before; skips the test if it is missing."""
    path = SAMPLES / name
    if not path.exists():
        pytest.skip(f"no {name} in ../shared/strangers")
    return str(path)


@pytest.mark.parametrize(
    ("name", "count", "reason"),
    [
        ("01-exif_mjpeg.avi", 10, ""),
        ("03-concat_red_blue.ts", 10, NOTE.format("once")),
        ("04-still.jpg", 1, ""),
        ("06-offset5.mkv", 10, ""),
    ],
)
def test_samples(name, count, reason):
    frames = sample_frames(sample(name))
    assert (len(frames.images), frames.reason) == (count, reason)
    if "red_blue" in name:
        assert frames.images.mean(axis=(1, 2)).argmax(axis=1).tolist() == [0] * 5 + [2] * 5


def test_sample_live_recording(tmp_path):
    script = sample("05-live_wrong_rate.py")
    if not shutil.which("ffmpeg"):
        pytest.skip("no ffmpeg program")
    subprocess.run([sys.executable, script], cwd=tmp_path, check=True)
    frames = sample_frames(tmp_path / "live_meta1.flv", size=32, max_seconds=3600)
    assert frames.seconds == pytest.approx(150, abs=0.1) and len(frames.images) == 16


# Content, not names.


def bytes_of(kind, tmp_path):
    if kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff"):
        buffer = io.BytesIO()
        rng = np.random.default_rng(0)
        big = rng.integers(0, 256, (480, 640, 3), np.uint8)  # more than FFmpeg's first look
        Image.fromarray(big).save(buffer, kind)
        return buffer.getvalue()
    container = {"ts": "mpegts", "mkv": "matroska"}.get(kind, kind)
    return pathlib.Path(second(tmp_path / "made", 90, container=container)).read_bytes()


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "bmp", "tiff", "mp4", "ts", "mkv"])
def test_the_same_bytes_get_the_same_answer_under_any_name(tmp_path, kind):
    data = bytes_of(kind, tmp_path)
    answers = set()
    for name in "a a.jpg a.png a.gif a.mp4 a.ts a.mp3 a.m3u8 a%03d.jpg *.jpg".split():
        (tmp_path / name).write_bytes(data)
        frames = sample_frames(tmp_path / name, size=32)
        answers.add((frames.images.tobytes(), frames.times_F.tobytes(), frames.reason))
    assert len(answers) == 1
    assert len(frames.images) == (5 if kind in ("mp4", "ts", "mkv") else 1)


def test_names_that_are_not_utf8_or_like_protocols(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = second("a.mp4", 90)
    names = ["concat:a.mkv", "ünï %03d.mkv", "with\nnewline.mkv", "\x1b[31m.mp4"]
    for name in [*names, *map(os.fsdecode, (b"caf\xe9.mp4", b"\xff\xfe"))]:
        shutil.copy(path, name)
        assert levels(sample_frames(name, size=32)) == pytest.approx([90] * 5, abs=4)


# Encrypted clips.

KEY = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "5a" * 16}
KEY |= {"encryption_kid": "01" * 16}


@pytest.mark.parametrize("marks", ["all", "header", "faststart"])
def test_encrypted_mp4(tmp_path, marks):
    path = tmp_path / "a.mp4"
    muxer = KEY | ({"movflags": "faststart"} if marks == "faststart" else {})
    clips.write_clip(path, [clips.gray(90)] * 25, SECOND, "libx264", muxer=muxer)
    if marks == "header":  # of a scheme that FFmpeg does not know
        data = path.read_bytes()
        for box in (b"senc", b"saiz", b"saio", b"tenc"):
            assert box in data
            data = data.replace(box, b"free")
        path.write_bytes(data)
    assert refusal(path) == ("unsupported", video_index.ENCRYPTED)


def test_encrypted_transport_stream(tmp_path):
    path = pathlib.Path(second(tmp_path / "a.ts", 90, container="mpegts"))
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for begin in range(0, len(data), 188):
        number = (data[begin + 1] & 0x1F) << 8 | data[begin + 2]
        if number == 0x100:  # the video; the tables are always clear
            data[begin + 3] |= 0x80
            first = begin + 4 + (1 + data[begin + 4] if data[begin + 3] & 0x20 else 0)
            data[first : begin + 188] = rng.bytes(begin + 188 - first)
    assert not clip_file.is_encrypted(str(path))
    path.write_bytes(data)
    assert refusal(path) == ("unsupported", video_index.ENCRYPTED)


def element(number, content):
    """An element of Matroska; its size in eight bytes."""
    return number + b"\x01" + len(content).to_bytes(7, "big") + content


def test_encrypted_webm(tmp_path):
    path = tmp_path / "a.webm"
    clips.write_clip(
        path, [clips.gray(90)] * 25, SECOND, "libvpx", container="webm", muxer={"live": "1"}
    )
    data = path.read_bytes()
    number = b"\x16\x54\xae\x6b"  # Tracks; the list of places has it too
    place = data.index(number, data.index(number) + 4)
    length, width = clip_file._matroska_number(data, place + 4)
    tracks = data[place + 4 + width : place + 4 + width + length]
    tracks = tracks[6 * tracks.startswith(b"\xbf\x84") :]  # a checksum
    inner, inner_width = clip_file._matroska_number(tracks, tracks.index(b"\xae") + 1)
    entry = tracks[tracks.index(b"\xae") + 1 + inner_width :][:inner]
    key = element(b"\x47\xe1", b"\x05") + element(b"\x47\xe2", b"0123456789abcdef")
    encoding = element(b"\x50\x33", b"\x01") + element(b"\x50\x35", key)
    entry += element(b"\x6d\x80", element(b"\x62\x40", encoding))
    rebuilt = element(number, element(b"\xae", entry))
    path.write_bytes(data[:place] + rebuilt + data[place + 4 + width + length :])
    assert refusal(path) == ("unsupported", video_index.ENCRYPTED)


def test_frames_before_the_encrypted_ones_are_kept(tmp_path, monkeypatch):
    path = second(tmp_path / "a.mp4", 90, g="5", bf="0")
    number = iter(range(25))
    real = packet_times.PacketTimes.add

    def add(self, packet):
        real(self, packet)
        self.encrypted[-1] = next(number) >= 10

    monkeypatch.setattr(packet_times.PacketTimes, "add", add)
    frames = sample_frames(path, size=32)
    assert len(frames.images) == 2 and frames.reason == "decoded up to 0.2 s: the rest is encrypted"


def test_sample_encrypted():
    assert refusal(sample("07-drm.mp4")) == ("unsupported", video_index.ENCRYPTED)


# Files that are shorter than they announce.


@pytest.mark.parametrize("kind", ["mp4", "avi", "matroska"])
@pytest.mark.parametrize("share", [0.03, 0.5])
def test_cut_files_say_so(tmp_path, kind, share):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (48, 64, 3)).astype(np.uint8) for _ in range(50)]
    path = clips.write_clip(tmp_path / "a", images, [40 * i for i in range(50)], container=kind)
    size = os.path.getsize(path)
    assert clip_file.shortage(path) == "" and sample_frames(path, size=32).reason == ""
    os.truncate(path, int(size * share))
    sentence = f"the file is cut short: it announces {size:,} bytes and holds {int(size * share):,}"
    if kind == "mp4":  # its index is at the end: it announces the pictures that are to come
        sentence = "the file is cut short: it announces"
    try:
        reason = sample_frames(path, size=32).reason
    except DecodeError as error:
        assert error.kind in ("corrupt", "short")
        reason = error.reason
    assert sentence in reason


def test_a_cut_file_with_sound_is_noticed(tmp_path):
    """Of two streams; the header's length is that of both."""
    path = tmp_path / "a.flv"
    with av.open(str(path), "w") as output:
        video = output.add_stream("flv", rate=25)
        sound = output.add_stream("pcm_s16le", rate=44_100, layout="mono")
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for i in range(100):
            frame = av.VideoFrame.from_ndarray(clips.gray(2 * i), "rgb24")
            output.mux(video.encode(frame))
            samples = np.zeros((1, 1764), np.int16)
            tone = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            tone.sample_rate = 44_100
            output.mux(sound.encode(tone))
        output.mux(video.encode())
        output.mux(sound.encode())
    assert sample_frames(path, size=32).reason == ""
    os.truncate(path, path.stat().st_size // 2)
    reason = "the header promises 4.0 s, the file ends at 2.0 s"
    assert reason in sample_frames(path, size=32).reason


@given(st.binary(max_size=300), st.integers(0, 3))
def test_any_bytes_are_looked_at_without_harm(tmp_path_factory, data, start):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes((b"\0\0\0\x20ftyp", b"RIFF", b"\x1a\x45\xdf\xa3", b"G")[start] + data)
    assert isinstance(clip_file.is_encrypted(str(path)), bool)
    clip_file.shortage(str(path))
