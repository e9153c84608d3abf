"""Renders the results of `study` as a page."""

import pathlib
from typing import Any

from tools.inspect_run import hashtag_map
from tools.inspect_run.swaps import ATTRIBUTES
from uhman_jax.report.rendering import render_page
from uhman_jax.report.tables import slice_tables
from uhman_jax.scores import read_slices

SHOWN = 5  # differences per kind of user
_TEMPLATES = pathlib.Path(__file__).parent / "templates"


def render(values: dict[str, Any]) -> str:
    """Returns the page as text, given the values of `study`."""
    kinds = [
        kind | {"shown": [entry for entry in kind["strongest"] if entry["sure"]][:SHOWN]}
        for kind in values["differences"]["kinds"]
    ]
    bounds = [
        abs(bound)
        for kind in kinds
        for entry in kind["shown"]
        for name in ("suggested", "used")
        for bound in entry[name]["interval"]
    ]
    most: dict[str, float] = {}  # largest change of an attribute, over its values
    for swap in values["swaps"].get("values", []):
        if swap["value"] != "unknown":
            attribute = swap["attribute"]
            most[attribute] = max(most.get(attribute, 0.0), swap["changed"])
    derived = {
        "differences": values["differences"] | {"kinds": kinds},
        "attributes": list(ATTRIBUTES),
        "reach": max(bounds, default=1.0),
        "most": most,
        "dots": hashtag_map.dots(values["map"]),
        "slices": slice_tables(read_slices(values["slices"])),
    }
    return render_page("inspect.html", _TEMPLATES, **values | derived, points=points)


def points(value: float) -> str:
    r"""Formats a difference in percentage points.

    >>> points(0.123), points(-0.5), points(0.001)
    ('+12', '−50', '0')
    """
    rounded = round(100 * value)
    return f"{rounded:+d}".replace("-", "−") if rounded else "0"
