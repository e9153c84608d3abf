"""Tunes every system with the same grid and the same budget, judged only on validation."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.paper.results_log import read_lines, write_lines
from experiments.paper.trials import Cell, Study, config_of, key_of

# One setting is changed at a time. The recipe `paper` follows the paper and is not tuned.
LEARNING_RATES = (0.4, 2.5)  # multiples of the recipe's
WEIGHT_DECAYS = (0.0, 0.001, 0.003)
HISTORY_DROPOUTS = (0.0, 0.5)
TUNED_RECIPES = ("warp", "plus")
NUM_SEEDS = 1
EPOCH_SHARE = 0.5  # of the recipe's epochs: half a run separates good rates from bad ones
# A setting must be better than the recipe's by this fraction. BL uses no history, so its runs with
# history dropout differ only by chance: by 0.5, 2.2, 0.8 and 0.7 % in the four grids.
MIN_GAIN = 0.02


def grid(cell: Cell, study: Study) -> list[tuple[tuple[str, float], ...]]:
    """Returns the settings to try for a cell; the recipe's own come first."""
    config = config_of(cell, study)
    own = {
        "train.learning_rate": config.train.learning_rate,
        "train.weight_decay": config.train.weight_decay,
        "model.history_dropout": config.model.history_dropout,
    }
    rates = [round(config.train.learning_rate * factor, 6) for factor in LEARNING_RATES]
    tried = zip(own, (rates, WEIGHT_DECAYS, HISTORY_DROPOUTS), strict=True)
    others = [own | {path: value} for path, values in tried for value in values]
    return [tuple(settings.items()) for settings in (own, *(x for x in others if x != own))]


Run = tuple[Cell, Study]  # one run of a grid: the arguments of `run_cell`


class Tuning:
    """The results of tuning: one line of `tuning.jsonl` per run of a grid.

    A choice is made once per world, recipe and system, on the natural view of the first dataset. It
    is used for all datasets and views. The ablations of UHMAN use UHMAN's choice.
    """

    def __init__(self, study: Study):
        self._study = dataclasses.replace(
            study, folder=study.folder / "tuning", num_seeds=NUM_SEEDS, num_epochs=0
        )
        self._path = study.folder / "tuning.jsonl"
        self._rows = {row["key"]: row for row in read_lines(self._path)}

    def missing(self, cells: Sequence[Cell]) -> list[Run]:
        """Returns the runs that `choose` still needs for these cells."""
        runs = {key: run for cell in cells for key, run in self._runs(cell).items()}
        return [run for key, run in runs.items() if key not in self._rows]

    def record(self, run: Run, result: dict[str, Any]) -> None:
        """Saves the result of a run."""
        cell, key = run[0], key_of(*run)
        self._rows[key] = {
            "key": key,
            "world": cell.world,
            "recipe": cell.recipe,
            "system": cell.system,
            **dict(cell.tuned),
            "epochs": config_of(*run).train.num_epochs,
            "score": None if result["failed"] else float(np.mean(result["validation"]["P@10"])),
            "failed": result["failed"],
        }
        write_lines(self._path, self._rows.values())

    def choose(self, cell: Cell) -> Cell:
        """Returns the cell with the best settings on validation, or the recipe's (see MIN_GAIN)."""
        runs = self._runs(cell).items()
        scores = {tried.tuned: self._rows[key]["score"] for key, (tried, _) in runs}
        scores = {settings: score for settings, score in scores.items() if score is not None}
        if not scores:
            return cell
        best, own = max(scores, key=scores.__getitem__), next(iter(scores))
        # `own` is the recipe's settings, unless these diverged.
        better = scores[best] > (1 + MIN_GAIN) * scores[own]
        return dataclasses.replace(cell, tuned=best if better else own)

    def _runs(self, cell: Cell) -> dict[str, Run]:
        if cell.recipe not in TUNED_RECIPES:
            return {}
        system = "UHMAN" if cell.system.startswith("UHMAN") else cell.system
        base = Cell(cell.world, 0, "natural", cell.recipe, system)
        recipe = config_of(dataclasses.replace(base, system="UHMAN"), self._study)
        epochs = max(1, round(EPOCH_SHARE * recipe.train.num_epochs))
        study = dataclasses.replace(self._study, num_epochs=epochs)
        cells = [dataclasses.replace(base, tuned=tried) for tried in grid(base, study)]
        return {key_of(tuned, study): (tuned, study) for tuned in cells}
