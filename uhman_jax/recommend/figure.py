"""Draws an explanation as a picture: frames with attention, frame weights, suggestions."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from uhman_jax.recommend.page import Side
from uhman_jax.report import thumbnails
from uhman_jax.runtime import storage

_INK, _MODEL, _MUTED = "#1b1d22", "#4a4fd4", "#5f6571"
_MOST_FRAMES = 8  # frames to draw: those with the highest weights for the first profile


def draw(clip: Path, times_F: np.ndarray, images: list[Image.Image], sides: list[Side]) -> bytes:
    """Returns a PNG with one row per profile; `page.render` describes the arguments."""
    from matplotlib.figure import Figure

    shown_F = np.sort(np.argsort(-sides[0].attention.frames_F, kind="stable")[:_MOST_FRAMES])
    columns = len(shown_F) + 3
    figure = Figure(figsize=(1.5 * columns, 3.7 * len(sides) + 0.5), layout="constrained")
    figure.suptitle(_plain(clip.name), x=0.01, ha="left", weight="bold", color=_INK)
    for row, side in zip(figure.subfigures(len(sides), 1, squeeze=False)[:, 0], sides, strict=True):
        title = _plain(side.profile.describe())
        row.suptitle(title, x=0.01, ha="left", size=9, color=_MUTED)
        widths = [1.0] * len(shown_F) + [3.0]
        axes = row.subplots(
            2, len(widths), width_ratios=widths, height_ratios=[5, 1], squeeze=False
        )
        levels_FYX = thumbnails.heat_levels(side.attention.regions_FM)
        top = max(float(side.attention.frames_F.max(initial=0)), 2 / max(len(times_F), 1))
        for column, f in enumerate(shown_F):
            picture, bar = axes[0, column], axes[1, column]
            picture.axis("off")
            picture.set_title(f"{times_F[f]:.1f} s", size=8, color=_MUTED)
            if images:
                picture.imshow(images[f])
            extent = (*picture.get_xlim(), *picture.get_ylim()) if images else (0, 1, 1, 0)
            picture.imshow(
                levels_FYX[f],
                cmap="inferno",
                vmin=0,
                vmax=1,
                alpha=0.75 * levels_FYX[f] ** 0.6 if images else None,
                extent=extent,
                interpolation="bicubic" if images else "nearest",
            )
            bar.bar([0], [side.attention.frames_F[f]], color=_MODEL, width=0.6)
            bar.axhline(1 / len(times_F), color=_MUTED, lw=0.8, ls="--")
            bar.set(xlim=(-0.5, 0.5), ylim=(0, top), xticks=[], yticks=[])
            bar.set_xlabel(f"{100 * side.attention.frames_F[f]:.0f} %", size=8, color=_INK)
            bar.spines[["top", "left", "right"]].set_visible(False)
        _suggestions(axes[:, -1], side)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    return buffer.getvalue()


def _plain(text: str) -> str:
    """Escapes text so that Matplotlib draws it literally."""
    return storage.escape_name(text).replace("$", r"\$")


def _suggestions(axes, side: Side) -> None:
    """Draws bars of confidence, or of scores if there is no fitted confidence."""
    plot, below = axes
    below.axis("off")
    shown = side.suggestions[:10]
    names = [_plain(f"#{suggestion.hashtag}") for suggestion in shown]
    confidences = [s.confidence for s in shown if s.confidence is not None]
    known = len(confidences) == len(shown)
    values = confidences if known else [s.score for s in shown]
    heights = np.arange(len(names))[::-1]
    plot.barh(heights, values, color=_MODEL, height=0.6)
    plot.set_yticks(heights, names, size=9)
    for y, value in zip(heights, values, strict=True):
        text = f" {100 * value:.0f} %" if known else f" {value:.2f}"
        plot.text(max(value, 0), y, text, va="center", size=8, color=_INK)
    plot.set_xticks([])
    plot.margins(x=0.18)
    plot.spines[["top", "right", "bottom"]].set_visible(False)
