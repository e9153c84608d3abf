"""A clip of three frames that this module writes: if it cannot be decoded, the library is at fault.

It is an MP4 file with H.264, as most clips are, written byte by byte without an encoder: its
macroblocks hold uncompressed pixels (I_PCM). It has 32x16 pixels, a left and a right half of
different colours, and a display rotation of a quarter turn.
"""

import contextlib
import os
import struct
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from uhman_jax.preprocess.clip_file import DecodedClip

FRAME_MS = 200
# (Y, Cb, Cr) of the left and the right half of each frame, and the same as RGB (BT.601).
_FRAMES = (
    ((81, 90, 240), (145, 54, 34)),
    ((41, 240, 110), (210, 16, 146)),
    ((235, 128, 128), (16, 128, 128)),
)
_RGB = (
    ((255, 0, 0), (0, 255, 0)),
    ((0, 0, 255), (255, 255, 0)),
    ((255, 255, 255), (0, 0, 0)),
)


def trouble(decode: Callable[..., DecodedClip]) -> str:
    """Decodes the clip; returns "" if the result is right, else a message for the user.

    Args:
        decode: `decode.sample_frames`.
    """
    try:
        with _file(clip_bytes()) as path:
            wrong = _wrong(decode(path, frames_per_second=5.0, max_frames=4, size=16))
    except Exception as error:  # a library of another version may raise anything
        wrong = f"{type(error).__name__}: {error}"
    if not wrong:
        return ""
    return (
        f"{_library()} must decode a clip that this program makes itself, got {wrong}; install a "
        "version that it knows, e.g. pip install 'av>=17.1,<20'"
    )


def _wrong(clip: DecodedClip) -> str:
    """Returns the first difference from the expected result, or ""."""
    if clip.reason:
        return repr(clip.reason)
    if clip.images.shape != (3, 16, 16, 3) or (clip.width, clip.height) != (16, 32):
        return f"images {clip.images.shape} of a video of {clip.width}x{clip.height} pixels"
    times = [round(float(time), 3) for time in clip.times_F]
    if times != [0.0, 0.2, 0.4] or round(clip.seconds, 3) != 0.6:
        return f"frames at {times} of {clip.seconds:.3f} s"
    for image, colours in zip(clip.images, _RGB, strict=True):
        # A quarter turn clockwise: the left half is shown on top.
        for half, colour in zip((image[:6], image[10:]), colours, strict=True):
            found = half.reshape(-1, 3).mean(0)
            if np.abs(found - colour).max() > 8:
                return f"the colour {found.round().astype(int).tolist()} for {list(colour)}"
    return ""


def _library() -> str:
    try:
        import av

        return f"av {av.__version__} (FFmpeg {getattr(av, 'ffmpeg_version_info', '?')})"
    except Exception as error:
        return f"av ({error})"


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[str]:
    """Yields a path of these bytes, in memory where possible: a full disk must not count."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        with os.fdopen(os.memfd_create("clip"), "wb", buffering=0) as file:
            file.write(data)
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name


def clip_bytes() -> bytes:
    """Returns the content of the file."""
    samples = [struct.pack(">I", len(unit)) + unit for unit in map(_picture, _FRAMES)]
    ftyp = _box(b"ftyp", b"isom", bytes(4), b"isomavc1")
    offset = len(ftyp) + 8
    return ftyp + _box(b"mdat", *samples) + _movie([len(sample) for sample in samples], offset)


def _movie(sizes: list[int], offset: int) -> bytes:
    count, one = len(sizes), 1 << 16
    length = count * FRAME_MS
    turned = struct.pack(">9i", 0, one, 0, -one, 0, 0, 16 * one, 0, 1 << 30)
    upright = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    mvhd = struct.pack(">5IIH10x", 0, 0, 0, 1000, length, one, 256) + upright + bytes(24)
    tkhd = struct.pack(">6I8x8x", 3, 0, 0, 1, 0, length) + turned
    mdhd = struct.pack(">5IHH", 0, 0, 0, 1000, length, 0x55C4, 0)
    hdlr = struct.pack(">II4s12x", 0, 0, b"vide") + b"\0"
    entry = struct.pack(">6xH16xHHIIIH32xHh", 1, 32, 16, 72 * one, 72 * one, 0, 1, 24, -1)
    tables = _box(
        b"stbl",
        _box(b"stsd", struct.pack(">II", 0, 1), _box(b"avc1", entry, _box(b"avcC", _headers()))),
        _box(b"stts", struct.pack(">4I", 0, 1, count, FRAME_MS)),
        _box(b"stsc", struct.pack(">5I", 0, 1, 1, count, 1)),
        _box(b"stsz", struct.pack(f">{3 + count}I", 0, 0, count, *sizes)),
        _box(b"stco", struct.pack(">3I", 0, 1, offset)),
    )
    own = _box(b"dinf", _box(b"dref", struct.pack(">II", 0, 1), _box(b"url ", b"\0\0\0\1")))
    media = _box(b"minf", _box(b"vmhd", struct.pack(">I8x", 1)), own, tables)
    media = _box(b"mdia", _box(b"mdhd", mdhd), _box(b"hdlr", hdlr), media)
    size = struct.pack(">II", 32 * one, 16 * one)
    return _box(
        b"moov",
        _box(b"mvhd", mvhd, struct.pack(">I", 2)),
        _box(b"trak", _box(b"tkhd", tkhd, size), media),
    )


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _headers() -> bytes:
    """Returns avcC: the headers of sequence (baseline, 2x1 macroblocks, no reordering), picture."""
    sequence = b"\x67" + _bits(
        "01000010", "11000000", "00001010",  # profile 66, constraints, level 10
        _number(0), _number(0), _number(2), _number(0), "0",  # ids, order of output, references
        _number(1), _number(0), "1", "1", "0", "0", "1",  # size; frames, no crop, no more
    )  # fmt: skip
    picture = b"\x68" + _bits(
        _number(0), _number(0), "0", "0", _number(0), _number(0), _number(0), "0", "00",
        _number(0), _number(0), _number(0), "0", "0", "0", "1",
    )  # fmt: skip
    sets = b"\xe1" + struct.pack(">H", len(sequence)) + sequence
    sets += b"\x01" + struct.pack(">H", len(picture)) + picture
    return bytes([1, *sequence[1:4], 0xFF]) + sets


def _picture(halves: tuple[tuple[int, int, int], ...]) -> bytes:
    """Returns a key frame of one macroblock per half, a NAL unit."""
    # First macroblock, I slice, ids, frame 0, picture 0, no marking, quantiser.
    bits = _number(0) + _number(7) + _number(0) + "0000" + _number(0) + "00" + _number(0)
    data = b""
    for luma, blue, red in halves:
        bits += _number(25)  # I_PCM
        bits += "0" * (-len(bits) % 8)
        data += int(bits, 2).to_bytes(len(bits) // 8, "big")
        data += bytes([luma]) * 256 + bytes([blue]) * 64 + bytes([red]) * 64
        bits = ""
    return b"\x65" + data + b"\x80"


def _number(value: int) -> str:
    """Returns an Exp-Golomb code."""
    return "0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}"


def _bits(*codes: str) -> bytes:
    bits = "".join(codes)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
