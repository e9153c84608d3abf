"""Reads, selects and compares finished cells; gives estimates.

A cell is one trained system in one world, view and recipe, as a dict of `results.jsonl`. A value
that was not measured is None.
"""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from experiments.paper import stats
from experiments.paper.stats import Estimate
from uhman_jax.scores import is_number

Cell = dict[str, Any]

SYSTEMS = ("BL", "UA", "3WM", "UHMAN(a)", "UHMAN(b)", "UHMAN(c)", "UHMAN")
ATTENDING = SYSTEMS[3:]  # the others have uniform attention
WORLDS = ("selection", "additive", "everything")  # others, such as "data", come after
VIEWS = ("natural", "balanced", "temporal", "cold_user")
RECIPES = ("plus", "warp", "paper")  # from the best scores to the text of the paper
# Uses of a cell; see `parts`.
TABLES, HIDDEN_SIZE, EMBEDDING_SIZE, SAMPLE_SIZE = "tables", "figure4a", "figure4b", "sizes"
RECIPE = "recipe"
# Rankings without training: keys of metrics.json and titles, the least informed first.
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
TOLERANCE = 5e-4  # between a cell's mean and the mean of its videos, where ties rank differently
_PER_VIDEO = {"P@10": "p10_SV", "R@10": "r10_SV"}


def load_cells(folder: str | pathlib.Path) -> list[Cell]:
    """Reads the cells of `folder/results.jsonl`; of two lines with one name the later counts."""
    lines = (pathlib.Path(folder) / "results.jsonl").read_text("utf-8").splitlines()
    cells = [json.loads(line) for line in lines if line.strip()]
    return list({cell["cell"]: cell for cell in cells}.values())


def parts(cell: Cell) -> list[str]:
    """Returns the uses of a cell: its "part", or without one those that its name tells.

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
    """Returns the matching cells, in their order; None matches all.

    Args:
        cells: any.
        part: one use of the cell.
        world: kind of the world; all its seeds are returned.
        view: kind of split and balance.
        recipe: of the training.
        system: that was trained.
        failed: return failed cells instead of finished ones.
    """
    wanted = {"world": world, "view": view, "recipe": recipe, "system": system}
    return [
        cell
        for cell in cells
        if bool(cell.get("failed") or not cell.get("test")) == failed
        and (part is None or part in parts(cell))
        and all(name is None or cell.get(key) == name for key, name in wanted.items())
    ]


def present(cells: Iterable[Cell], key: str, order: tuple[str, ...] = ()) -> list[str]:
    """Returns the values of a key: first those in `order`, then the others by name."""
    found = {str(cell[key]) for cell in cells}
    return [name for name in order if name in found] + sorted(found - set(order))


def settings(cells: Iterable[Cell]) -> list[tuple[str, str]]:
    """Returns the (world, recipe) pairs that have cells, worlds of one recipe together."""
    cells = list(cells)
    worlds, recipes = present(cells, "world", WORLDS), present(cells, "recipe", RECIPES)
    pairs = {(cell["world"], cell["recipe"]) for cell in cells}
    return [(w, r) for r in recipes for w in worlds if (w, r) in pairs]


def by_world(cells: Iterable[Cell]) -> dict[int, Cell]:
    """Returns the cell of each world seed.

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
    """Returns the seeds' values by world seed, without cells where one is missing or infinite."""
    found = {
        world: list((cell.get(split) or {}).get(metric) or [])
        for world, cell in by_world(cells).items()
    }
    return {world: seeds for world, seeds in found.items() if seeds and all(map(is_number, seeds))}


def estimate(cells: Iterable[Cell], metric: str, split: str = "test") -> Estimate | None:
    """Estimates a metric from the cells of one row."""
    worlds = values(cells, metric, split)
    return stats.over_worlds(worlds) if worlds else None


def reference(cells: Iterable[Cell], name: str, metric: str) -> Estimate | None:
    """Estimates a metric of a ranking without training, over worlds."""
    worlds = {world: [value] for world, value in _reference_values(cells, name, metric).items()}
    return stats.over_worlds(worlds) if worlds else None


def _reference_values(cells: Iterable[Cell], name: str, metric: str) -> dict[int, float]:
    found = {}
    for cell in cells:
        value = ((cell.get("references") or {}).get(name) or {}).get(metric)
        if is_number(value):
            found.setdefault(cell["world_seed"], value)
    return found


def share(cells: Iterable[Cell], name: str, metric: str = "P@10") -> Estimate | None:
    """Estimates a metric as a fraction of a reference ranking's in the same world."""
    cells = list(cells)
    tops = _reference_values(cells, name, metric)
    return _ratio(values(cells, metric), tops)


def above_reference(cells: Iterable[Cell], name: str, metric: str) -> Estimate | None:
    """Estimates a metric minus a reference ranking's, paired by world."""
    cells = list(cells)
    levels = {world: [value] for world, value in _reference_values(cells, name, metric).items()}
    scores = values(cells, metric)
    shared = {world: seeds for world, seeds in scores.items() if world in levels}
    gaps = {world: [seed - levels[world][0] for seed in seeds] for world, seeds in shared.items()}
    return stats.over_worlds(gaps) if gaps else None


def reference_share(
    cells: Iterable[Cell], name: str, top: str, metric: str = "P@10"
) -> Estimate | None:
    """Estimates a reference ranking's metric as a fraction of another's."""
    cells = list(cells)
    worlds = {world: [value] for world, value in _reference_values(cells, name, metric).items()}
    return _ratio(worlds, _reference_values(cells, top, metric))


def _ratio(worlds: dict[int, list[float]], tops: dict[int, float]) -> Estimate | None:
    shares = {
        world: [value / tops[world] for value in seeds]
        for world, seeds in worlds.items()
        if tops.get(world)
    }
    return stats.over_worlds(shares) if shares else None


def compare(
    first: Iterable[Cell],
    second: Iterable[Cell],
    results: str | pathlib.Path,
    metric: str = "P@10",
) -> tuple[Estimate | None, float | None]:
    """Compares two systems: difference over worlds, and p of a randomisation test over videos.

    The test pools the videos of all shared worlds, each with its mean over seeds.

    Args:
        first: cells of one system, one per world seed.
        second: of the other one.
        results: folder that the cells' `per_video` paths are relative to.
        metric: "P@10" or "R@10".

    Returns:
        The difference, None if they share no world, and p, None if per-video values of a shared
        world are missing.

    Raises:
        ValueError: the two were tested on different videos of one world.
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
    """Returns the ids of the test videos, sorted, and the mean metric of each over seeds.

    Both are empty if there is no file, or if its mean is not the cell's: it is of another run.
    """
    path = pathlib.Path(results) / (cell.get("per_video") or "")
    if not path.is_file():
        return np.array([], str), np.zeros(0)
    with np.load(path, allow_pickle=False) as arrays:
        ids_V, values_SV = arrays["video_ids"], arrays[_PER_VIDEO[metric]]
    mean = float(np.mean(cell["test"][metric]))
    if abs(float(np.mean(values_SV, dtype=np.float64)) - mean) > TOLERANCE:
        return np.array([], str), np.zeros(0)
    order_V = np.argsort(ids_V)
    return ids_V[order_V], values_SV.astype(np.float64).mean(axis=0)[order_V]
