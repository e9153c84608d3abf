"""Encrypted and shortened files, and the printable spelling of names."""

import os
import pathlib

import av
import clips
import numpy as np
import pytest
from clips import SECOND, refusal, second
from hypothesis import given
from hypothesis import strategies as st

from uhman_jax.preprocess import clip_file, packet_times, video_index
from uhman_jax.preprocess.decode import DecodeError, sample_frames

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
    number = b"\x16\x54\xae\x6b"  # Tracks; the seek head lists it too
    begin = data.index(number, data.index(number) + 4)
    length, width = clip_file._matroska_number(data, begin + 4)
    tracks = data[begin + 4 + width : begin + 4 + width + length]
    tracks = tracks[6 * tracks.startswith(b"\xbf\x84") :]  # a checksum
    inner, inner_width = clip_file._matroska_number(tracks, tracks.index(b"\xae") + 1)
    entry = tracks[tracks.index(b"\xae") + 1 + inner_width :][:inner]
    key = element(b"\x47\xe1", b"\x05") + element(b"\x47\xe2", b"0123456789abcdef")
    encoding = element(b"\x50\x33", b"\x01") + element(b"\x50\x35", key)
    entry += element(b"\x6d\x80", element(b"\x62\x40", encoding))
    rebuilt = element(number, element(b"\xae", entry))
    path.write_bytes(data[:begin] + rebuilt + data[begin + 4 + width + length :])
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


@pytest.mark.parametrize("share", [0.03, 0.5])
@pytest.mark.parametrize("kind", ["mp4", "faststart", "avi", "matroska"])
def test_cut_files_say_so_and_keep_their_good_frames(tmp_path, kind, share):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (48, 64, 3)).astype(np.uint8) for _ in range(50)]
    container, muxer = ("mp4", {"movflags": kind}) if kind == "faststart" else (kind, {})
    times = range(0, 2000, 40)
    path = clips.write_clip(tmp_path / "a", images, times, container=container, muxer=muxer)
    size = os.path.getsize(path)
    assert clip_file.shortage(path) == "" and sample_frames(path, size=32).reason == ""
    os.truncate(path, int(size * share))
    sentence = f"the file is cut short: it announces {size:,} bytes and holds {int(size * share):,}"
    if kind == "mp4":  # its index is at the end: it announces the pictures that are to come
        sentence = "the file is cut short: it announces"
    try:
        clip = sample_frames(path, size=32)
    except DecodeError as error:
        assert error.kind in ("corrupt", "short") and sentence in error.reason
        assert kind == "mp4" or share == 0.03
    else:
        assert kind != "mp4" and 1 <= len(clip.images) < 10
        assert kind == "faststart" or sentence in clip.reason
        if kind != "avi":
            assert "the header promises 2.0 s" in clip.reason or "decoded up to" in clip.reason


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
