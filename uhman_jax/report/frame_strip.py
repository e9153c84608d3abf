"""A clip in pictures: its frames in time, with the attention over them."""

import numpy as np
from PIL import Image

from uhman_jax.report import thumbnails
from uhman_jax.report.markup import Markup, element, join
from uhman_jax.report.tables import percent


def frame_strip(
    times_F: np.ndarray,
    regions_FM: np.ndarray,
    weights_F: np.ndarray,
    images: list[Image.Image],
    max_bytes: int,
) -> Markup:
    """Frames in time order, each with its share of the clip's attention as a bar under it.

    Args:
        times_F: seconds.
        regions_FM: attention of each frame over its regions; rows sum to 1.
        weights_F: attention over the frames; sums to 1.
        images: of the frames; empty: the attention is drawn alone.
        max_bytes: of one image.
    """
    levels_FYX = thumbnails.heat_levels(regions_FM)
    num_frames = len(times_F)
    even = 1 / max(num_frames, 1)
    top = max(float(weights_F.max(initial=0)), 2 * even)
    frames = []
    for f in range(num_frames):
        weight = float(weights_F[f])
        time = f"{times_F[f]:.1f}\u202fs"
        image = images[f] if images else None
        shown = picture(image, levels_FYX[f], time, _peak(levels_FYX[f], time), max_bytes)
        bar = element("i", style=f"height:{100 * weight / top:.1f}%")
        line = element("s", style=f"bottom:{100 * even / top:.1f}%")
        caption = join(element("b", percent(weight)), " ", element("span", time))
        frames.append(
            element(
                "div",
                element("div", shown, class_="picture"),
                element("div", bar, line, class_="weight"),
                element("div", caption, class_="when"),
                class_="frame wide" if images and images[f].width > images[f].height else "frame",
            )
        )
    return element(
        "div", frames, class_="strip", tabindex=0, role="group", aria_label="Frames in time"
    )


def picture(
    image: Image.Image | None, levels_YX: np.ndarray, time: str, peak: str, max_bytes: int
) -> Markup:
    """A frame under its heat, or the heat alone, which `peak` describes then.

    Args:
        image: the frame; None: it can't be shown.
        levels_YX: strength of the heat in [0, 1] per cell.
        time: of the frame, in words.
        peak: words for the heat.
        max_bytes: of the frame.
    """
    heat = thumbnails.heat_png(levels_YX, smooth=image is not None)
    if image is None:
        return element("img", src=heat, alt=peak, class_="map")
    jpeg = thumbnails.frame_jpeg(image, max_bytes)
    return join(
        element("img", src=jpeg, alt=f"Frame at {time}", class_="shot"),
        element("img", src=heat, alt="", class_="heat"),
    )


def _peak(levels_YX: np.ndarray, time: str) -> str:
    y, x = np.unravel_index(int(np.argmax(levels_YX)), levels_YX.shape)
    return f"Attention at {time}, strongest in row {y + 1}, column {x + 1}"
