"""Renders the page that explains suggestions by attention and by occlusion."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from uhman_jax.recommend.occlusion import Why
from uhman_jax.recommend.profile import Profile
from uhman_jax.recommend.recommender import Suggestion
from uhman_jax.report.frame_strip import frame_strip, picture, seconds
from uhman_jax.report.rendering import render_page
from uhman_jax.runtime.storage import escape_name
from uhman_jax.scores import Scores, is_number

_IMAGE_BYTES = 30_000  # maximum size of one frame


@dataclasses.dataclass(frozen=True)
class Side:
    """The suggestions for one profile, with their explanation."""

    profile: Profile
    suggestions: list[Suggestion]  # best first
    why: Why | None  # explains the suggestions, in their order; None without attention
    notes: list[str]  # parts of the profile that the model could not use

    @property
    def attention(self) -> Why:
        """The explanation, `why`; the model must have attention."""
        assert self.why is not None
        return self.why


def render(
    clip: pathlib.Path | None,
    times_F: np.ndarray,
    images: list[Image.Image],
    sides: list[Side],
    metrics: dict[str, Any],
) -> str:
    """Returns the page as text.

    Args:
        clip: path whose name is the title; None: a fragment without title, for another page.
        times_F: times of the frames in seconds.
        images: the frames; empty if they cannot be shown.
        sides: one profile, or two to compare; occlusions are shown for the first only.
        metrics: metrics.json of the run, for how often its attention was right.
    """
    explained = sides[0].why is not None
    return render_page(
        "explain.html",
        clip=escape_name(clip.name) if clip else "",
        metrics=metrics,
        explained=explained,
        sides=sides,
        strips=[
            frame_strip(times_F, side.why.regions_FM, side.why.frames_F, images, _IMAGE_BYTES)
            for side in sides
            if side.why
        ],
        carried=_cards(times_F, images, sides[0]) if explained else [],
        measured=_measured(metrics),
    )


def _cards(times_F: np.ndarray, images: list[Image.Image], side: Side) -> list[dict[str, Any]]:
    """Returns a card for each suggestion, with the frame that contributes most."""
    why, cards = side.attention, []
    for suggestion, lost_F, lost_FM in zip(
        side.suggestions, why.lost_TF, why.lost_TFM, strict=True
    ):
        if not len(lost_F):
            continue
        top = int(np.argmax(lost_F))
        image, time = images[top] if images else None, seconds(times_F[top])
        levels_YX = lost_levels(lost_FM)[top]
        cards.append(
            {
                "hashtag": suggestion.hashtag,
                "picture": picture(image, levels_YX, time, f"Regions at {time}", _IMAGE_BYTES),
                "lengths": np.maximum(lost_F / max(float(lost_F[top]), 1e-9), 0).tolist(),
                "top": top,
                "time": time,
                "lost": float(lost_F[top]),
                "score": suggestion.score,
            }
        )
    return cards


def lost_levels(lost_FM: np.ndarray) -> np.ndarray:
    """Returns the heat in [0, 1] per frame and cell: the decrease relative to the clip's largest.

    >>> lost_levels(np.array([[0.0, 2.0, -1.0, 1.0]])).tolist()
    [[[0.0, 1.0], [0.0, 0.5]]]
    """
    side = round(lost_FM.shape[1] ** 0.5)
    levels_FM = np.maximum(lost_FM, 0) / max(float(lost_FM.max(initial=0)), 1e-12)
    return levels_FM.reshape(len(lost_FM), side, side)


def _measured(metrics: dict[str, Any]) -> list[float]:
    """Returns how often the top region holds an object, chance, and both for tagged objects."""
    scores = Scores.from_metrics(metrics)
    names = [f"top_region_{kind}{end}" for kind in ("object", "tagged") for end in ("", "_chance")]
    means = [scores["attention", name].mean for name in names]
    return means if all(map(is_number, means)) else []
