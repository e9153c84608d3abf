"""The reference ranking "knn": the hashtags of similar training clips, and of the user."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from uhman_jax.dataset.history import index_in_row
from uhman_jax.dataset.view import TRAIN
from uhman_jax.evaluate.clip_inputs import ClipInputs, unit_rows
from uhman_jax.input_pipeline import pad
from uhman_jax.ridge import Sparse

_BLOCK = 256  # clips that are compared with all training clips at once


class KnnSettings(NamedTuple):
    """Settings that are chosen on the validation split; the defaults are used without one."""

    neighbours: int = 30
    own_weight: float = 0.3  # of the user's own hashtags


_GRID = [KnnSettings(k, own) for k in (10, 30, 100) for own in (0.03, 0.1, 0.3, 1.0, 3.0)]
_POWER = 3  # of the cosine, as the weight of a neighbour


def knn_ranks(inputs: ClipInputs, rows_V: np.ndarray) -> tuple[np.ndarray, KnnSettings]:
    """Returns ranks_VP, int32, of validation or test clips, and the chosen settings.

    The score of a hashtag is the fraction of the nearest training clips that have it, each weighted
    by the cube of its cosine, plus `own_weight` times the uses of `own_uses`.
    """
    train_VC = jax.device_put(_directions(inputs, inputs.train_V))
    settings = KnnSettings()
    if len(inputs.validation_V):
        settings = inputs.best(_GRID, _ranks_by_settings(inputs, train_VC, inputs.validation_V))
    return _ranks_by_settings(inputs, train_VC, rows_V)(settings), settings


def _ranks_by_settings(
    inputs: ClipInputs, train_VC: Any, rows_V: np.ndarray
) -> Callable[[KnnSettings], np.ndarray]:
    """Returns the function settings -> ranks_VP; it uses neighbours that are found once."""
    index_VX, cosine_VX = _neighbours(_directions(inputs, rows_V), train_VC)
    cube_VX = np.maximum(cosine_VX, 0) ** _POWER
    own_VT = own_uses(inputs, rows_V)
    positives_VP, _ = pad(inputs.view.positives, rows_V, inputs.view.max_positives)

    def ranks(settings: KnnSettings) -> np.ndarray:
        weight_VX = cube_VX[:, : settings.neighbours]
        weight_VX = weight_VX / np.maximum(weight_VX.sum(axis=1, keepdims=True), 1e-12)
        near_VX = index_VX[:, : settings.neighbours]
        starts = np.arange(len(rows_V) + 1) * near_VX.shape[1]
        shape = len(rows_V), len(inputs.train_V)
        near_VV = scipy.sparse.csr_array((weight_VX.ravel(), near_VX.ravel(), starts), shape=shape)
        scores_VT = near_VV @ inputs.targets + np.float32(settings.own_weight) * own_VT
        return ranks_of_scores(scores_VT, positives_VP)

    return ranks


def _directions(inputs: ClipInputs, rows_V: np.ndarray) -> np.ndarray:
    """Returns the features divided by their norms, so that inner products are cosines."""
    return unit_rows(inputs.features(rows_V))


def _neighbours(queries_VC: np.ndarray, train_VC: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns index and cosine of the nearest training clips of each clip, nearest first."""
    k = min(max(settings.neighbours for settings in _GRID), len(train_VC))
    parts = []
    for start in range(0, len(queries_VC), _BLOCK):
        part_BC = queries_VC[start : start + _BLOCK]
        padded_BC = np.pad(part_BC, ((0, _BLOCK - len(part_BC)), (0, 0)))
        found = _nearest(padded_BC, train_VC, k)
        parts.append([np.asarray(array)[: len(part_BC)] for array in found])
    index, cosine = zip(*parts, strict=True)
    return np.concatenate(index), np.concatenate(cosine)


@functools.partial(jax.jit, static_argnames="k")
def _nearest(queries_BC, train_VC, k):
    cosine_BX, index_BX = jax.lax.top_k(jnp.matmul(queries_BC, train_VC.T, precision="highest"), k)
    return index_BX, cosine_BX


def own_uses(inputs: ClipInputs, rows_V: np.ndarray) -> Sparse:
    """Returns the uses of each hashtag by the users of validation or test clips, float32 (V, T).

    Uses in the training split count; a hashtag that is only in the user's list in users.csv has one
    use. Each row is divided by its Euclidean norm.
    """
    view, user_V = inputs.view, inputs.view.user_V
    train_V = view.rows(TRAIN)
    entries = np.ones(len(train_V), np.float32), (user_V[train_V], np.arange(len(train_V)))
    clips_UV = scipy.sparse.csr_array(entries, shape=(user_V.max() + 1, len(train_V)))
    uses_UT: Sparse = scipy.sparse.csr_array(clips_UV @ inputs.matrix(view.positives, train_V))
    uses_VT = uses_UT[user_V[rows_V]].maximum(inputs.matrix(view.history, rows_V))
    norm_V = np.sqrt(uses_VT.power(2).sum(axis=1))
    return scipy.sparse.diags_array(1 / np.maximum(norm_V, 1)) @ uses_VT


def ranks_of_scores(scores_VT: Sparse, positives_VP: np.ndarray) -> np.ndarray:
    """Returns ranks_VP, int32, by sparse scores of at least 0; equal scores rank by popularity.

    Only hashtag 2 has a score, so it comes first and 0 next:

    >>> scores = scipy.sparse.csr_array([[0.0, 0.0, 0.7, 0.0]])
    >>> ranks_of_scores(scores, np.array([[0, 2, 3]])).tolist()
    [[2, 1, 4]]

    Args:
        scores_VT: a missing score is 0.
        positives_VP: hashtag ids, which are in the order of popularity.
    """
    scores_VT = scores_VT.tocsr(copy=True)
    scores_VT.eliminate_zeros()
    scores_VT.sort_indices()
    num_videos, num_hashtags = scores_VT.shape
    length_V = np.diff(scores_VT.indptr)
    video = np.repeat(np.arange(num_videos), length_V)
    rank = np.zeros(len(video) + 1, np.int64)  # the last is of no score
    rank[np.lexsort((scores_VT.indices, -scores_VT.data, video))] = 1 + index_in_row(video)
    key = np.append(video * num_hashtags + scores_VT.indices, num_videos * num_hashtags)
    key_VP = np.arange(num_videos)[:, None] * num_hashtags + positives_VP
    slot_VP = np.searchsorted(key, key_VP)
    # A hashtag without a score comes after all that have one and after all that are more popular;
    # those that are both count once.
    both_VP = slot_VP - scores_VT.indptr[:-1, None]
    others_VP = 1 + length_V[:, None] + positives_VP - both_VP
    return np.where(key[slot_VP] == key_VP, rank[slot_VP], others_VP).astype(np.int32)
