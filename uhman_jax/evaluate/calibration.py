"""From scores to confidence: how likely a user is to attach a suggested hashtag.

A score orders the hashtags of one clip and means nothing by itself. The confidence is fitted on the
best hashtags of every validation clip: a logistic regression on a hashtag's score, the clip's best
score and the logarithm of the rank, and on top of it the observed rates (isotonic regression,
Zadrozny and Elkan 2002). Of two hashtags of a clip the better ranked one never has less of it.
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

from uhman_jax.dataset.view import View
from uhman_jax.errors import UserError
from uhman_jax.evaluate.ranking import Ranking
from uhman_jax.evaluate.results import write_json

FILE = "calibration.json"
_RIDGE = 1e-3  # on standardised coefficients: keeps them finite where few clips tell all apart
_MIN_PER_BIN, _MIN_BINS, _MAX_BINS = 100, 5, 50  # suggestions per observed rate
_ERROR_BINS = 10


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
        logits_VT = _inputs(scores_VT) @ np.array(self.weights)
        return np.interp(logits_VT, self.logits, self.rates)

    def save(self, workdir: pathlib.Path) -> None:
        """Writes `calibration.json`."""
        write_json(workdir / FILE, dataclasses.asdict(self))

    @classmethod
    def load(cls, workdir: pathlib.Path) -> "Calibration | None":
        """Reads what `save` wrote; None where there is none.

        Raises:
            UserError: the file is damaged.
        """
        path = workdir / FILE
        try:
            values: dict[str, Any] = json.loads(path.read_text("utf-8"))
            lists = {name: tuple(map(float, values[name])) for name in _LISTS}
            if len(lists["weights"]) != 4 or len(lists["logits"]) != len(lists["rates"]) > 0:
                raise ValueError("numbers are missing")
            return cls(**lists, num_videos=int(values["num_videos"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} must be as the evaluation wrote it, got a damaged file ({error}); "
                "evaluate the run again with --mode=evaluate"
            ) from error


_LISTS = ("weights", "logits", "rates")


def hits_of(view: View, ranking: Ranking, seed: int = 0) -> np.ndarray:
    """Bool (V, T): whether each of the best hashtags is one of the clip's own."""
    top_VT = ranking.top_SVT[seed]
    own = [view.positives.row(row) for row in ranking.rows_V]
    return np.array([np.isin(top_T, own_P) for top_T, own_P in zip(top_VT, own, strict=True)])


def fit(scores_VT: np.ndarray, hits_VT: np.ndarray) -> Calibration:
    """Fits the confidence to what was suggested and what was right.

    >>> scores = np.tile([3.0, 2.0, 1.0], (400, 1))
    >>> hits = np.arange(400)[:, None] % np.array([2, 4, 8]) == 0
    >>> fit(scores, hits).confidence(scores[:1]).round(2).tolist()
    [[0.5, 0.25, 0.13]]

    Args:
        scores_VT: of the best hashtags of each clip, best first.
        hits_VT: bool.
    """
    inputs_NX = _inputs(scores_VT).reshape(-1, 4)
    hits_N = hits_VT.ravel().astype(np.float64)
    mean_X, std_X = inputs_NX.mean(axis=0), inputs_NX.std(axis=0)
    mean_X[3], std_X = 0.0, np.where(std_X > 1e-9, std_X, 1.0)
    standard_NX = (inputs_NX - mean_X) / std_X

    def loss(weights_X):
        logits_N = standard_NX @ weights_X
        value = np.mean(np.logaddexp(0, logits_N) - hits_N * logits_N)
        residual_N = scipy.special.expit(logits_N) - hits_N
        ridge_X = np.array([_RIDGE, _RIDGE, _RIDGE, 0.0]) * weights_X
        gradient_X = standard_NX.T @ residual_N / len(hits_N) + ridge_X
        return value + 0.5 * ridge_X @ weights_X, gradient_X

    bounds = [(0, None), (None, None), (None, 0), (None, None)]  # so that ranks keep their order
    found_X = scipy.optimize.minimize(loss, np.zeros(4), jac=True, bounds=bounds).x
    weights_X = found_X / std_X
    weights_X[3] -= weights_X[:3] @ mean_X[:3]
    logits, rates = _observed(inputs_NX @ weights_X, hits_N)
    return Calibration(tuple(weights_X.tolist()), logits, rates, len(scores_VT))


def _inputs(scores_VT: np.ndarray) -> np.ndarray:
    """Score, the clip's best score, log rank and 1, float64 (V, T, 4)."""
    scores_VT = np.asarray(scores_VT, np.float64)
    ranks_T = np.log(np.arange(1, scores_VT.shape[1] + 1))
    columns = (scores_VT, scores_VT[:, :1], ranks_T, 1.0)
    return np.stack([np.broadcast_to(column, scores_VT.shape) for column in columns], axis=-1)


def _observed(
    logits_N: np.ndarray, hits_N: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean logit and rate of hits of equally large groups; no rate is 0 or 1.

    Where there are too few suggestions for five groups the regression stands as it is.
    """
    num_bins = min(len(logits_N) // _MIN_PER_BIN, _MAX_BINS)
    if num_bins < _MIN_BINS:
        grid = np.linspace(logits_N.min() - 1, logits_N.max() + 1, _MAX_BINS)
        return tuple(grid.tolist()), tuple(scipy.special.expit(grid).tolist())
    order = np.argsort(logits_N, kind="stable")
    groups = [group for group in np.array_split(order, num_bins) if len(group)]
    sizes = np.array([len(group) for group in groups], np.float64)
    hits = np.array([hits_N[group].sum() for group in groups])
    prior = (hits_N.sum() + 1) / (len(hits_N) + 2)
    rates = scipy.optimize.isotonic_regression((hits + prior) / (sizes + 1), weights=sizes).x
    logits = [float(logits_N[group].mean()) for group in groups]
    return tuple(logits), tuple(rates.tolist())


def error(confidence_VT: np.ndarray, hits_VT: np.ndarray) -> float:
    """Expected calibration error (Naeini et al. 2015): |confidence - rate of hits|, averaged.

    Over ten groups of equal width. Here 0.6 was said and half was right, then 0.2 and nothing:

    >>> error(np.array([[0.6, 0.2], [0.6, 0.2]]), np.array([[True, False], [False, False]]))
    0.15
    """
    said_N, hits_N = confidence_VT.ravel(), hits_VT.ravel()
    group_N = np.minimum((said_N * _ERROR_BINS).astype(int), _ERROR_BINS - 1)
    sums = [np.bincount(group_N, x, _ERROR_BINS) for x in (said_N, hits_N)]
    return round(float(np.abs(sums[0] - sums[1]).sum() / len(said_N)), 12)
