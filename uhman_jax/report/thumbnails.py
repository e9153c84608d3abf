"""Encodes frames and heat maps as small data URIs."""

import base64
import io
import math
import pathlib

import numpy as np
from PIL import Image

from uhman_jax.preprocess.decode import sample_frames
from uhman_jax.preprocess.video_index import DecodeError
from uhman_jax.runtime import storage

_WIDTH = 140  # of a thumbnail, in pixels
_DECODED = 256  # side of a decoded frame, a square, in pixels
_LEVELS = 32  # shades of the heat map; few, so that its PNG stays under a kilobyte
_SIDE = 32  # side of a smooth heat map in pixels
_FULL = 4.0  # lowest attention that can have full heat, in units of uniform attention


def heat_levels(regions_FM: np.ndarray) -> np.ndarray:
    """Returns the heat in [0, 1] per frame and cell of the square grid of regions.

    Attention of at most 1/M (uniform) has heat 0. The clip's 99th percentile, or 4/M if that is
    larger, has heat 1, so that nearly uniform attention has little heat.

    >>> heat_levels(np.array([[0.25, 0.25, 0.25, 0.25]])).tolist()
    [[[0.0, 0.0], [0.0, 0.0]]]
    """
    num_frames, num_regions = regions_FM.shape
    side = math.isqrt(num_regions)
    relative = regions_FM.astype(np.float64) * num_regions
    top = max(float(np.quantile(relative, 0.99)) if relative.size else 0.0, _FULL)
    return np.clip((relative - 1) / (top - 1), 0, 1).reshape(num_frames, side, side)


def heat_png(levels: np.ndarray, *, smooth: bool) -> str:
    """Returns a translucent heat map as a data URI, with bicubic upsampling if `smooth`."""
    picture = Image.fromarray(levels.astype(np.float32))
    if smooth:
        picture = picture.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    codes = np.clip(np.rint(np.asarray(picture) * (_LEVELS - 1)), 0, _LEVELS - 1)
    paletted = Image.fromarray(codes.astype(np.uint8), mode="P")
    # From violet to pale yellow.
    stops = np.array([[84, 20, 120], [200, 44, 110], [250, 120, 40], [255, 235, 120]])
    heat, at = np.linspace(0, 1, _LEVELS), np.linspace(0, 1, len(stops))
    colors = np.stack([np.interp(heat, at, stops[:, i]) for i in range(3)], axis=1)
    alphas = 255 * (0.78 * heat**0.6 if smooth else 0.12 + 0.88 * heat)
    paletted.putpalette(_bytes(colors))
    buffer = io.BytesIO()
    paletted.save(buffer, "PNG", transparency=_bytes(alphas), bits=8, optimize=True)
    return _data_uri("png", buffer.getvalue())


def _bytes(values: np.ndarray) -> bytes:
    return values.round().astype(np.uint8).tobytes()


def frames_at(
    path: pathlib.Path, times_F: np.ndarray, frames_per_second: float, max_frames: int
) -> list[Image.Image]:
    """Returns the frames that the model saw, upright and undistorted.

    Decodes in this process, which is safe because the extraction has decoded the same clip.

    Args:
        path: the video file.
        times_F: times in seconds; the nearest sampled frame of each is returned.
        frames_per_second: sampling rate of the features.
        max_frames: maximum number of frames of the features.

    Raises:
        DecodeError: the clip cannot be read.
    """
    try:
        with storage.temporary_copy(path) as file:
            clip = sample_frames(file, frames_per_second, max_frames, size=_DECODED)
    except FileNotFoundError as error:  # of an object in a bucket
        raise DecodeError("corrupt", f"the file cannot be read: {error.strerror}") from None
    ratio = min(max(clip.height / clip.width, 0.4), 2.2)  # limits the height of a strip
    size = _WIDTH, round(_WIDTH * ratio)
    nearest_F = [int(np.argmin(abs(clip.times_F - time))) for time in times_F]
    return [
        Image.fromarray(clip.images[f]).resize(size, Image.Resampling.LANCZOS) for f in nearest_F
    ]


def frame_jpeg(image: Image.Image, max_bytes: int) -> str:
    """Returns a frame as a data URI, at the best quality within `max_bytes`, else the lowest."""
    data = b""
    for quality in (78, 65, 50, 35, 20, 8):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        data = buffer.getvalue()
        if len(data) <= max_bytes:
            break
    return _data_uri("jpeg", data)


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
