"""Learning curves as inline SVG whose colours and fonts are the page's.

Figures are made without pyplot, so that nothing of Matplotlib's global state changes.
"""

import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uhman_jax.report.markup import Markup

# Colours that stand for variables of the page's style sheet, so that plots follow dark mode.
_INK, _MUTED, _LINE = "#010203", "#040506", "#070809"
_VALIDATION, _TRAIN, _PAPER = "#0a0b0c", "#0d0e0f", "#101112"
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _VALIDATION: "var(--model)",
    _TRAIN: "var(--train)",
    _PAPER: "var(--card)",
}
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _LINE,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
}


def loss_curve(curve: list[dict[str, Any]]) -> Markup:
    """Training loss over epochs, one thin line per seed and a thick one for their mean."""
    with mpl.rc_context(_STYLE | {"svg.hashsalt": "loss"}):
        figure, axes = _figure("Epoch", "Training loss")
        _draw_seeds(axes, *_series(curve, "loss"), color=_TRAIN, label="train", dashed=True)
        _mark_decays(axes, curve)
        _start_at_zero(axes)
        return _svg(figure, "Training loss per epoch, one line per seed")


def score_curve(curve: list[dict[str, Any]], metric: str) -> Markup:
    """A metric on train and validation videos over epochs; a dot marks each seed's best."""
    with mpl.rc_context(_STYLE | {"svg.hashsalt": "score"}):
        figure, axes = _figure("Epoch", metric)
        epochs, train = _series(curve, f"train/{metric}")
        _draw_seeds(axes, epochs, train, color=_TRAIN, label="train", dashed=True)
        epochs, validation = _series(curve, f"validation/{metric}")
        _draw_seeds(axes, epochs, validation, color=_VALIDATION, label="validation")
        for scores in validation.T:
            if np.isfinite(scores).any():
                best = int(np.nanargmax(scores))
                axes.plot(
                    epochs[best],
                    scores[best],
                    marker="o",
                    markersize=5,
                    color=_VALIDATION,
                    markeredgecolor=_PAPER,
                    markeredgewidth=1.2,
                    zorder=5,
                )
        _mark_decays(axes, curve)
        _start_at_zero(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best", frameon=False)
        return _svg(figure, f"{metric} on train and validation videos per epoch")


def reliability_plot(reliability: dict[str, list[float]]) -> Markup:
    """Share of right suggestions over the confidence they were made with; dots grow with number."""
    with mpl.rc_context(_STYLE | {"svg.hashsalt": "reliability", "axes.grid.axis": "both"}):
        figure, axes = _figure("Confidence", "Share that was right")
        said, hits, count = (np.array(reliability[name]) for name in ("said", "hits", "count"))
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.8, linestyle=":")
        axes.plot(said, hits, color=_VALIDATION, linewidth=1.2)
        size = 12 + 160 * count / max(count.max(initial=0), 1)
        axes.scatter(said, hits, size, color=_VALIDATION, edgecolor=_PAPER, zorder=5)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        return _svg(figure, "Share of right suggestions over their confidence")


def _figure(x_label: str, y_label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.7, 2.9), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_xlabel(x_label)
    axes.set_title(y_label, loc="left", fontsize=10)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    return figure, axes


def _series(curve: list[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, and values of shape (epochs, seeds), of the entries that have `key`."""
    rows = [entry for entry in curve if entry.get(key) is not None]
    epochs = np.array([entry.get("epoch", entry["step"]) for entry in rows], np.float64)
    values = [np.atleast_1d(np.array(entry[key], np.float64)) for entry in rows]
    return epochs, np.stack(values) if values else np.zeros((0, 0))


def _draw_seeds(axes, epochs, values, *, color, label, dashed=False) -> None:
    """Thin lines for seeds under a thick one for their mean; one seed is the mean itself."""
    if not len(epochs):
        return
    style = (0, (4, 1.5)) if dashed else "solid"
    if values.shape[1] > 1:
        axes.plot(epochs, values, color=color, alpha=0.4, linewidth=0.9, linestyle=style)
    marker = "o" if len(epochs) == 1 else None
    axes.plot(
        epochs,
        values.mean(axis=1),
        color=color,
        linewidth=2,
        linestyle=style,
        label=label,
        marker=marker,
    )


def _mark_decays(axes, curve: list[dict[str, Any]]) -> None:
    """Dotted verticals where the learning rate, mean over seeds, fell by a third or more."""
    epochs, rates = _series(curve, "learning_rate")
    rates = rates.mean(axis=1) if len(rates) else rates
    for before, epoch, after in zip(rates, epochs[1:], rates[1:], strict=False):
        if after < before / 1.5:
            axes.axvline(epoch, color=_MUTED, linewidth=0.8, linestyle=":", zorder=0)


def _start_at_zero(axes) -> None:
    """Scales from 0, so that curves compare by height, to a little over what is drawn."""
    axes.set_ylim(0, 1.05 * max(axes.get_ylim()[1], 1e-6))


def _svg(figure: Figure, description: str) -> Markup:
    """The figure as an SVG element that scales with its column and follows the page's colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # The date among the metadata would make equal runs differ.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # Matplotlib's style sheet would apply to the whole page, and its names would clash.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r'\sid="[A-Za-z0-9.]+_\d+"', "", text)
    text = re.sub(r"font: (?:\w+ )*?([\d.]+)px[^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" @>', text, count=1)
    text = text.replace("@>", f'class="plot" role="img" aria-label="{description}">', 1)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return Markup(text)
