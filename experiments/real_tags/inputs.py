"""Arrays that all peers get: what is known of each clip and its user, labels and splits."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from uhman_jax.clip_means import mean_of
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, Ragged, View
from uhman_jax.evaluate.clip_inputs import unit_rows
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.shards.store import FrameStore

Sparse = Any  # scipy.sparse.csr_array; the types of its indexing are too wide


class Inputs(NamedTuple):
    """The clips of a view, all parts of the split (N: clip, C: channel, U: user, A: attribute).

    Attributes:
        features_NC: float32, mean over frames and regions, standardised by the training clips.
        users_NU: sparse, one-hot; all 0 for a user without a training clip.
        attributes_NA: sparse, one-hot; an unknown attribute is 0.
        history_NT: sparse; n earlier hashtags of the user have 1 / sqrt(n) each.
        labels_NT: sparse, 0 or 1.
        train, validation, test: indices of the clips of each part.
    """

    features_NC: np.ndarray
    users_NU: Sparse
    attributes_NA: Sparse
    history_NT: Sparse
    labels_NT: Sparse
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def without_test(self) -> "Inputs":
        """Returns the same inputs with neither labels nor indices of test clips."""
        seen_N = np.ones(len(self.features_NC))
        seen_N[self.test] = 0
        labels_NT = sp.csr_array(sp.diags_array(seen_N) @ self.labels_NT)
        return self._replace(labels_NT=labels_NT, test=self.test[:0])


def mean_features(store: FrameStore) -> np.ndarray:
    """Returns the mean of each channel over the frames and regions of every record, float32."""
    records = progress_bar(range(len(store)), desc="mean features", unit="clip")
    return np.stack([mean_of(store[record]) for record in records])


def read_inputs(view: View, store: FrameStore, mean_VC: np.ndarray) -> Inputs:
    """Returns the inputs of a view; `mean_VC` are the `mean_features` of the store."""
    train, validation, test = map(view.rows, (TRAIN, VALIDATION, TEST))
    num_hashtags = len(view.hashtags)
    attributes = [
        _one_hot(values_V - 1, len(names) - 1)
        for values_V, names in (
            (view.gender_V, view.genders),
            (view.age_V, view.ages),
            (view.country_V, view.countries),
        )
    ]
    known, user_V = np.unique(view.user_ids, return_inverse=True)
    has_train_U = np.isin(np.arange(len(known)), user_V[train])
    return Inputs(
        standardise(mean_VC[store.rows(view.video_ids)], train),
        _one_hot(np.where(has_train_U[user_V], user_V, -1), len(known)),
        sp.csr_array(sp.hstack(attributes)),
        _multi_hot(view.history, num_hashtags, power=0.5),
        _multi_hot(view.positives, num_hashtags),
        train,
        validation,
        test,
    )


def standardise(mean_NC: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Returns features with mean 0 and deviation 1 in each channel over the training clips.

    A deviation counts as at least a thousandth of the root mean square over channels.
    """
    std_C = mean_NC[train].std(axis=0)
    std_C = np.maximum(std_C, 1e-3 * np.sqrt(np.mean(std_C**2)))
    return ((mean_NC - mean_NC[train].mean(axis=0)) / std_C).astype(np.float32)


def largest_cosine(inputs: Inputs, rows: np.ndarray) -> np.ndarray:
    """Returns the cosine of each clip with the training clip that is most like it."""
    unit_NC = unit_rows(inputs.features_NC)
    return (unit_NC[rows] @ unit_NC[inputs.train].T).max(axis=1)


def _one_hot(index_N: np.ndarray, width: int) -> Sparse:
    """Returns rows with a 1 at the index; a negative index gives an empty row."""
    rows = np.flatnonzero(index_N >= 0)
    values = np.ones(len(rows), np.float32), (rows, index_N[rows])
    return sp.csr_array(values, shape=(len(index_N), width))


def _multi_hot(lists: Ragged, width: int, power: float = 0.0) -> Sparse:
    """Returns rows with n ** -power at each of their n ids."""
    count_N = np.diff(lists.offsets)
    values = np.repeat(np.maximum(count_N, 1).astype(np.float32) ** -power, count_N)
    return sp.csr_array((values, lists.values, lists.offsets), shape=(len(count_N), width))
