"""Reads, selects and compares cells.

A cell is one trained system on one simulated dataset ("world" and "world_seed"), view and recipe: a
dict of `results.jsonl`. A value that was not measured is None.
"""

import json
import pathlib
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from experiments.paper import stats
from experiments.paper.stats import Estimate
from uhman_jax.scores import is_number

Cell = dict[str, Any]

SYSTEMS = ("BL", "UA", "3WM", "UHMAN(a)", "UHMAN(b)", "UHMAN(c)", "UHMAN")
ATTENDING = SYSTEMS[3:]  # systems with attention
WORLDS = ("selection", "additive", "everything")  # simulated; others, such as "data", follow
VIEWS = ("natural", "balanced", "temporal", "cold_user")
RECIPES = ("plus", "warp", "paper")
# Uses of a cell; see `parts`.
TABLES, HIDDEN_SIZE, EMBEDDING_SIZE, SAMPLE_SIZE = "tables", "figure4a", "figure4b", "sizes"
RECIPE = "recipe"
# Rankings without training: keys of metrics.json and titles, in order of their information.
REFERENCES = {
    "popularity": "Popularity",
    "user_attributes": "Popularity among equal users",
    "user_history": "The user's own history",
    "user_oracle": "Oracle of the user alone",
    "content_oracle": "Oracle of the clip alone",
    "additive_oracle": "Oracle, user plus clip",
    "observable_oracle": "Observable oracle",
    "oracle": "Oracle",
}
TOLERANCE = 5e-4  # between the means of a cell and of its videos: ties may rank differently
_PER_VIDEO = {"P@10": "p10_SV", "R@10": "r10_SV"}


def load_cells(folder: str | pathlib.Path) -> list[Cell]:
    """Reads `folder/results.jsonl`; the last line of a cell counts."""
    lines = (pathlib.Path(folder) / "results.jsonl").read_text("utf-8").splitlines()
    cells = [json.loads(line) for line in lines if line.strip()]
    return list({cell["cell"]: cell for cell in cells}.values())


def parts(cell: Cell) -> list[str]:
    """Returns the uses of a cell: its "part", or else what follows from its name.

    >>> parts({"cell": "selection-0/natural/plus/uhman-d8"})
    ['figure4b']
    >>> parts({"cell": "selection-0/natural/plus/uhman"})
    ['tables', 'sizes']
    """
    if "part" in cell:
        return list(cell["part"])
    changed = cell["cell"].rsplit("/", 1)[-1].split("-")[1:]
    kinds = {"K": HIDDEN_SIZE, "d": EMBEDDING_SIZE, "x": SAMPLE_SIZE, "w": RECIPE}
    return [kinds[text[0]] for text in changed if text[0] in kinds] or [TABLES, SAMPLE_SIZE]


def select(
    cells: Iterable[Cell],
    *,
    part: str | None = TABLES,
    world: str | None = None,
    view: str | None = None,
    recipe: str | None = None,
    system: str | None = None,
    failed: bool = False,
) -> list[Cell]:
    """Returns the finished cells (or the failed ones) with these values; None matches all."""
    fields = {"world": world, "view": view, "recipe": recipe, "system": system}
    return [
        cell
        for cell in where(cells, **{key: value for key, value in fields.items() if value})
        if bool(cell.get("failed") or not cell.get("test")) == failed
        and (part is None or part in parts(cell))
    ]


def where(cells: Iterable[Cell], **fields: Any) -> list[Cell]:
    """Returns the cells with these values of fields."""
    return [cell for cell in cells if all(cell[key] == value for key, value in fields.items())]


def present(cells: Iterable[Cell], key: str, order: tuple[str, ...] = ()) -> list[str]:
    """Returns the values of a key, sorted by `order`, then by name."""
    found = {str(cell[key]) for cell in cells}
    return [name for name in order if name in found] + sorted(found - set(order))


def settings(cells: Collection[Cell]) -> list[tuple[str, str]]:
    """Returns the (world, recipe) pairs with cells, recipe by recipe."""
    worlds, recipes = present(cells, "world", WORLDS), present(cells, "recipe", RECIPES)
    pairs = {(cell["world"], cell["recipe"]) for cell in cells}
    return [(w, r) for r in recipes for w in worlds if (w, r) in pairs]


def by_world(cells: Iterable[Cell]) -> dict[int, Cell]:
    """Returns the cells by world seed.

    Raises:
        ValueError: two cells have the same world seed.
    """
    worlds: dict[int, Cell] = {}
    for cell in cells:
        other = worlds.setdefault(cell["world_seed"], cell)
        if other is not cell:
            raise ValueError(
                f"a row needs one cell per world seed, got {other['cell']} and {cell['cell']}; "
                "give them different parts"
            )
    return worlds


