"""Selects and compares cells.

A cell is one trained system on one simulated dataset ("world" and "world_seed"), view and recipe: a
dict of `results.jsonl`. A value that was not measured is None.
"""

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
WORLDS = ("selection", "additive", "everything")  # simulated; others, such as "data", come last
PAIR = ("natural", "balanced")  # views of Tables 1 and 2
VIEWS = (*PAIR, "temporal", "cold_user")
RECIPES = ("plus", "warp", "paper")
# Parts of the study that use a cell; see `parts`.
TABLES, HIDDEN_SIZE, EMBEDDING_SIZE, SAMPLE_SIZE = "tables", "figure4a", "figure4b", "sizes"
RECIPE = "recipe"
SWEEPS = {HIDDEN_SIZE: ("hidden_size", "K"), EMBEDDING_SIZE: ("embedding_size", "d")}
# Rankings without training: keys of metrics.json and titles, the least informed first.
REFERENCES = {
    "popularity": "Popularity",
    "user_attributes": "Popularity among equal users",
    "user_history": "The user's own history",
    "user_oracle": "Oracle, user only",
    "content_oracle": "Oracle, clip only",
    "additive_oracle": "Oracle, user plus clip",
    "observable_oracle": "Observable oracle",
    "oracle": "Oracle",
}
TOLERANCE = 5e-4  # between a cell's P@10 and its mean over videos: ties may rank differently


def parts(cell: Cell) -> list[str]:
    """Returns the parts of the study that use a cell, derived from its name.

    >>> parts({"cell": "selection-0/natural/plus/uhman-d8"})
    ['figure4b']
    >>> parts({"cell": "selection-0/natural/plus/uhman"})
    ['tables', 'sizes']
    """
    changed = cell["cell"].rsplit("/", 1)[-1].split("-")[1:]
    kinds = {"K": HIDDEN_SIZE, "d": EMBEDDING_SIZE, "x": SAMPLE_SIZE, "w": RECIPE}
    return [kinds[text[0]] for text in changed if text[0] in kinds] or [TABLES, SAMPLE_SIZE]


def select(
    cells: Iterable[Cell], *, part: str | None = TABLES, failed: bool = False, **fields: Any
) -> list[Cell]:
    """Returns the finished (or failed) cells of a part (None: of all) with these field values."""
    return [
        cell
        for cell in where(cells, **fields)
        if bool(cell["failed"]) == failed and (part is None or part in parts(cell))
    ]


def where(cells: Iterable[Cell], **fields: Any) -> list[Cell]:
    """Returns the cells with these field values."""
    return [cell for cell in cells if all(cell[key] == value for key, value in fields.items())]


def present(cells: Iterable[Cell], key: str, order: tuple[str, ...] = ()) -> list[str]:
    """Returns the distinct values of a key, sorted by `order`, then by name."""
    found = {str(cell[key]) for cell in cells}
    return [name for name in order if name in found] + sorted(found - set(order))


def settings(cells: Collection[Cell]) -> list[tuple[str, str]]:
    """Returns the (world, recipe) pairs with cells, recipe by recipe."""
    worlds, recipes = present(cells, "world", WORLDS), present(cells, "recipe", RECIPES)
    pairs = {(cell["world"], cell["recipe"]) for cell in cells}
    return [(w, r) for r in recipes for w in worlds if (w, r) in pairs]


def sweep(cells: Iterable[Cell], part: str) -> dict[int, list[Cell]]:
    """Returns UHMAN's cells on the natural view by the size that the part varies (SWEEPS)."""
    chosen, key = select(cells, part=part, view="natural", system="UHMAN"), SWEEPS[part][0]
    return {size: where(chosen, **{key: size}) for size in sorted({c[key] for c in chosen})}


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


def values(cells: Iterable[Cell], metric: str, source: str = "test") -> dict[int, list[float]]:
    """Returns the seeds' values by world seed; leaves out cells with a non-finite value.

    Args:
        cells: one per world seed; for a reference ranking, any number.
        metric: name of a score or fact.
        source: key of the cell, such as "test" or "attention", or a key of REFERENCES.
    """
    found: dict[int, list[float]] = {}
    is_reference = source in REFERENCES
    for cell in cells if is_reference else by_world(cells).values():
        scores = (cell["references"] if is_reference else cell).get(source) or {}
        seeds: Any = [scores.get(metric)] if is_reference else scores.get(metric)
        if seeds and all(map(is_number, seeds)):
            found.setdefault(cell["world_seed"], seeds)
    return found


def estimate(cells: Iterable[Cell], metric: str, source: str = "test") -> Estimate | None:
    """Estimates a metric from the cells of one row; takes the arguments of `values`."""
    return stats.over_worlds(values(cells, metric, source))


def compare(
    first: Iterable[Cell], second: Iterable[Cell], results: pathlib.Path
) -> tuple[Estimate | None, float | None]:
    """Compares the P@10 of two systems by its difference and a randomisation test over videos.

    The test pools the videos of all shared datasets, each with its mean over seeds.

    Args:
        first: cells of one system, one per world seed.
        second: cells of the other system.
        results: folder that the cells' `per_video` paths are relative to.

    Returns:
        The difference, None without a shared dataset; and p, None if per-video values are missing.

    Raises:
        ValueError: the systems were tested on different videos of one dataset.
    """
    one, two = by_world(first), by_world(second)
    scores, other_scores = values(one.values(), "P@10"), values(two.values(), "P@10")
    gap = stats.difference(scores, other_scores)
    if gap is None:
        return None, None
    differences: list[float] = []
    for world in [world for world in scores if world in other_scores]:
        found, other = per_video(one[world], results), per_video(two[world], results)
        if not found or not other:
            return gap, None
        if found.keys() != other.keys():
            raise ValueError(
                f"{one[world]['cell']} and {two[world]['cell']} must rank the same test videos to "
                "be compared, got different ones; train both on one view"
            )
        differences += [score - other[video_id] for video_id, score in found.items()]
    return gap, stats.sign_flip_p(np.array(differences))


def per_video(cell: Cell, results: pathlib.Path) -> dict[str, float]:
    """Returns the P@10 of each test video, averaged over seeds, in the order of their ids.

    Empty if the file is missing or belongs to another run (its mean differs from the cell's).
    """
    path = results / cell.get("per_video", "")
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        ids_V, p10_SV = arrays["video_ids"], arrays["p10_SV"].astype(np.float64)
    if abs(p10_SV.mean() - np.mean(cell["test"]["P@10"])) > TOLERANCE:
        return {}
    return dict(sorted(zip(ids_V.tolist(), p10_SV.mean(axis=0).tolist(), strict=True)))
