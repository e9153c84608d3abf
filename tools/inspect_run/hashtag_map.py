"""A scatter of hashtags as SVG: markup of our own, since names may hold what a plotter would read.

Matplotlib takes `$` for mathematics and warns of letters that its fonts lack; the browser has them.
"""

import math
import unicodedata
from typing import Any

from uhman_jax.report.markup import Markup, element

_WIDTH, _HEIGHT, _EDGE = 900.0, 600.0, 46.0
_LETTER, _LINE = 6.4, 14.0  # pixels of a letter and of a line of the names
MAX_NAMES, MUST_NAME = 90, 20  # the most used ones may cover dots, but no name

Box = tuple[float, float, float, float]  # left, top, right, bottom


def draw(found: dict[str, Any]) -> Markup:
    """The map: a dot for every hashtag, and names of the most used that cover no other.

    Args:
        found: `hashtags`, most used first, their `uses` and `places`.
    """
    points = _on_paper(found["places"])
    sizes = _sizes(found["uses"])
    dots, names = [], []
    near = list(zip(points, sizes, strict=True))[:MAX_NAMES]
    covered = [(x - size, y - size, x + size, y + size) for (x, y), size in near]
    taken: list[Box] = []
    for name, (x, y), size, uses in zip(
        found["hashtags"], points, sizes, found["uses"], strict=True
    ):
        box = _free_box(name, x, y, size, taken + covered) if len(names) < MAX_NAMES else None
        if not box and len(dots) < MUST_NAME:
            box = _free_box(name, x, y, size, taken)
        css = "named" if box else None
        title = element("title", f"#{name}: {uses} uses")
        dots.append(
            element("circle", title, cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{size:.1f}", class_=css)
        )
        if box:
            taken.append(box)
            names.append(element("text", f"#{name}", x=f"{box[0]:.1f}", y=f"{box[3] - 3.5:.1f}"))
    label = "Map of the hashtags by the two widest directions of their vectors"
    return element(
        "svg",
        dots[::-1],  # the most used on top
        names,
        viewBox=f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}",
        class_="map",
        role="img",
        aria_label=label,
    )


def _on_paper(places: list[list[float]]) -> list[tuple[float, float]]:
    """Places in pixels, both axes on one scale."""
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


def _sizes(uses: list[int]) -> list[float]:
    """Radii whose areas grow with the root of the uses, from 2.5 to 9 pixels."""
    most = max(max(uses), 1)
    return [2.5 + 6.5 * math.sqrt(math.sqrt(count / most)) for count in uses]


def _free_box(name: str, x: float, y: float, size: float, taken: list[Box]) -> Box | None:
    """Where a name can stand beside, above or below its dot; None where it would cover another."""
    width = _LETTER * (1 + sum(_is_wide(letter) + 1 for letter in name))
    lefts = {x + size + 3: y, x - size - 3 - width: y}
    boxes = [(left, middle - _LINE / 2) for left, middle in lefts.items()]
    boxes += [(x - width / 2, y - size - _LINE), (x - width / 2, y + size)]
    for left, top in boxes:
        box = (left, top, left + width, top + _LINE)
        inside = box[0] >= 0 and box[1] >= 0 and box[2] <= _WIDTH and box[3] <= _HEIGHT
        if inside and not any(_overlap(box, other) for other in taken):
            return box
    return None


def _is_wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in "WF"


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
