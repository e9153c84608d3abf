"""Fits `confidence` on the best hashtags of every validation clip, and measures its error.

A logistic regression has as inputs a hashtag's score, the clip's best score and the logarithm of
the rank. Isotonic regression (Zadrozny and Elkan 2002) maps its result to observed rates of hits.
Within a clip the confidence never rises with the rank.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import special

from uhman_jax.dataset.view import View
from uhman_jax.evaluate.confidence import Calibration, inputs
from uhman_jax.evaluate.ranking import Ranking
from uhman_jax.scores import Score, Scores

_RIDGE = 1e-3  # L2 penalty; keeps the coefficients finite if the hits are separable
_MIN_PER_BIN, _MIN_BINS, _MAX_BINS = 100, 5, 50  # suggestions per bin; number of bins
_GROUPS = 10  # intervals of confidence in `reliability`


def hits_of(view: View, ranking: Ranking, seed: int = 0) -> np.ndarray:
    """Returns hits_VT, bool: whether each of the best hashtags is a positive of its clip."""
    top_VT = ranking.top_SVT[seed]
    own = [view.positives.row(row) for row in ranking.rows_V]
    return np.array([np.isin(top_T, own_P) for top_T, own_P in zip(top_VT, own, strict=True)])


def fit_seeds(view: View, ranking: Ranking) -> list[Calibration]:
    """Fits the confidence of every seed's model on a ranking of the validation split."""
    return [
        fit(scores_VT, hits_of(view, ranking, seed))
        for seed, scores_VT in enumerate(ranking.top_scores_SVT)
    ]


def fit(scores_VT: np.ndarray, hits_VT: np.ndarray) -> Calibration:
    """Fits the confidence on scores of suggestions and their hits.

    >>> scores = np.tile([3.0, 2.0, 1.0], (400, 1))
    >>> hits = np.arange(400)[:, None] % np.array([2, 4, 8]) == 0
    >>> fit(scores, hits).confidence(scores[:1]).round(2).tolist()
    [[0.5, 0.25, 0.13]]

    Args:
        scores_VT: scores of the best hashtags of each clip, best first.
        hits_VT: bool, True for a hashtag of the clip.
    """
    inputs_NX = inputs(scores_VT).reshape(-1, 4)
    hits_N = hits_VT.ravel().astype(np.float64)
    mean_X, std_X = inputs_NX.mean(axis=0), inputs_NX.std(axis=0)
    mean_X[3], std_X = 0.0, np.where(std_X > 1e-9, std_X, 1.0)
    standard_NX = (inputs_NX - mean_X) / std_X

    def loss(weights_X):
        logits_N = standard_NX @ weights_X
        value = np.mean(np.logaddexp(0, logits_N) - hits_N * logits_N)
        residual_N = special.expit(logits_N) - hits_N
        ridge_X = np.array([_RIDGE, _RIDGE, _RIDGE, 0.0]) * weights_X
        gradient_X = standard_NX.T @ residual_N / len(hits_N) + ridge_X
        return value + 0.5 * ridge_X @ weights_X, gradient_X

    from scipy import optimize  # here because it takes 0.3 s, and `recommend` does not need it

    # So that the confidence never rises with the rank.
    bounds = [(0, None), (None, None), (None, 0), (None, None)]
    found_X = optimize.minimize(loss, np.zeros(4), jac=True, bounds=bounds).x
    weights_X = found_X / std_X
    weights_X[3] -= weights_X[:3] @ mean_X[:3]
    logits, rates = _observed(inputs_NX @ weights_X, hits_N)
    return Calibration(tuple(weights_X.tolist()), logits, rates, len(scores_VT))


def _observed(
    logits_N: np.ndarray, hits_N: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean logit and rate of hits of groups of equal size; no rate is 0 or 1.

    If there are too few suggestions for five groups, the rates are those of the logistic regression
    at evenly spaced logits.
    """
    num_bins = min(len(logits_N) // _MIN_PER_BIN, _MAX_BINS)
    if num_bins < _MIN_BINS:
        grid = np.linspace(logits_N.min() - 1, logits_N.max() + 1, _MAX_BINS)
        return tuple(grid.tolist()), tuple(special.expit(grid).tolist())
    order = np.argsort(logits_N, kind="stable")
    groups = [group for group in np.array_split(order, num_bins) if len(group)]
    sizes = np.array([len(group) for group in groups], np.float64)
    hits = np.array([hits_N[group].sum() for group in groups])
    from scipy import optimize

    prior = (hits_N.sum() + 1) / (len(hits_N) + 2)
    rates = optimize.isotonic_regression((hits + prior) / (sizes + 1), weights=sizes).x
    logits = [float(logits_N[group].mean()) for group in groups]
    return tuple(logits), tuple(rates.tolist())


class Reliability(NamedTuple):
    """Confidence and rate of hits of groups of suggestions with similar confidence.

    Attributes:
        said_G: mean confidence of each group.
        hits_G: fraction of its suggestions that were right.
        count_G: number of its suggestions.
    """

    said_G: np.ndarray
    hits_G: np.ndarray
    count_G: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini et al. 2015): mean |said - hits| of suggestions."""
        gap_G = np.abs(self.said_G - self.hits_G)
        return round(float(gap_G @ self.count_G / self.count_G.sum()), 12)


def reliability_values(fitted: Calibration, view: View, ranking: Ranking) -> dict[str, Any]:
    """Returns the calibration entries of metrics.json, for the first seed's ten best hashtags."""
    found = reliability_of(fitted, view, ranking)
    columns = {name.removesuffix("_G"): column for name, column in found._asdict().items()}
    return {
        **Scores({("calibration", "error@10"): Score(found.error)}).to_metrics(),
        "reliability": {name: column.tolist() for name, column in columns.items()},
    }


def reliability_of(fitted: Calibration, view: View, ranking: Ranking) -> Reliability:
    """Returns the reliability of the first seed's ten best hashtags."""
    confidence_VT = fitted.confidence(ranking.top_scores_SVT[0])[:, :10]
    return reliability(confidence_VT, hits_of(view, ranking)[:, :10])


def reliability(confidence_VT: np.ndarray, hits_VT: np.ndarray) -> Reliability:
    """Groups suggestions into ten intervals of equal width and drops empty intervals.

    In this example half of the suggestions of confidence 0.6 were right, and none of confidence
    0.2:

    >>> found = reliability(np.array([[0.6, 0.2]] * 2), np.array([[True, False], [False, False]]))
    >>> found.said_G.tolist(), found.hits_G.tolist(), found.count_G.tolist(), found.error
    ([0.2, 0.6], [0.0, 0.5], [2, 2], 0.15)

    Args:
        confidence_VT: in [0, 1].
        hits_VT: bool, True for a hashtag of the clip.
    """
    said_N, hits_N = confidence_VT.ravel(), hits_VT.ravel()
    group_N = np.minimum((said_N * _GROUPS).astype(int), _GROUPS - 1)
    count_G, said_G, hits_G = (np.bincount(group_N, x, _GROUPS) for x in (None, said_N, hits_N))
    some_G = count_G > 0
    return Reliability(
        said_G[some_G] / count_G[some_G], hits_G[some_G] / count_G[some_G], count_G[some_G]
    )
