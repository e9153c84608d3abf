"""A map of hashtags as dots, with names that do not cover each other."""

import math
import unicodedata
from typing import Any, NamedTuple

_WIDTH, _HEIGHT, _EDGE = 900.0, 600.0, 46.0
_LETTER, _LINE = 6.4, 14.0  # pixels of a letter and of a line of the names
MAX_NAMES, MUST_NAME = 90, 20  # the most used ones may cover dots, but no name


class Box(NamedTuple):
    """A rectangle, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Box") -> bool:
        """Returns whether two rectangles share a point."""
        beside = self.left >= other.right or other.left >= self.right
        return not (beside or self.top >= other.bottom or other.top >= self.bottom)


class Dot(NamedTuple):
    """A hashtag on the map; `label` is where its name stands, None where it has no room."""

    name: str
    uses: int
    x: float
    y: float
    radius: float
    label: Box | None


def dots(found: dict[str, Any]) -> list[Dot]:
    """Returns a dot for every hashtag; names of the most used ones cover no other name.

    Args:
        found: `hashtags`, most used first, their `uses` and `places`.
    """
    points, radii = _on_paper(found["places"]), _radii(found["uses"])
    covered = [
        Box(x - radius, y - radius, x + radius, y + radius)
        for (x, y), radius in zip(points[:MAX_NAMES], radii, strict=False)
    ]
    labels: list[Box] = []
    result = []
    for name, uses, (x, y), radius in zip(
        found["hashtags"], found["uses"], points, radii, strict=True
    ):
        label = None
        if len(labels) < MAX_NAMES:
            label = _free_box(name, x, y, radius, labels + covered)
        if not label and len(result) < MUST_NAME:
            label = _free_box(name, x, y, radius, labels)
        labels += [label] if label else []
        result.append(Dot(name, uses, x, y, radius, label))
    return result


def _on_paper(places: list[list[float]]) -> list[tuple[float, float]]:
    """Returns the places in pixels, both axes on one scale."""
    columns = list(zip(*places, strict=True))
    lows, highs = [min(column) for column in columns], [max(column) for column in columns]
    sides = _WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE
    spans = [high - low for low, high in zip(lows, highs, strict=True)]
    scale = min(side / max(span, 1e-9) for side, span in zip(sides, spans, strict=True))
    middle = [(low + high) / 2 for low, high in zip(lows, highs, strict=True)]
    return [
        (_WIDTH / 2 + scale * (x - middle[0]), _HEIGHT / 2 - scale * (y - middle[1]))
        for x, y in places
    ]


def _radii(uses: list[int]) -> list[float]:
    """Returns radii whose areas grow with the root of the uses, from 2.5 to 9 pixels."""
    most = max(max(uses), 1)
    return [2.5 + 6.5 * math.sqrt(math.sqrt(count / most)) for count in uses]


def _free_box(name: str, x: float, y: float, radius: float, taken: list[Box]) -> Box | None:
    """Returns a place for a name beside, above or below its dot; None if all of them are taken."""
    width = _LETTER * (1 + sum((unicodedata.east_asian_width(c) in "WF") + 1 for c in name))
    for left, top in (
        (x + radius + 3, y - _LINE / 2),
        (x - radius - 3 - width, y - _LINE / 2),
        (x - width / 2, y - radius - _LINE),
        (x - width / 2, y + radius),
    ):
        box = Box(left, top, left + width, top + _LINE)
        inside = min(left, top) >= 0 and box.right <= _WIDTH and box.bottom <= _HEIGHT
        if inside and not any(map(box.overlaps, taken)):
            return box
    return None
