"""Draws small pictures as data URIs: frames of a clip and the attention over them."""

import base64
import io
import math
import pathlib

import numpy as np
from PIL import Image

from uhman_jax import storage
from uhman_jax.preprocess.decode import sample_frames
from uhman_jax.preprocess.video_index import DecodeError

_WIDTH = 140  # pixels of a thumbnail
_DECODED = 256  # pixels of the square that a clip is decoded to
_LEVELS = 32  # shades of the heat map; few, so that its PNG stays under a kilobyte
_SIDE = 32  # pixels of the smooth heat map's side
_FULL = 4.0  # attention, in units of an even share, that is drawn at full strength at the latest


def heat_levels(regions_FM: np.ndarray) -> np.ndarray:
    """Returns the strength of the heat in [0, 1] per frame and cell of the square grid of regions.

    An even share (1/M) or less is 0; 1 is the attention of the clip's top hundredth of cells, but
    at least four even shares, so that flat attention looks flat.

    >>> heat_levels(np.array([[0.25, 0.25, 0.25, 0.25]])).tolist()
    [[[0.0, 0.0], [0.0, 0.0]]]
    """
    num_frames, num_regions = regions_FM.shape
    side = math.isqrt(num_regions)
    shares = regions_FM.astype(np.float64) * num_regions
    top = max(float(np.quantile(shares, 0.99)) if shares.size else 0.0, _FULL)
    return np.clip((shares - 1) / (top - 1), 0, 1).reshape(num_frames, side, side)


def heat_png(levels: np.ndarray, *, smooth: bool) -> str:
    """Returns the data URI of a translucent heat map, upsampled with cubic splines if `smooth`."""
    picture = Image.fromarray(levels.astype(np.float32))
    if smooth:
        picture = picture.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    codes = np.clip(np.rint(np.asarray(picture) * (_LEVELS - 1)), 0, _LEVELS - 1)
    paletted = Image.fromarray(codes.astype(np.uint8), mode="P")
    palette, alphas = _palette(opaque=not smooth)
    paletted.putpalette(palette)
    buffer = io.BytesIO()
    paletted.save(buffer, "PNG", transparency=alphas, bits=8, optimize=True)
    return _data_uri("png", buffer.getvalue())


def _palette(*, opaque: bool) -> tuple[bytes, bytes]:
    """Returns colours from violet over orange to pale yellow, and their alphas."""
    stops = np.array([[84, 20, 120], [200, 44, 110], [250, 120, 40], [255, 235, 120]], np.float64)
    strength = np.linspace(0, 1, _LEVELS)
    where = np.linspace(0, 1, len(stops))
    colors = np.stack([np.interp(strength, where, stops[:, i]) for i in range(3)], axis=1)
    alphas = 255 * (0.12 + 0.88 * strength if opaque else 0.78 * strength**0.6)
    return colors.round().astype(np.uint8).tobytes(), alphas.round().astype(np.uint8).tobytes()


def frames_at(
    path: pathlib.Path, times_F: np.ndarray, frames_per_second: float, max_frames: int
) -> list[Image.Image]:
    """Returns the frames that the model saw, upright, in their true proportions, one per time.

    Decodes in this process: a clip with features was decoded before without a crash.

    Args:
        path: the video file.
        times_F: seconds, as the features carry them; the sampled frame nearest to each is taken.
        frames_per_second: sampling rate of the features.
        max_frames: frames kept per clip at their extraction.

    Raises:
        DecodeError: the clip cannot be read.
    """
    try:
        with storage.temporary_copy(path) as file:
            clip = sample_frames(file, frames_per_second, max_frames, size=_DECODED)
    except FileNotFoundError as error:  # of an object
        raise DecodeError("corrupt", f"the file cannot be read: {error.strerror}") from None
    width, height = _fit(clip.width, clip.height)
    nearest_F = [int(np.argmin(abs(clip.times_F - time))) for time in times_F]
    return [
        Image.fromarray(clip.images[f]).resize((width, height), Image.Resampling.LANCZOS)
        for f in nearest_F
    ]


def _fit(width: int, height: int) -> tuple[int, int]:
    """Returns the size of a thumbnail; extreme shapes are squeezed to keep strips of one height."""
    ratio = min(max(height / width, 0.4), 2.2)
    return _WIDTH, round(_WIDTH * ratio)


def frame_jpeg(image: Image.Image, max_bytes: int) -> str:
    """Returns the data URI of a frame; quality falls until it fits `max_bytes` or is minimal."""
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
