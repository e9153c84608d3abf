"""Draws the study's figures, each as PNG (150 dpi) and as reproducible SVG.

Each function in FIGURES draws one figure from the cells, or returns None if they lack its values.
"""

import pathlib
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from experiments.paper import drawing, published, summary
from experiments.paper.breakdowns import FACTS, attention
from experiments.paper.drawing import SYSTEM_COLORS
from experiments.paper.stats import Estimate
from experiments.paper.summary import Cell
from uhman_jax.report.plots import CARD, INK, MUTED


def write_figures(
    cells: Sequence[Cell], counts: tuple[np.ndarray, np.ndarray] | None, folder: pathlib.Path
) -> list[pathlib.Path]:
    """Draws all figures into a folder and returns the paths of their files.

    Args:
        cells: finished and failed cells.
        counts: training uses of the hashtags, see `hashtags`; None: without Fig. 3.
        folder: folder of the files.
    """
    paths = []
    with mpl.rc_context(drawing.STYLE):
        if counts:
            paths += drawing.save(hashtags(*counts), folder, "figure3")
        for name, draw in FIGURES.items():
            if figure := draw(cells):
                paths += drawing.save(figure, folder, name)
    return paths


def hashtags(natural_T: np.ndarray, balanced_T: np.ndarray) -> Figure:
    """Draws Fig. 3: training uses of the hashtags, most used first, in both views.

    Args:
        natural_T: uses of each hashtag, in any order.
        balanced_T: the same after downsampling; the vocabulary may be smaller.
    """
    figure = drawing.canvas(7.4, 3.5)
    axes = figure.add_subplot()
    for layer, name, counts_T in ((2, "natural", natural_T), (3, "balanced", balanced_T)):
        color = drawing.VIEW_COLORS[name]
        counts_T = np.sort(counts_T)[::-1]
        rank_T = np.arange(1, len(counts_T) + 1)
        area = {"color": color, "alpha": 0.16, "linewidth": 0, "zorder": layer}
        axes.fill_between(rank_T, counts_T, 1, step="mid", **area)
        prob_T = counts_T[counts_T > 0] / counts_T.sum()
        entropy = -(prob_T * np.log2(prob_T)).sum()
        label = f"{name}: {len(counts_T)} hashtags, entropy {entropy:.1f} bits"
        axes.step(rank_T, counts_T, where="mid", color=color, label=label, zorder=layer)
    axes.set_yscale("log")
    lowest = min(int(np.min(natural_T)), int(np.min(balanced_T)))
    axes.set_ylim(max(0.8 * lowest, 0.8), 1.35 * float(np.max(natural_T)))
    axes.set_xlim(0, 1.01 * max(len(natural_T), len(balanced_T)))
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(drawing.thousands)
    axes.set_xlabel("Hashtag, most used first")
    axes.set_title("Uses in the training videos")
    axes.legend(loc="upper right")
    return figure


def hidden_size(cells: Sequence[Cell]) -> Figure | None:
    """Draws Fig. 4a: P@10, R@10 and F1@10 of UHMAN over K, by world and recipe."""
    return _sweep_figure(cells, summary.HIDDEN_SIZE, "Hidden size K", published.K)


def embedding_size(cells: Sequence[Cell]) -> Figure | None:
    """Draws Fig. 4b: the same scores over d."""
    return _sweep_figure(cells, summary.EMBEDDING_SIZE, "Embedding size d", published.D)


