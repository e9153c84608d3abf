"""Small video files for the tests of preprocessing."""

import os
import pathlib
from fractions import Fraction

import av
import numpy as np
import pytest

MILLISECOND = Fraction(1, 1000)


def shared_videos():
    """Folder of real clips beside the repository; skips the test where it is not there."""
    folder = os.path.join(os.path.dirname(__file__), "..", "..", "shared", "videos")
    if not os.path.isdir(folder):
        pytest.skip("no real clips in ../shared/videos")
    return folder


def gray(level, height=48, width=64):
    return np.full((height, width, 3), level, np.uint8)


def write_clip(
    path, images, times_ms, codec="mpeg4", rate=25, container=None, muxer=None, **options
):
    """Encodes RGB images, each shown from its time in milliseconds on."""
    with av.open(str(path), "w", format=container, options=muxer or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = MILLISECOND
        for image, time in zip(images, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = time, MILLISECOND
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return str(path)


def write_noise(root, counts):
    """Writes clips of so many random frames each, 0.2 s apart: 0.mp4, 1.mp4 and so on."""
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i, count in enumerate(counts):
        images = list(rng.integers(0, 256, (count, 16, 24, 3)).astype(np.uint8))
        write_clip(root / f"{i}.mp4", images, [200 * k for k in range(count)])


def contents(folder):
    """Bytes of every file; the ones that name versions and times are the same on one machine."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(pathlib.Path(folder).rglob("*"))
        if path.is_file()
    }
