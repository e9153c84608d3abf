"""Runs the paper's study: every system, table and figure, on simulated datasets.

    python -m experiments.paper --quick           # small data, short runs
    python -m experiments.paper                   # many hours on two cores, resumable
    python -m experiments.paper --root=clips      # on your own dataset

A cell is one system, trained with one recipe on one view of one dataset. Finished cells are stored
in `<folder>/results.jsonl` and not run again; a stopped cell resumes from its checkpoint. Tables,
figures and the page are written at the end, also after a signal, when the exit status is 75.
"""

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from absl import flags
from tqdm import tqdm

from experiments.paper.page import write_all
from experiments.paper.recipes import RECIPES, VARIANTS
from experiments.paper.results_log import Rows
from experiments.paper.trials import SYSTEMS, WORLDS, Cell, Study, prepare_world, run_cell
from experiments.paper.tune import Tuning
from experiments.paper.workers import Interrupted, Workers, num_workers
from uhman_jax.runtime import lock, signals
from uhman_jax.runtime.errors import UserError, exit_on_user_error
from uhman_jax.runtime.streams import run_app

PARTS = ("tables", "recipe", "figure4a", "figure4b", "sizes", "views")
COMPARED = ("BL", "UA", "3WM", "UHMAN")  # systems without the ablations
SIZES = (8, 16, 32, 64, 128)  # K and d of Fig. 4
SHARES = (0.25, 0.5)  # fractions of the training videos; the tables use all of them

_QUICK = flags.DEFINE_bool("quick", False, "Small simulated datasets, two seeds, short runs.")
_ROOT = flags.DEFINE_string("root", "", "Raw dataset with clips; empty: simulated data.")
_FOLDER = flags.DEFINE_string(
    "folder", "", "Folder of results; empty: runs/paper, or runs/paper-quick with --quick."
)
_DATA = flags.DEFINE_string("simulated_dir", "data", "Folder of simulated datasets.")
_WORLDS = flags.DEFINE_list("worlds", list(WORLDS), "Kinds of simulated dataset.")
_WORLD_SEEDS = flags.DEFINE_integer(
    "world_seeds", 0, "Datasets of each kind; 0: 5, or 1 with --quick.", lower_bound=0
)
_RECIPES = flags.DEFINE_list(
    "recipes", [], "Recipes, the first with all parts; empty: all, or plus with --quick."
)
_PARTS = flags.DEFINE_list("parts", list(PARTS), "Parts to run.")
_SEEDS = flags.DEFINE_integer(
    "num_seeds", 0, "Models per cell; 0: 1, 2 with --quick, 5 with --root.", lower_bound=0
)
_WORKERS = flags.DEFINE_integer(
    "num_workers", 0, "Cells at once; 0: one per core, at most 8; one on a GPU.", lower_bound=0
)
_EPOCHS = flags.DEFINE_integer(
    "num_epochs", 0, "Epochs of each cell; 0: the recipe's, or 8 with --quick.", lower_bound=0
)


def planned() -> Iterator[Cell]:
    """Yields the cells, the most important ones first.

    The tables cover both views: the first recipe on every world, and the other recipes on the first
    world. The paper's ablations run on the natural view with the first recipe. Sweeps of
    K and d, other views, data sizes and changes of the recipe run on the first world with the first
    recipe.
    """
    quick, parts = _QUICK.value, _PARTS.value
    worlds = ["data"] if _ROOT.value else _WORLDS.value
    seeds = range(1 if _ROOT.value else _WORLD_SEEDS.value or (1 if quick else 5))
    recipes = _RECIPES.value or (["plus"] if quick else ["plus", "warp", "paper"])
    first, recipe = worlds[0], recipes[0]
    tables = itertools.product(seeds, recipes, worlds, ("natural", "balanced"))
    for world_seed, name, world, view in tables if "tables" in parts else ():
        if name == recipe or world == first:
            ablations = view == "natural" and name == recipe
            for system in SYSTEMS if ablations else COMPARED:
                yield Cell(world, world_seed, view, name, system)
    variants = [name for name in VARIANTS if name.startswith("without") or not quick]
    sizes = SIZES[1::2] if quick else SIZES
    changes: dict[str, list[dict[str, Any]]] = {
        "recipe": [{"variant": name} for name in variants if recipe == "plus"],
        "figure4a": [{"hidden_size": size} for size in sizes],
        "figure4b": [{"embedding_size": size} for size in sizes],
        "sizes": [{"system": name, "data_share": x} for name in COMPARED for x in SHARES],
        "views": [{"system": x, "view": y} for x in COMPARED for y in ("temporal", "cold_user")],
    }
    for world_seed in seeds:
        base = Cell(first, world_seed, "natural", recipe, "UHMAN")
        for part, fields in changes.items():
            if part in parts:
                yield from (dataclasses.replace(base, **change) for change in fields)


def main(_: list[str]) -> None:
    """Runs the missing cells and writes all results; a user's mistake exits with status 2."""
    with exit_on_user_error():
        for flag, given, known in (
            ("worlds", _WORLDS.value, WORLDS),
            ("recipes", _RECIPES.value or list(RECIPES), RECIPES),
            ("parts", _PARTS.value, PARTS),
        ):
            unknown = [name for name in given if name not in known]
            if unknown or not given:
                got = ", ".join(unknown) or "none"
                raise UserError(f"--{flag} must name some of {', '.join(known)}, got {got}")
        quick = _QUICK.value
        folder = pathlib.Path(_FOLDER.value or ("runs/paper-quick" if quick else "runs/paper"))
        study = Study(
            folder,
            data_dir=_DATA.value,
            root=_ROOT.value,
            num_seeds=_SEEDS.value or (2 if quick else 5 if _ROOT.value else 1),
            num_epochs=_EPOCHS.value or (8 if quick else 0),
            shrink=quick,
        )
        with lock.hold(folder, "wait for it, or use another --folder"):
            run_cells(list(planned()), study)


def run_cells(cells: list[Cell], study: Study) -> None:
    """Tunes and trains the missing cells; writes the results, even if a signal stops it."""
    rows, stopped = Rows(study.folder), False
    try:
        with Workers(_WORKERS.value or num_workers()) as workers:
            if not _QUICK.value:
                tuning = Tuning(study)
                runs = tuning.missing(cells)
                prepare_worlds(workers, [cell for cell, _ in runs], study)
                for index, result in workers.run(run_cell, runs, desc="tuning", unit="run"):
                    tuning.record(runs[index], result)
                cells = [tuning.choose(cell) for cell in cells]
            missing = rows.missing(cells, study)
            prepare_worlds(workers, missing, study)
            tasks, done = [(cell, study) for cell in missing], len(cells) - len(missing)
            for _, row in workers.run(run_cell, tasks, done=done, desc="study", unit="cell"):
                rows.add(row)
                if row["failed"]:
                    tqdm.write(f"{row['cell']}: {row['failed']}")
    except Interrupted:
        stopped = True
    rows.add_equals(cells, study)
    write_all(rows.of(cells, study), study.folder)
    if stopped:
        print(signals.MESSAGE, file=sys.stderr)
        sys.exit(signals.STOPPED)
    print(f"{len(cells)} cells; tables.md, study.html and the figures are in {study.folder}")


def prepare_worlds(workers: Workers, cells: list[Cell], study: Study) -> None:
    """Simulates each dataset of the cells once, before cells that share it run in parallel."""
    tasks = [(cell, study) for cell in {(c.world, c.world_seed): c for c in cells}.values()]
    for _ in workers.run(prepare_world, tasks, desc="datasets", unit="dataset"):
        pass


if __name__ == "__main__":
    run_app(main)
