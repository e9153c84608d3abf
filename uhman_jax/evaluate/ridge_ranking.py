"""The reference ranking "ridge": a closed form on mean feature, attributes and history."""

from typing import NamedTuple

import jax
import numpy as np

from uhman_jax import ridge
from uhman_jax.evaluate.block_ranking import rank_queries
from uhman_jax.evaluate.clip_inputs import ClipInputs
from uhman_jax.input_pipeline import PADDING_ROW, pad

PENALTIES, DEFAULT_PENALTY = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0), 1.0
_MAX_TARGETS = 5_000  # most used hashtags, which have coefficients
_BLOCK = 256  # clips that are ranked at once


class FittedRidge(NamedTuple):
    """A ridge regression to the positives of the training clips.

    The score of a hashtag is `features @ coefficients.dense_CT / sqrt(C) + user_inputs @
    coefficients.sparse_AT + coefficients.bias_T`, with the inputs of `ClipInputs`. The division
    gives the features a mean square norm of 1.

    Attributes:
        coefficients: of the T most used hashtags, 5,000 at most.
        penalty: chosen on the validation clips; 1 without any.
    """

    coefficients: ridge.Ridge
    penalty: float


def fit_ridge(inputs: ClipInputs) -> FittedRidge:
    """Returns the ridge regression to the training positives, with the best of six penalties."""
    chosen_on_validation = len(inputs.validation_V) > 0
    penalties = PENALTIES if chosen_on_validation else (DEFAULT_PENALTY,)
    solutions = ridge.path(
        _scaled_features(inputs, inputs.train_V),
        inputs.user_inputs(inputs.train_V),
        inputs.targets[:, :_MAX_TARGETS],
        penalties,
    )
    fits = map(FittedRidge, solutions, penalties)
    if not chosen_on_validation:
        return next(fits)
    return inputs.best(fits, lambda fit: ridge_ranks(fit, inputs, inputs.validation_V))


def ridge_ranks(fitted: FittedRidge, inputs: ClipInputs, rows_V: np.ndarray) -> np.ndarray:
    """Returns ranks_VP, int32; hashtags without coefficients come last, by popularity."""
    view, (dense_CT, sparse_AT, bias_T) = inputs.view, fitted.coefficients
    weights_TX = jax.device_put(np.concatenate([dense_CT, sparse_AT, bias_T[None, :]]).T)
    ranks = []
    for start in range(0, len(rows_V), _BLOCK):
        rows_B = rows_V[start : start + _BLOCK]
        inputs_BX = np.ones((_BLOCK, weights_TX.shape[1]), np.float32)  # the last is for the bias
        inputs_BX[: len(rows_B), : len(dense_CT)] = _scaled_features(inputs, rows_B)
        inputs_BX[: len(rows_B), len(dense_CT) : -1] = inputs.user_inputs(rows_B).toarray()
        padded_B = np.full(_BLOCK, PADDING_ROW)
        padded_B[: len(rows_B)] = rows_B
        positives_BP, mask_BP = pad(view.positives, padded_B, view.max_positives)
        mask_BP &= positives_BP < len(bias_T)  # `rank_queries` looks up the rows of the others
        ranks_BP = _rank(inputs_BX, weights_TX, positives_BP, mask_BP)
        ranks_BP = np.where(positives_BP < len(bias_T), ranks_BP, positives_BP + 1)
        ranks.append(ranks_BP[: len(rows_B)])
    return np.concatenate(ranks)


@jax.jit
def _rank(inputs_BX, weights_TX, positives_BP, mask_BP):
    return rank_queries(inputs_BX, weights_TX, positives_BP, mask_BP, top_k=0)[0]


def _scaled_features(inputs: ClipInputs, rows_V: np.ndarray) -> np.ndarray:
    features_VC = inputs.features(rows_V)
    return features_VC / np.sqrt(features_VC.shape[1], dtype=np.float32)
