"""A clip in pictures: its frames in time order, with the attention over them."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from uhman_jax.report import thumbnails


class Picture(NamedTuple):
    """A frame and the heat over it, as data URIs.

    Attributes:
        heat: the heat map.
        frame: the frame; "" where it can't be shown.
        text: describes the frame, or the heat map where there is no frame.
    """

    heat: str
    frame: str
    text: str


class Frame(NamedTuple):
    """A frame of a strip: its time in words, and its fraction of the clip's attention."""

    time: str
    weight: float
    picture: Picture
    wide: bool  # wider than high


def frame_strip(
    times_F: np.ndarray,
    regions_FM: np.ndarray,
    weights_F: np.ndarray,
    images: list[Image.Image],
    max_bytes: int,
) -> list[Frame]:
    """Returns the frames of a clip.

    Args:
        times_F: seconds.
        regions_FM: attention of each frame over its regions; rows sum to 1.
        weights_F: attention over the frames; sums to 1.
        images: the frames; empty: only the attention is drawn.
        max_bytes: of one image.
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
    """Returns a frame under its heat.

    Args:
        image: the frame; None: it can't be shown.
        levels_YX: strength of the heat in [0, 1] per cell.
        time: of the frame, in words.
        peak: describes the heat.
        max_bytes: of the frame.
    """
    heat = thumbnails.heat_png(levels_YX, smooth=image is not None)
    if image is None:
        return Picture(heat, "", peak)
    return Picture(heat, thumbnails.frame_jpeg(image, max_bytes), f"Frame at {time}")


def seconds(time: float) -> str:
    r"""Returns a time in words.

    >>> seconds(1.25)
    '1.2\u202fs'
    """
    return f"{time:.1f}\u202fs"
