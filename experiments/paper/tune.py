"""Tunes every system alike: the same grid, the same budget, on validation alone."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.paper.cells import Cell, Study, config_of, fingerprint, run_cell
from uhman_jax.shards.tfrecord import replacing

# Factors on the recipe's own values. The `paper` recipe is taken to the letter: nothing is tuned.
LEARNING_RATES = (0.4, 1.0, 2.5)
WEIGHT_DECAYS = (0.0, 0.001, 0.003)
TUNED_RECIPES = ("warp", "plus")
NUM_SEEDS = 1
EPOCH_SHARE = 0.5  # of the recipe's epochs: half a run tells a good rate from a bad one


def grid(cell: Cell, study: Study) -> list[tuple[tuple[str, float], ...]]:
    """The settings that are tried for a cell."""
    rate = config_of(cell, study).train.learning_rate
    rates = [round(rate * factor, 6) for factor in LEARNING_RATES]
    return [
        (("train.learning_rate", rate), ("train.weight_decay", decay))
        for rate, decay in itertools.product(rates, WEIGHT_DECAYS)
    ]


class Tuning:
    """What tuning has chosen so far: one line of `tuning.jsonl` per run of the grid.

    A choice is made once per world, recipe and system, on the natural view of the first world seed,
    and holds for its other seeds and views.
    """

    def __init__(self, study: Study, say: Callable[[str], object] = print):
        self._study = dataclasses.replace(
            study, folder=study.folder / "tuning", num_seeds=NUM_SEEDS, num_epochs=0
        )
        self._path = study.folder / "tuning.jsonl"
        self._say = say
        self._rows: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            lines = self._path.read_text("utf-8").splitlines()
            self._rows = {row["key"]: row for row in map(json.loads, lines)}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All runs of all grids so far."""
        return list(self._rows.values())

    def choose(self, cell: Cell) -> Cell:
        """The cell with the settings of the best validation P@10; runs what is missing."""
        if cell.recipe not in TUNED_RECIPES:
            return cell
        base = Cell(cell.world, 0, "natural", cell.recipe, cell.system)
        epochs = max(1, round(EPOCH_SHARE * config_of(base, self._study).train.num_epochs))
        study = dataclasses.replace(self._study, num_epochs=epochs)
        best, settings = -1.0, cell.tuned
        for tried in grid(base, study):
            row = self._row(dataclasses.replace(base, tuned=tried), study)
            if row["score"] is not None and row["score"] > best:
                best, settings = row["score"], tried
        return dataclasses.replace(cell, tuned=settings)

    def _row(self, cell: Cell, study: Study) -> dict[str, Any]:
        key = f"{cell.name}/{fingerprint(config_of(cell, study))}"
        if key not in self._rows:
            result = run_cell(cell, study, self._say)
            score = None if result["failed"] else float(np.mean(result["validation"]["P@10"]))
            self._rows[key] = {
                "key": key,
                "world": cell.world,
                "recipe": cell.recipe,
                "system": cell.system,
                **dict(cell.tuned),
                "epochs": study.num_epochs,
                "score": score,
                "failed": result["failed"],
            }
            write_lines(self._path, self.rows)
            self._say(f"tuned {cell.name} {dict(cell.tuned)}: {score}")
        return self._rows[key]


def write_lines(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Writes one JSON object per line, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        for row in rows:
            file.write((json.dumps(row) + "\n").encode())