def values(cells: Iterable[Cell], metric: str, split: str = "test") -> dict[int, list[float]]:
    """Returns the seeds' values by world seed, without cells with a value that is not finite."""
    found = {
        world: list((cell.get(split) or {}).get(metric) or [])
        for world, cell in by_world(cells).items()
    }
    return {world: seeds for world, seeds in found.items() if seeds and all(map(is_number, seeds))}


def estimate(cells: Iterable[Cell], metric: str, split: str = "test") -> Estimate | None:
    """Estimates a metric from the cells of one row."""
    return _over_worlds(values(cells, metric, split))


def reference(cells: Iterable[Cell], name: str, metric: str) -> Estimate | None:
    """Estimates a metric of a ranking without training."""
    return _over_worlds(_reference_values(cells, name, metric))


def share(cells: Collection[Cell], name: str, metric: str = "P@10") -> Estimate | None:
    """Estimates a metric as a fraction of a reference ranking's on the same dataset."""
    return _ratio(values(cells, metric), _reference_values(cells, name, metric))


def reference_share(
    cells: Collection[Cell], name: str, top: str, metric: str = "P@10"
) -> Estimate | None:
    """Estimates a reference ranking's metric as a fraction of another's."""
    return _ratio(_reference_values(cells, name, metric), _reference_values(cells, top, metric))


def above_reference(cells: Collection[Cell], name: str, metric: str) -> Estimate | None:
    """Estimates the difference between a metric and a reference ranking's, paired by dataset."""
    scores, levels = values(cells, metric), _reference_values(cells, name, metric)
    return _over_worlds(
        {w: [value - levels[w][0] for value in scores[w]] for w in scores if w in levels}
    )


def _reference_values(cells: Iterable[Cell], name: str, metric: str) -> dict[int, list[float]]:
    found = {}
    for cell in cells:
        value = ((cell.get("references") or {}).get(name) or {}).get(metric)
        if is_number(value):
            found.setdefault(cell["world_seed"], [value])
    return found


def _ratio(worlds: stats.Worlds, tops: stats.Worlds) -> Estimate | None:
    known = [w for w in worlds if w in tops and tops[w][0]]
    return _over_worlds({w: [value / tops[w][0] for value in worlds[w]] for w in known})


def _over_worlds(worlds: stats.Worlds) -> Estimate | None:
    return stats.over_worlds(worlds) if worlds else None


def compare(
    first: Iterable[Cell], second: Iterable[Cell], results: str | pathlib.Path, metric: str = "P@10"
) -> tuple[Estimate | None, float | None]:
    """Compares two systems by their difference and a randomisation test over videos.

    The test pools the videos of all shared datasets, each with its mean over seeds.

    Args:
        first: cells of one system, one per world seed.
        second: cells of the other system.
        results: folder that the cells' `per_video` paths are relative to.
        metric: "P@10" or "R@10".

    Returns:
        The difference, None without a shared dataset; and p, None if per-video values are missing.

    Raises:
        ValueError: the systems were tested on different videos of one dataset.
    """
    one, two = by_world(first), by_world(second)
    scores, other_scores = values(one.values(), metric), values(two.values(), metric)
    gap = stats.difference(scores, other_scores)
    if gap is None:
        return None, None
    differences = []
    for world in [world for world in scores if world in other_scores]:
        ids_V, first_V = per_video(one[world], results, metric)
        other_ids_V, second_V = per_video(two[world], results, metric)
        if not len(ids_V) or not len(other_ids_V):
            return gap, None
        if not np.array_equal(ids_V, other_ids_V):
            raise ValueError(
                f"{one[world]['cell']} and {two[world]['cell']} must rank the same test videos to "
                "be compared, got different ones; train both on one view"
            )
        differences.append(first_V - second_V)
    return gap, stats.sign_flip_p(np.concatenate(differences))


def per_video(
    cell: Cell, results: str | pathlib.Path, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids of the test videos, sorted, and their metrics, averaged over seeds.

    Both are empty if there is no file, or if its mean differs from the cell's (another run).
    """
    path = pathlib.Path(results) / (cell.get("per_video") or "")
    missing = np.array([], str), np.zeros(0)
    if not path.is_file():
        return missing
    with np.load(path, allow_pickle=False) as arrays:
        ids_V, values_SV = arrays["video_ids"], arrays[_PER_VIDEO[metric]]
    mean = float(np.mean(cell["test"][metric]))
    if abs(float(np.mean(values_SV, dtype=np.float64)) - mean) > TOLERANCE:
        return missing
    order_V = np.argsort(ids_V)
    return ids_V[order_V], values_SV.astype(np.float64).mean(axis=0)[order_V]
