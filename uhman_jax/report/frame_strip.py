"""Prepares the frames of a clip, in time order, with the attention over them."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from uhman_jax.report import thumbnails


class Picture(NamedTuple):
    """A frame and its heat map, as data URIs; `text` describes the frame, or else the heat map."""

    heat: str
    frame: str  # "" if it cannot be shown
    text: str


class Frame(NamedTuple):
    """A frame of a strip; `weight` is its fraction of the clip's attention."""

    time: str
    weight: float
    picture: Picture
    wide: bool  # the frame is wider than tall


def frame_strip(
    times_F: np.ndarray,
    regions_FM: np.ndarray,
    weights_F: np.ndarray,
    images: list[Image.Image],
    max_bytes: int,
) -> list[Frame]:
    """Returns the frames of a clip with their heat maps.

    Args:
        times_F: times in seconds.
        regions_FM: attention over regions; rows sum to 1.
        weights_F: attention over frames; sums to 1.
        images: the frames; empty: only heat maps are drawn.
        max_bytes: maximum size of one frame.
    """
    levels_FYX = thumbnails.heat_levels(regions_FM)
    frames = []
    for f, weight in enumerate(weights_F.tolist()):
        image, time = images[f] if images else None, seconds(times_F[f])
        y, x = np.unravel_index(int(np.argmax(levels_FYX[f])), levels_FYX[f].shape)
        peak = f"Attention at {time}, strongest in row {y + 1}, column {x + 1}"
        shown = picture(image, levels_FYX[f], time, peak, max_bytes)
        frames.append(Frame(time, weight, shown, image is not None and image.width > image.height))
    return frames


def picture(
    image: Image.Image | None, levels_YX: np.ndarray, time: str, peak: str, max_bytes: int
) -> Picture:
    """Returns a frame of at most `max_bytes` with its heat map, or only the heat map if it is None.

    `levels_YX` is the heat in [0, 1] per cell. `peak` describes the heat map.
    """
    heat = thumbnails.heat_png(levels_YX, smooth=image is not None)
    if image is None:
        return Picture(heat, "", peak)
    return Picture(heat, thumbnails.frame_jpeg(image, max_bytes), f"Frame at {time}")


def seconds(time: float) -> str:
    r"""Formats a time in seconds.

    >>> seconds(1.25)
    '1.2\u202fs'
    """
    return f"{time:.1f}\u202fs"
