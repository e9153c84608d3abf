"""Places hashtags on a map as dots, with names that do not overlap."""

import unicodedata
from typing import Any, NamedTuple

import numpy as np

_WIDTH, _HEIGHT, _EDGE = 900.0, 600.0, 46.0
_LETTER, _LINE = 6.4, 14.0  # pixels of a letter and of a line
MAX_NAMES, MUST_NAME = 90, 20  # names shown; the first 20 may cover dots


class Box(NamedTuple):
    """A rectangle, in pixels."""

    left: float
    top: float
    right: float
    bottom: float


class Dot(NamedTuple):
    """A hashtag on the map; `label` is the box of its name, None if there is no space."""

    name: str
    uses: int
    x: float
    y: float
    radius: float
    label: Box | None


def dots(found: dict[str, Any]) -> list[Dot]:
    """Returns a dot for every hashtag; the names of the most used ones cover no other name.

    Args:
        found: `hashtags`, most used first, their `uses` and `places`.
    """
    points = _to_pixels(np.array(found["places"], np.float64))
    most = max(max(found["uses"]), 1)
    radii = [2.5 + 6.5 * (uses / most) ** 0.25 for uses in found["uses"]]  # 2.5 to 9 pixels
    covered = [
        Box(x - radius, y - radius, x + radius, y + radius)
        for (x, y), radius in zip(points[:MAX_NAMES], radii, strict=False)
    ]
    labels: list[Box] = []
    result = []
    rows = zip(found["hashtags"], found["uses"], points, radii, strict=True)
    for t, (name, uses, (x, y), radius) in enumerate(rows):
        label = None
        if len(labels) < MAX_NAMES:
            label = _free_box(name, x, y, radius, labels + covered)
        if not label and t < MUST_NAME:
            label = _free_box(name, x, y, radius, labels)
        labels += [label] if label else []
        result.append(Dot(name, uses, x, y, radius, label))
    return result


def _to_pixels(places_T2: np.ndarray) -> list[list[float]]:
    """Centres the places on the map, with one scale for both axes."""
    low, high = places_T2.min(axis=0), places_T2.max(axis=0)
    sides = np.array([_WIDTH, _HEIGHT]) - 2 * _EDGE
    scale = (sides / np.maximum(high - low, 1e-9)).min() * np.array([1, -1])
    middle = np.array([_WIDTH, _HEIGHT]) / 2
    return (middle + scale * (places_T2 - (low + high) / 2)).tolist()


def _free_box(name: str, x: float, y: float, radius: float, taken: list[Box]) -> Box | None:
    """Returns a free box for a name beside, above or below its dot; None if there is no space."""
    width = _LETTER * (1 + sum((unicodedata.east_asian_width(c) in "WF") + 1 for c in name))
    for left, top in (
        (x + radius + 3, y - _LINE / 2),
        (x - radius - 3 - width, y - _LINE / 2),
        (x - width / 2, y - radius - _LINE),
        (x - width / 2, y + radius),
    ):
        right, bottom = left + width, top + _LINE
        inside = min(left, top) >= 0 and right <= _WIDTH and bottom <= _HEIGHT
        if inside and all(
            right <= other.left or other.right <= left or bottom <= other.top or other.bottom <= top
            for other in taken
        ):
            return Box(left, top, right, bottom)
    return None
