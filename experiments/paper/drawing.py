"""Defines the style of the study's figures: colours, lines, axes and files.

Colours also differ in lightness, and every line has its own marker, for readers with colour
blindness. Trained systems have colours, rankings without training are grey, the oracle is golden.
"""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from experiments.paper import summary
from experiments.paper.stats import Estimate
from experiments.paper.summary import Cell
from uhman_jax.report import plots
from uhman_jax.report.plots import CARD, INK, PAGE_COLORS
from uhman_jax.runtime.storage import atomic_write

SYSTEM_COLORS = {
    "BL": "#8c8577",
    "UA": "#d98a00",
    "3WM": "#0f8a6d",
    "UHMAN(a)": "#5aaee6",
    "UHMAN(b)": "#c86fb0",
    "UHMAN(c)": "#b5562f",
    "UHMAN": "#4a4fd4",
}
WORLD_COLORS = {"selection": "#4b50d5", "additive": "#c9540f", "everything": "#10886c"}
OTHER_COLOR = "#33363d"
VIEW_COLORS = {"natural": "#c2571b", "balanced": "#3f6fd1"}
MARKERS = dict(zip((*SYSTEM_COLORS, *WORLD_COLORS), "vsD<>^oosD", strict=True))
RECIPE_LINES = {"plus": "-", "warp": (0, (5, 1.6)), "paper": (0, (1.4, 1.4))}
# Rankings without training: colour and dashes of their lines.
REFERENCE_LINES = {
    "popularity": ("#9a9fab", (0, (1.2, 1.6))),
    "content_oracle": ("#7d8390", (0, (4, 2))),
    "additive_oracle": ("#7d8390", (0, (6, 1.5, 1.2, 1.5))),
    "observable_oracle": (OTHER_COLOR, "-"),
    "oracle": ("#b07a0b", "-"),
}
# Colours of the page's dark mode by their light counterparts.
_DARK = {
    "#8c8577": "#a8a193", "#d98a00": "#f0ad3a", "#0f8a6d": "#3fc0a0", "#5aaee6": "#7cc4f5",
    "#c86fb0": "#e093cc", "#b5562f": "#e58b66", "#4b50d5": "#949bff", "#c9540f": "#f0935a",
    "#10886c": "#3fc0a0", "#9a9fab": "#858b99", "#7d8390": "#9aa1af", "#b07a0b": "#e0ad3d",
    "#c2571b": "#f0935a", "#3f6fd1": "#82a6f5",
}  # fmt: skip
COLORS = PAGE_COLORS | {OTHER_COLOR: "var(--ink)"}
COLORS |= {light: f"light-dark({light},{dark})" for light, dark in _DARK.items()}
STYLE = plots.STYLE | {
    "axes.grid.axis": "both",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 9.5,
    "axes.titlecolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.axisbelow": True,
    "grid.linewidth": 0.7,
    "figure.facecolor": CARD,
    "axes.facecolor": CARD,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
}


def line(axes: Axes, points: Mapping[int, Estimate | None], linewidth=1.8, **style: Any) -> None:
    """Draws means with intervals over sizes; missing measurements are left out."""
    known = {size: score for size, score in points.items() if score is not None}
    means = [score.mean for score in known.values()]
    widths = [score.half_width or 0 for score in known.values()]
    style |= {"linewidth": linewidth, "elinewidth": 1.2, "markersize": 5.5, "capsize": 3}
    axes.errorbar(list(known), means, yerr=widths, **style)


def thousands(value: float, _: float) -> str:
    """Formats a tick as an integer with separated thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def scale(axes: Axes, lines: Iterable[Iterable[int]], label: str) -> None:
    """Makes the x axis logarithmic with a tick at every size of the lines; starts y at 0."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted({size for line in lines for size in line})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(thousands)
    axes.set_xlabel(label)
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))


def reference_lines(draw: Callable[..., Any], cells: Sequence[Cell], names: Iterable[str]) -> None:
    """Draws a line for each reference with scores; `draw` is axvline or axhline of the axes."""
    for name in names:
        score = summary.estimate(cells, "P@10", name)
        if score is not None:
            color, dashes = REFERENCE_LINES[name]
            label = summary.REFERENCES[name]
            draw(score.mean, color=color, linestyle=dashes, linewidth=1.5, label=label, zorder=2)


def canvas(width: float, height: float) -> Figure:
    """Returns an empty figure of a size in inches, with padding between its panels."""
    figure = Figure(figsize=(width, height), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.09, h_pad=0.09, wspace=0.02, hspace=0.05)
    return figure


def grid(
    count: int, *, width: float, height: float, columns: int = 3, margin: float = 0
) -> tuple[Figure, list[Axes]]:
    """Returns a figure with `count` panels of a size in inches, row by row, with a shared y axis.

    `margin` is additional width for long labels on the left.
    """
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = canvas(width * columns + margin, height * rows + 0.5)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for empty in panels[count:]:
        empty.remove()
    return figure, panels[:count]


def legend(figure: Figure, *panels: Axes) -> None:
    """Draws one legend for all panels, below them."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    columns = min(len(found), max(2, int(figure.get_figwidth() / 1.75)))
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns)


def save(figure: Figure, folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Writes `name.png` and `name.svg` atomically; equal figures give equal bytes."""
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    with mpl.rc_context({"svg.hashsalt": name}):
        for path, metadata in zip(paths, ({"Software": None}, {"Date": None}), strict=True):
            with atomic_write(path) as file:
                figure.savefig(file, format=path.suffix[1:], dpi=150, metadata=metadata)
    return paths
