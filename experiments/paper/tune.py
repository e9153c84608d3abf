"""Tunes every system alike: the same grid, the same budget, on validation alone."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.paper.cells import Cell, Study, config_of, key_of
from uhman_jax.storage import replacing

# One at a time, around the recipe. `paper` is taken to the letter: nothing is tuned.
LEARNING_RATES = (0.4, 2.5)  # times the recipe's
WEIGHT_DECAYS = (0.0, 0.001, 0.003)
HISTORY_DROPOUTS = (0.0, 0.5)
TUNED_RECIPES = ("warp", "plus")
NUM_SEEDS = 1
EPOCH_SHARE = 0.5  # of the recipe's epochs: half a run tells a good rate from a bad one
# Another setting than the recipe's must be better by this share. BL knows no history, so that its
# run with history dropout differs by chance alone: by 0.5, 2.2, 0.8 and 0.7 % in the four grids.
MIN_GAIN = 0.02


def grid(cell: Cell, study: Study) -> list[tuple[tuple[str, float], ...]]:
    """The settings that are tried for a cell, the recipe's own first."""
    config = config_of(cell, study)
    own = {
        "train.learning_rate": config.train.learning_rate,
        "train.weight_decay": config.train.weight_decay,
        "model.history_dropout": config.model.history_dropout,
    }
    others = [
        ("train.learning_rate", round(own["train.learning_rate"] * factor, 6))
        for factor in LEARNING_RATES
    ]
    others += [("train.weight_decay", value) for value in WEIGHT_DECAYS]
    others += [("model.history_dropout", value) for value in HISTORY_DROPOUTS]
    changed = [own | {path: value} for path, value in others if value != own[path]]
    return [tuple(settings.items()) for settings in (own, *changed)]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a grid: what `run_cell` takes, and the key of its line."""

    key: str
    cell: Cell
    study: Study


class Tuning:
    """What tuning has chosen so far: one line of `tuning.jsonl` per run of the grid.

    A choice is made once per world, recipe and system, on the natural view of the first world seed,
    and holds for its other seeds and views. UHMAN's holds for its ablations, which differ from it
    in nothing else.
    """

    def __init__(self, study: Study):
        self._study = dataclasses.replace(
            study, folder=study.folder / "tuning", num_seeds=NUM_SEEDS, num_epochs=0
        )
        self._path = study.folder / "tuning.jsonl"
        self._rows = {row["key"]: row for row in read_lines(self._path)}

    def missing(self, cells: Sequence[Cell]) -> list[Run]:
        """Runs that `choose` needs for these cells and that were not made yet."""
        runs = {run.key: run for cell in cells for run in self._runs(cell)}
        return [run for run in runs.values() if run.key not in self._rows]

    def record(self, run: Run, result: dict[str, Any]) -> None:
        """Keeps what a run of the grid gave."""
        score = None if result["failed"] else float(np.mean(result["validation"]["P@10"]))
        self._rows[run.key] = {
            "key": run.key,
            "world": run.cell.world,
            "recipe": run.cell.recipe,
            "system": run.cell.system,
            **dict(run.cell.tuned),
            "epochs": config_of(run.cell, run.study).train.num_epochs,
            "score": score,
            "failed": result["failed"],
        }
        write_lines(self._path, list(self._rows.values()))

    def choose(self, cell: Cell) -> Cell:
        """The cell with the settings of the best validation P@10, or of the recipe if as good."""
        scored = [
            (score, run.cell.tuned)
            for run in self._runs(cell)
            if (score := self._rows[run.key]["score"]) is not None
        ]
        if not scored:
            return cell
        best = max(scored, key=lambda pair: pair[0])
        own = scored[0]  # with the recipe's settings, unless these diverged
        settings = best[1] if best[0] > (1 + MIN_GAIN) * own[0] else own[1]
        return dataclasses.replace(cell, tuned=settings)

    def _runs(self, cell: Cell) -> list[Run]:
        if cell.recipe not in TUNED_RECIPES:
            return []
        system = "UHMAN" if cell.system.startswith("UHMAN") else cell.system
        base = Cell(cell.world, 0, "natural", cell.recipe, system)
        recipe = config_of(dataclasses.replace(base, system="UHMAN"), self._study)
        epochs = max(1, round(EPOCH_SHARE * recipe.train.num_epochs))
        study = dataclasses.replace(self._study, num_epochs=epochs)
        runs = []
        for tried in grid(base, study):
            tuned = dataclasses.replace(base, tuned=tried)
            runs.append(Run(key_of(tuned, study), tuned, study))
        return runs


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_lines(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Writes one JSON object per line, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        for row in rows:
            file.write((json.dumps(row) + "\n").encode())