def _sweep_figure(cells: Sequence[Cell], part: str, title: str, chosen: int) -> Figure | None:
    lines = {}
    for world, recipe in summary.settings(cells):
        rows = summary.sweep(summary.where(cells, world=world, recipe=recipe), part)
        if len(rows) > 1:
            lines[world, recipe] = rows
    if not lines:
        return None
    figure = drawing.canvas(9.8, 3.5)
    for axes, metric in zip(figure.subplots(1, 3), ("P@10", "R@10", "F1@10"), strict=True):
        for (world, recipe), rows in lines.items():
            points = {size: summary.estimate(row, metric) for size, row in rows.items()}
            color = drawing.WORLD_COLORS.get(world, drawing.OTHER_COLOR)
            marker = drawing.MARKERS.get(world, "o")
            style = {"linestyle": drawing.RECIPE_LINES.get(recipe, "-"), "marker": marker}
            drawing.line(axes, points, color=color, label=f"{world}, {recipe}", **style)
        axes.axvline(chosen, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        axes.set_title(metric)
        drawing.scale(axes, lines.values(), title)
    first, text = figure.axes[0], {"color": MUTED, "fontsize": 8}
    at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    first.annotate("the paper's choice", (chosen, 0.03), (4, 0), **at, **text)
    drawing.legend(figure, first)
    return figure


def sample_size(cells: Sequence[Cell]) -> Figure | None:
    """Draws P@10 over the number of training videos, one panel per world and recipe."""
    panels = {}
    for world, recipe in summary.settings(cells):
        fields = {"world": world, "recipe": recipe, "view": "natural"}
        chosen = summary.select(cells, part=summary.SAMPLE_SIZE, **fields)
        lines: dict[str, dict[int, Estimate | None]] = {}
        for system in summary.SYSTEMS:
            if len(groups := _same_worlds(summary.where(chosen, system=system))) > 1:
                sizes = [round(np.mean([c["train_videos"] for c in group])) for group in groups]
                scores = [summary.estimate(group, "P@10") for group in groups]
                lines[system] = dict(zip(sizes, scores, strict=True))
        if lines:
            panels[world, recipe] = lines
    if not panels:
        return None
    figure, grid = drawing.grid(len(panels), width=5.6, height=3.5, columns=2)
    for axes, ((world, recipe), lines) in zip(grid, panels.items(), strict=True):
        for system, points in lines.items():
            width = 2.2 if system == "UHMAN" else 1.5
            style = {"color": SYSTEM_COLORS[system], "marker": drawing.MARKERS[system]}
            drawing.line(axes, points, linewidth=width, label=system, **style)
        fitting = summary.select(cells, world=world, view="natural", recipe=recipe)
        names = ("popularity", "observable_oracle")
        drawing.reference_lines(axes.axhline, fitting, names)
        axes.set_title(f"P@10 · {world}, {recipe}")
        drawing.scale(axes, lines.values(), "Training videos")
    drawing.legend(figure, *grid)
    return figure


def _same_worlds(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Groups cells by fraction of the data; keeps only the datasets that have all fractions."""
    fractions = sorted({cell["data_share"] for cell in cells})
    groups = [summary.where(cells, data_share=fraction) for fraction in fractions]
    seeds = [{cell["world_seed"] for cell in group} for group in groups]
    kept = [[c for c in group if c["world_seed"] in set.intersection(*seeds)] for group in groups]
    return [group for group in kept if group]


def systems(cells: Sequence[Cell]) -> Figure | None:
    """Draws P@10 by world and view, a marker per recipe, a line per reference."""
    chosen = [cell for cell in summary.select(cells) if cell["view"] in summary.PAIR]
    worlds = summary.present(chosen, "world", summary.WORLDS)
    views = summary.present(chosen, "view", summary.PAIR)
    names = summary.present(chosen, "system", summary.SYSTEMS)[::-1]
    if not worlds:
        return None
    height = 0.9 + (0.7 + 0.33 * len(names)) * len(views)
    figure = drawing.canvas(1.1 + 3.1 * len(worlds), height)
    grid = figure.subplots(len(views), len(worlds), squeeze=False, sharey=True, sharex="col")
    for row, view in zip(grid, views, strict=True):
        for axes, world in zip(row, worlds, strict=True):
            fitting = summary.where(chosen, world=world, view=view)
            _dots(axes, fitting, names)
            drawing.reference_lines(axes.axvline, fitting, drawing.REFERENCE_LINES)
            axes.set_title(f"{world} world, {view}" if world in summary.WORLDS else view)
            axes.set_xlim(0, 1.02 * axes.get_xlim()[1])
            axes.set_ylim(-0.6, len(names) - 0.4)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    for axes in grid[-1]:
        axes.set_xlabel("P@10")
    drawing.legend(figure, *grid.flat)
    return figure


def _dots(axes, cells: Sequence[Cell], names: Sequence[str]) -> None:
    recipes = summary.present(cells, "recipe", summary.RECIPES)
    for index, recipe in enumerate(recipes):
        marker = "os^"[index % 3]
        filled = recipe == summary.RECIPES[0] or len(recipes) == 1
        for y, name in enumerate(names):
            score = summary.estimate(summary.where(cells, system=name, recipe=recipe), "P@10")
            if score is None:
                continue
            color = SYSTEM_COLORS[name]
            style = {"color": color, "marker": marker, "markersize": 6.5, "markeredgewidth": 1.4}
            style |= {"markerfacecolor": color if filled else CARD, "elinewidth": 2, "zorder": 4}
            height = y + 0.17 * ((len(recipes) - 1) / 2 - index)
            axes.errorbar(score.mean, height, xerr=score.half_width, **style)
        face = INK if filled else CARD
        axes.plot([], [], marker, color=INK, label=f"recipe {recipe}", markerfacecolor=face)
    axes.set_yticks(range(len(names)), names)


def attention_bars(cells: Sequence[Cell]) -> Figure | None:
    """Draws the fraction of attention on objects, with chance level, by world."""
    chosen = [
        cell
        for cell in summary.select(cells, view="natural")
        if cell["attention"] and cell["system"] in summary.ATTENDING
    ]
    panels = summary.settings(chosen)
    if not panels:
        return None
    figure, grid = drawing.grid(len(panels), width=2.9, height=4.6, margin=1.7)
    for axes, (world, recipe) in zip(grid, panels, strict=True):
        fitting = summary.where(chosen, world=world, recipe=recipe)
        names = summary.present(fitting, "system", summary.ATTENDING)
        rows = {name: summary.where(fitting, system=name) for name in names}
        for name in rows:
            axes.barh([0], [0], color=SYSTEM_COLORS[name], label=name)
        for middle, fact in enumerate(FACTS):
            _bars(axes, rows, fact, middle)
        axes.set_yticks(range(len(FACTS)), list(FACTS.values()))
        axes.set_ylim(len(FACTS) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xticks((0, 0.5, 1))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.grid(axis="y", visible=False)
        axes.set_title(f"{world}, {recipe}")
        axes.plot([], [], color=INK, linewidth=2, label="chance")
    drawing.legend(figure, *grid)
    return figure


def _bars(axes, rows: dict[str, list[Cell]], fact: str, middle: int) -> None:
    """Draws one bar per system that has the fact, centred on `middle`."""
    facts = {name: attention(row, fact) for name, row in rows.items()}
    shown = [(name, mass, chance) for name, (mass, chance) in facts.items() if mass is not None]
    height = 0.17
    for index, (name, mass, chance) in enumerate(shown):
        y = middle + (index - (len(shown) - 1) / 2) * (height + 0.03)
        axes.barh(y, mass.mean, height, color=SYSTEM_COLORS[name], zorder=2)
        axes.errorbar(mass.mean, y, xerr=mass.half_width, color=INK, capsize=2, zorder=3)
        if chance is not None:
            ends = (y - 0.62 * height, y + 0.62 * height)
            axes.vlines(chance.mean, *ends, color=CARD, linewidth=4, zorder=3)
            axes.vlines(chance.mean, *ends, color=INK, linewidth=2, zorder=4)


FIGURES: dict[str, Callable[[Sequence[Cell]], Figure | None]] = {
    "systems": systems,
    summary.HIDDEN_SIZE: hidden_size,
    summary.EMBEDDING_SIZE: embedding_size,
    "sample_size": sample_size,
    "attention": attention_bars,
}
