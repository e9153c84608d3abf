"""Chooses how much each of two paths counts in the score, on validation clips (stacking)."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from uhman_jax.batch import Batch, map_microbatches
from uhman_jax.evaluate.ranking import ensemble_vectors
from uhman_jax.losses import softmax_cross_entropy
from uhman_jax.models.layers import score
from uhman_jax.models.two_paths import PATHS, TwoPaths

MAX_CLIPS = 2_048  # maximum number of clips that are used
_SCORES = 2**24  # maximum number of scores in memory, 64 MiB


def fit_weights(
    model: TwoPaths, params: Any, statistics: Any, batches: Iterable[Batch]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns weight_P, the weights of the paths that fit some clips best, and share_P.

    The share of a path is that in the sum of the standard deviations of both paths' weighted
    scores over the hashtags of a clip; scores of other paths are on other scales.

    They minimise the mean over clips of the softmax cross-entropy between the clip's hashtags and
    the weighted sum of the paths' scores, and are at least 0. A path's score is the mean over
    seeds. This is stacking (Wolpert 1992), and the loss is convex. The direct path has weight 0
    unless it lowers the loss by more than the standard error of the gain over clips, so that a few
    dozen clips do not add a model by chance.

    Args:
        model: both paths.
        params: parameters by path, with a leading axis S.
        statistics: the models' constants by path.
        batches: at least one clip that no path was trained on.
    """
    query_of = jax.jit(lambda batch: [_query(model, params, statistics, p, batch) for p in PATHS])
    found: list[list[np.ndarray]] = []  # of each batch: queries of both paths, positives, mask
    for batch in batches:
        real_B = np.asarray(batch.mask_B)
        queries = [np.asarray(query_SBD)[:, real_B] for query_SBD in query_of(batch)]
        labels = (batch.positives_BP, batch.positives_mask_BP)
        found.append([*queries, *(np.asarray(array)[real_B] for array in labels)])
    queries = [np.concatenate(part, axis=1) for part in list(zip(*found, strict=True))[:2]]
    positives_VP, mask_VP = (np.concatenate(part) for part in list(zip(*found, strict=True))[2:])
    towers = []
    for name, query_SVD in zip(PATHS, queries, strict=True):
        of = getattr(model, name)
        hashtags = jax.vmap(lambda one, of=of: of.apply({"params": one}, method="hashtags"))
        towers.append(ensemble_vectors(jnp.asarray(query_SVD), hashtags(params[name])))
    weight_P = _best_weights(towers, positives_VP, mask_VP)
    spread_P = weight_P * [_spread(*tower) for tower in towers]
    return weight_P, spread_P / max(spread_P.sum(), 1e-12)


def _query(model, params, statistics, name, batch):
    """Returns query_SBD of one path."""
    of = getattr(model, name)
    num_seeds = len(jax.tree.leaves(params[name])[0])

    def one_seed(params):
        variables = {"params": params, "statistics": statistics[name]}

        def query(batch):
            return of.apply(variables, batch.video, batch.user, method="query")

        return map_microbatches(query, batch, of.hidden_size, num_seeds, jax.default_backend())

    return jax.vmap(one_seed)(params[name])


def _best_weights(towers, positives_VP, mask_VP) -> np.ndarray:
    """Returns weight_P for the query_VX and hashtags_TX of the network and of the direct path."""
    loss_of = _make_loss(towers, positives_VP, mask_VP)
    both_P, network_P = (_minimum(loss_of, bounds) for bounds in ((None, None), (None, 0)))
    gain_V = np.asarray(loss_of(network_P) - loss_of(both_P), np.float64)
    error = gain_V.std(ddof=1) / np.sqrt(len(gain_V)) if len(gain_V) > 1 else np.inf
    weight_P = both_P if gain_V.mean() > error else network_P
    return weight_P if weight_P.any() else np.array([1, 0], np.float32)


def _make_loss(towers, positives_VP, mask_VP):
    """Returns the function weight_P -> loss_V."""
    num_clips, num_hashtags = len(positives_VP), len(towers[0][1])
    size = max(1, min(num_clips, _SCORES // num_hashtags))
    padding = -num_clips % size

    def blocks(array_V):
        padded_V = jnp.pad(array_V, [(0, padding)] + [(0, 0)] * (array_V.ndim - 1))
        return padded_V.reshape(-1, size, *array_V.shape[1:])

    queries = [blocks(query_VX) for query_VX, _ in towers]
    labels = blocks(jnp.asarray(positives_VP)), blocks(jnp.asarray(mask_VP))

    @jax.jit
    def loss_of(weight_P):
        @jax.checkpoint
        def of_block(block):
            queries, labels = block
            parts = zip(weight_P, queries, towers, strict=True)
            scores_BT = sum(weight * score(query, tower[1]) for weight, query, tower in parts)
            return softmax_cross_entropy(scores_BT, *labels)

        return jax.lax.map(of_block, (queries, labels)).ravel()[:num_clips]

    return loss_of


def _minimum(loss_of, most) -> np.ndarray:
    """Returns the weights from 0 to `most` (None: no limit) with the least mean loss."""
    mean_loss = jax.jit(jax.value_and_grad(lambda weight_P: jnp.mean(loss_of(weight_P))))

    def objective(weights):
        value, gradient = mean_loss(jnp.asarray(weights, jnp.float32))
        return float(value), np.asarray(gradient, np.float64)

    bounds = [(0, limit) for limit in most]
    start = [1 if limit is None else limit for limit in most]
    found = scipy.optimize.minimize(objective, start, jac=True, bounds=bounds)
    return found.x.astype(np.float32)


@jax.jit
def _spread(query_VX, hashtags_TX):
    """Returns the root mean square, over clips, of the deviation of scores over hashtags."""
    centred_TX = hashtags_TX - hashtags_TX.mean(axis=0, keepdims=True)
    covariance_XX = centred_TX.T @ centred_TX / len(centred_TX)
    return jnp.sqrt(jnp.mean(jnp.sum((query_VX @ covariance_XX) * query_VX, axis=1)))
