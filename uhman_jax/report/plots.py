"""Draws plots of a run as SVG, in the colours and fonts of the page.

Figures are made without pyplot, which would change the global state of Matplotlib.
"""

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colours of the light theme in style.css, and the CSS variables that replace them.
INK, MUTED, LINE, CARD = "#1b1d22", "#5f6571", "#dfdcd2", "#fffefb"
MODEL, TRAIN = "#4a4fd4", "#c2571a"
PAGE_COLORS = {
    INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", CARD: "var(--card)",
    MODEL: "var(--model)", TRAIN: "var(--train)",
}  # fmt: skip
GROUPS = ("said", "hits", "count")  # keys of "reliability" in metrics.json
_DASHES, _DASH_DOT = (0, (4, 1.5)), (0, (5, 1.5, 1, 1.5))
STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
}


def loss_curve(curve: list[dict[str, Any]]) -> str:
    """Draws the training loss over epochs: thin lines for seeds, a thick line for their mean."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": "loss"}):
        figure, axes = _figure("Epoch", "Training loss")
        _draw_seeds(axes, *_series(curve, "loss"), color=TRAIN, label="train", linestyle=_DASHES)
        return _finish_curve(figure, curve)


def score_curve(curve: list[dict[str, Any]], metric: str) -> str:
    """Draws a metric on train and validation videos over epochs; a dot marks each seed's best."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": "score"}):
        figure, axes = _figure("Epoch", metric)
        train = _series(curve, f"train/{metric}")
        _draw_seeds(axes, *train, color=TRAIN, label="train", linestyle=_DASHES)
        epochs, validation = _series(curve, f"validation/{metric}")
        _draw_seeds(axes, epochs, validation, color=MODEL, label="validation")
        together = _series(curve, f"validation_ensemble/{metric}")
        _draw_seeds(axes, *together, color=MODEL, label="validation, ensemble", linestyle=_DASH_DOT)
        dot = {"color": MODEL, "markeredgecolor": CARD, "markeredgewidth": 1.2, "zorder": 5}
        for scores in validation.T:
            if np.isfinite(scores).any():
                best = int(np.nanargmax(scores))
                axes.plot(epochs[best], scores[best], marker="o", markersize=5, **dot)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best", frameon=False)
        return _finish_curve(figure, curve)


def reliability_plot(reliability: dict[str, list[float]]) -> str:
    """Draws the fraction of right suggestions by confidence; a larger dot has more suggestions."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": "reliability", "axes.grid.axis": "both"}):
        figure, axes = _figure("Confidence", "Fraction of right suggestions")
        confidence, hits, count = (np.array(reliability[name]) for name in GROUPS)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
        axes.plot(confidence, hits, color=MODEL, linewidth=1.2)
        size = 12 + 160 * count / max(count.max(initial=0), 1)
        axes.scatter(confidence, hits, size, color=MODEL, edgecolor=CARD, zorder=5)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        return _svg(figure)


def _figure(x_label: str, y_label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.7, 2.9), layout="constrained")
    axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.set_xlabel(x_label)
    axes.set_title(y_label, loc="left", fontsize=10)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    return figure, axes


def _series(curve: list[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the epochs of the entries that have `key`, and its values (epochs, seeds)."""
    rows = [entry for entry in curve if entry.get(key) is not None]
    epochs = np.array([entry.get("epoch", entry["step"]) for entry in rows], np.float64)
    values = [np.atleast_1d(np.array(entry[key], np.float64)) for entry in rows]
    return epochs, np.stack(values) if values else np.zeros((0, 0))


def _draw_seeds(axes, epochs, values, *, color, label, linestyle="solid") -> None:
    """Draws thin lines for seeds under a thick line for their mean."""
    if not len(epochs):
        return
    line = {"color": color, "linestyle": linestyle}
    if values.shape[1] > 1:
        axes.plot(epochs, values, alpha=0.4, linewidth=0.9, **line)
    marker = "o" if len(epochs) == 1 else None
    axes.plot(epochs, values.mean(axis=1), linewidth=2, label=label, marker=marker, **line)


def _finish_curve(figure: Figure, curve: list[dict[str, Any]]) -> str:
    """Scales from 0; dotted lines mark falls of the mean learning rate by a third or more."""
    axes = figure.axes[0]
    epochs, rates = _series(curve, "learning_rate")
    means = rates.mean(axis=1) if len(rates) else []
    for before, epoch, after in zip(means, epochs[1:], means[1:], strict=False):
        if after < before / 1.5:
            axes.axvline(epoch, color=MUTED, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_ylim(0, 1.05 * max(axes.get_ylim()[1], 1e-6))
    return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # No metadata, so that equal plots have equal bytes.
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=metadata)
    return inline_svg(buffer.getvalue())


def inline_svg(svg: str, colors: Mapping[str, str] = PAGE_COLORS) -> str:
    """Turns an SVG document of Matplotlib into an element of a page, in the page's colours.

    Args:
        svg: the document; each figure of a page needs its own `svg.hashsalt`.
        colors: CSS for each colour of the figure.
    """
    # Ids of groups repeat in all figures and are removed; clip paths and markers keep theirs.
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg[svg.index("<svg") :])
    for color, name in colors.items():
        svg = svg.replace(color, name)
    return svg
