"""Inputs of the reference rankings that see the clip, and the choice of their settings."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.sparse

from uhman_jax import metrics
from uhman_jax.clip_means import ClipMeans
from uhman_jax.dataset.history import Ragged
from uhman_jax.dataset.view import TRAIN, VALIDATION, View
from uhman_jax.input_pipeline import pad
from uhman_jax.ridge import Sparse

_MAX_HISTORY, _MAX_VALUES = 2048, 256  # hashtags, and values of an attribute, that are inputs
_USER_SCALE = 0.5
_STD_FLOOR = 1e-3


class ClipInputs:
    """A view and the mean features of its clips, standardised by its training clips.

    Attributes:
        view: labels of the clips.
        means: mean features of clips of all splits; rows below are among its rows.
        train_V: view rows of the training clips.
        validation_V: view rows of the validation clips.
        mean_C: float32, mean of the training clips' features.
        std_C: float32, their standard deviation, but at least 1e-3 of the root mean square over
            channels; 1 if no channel varies.
    """

    def __init__(self, view: View, means: ClipMeans):
        """Computes mean and standard deviation."""
        self.view, self.means = view, means
        split_V = view.split_V[means.rows_V]
        self.train_V = means.rows_V[split_V == TRAIN]
        self.validation_V = means.rows_V[split_V == VALIDATION]
        train_VC = means.means_VC[split_V == TRAIN]
        self.mean_C, std_C = train_VC.mean(axis=0), train_VC.std(axis=0)
        floor = _STD_FLOOR * np.sqrt(np.mean(np.square(std_C)))
        self.std_C = np.maximum(std_C, floor) if floor > 0 else np.ones_like(std_C)

    def features(self, rows_V: np.ndarray) -> np.ndarray:
        """Returns the standardised mean features of some clips, float32 (V, C)."""
        index_V = np.searchsorted(self.means.rows_V, rows_V)
        return (self.means.means_VC[index_V] - self.mean_C) / self.std_C

    def user_inputs(self, rows_V: np.ndarray) -> Sparse:
        """Returns the inputs of ridge about the users of some clips, float32 (V, A).

        The columns are one-hot gender, age and country (at most 256 values each) and the 2,048
        most used hashtags. A history of n hashtags has values of 1 / sqrt(n), so that all histories
        have the same norm. All values are multiplied by 1/2: on the validation splits of real and
        of simulated clips no factor from 0.3 to 2 was better by more than 0.005 in P@10.
        """
        view = self.view
        columns = [
            _one_hot(value_V[rows_V], min(len(names), _MAX_VALUES))
            for names, value_V in (
                (view.genders, view.gender_V),
                (view.ages, view.age_V),
                (view.countries, view.country_V),
            )
        ]
        history_VT = self.matrix(view.history, rows_V)
        length_V = np.diff(history_VT.indptr)
        history_VT.data /= np.sqrt(np.repeat(length_V, length_V), dtype=np.float32)
        columns.append(history_VT[:, :_MAX_HISTORY])
        return scipy.sparse.hstack(columns, format="csr") * np.float32(_USER_SCALE)

    @functools.cached_property
    def targets(self) -> Sparse:
        """The positives of the training clips, float32 (V, T)."""
        return self.matrix(self.view.positives, self.train_V)

    def matrix(self, ragged: Ragged, rows_V: np.ndarray) -> Sparse:
        """Returns rows of a ragged array of hashtag ids as a matrix of ones, float32 (V, T)."""
        ones = np.ones(len(ragged.values), np.float32)
        shape = len(ragged.offsets) - 1, len(self.view.hashtags)
        whole: Sparse = scipy.sparse.csr_array((ones, ragged.values, ragged.offsets), shape=shape)
        return whole[rows_V]

    def best(self, settings: Iterable[Any], ranks: Callable[[Any], np.ndarray]) -> Any:
        """Returns the setting with the best P@10 on the validation clips, or NDCG@10 at a tie.

        Args:
            settings: one or more.
            ranks: setting -> ranks_VP of `validation_V`, of which there is at least one.
        """
        _, mask_VP = pad(self.view.positives, self.validation_V, self.view.max_positives)

        def quality(setting: Any) -> tuple[float, float]:
            ranks_VP = ranks(setting)
            values = metrics.precision_at_k, metrics.ndcg_at_k
            precision, ndcg = (
                float(np.mean(value(ranks_VP, mask_VP, 10), dtype=np.float64)) for value in values
            )
            return precision, ndcg

        return max(settings, key=quality)


def unit_rows(features_VC: np.ndarray) -> np.ndarray:
    """Returns the rows scaled to length 1; a row of zeros stays."""
    norm_V1 = np.linalg.norm(features_VC, axis=1, keepdims=True)
    return features_VC / np.maximum(norm_V1, 1e-12)


def _one_hot(value_V: np.ndarray, size: int) -> Sparse:
    """Returns one-hot rows, float32 (V, size); values from `size` on give empty rows."""
    ones_V = (value_V < size).astype(np.float32)
    starts = np.arange(len(value_V) + 1)
    columns_V = np.minimum(value_V, size - 1)
    return scipy.sparse.csr_array((ones_V, columns_V, starts), shape=(len(value_V), size))
