"""From scores to confidence: how likely a user is to attach a suggested hashtag.

A score orders the hashtags of one clip and means nothing by itself. Evaluation fits this to the
validation split, in `evaluate.calibration`; whoever suggests hashtags reads it.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from uhman_jax import storage
from uhman_jax.errors import UserError

FILE = "calibration.json"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was fitted.

    Attributes:
        weights: of score, best score of the clip, log rank, and the constant.
        logits: of the logistic regression, ascending, ...
        rates: ... and the rate of hits observed there, not descending.
        num_videos: validation clips that it was fitted on.
    """

    weights: tuple[float, ...]
    logits: tuple[float, ...]
    rates: tuple[float, ...]
    num_videos: int

    def confidence(self, scores_VT: np.ndarray) -> np.ndarray:
        """Probability of each suggestion, float64 in [0, 1].

        Args:
            scores_VT: of the best hashtags of each clip, best first.
        """
        logits_VT = inputs(scores_VT) @ np.array(self.weights)
        return np.interp(logits_VT, self.logits, self.rates)


def save(workdir: pathlib.Path, fitted: Sequence[Calibration]) -> None:
    """Writes `calibration.json`, one for each seed's model, whole or not at all."""
    content = {"seeds": [dataclasses.asdict(one) for one in fitted]}
    with storage.replacing(workdir / FILE) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def load(workdir: pathlib.Path, place: int) -> Calibration | None:
    """Reads that of one seed, by its place; None where there is none.

    Raises:
        UserError: the file is damaged.
    """
    path = workdir / FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        seeds = content.get("seeds", [content])  # older runs have the first seed's alone
        if place >= len(seeds):
            return None
        lists = {name: tuple(map(float, seeds[place][name])) for name in _LISTS}
        if len(lists["weights"]) != 4 or not len(lists["logits"]) == len(lists["rates"]) > 0:
            raise ValueError("numbers are missing")
        return Calibration(**lists, num_videos=int(seeds[place]["num_videos"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} must be as the evaluation wrote it, got a damaged file ({error}); "
            "evaluate the run again with uhman_jax.main --mode=evaluate"
        ) from error


_LISTS = ("weights", "logits", "rates")


def inputs(scores_VT: np.ndarray) -> np.ndarray:
    """What the regression sees: score, the clip's best score, log rank and 1, float64 (V, T, 4)."""
    scores_VT = np.asarray(scores_VT, np.float64)
    ranks_T = np.log(np.arange(1, scores_VT.shape[1] + 1))
    columns = (scores_VT, scores_VT[:, :1], ranks_T, 1.0)
    return np.stack([np.broadcast_to(column, scores_VT.shape) for column in columns], axis=-1)
