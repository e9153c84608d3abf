"""Unusual clips: side data beside the pictures, and odd names."""

import io
import os
import pathlib
import shutil
import struct
from fractions import Fraction

import av
import clips
import numpy as np
import pytest
from clips import SECOND, levels, lightest, second
from PIL import Image

from uhman_jax.preprocess.decode import sample_frames

ORIENTATION = 0x112  # of EXIF


def corner(orientation=1, kind="jpeg"):
    """A picture whose top left is light, with EXIF, as bytes."""
    pixels = clips.gray(20)
    pixels[:24, :32] = 240
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(buffer, kind, exif=exif, quality=95)
    return buffer.getvalue()


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


def test_messages_beside_the_pictures_change_no_image(tmp_path):
    """A copy of an MP4 has these messages before each picture."""
    images = [clips.gray(20 + 8 * i) for i in range(25)]
    plain = clips.write_clip(tmp_path / "a.mp4", images, SECOND, "libx264", bf="0")
    units = b""
    for number, payload in MESSAGES.values():
        unit = bytes([6, number, len(payload)]) + payload + b"\x80"
        for zeros in (b"\0\0\0", b"\0\0\1", b"\0\0\2"):
            unit = unit.replace(zeros, zeros[:2] + b"\3" + zeros[2:])
        units += struct.pack(">I", len(unit)) + unit
    target = tmp_path / "b.mp4"
    with av.open(plain) as source, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in filter(lambda packet: packet.size, source.demux(video=0)):
            copy = av.Packet(units + bytes(packet))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            output.mux(copy)
    clip, before = sample_frames(target, size=32), sample_frames(plain, size=32)
    assert clip.reason == ""
    np.testing.assert_array_equal(clip.images, before.images)


def test_side_data_of_every_number_has_a_type():
    kind = av.sidedata.sidedata.Type
    assert kind["DISPLAYMATRIX"].name == "DISPLAYMATRIX"
    assert {kind(number).value for number in range(300)} == set(range(300))
    with pytest.raises(ValueError, match="'EXIFF' is not a valid Type"):
        kind("EXIFF")


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
