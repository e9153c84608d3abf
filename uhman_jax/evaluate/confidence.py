"""Turns scores into confidences: probabilities that a user attaches a suggested hashtag.

A score only orders the hashtags of one clip. `evaluate.calibration` fits the confidence on the
validation split; `recommend` and `demo` read the fit from calibration.json.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError

FILE = "calibration.json"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A fitted confidence.

    Attributes:
        weights: coefficients of the score, the clip's best score, the log rank and 1.
        logits: ascending logits of the logistic regression.
        rates: observed rate of hits at each of the logits, non-decreasing.
        num_videos: number of validation clips that it was fitted on.
    """

    weights: tuple[float, ...]
    logits: tuple[float, ...]
    rates: tuple[float, ...]
    num_videos: int

    def confidence(self, scores_VT: np.ndarray) -> np.ndarray:
        """Returns the probability of each suggestion, float64 in [0, 1].

        Args:
            scores_VT: scores of the best hashtags of each clip, best first.
        """
        logits_VT = inputs(scores_VT) @ np.array(self.weights)
        return np.interp(logits_VT, self.logits, self.rates)


def save(
    workdir: pathlib.Path, fitted: Sequence[Calibration], ensemble: Calibration | None = None
) -> None:
    """Writes the calibrations of all seeds' models and of their ensemble, atomically."""
    content: dict[str, Any] = {"seeds": [dataclasses.asdict(one) for one in fitted]}
    if ensemble:
        content["ensemble"] = dataclasses.asdict(ensemble)
    with storage.atomic_write(workdir / FILE) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def load(workdir: pathlib.Path, index: int | None) -> Calibration | None:
    """Reads the calibration of seed number `index`, or of the ensemble if `index` is None.

    Returns None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    path = workdir / FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        seeds = content.get("seeds", [content])  # files of older runs have only the first seed's
        found = content.get("ensemble") if index is None else next(iter(seeds[index:]), None)
        if found is None:
            return None
        lists = [tuple(map(float, found[name])) for name in ("weights", "logits", "rates")]
        if len(lists[0]) != 4 or not len(lists[1]) == len(lists[2]) > 0:
            raise ValueError("numbers are missing")
        return Calibration(*lists, num_videos=int(found["num_videos"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} must be a file that the evaluation wrote, got a damaged one ({error}); "
            "evaluate the run again with uhman_jax.main --mode=evaluate"
        ) from error


def inputs(scores_VT: np.ndarray) -> np.ndarray:
    """Returns the regression's inputs, float64 (V, T, 4): score, best score, log rank and 1.

    >>> inputs(np.array([[2.0, 1.5]])).round(2).tolist()
    [[[2.0, 2.0, 0.0, 1.0], [1.5, 2.0, 0.69, 1.0]]]
    """
    scores_VT = np.asarray(scores_VT, np.float64)
    ranks_T = np.log(np.arange(1, scores_VT.shape[1] + 1))
    columns = (scores_VT, scores_VT[:, :1], ranks_T, 1.0)
    return np.stack([np.broadcast_to(column, scores_VT.shape) for column in columns], axis=-1)
