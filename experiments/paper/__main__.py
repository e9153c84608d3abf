"""The paper's study: every system, every table and figure, on worlds whose truth is known.

    python -m experiments.paper --quick           # the same tables from less
    python -m experiments.paper                   # all of it: many hours on two cores, resumable
    python -m experiments.paper --root=clips      # on your own dataset

Cells that are done are kept in `<folder>/results.jsonl` and never run again; one that was stopped
goes on where it was. Tables, figures and the page are written anew after every cell. Exit status as
of `uhman_jax.main`: 75 when stopped by a signal.
"""

import json
import os
import pathlib
import sys
from collections.abc import Iterator

from absl import app, flags, logging
from tqdm import tqdm

from experiments.paper.cells import (
    SYSTEMS,
    Cell,
    Interrupted,
    Study,
    config_of,
    fingerprint,
    run_cell,
)
from experiments.paper.page import write_all
from experiments.paper.recipes import RECIPES
from experiments.paper.tune import Tuning, write_lines
from experiments.paper.worlds import WORLDS

PARTS = ("tables", "figure4a", "figure4b", "sizes", "views")
SIZES = (8, 16, 32, 64, 128)  # K and d of Fig. 4
SHARES = (0.25, 0.5)  # of the training videos; the whole is in the tables

_QUICK = flags.DEFINE_bool("quick", False, "Small worlds, two seeds, short runs.")
_ROOT = flags.DEFINE_string("root", "", "Raw dataset with clips; empty: simulated worlds.")
_FOLDER = flags.DEFINE_string("folder", "", "Results; runs/paper or runs/paper-quick if empty.")
_DATA = flags.DEFINE_string("simulated_dir", "data", "Where simulated datasets are kept.")
_WORLDS = flags.DEFINE_list("worlds", list(WORLDS), "Worlds to study.")
_WORLD_SEEDS = flags.DEFINE_integer("world_seeds", 0, "Seeds of each world; 0: 2, or 1 if quick.")
_RECIPES = flags.DEFINE_list(
    "recipes", [], "Recipes, the first in full; empty: all, plus if quick."
)
_PARTS = flags.DEFINE_list("parts", list(PARTS), "What to run.")
_SEEDS = flags.DEFINE_integer("num_seeds", 0, "Seeds of each cell; 0: 5, or 2 if quick.")
_EPOCHS = flags.DEFINE_integer("num_epochs", 0, "Epochs of each cell; 0: the recipe's.")


def planned() -> Iterator[Cell]:
    """The cells in the order in which they are most worth having.

    Tables of both views come for every recipe and world; the curves, other views and data sizes for
    the first recipe on the first world.
    """
    worlds = ["data"] if _ROOT.value else _WORLDS.value
    seeds = range(1 if _ROOT.value else _WORLD_SEEDS.value or (1 if _QUICK.value else 2))
    recipes = _RECIPES.value or (["plus"] if _QUICK.value else ["plus", "warp", "paper"])
    first, recipe = worlds[0], recipes[0]
    if "tables" in _PARTS.value:
        for world_seed in seeds:
            for world in worlds:
                for view in ("natural", "balanced"):
                    for name in recipes:
                        for system in SYSTEMS:
                            yield Cell(world, world_seed, view, name, system)
    systems = [system for system in SYSTEMS if "(" not in system]
    for size in SIZES[1::2] if _QUICK.value else SIZES:
        if "figure4a" in _PARTS.value:
            yield Cell(first, 0, "natural", recipe, "UHMAN", hidden_size=size)
        if "figure4b" in _PARTS.value:
            yield Cell(first, 0, "natural", recipe, "UHMAN", embedding_size=size)
    if "sizes" in _PARTS.value:
        for share in SHARES:
            for system in systems:
                yield Cell(first, 0, "natural", recipe, system, data_share=share)
    if "views" in _PARTS.value:
        for view in ("temporal", "cold_user"):
            for system in systems:
                yield Cell(first, 0, view, recipe, system)


def read_results(path: pathlib.Path) -> dict[str, dict]:
    """Rows of an earlier start by name and fingerprint of their cell."""
    if not path.exists():
        return {}
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return {f"{row['cell']}/{row['fingerprint']}": row for row in rows}


def main(argv: list[str]) -> None:
    """Runs what is missing and writes what there is."""
    if len(argv) > 1:
        sys.exit(f"settings are given as --flag=value, got {argv[1]!r}; see --help")
    for flag, given, known in (
        ("worlds", _WORLDS.value, WORLDS),
        ("recipes", _RECIPES.value or list(RECIPES), RECIPES),
        ("parts", _PARTS.value, PARTS),
    ):
        if unknown := [name for name in given if name not in known] or not given:
            sys.exit(f"--{flag} must name some of {', '.join(known)}, got {unknown}")
    logging.set_verbosity(logging.WARNING)  # orbax tells of every file
    folder = pathlib.Path(_FOLDER.value or ("runs/paper-quick" if _QUICK.value else "runs/paper"))
    study = Study(
        folder,
        data_dir=_DATA.value,
        root=_ROOT.value,
        num_seeds=_SEEDS.value or (2 if _QUICK.value else 5),
        num_epochs=_EPOCHS.value or (8 if _QUICK.value else 0),
        shrink=_QUICK.value,
    )
    path = folder / "results.jsonl"
    rows, tuning = read_results(path), Tuning(study, tqdm.write)
    cells = list(planned())
    done = []
    try:
        with tqdm(cells, desc="study", unit="cell") as progress:
            for cell in progress:
                progress.set_postfix_str(cell.name)
                cell = cell if _QUICK.value else tuning.choose(cell)
                key = f"{cell.name}/{fingerprint(config_of(cell, study))}"
                if key not in rows:
                    rows[key] = run_cell(cell, study, tqdm.write)
                    write_lines(path, list(rows.values()))
                done.append(rows[key])
    except Interrupted:
        write_all(done, folder)
        print("Stopped; the same command goes on from there.", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    write_all(done, folder)
    print(f"{len(done)} cells; tables.md, study.html and the figures are in {folder}")


if __name__ == "__main__":
    app.run(main)
