"""Metrics of a full ranking: P, R, F1, NDCG, MRR and MAP, one value per video.

A metric is a function of the ranks of a video's true hashtags among all hashtags. It gives one
value per video; the mean is taken once, over videos. A video without true hashtags gets 0. To add a
metric, add a function and a line in `summary`.

All functions except `ranks` and its helpers compute with the library of their arguments, NumPy or
JAX, so host arrays need no compilation.
"""

import jax
import jax.numpy as jnp
import numpy as np

_SLOTS_AT_ONCE = 64  # slots that a CPU compares with all scores of their examples at once


def ranks(scores_BT, positives_BP, positives_mask_BP, platform=None):
    """Returns ranks_BP, int32: the rank of each true hashtag among all T, from 1.

    Ties are pessimistic: a non-positive that ties with a positive ranks before it. Tied positives
    rank in the order of their slots. NaN counts as minus infinity. A slot outside the mask gets
    T + 1. The memory is O(B T).

    >>> scores = jnp.array([[0.9, 0.4, 0.4, 0.1]])
    >>> ranks(scores, jnp.array([[1, 0]]), jnp.array([[True, True]])).tolist()  # 1 ties with 2
    [[3, 1]]

    Args:
        scores_BT: float, higher is better.
        positives_BP: int32 hashtag ids, without repetition.
        positives_mask_BP: bool, True for a real slot; the values of other slots have no effect.
        platform: see `negatives_at_least`.
    """
    own_BP = positive_scores(scores_BT, positives_BP, positives_mask_BP)
    negatives_BP = negatives_at_least(
        scores_BT, positives_BP, positives_mask_BP, own_BP, positives_mask_BP, platform
    )
    ranks_BP = 1 + negatives_BP + positives_before(own_BP, positives_mask_BP)
    return jnp.where(positives_mask_BP, ranks_BP, scores_BT.shape[1] + 1)


def positive_scores(scores_BX, ids_BP, mask_BP):
    """Returns the scores of the hashtags `ids_BP`, (B, P), with NaN as minus infinity."""
    scores_BP = jnp.take_along_axis(scores_BX, jnp.where(mask_BP, ids_BP, 0), axis=1)
    return jnp.where(jnp.isnan(scores_BP), -jnp.inf, scores_BP)


def negatives_at_least(scores_BX, ids_BP, mask_BP, own_BP, real_BP, platform=None):
    """Returns how many non-positives score at least `own_BP`, int32 (B, P).

    The X < 2 ** 24 hashtags are all T or a block of them.

    >>> scores, own = jnp.array([[0.9, 0.4, 0.4, 0.1]]), jnp.array([[0.4]])
    >>> real = jnp.array([[True]])
    >>> negatives_at_least(scores, jnp.array([[1]]), real, own, real).tolist()
    [[2]]

    Args:
        scores_BX: float; NaN counts as minus infinity.
        ids_BP: indices of the positives among the X.
        mask_BP: bool, True for a positive that is among the X.
        own_BP: scores of the positives.
        real_BP: bool, True for a real slot; other slots get 0.
        platform: "cpu" compares a few slots at a time; other platforms compare all at once, fused.
            None: JAX's default backend.
    """
    scores_BX = jnp.where(jnp.isnan(scores_BX), -jnp.inf, scores_BX)
    ids_BP = jnp.where(mask_BP, ids_BP, scores_BX.shape[1])  # X is out of range and dropped
    row_B1 = jnp.arange(len(ids_BP))[:, None]
    # Positives become minus infinity. They are counted, and subtracted, only if `own_BP` is too.
    scores_BX = scores_BX.at[row_B1, ids_BP].set(-jnp.inf, mode="drop")
    num_positives_B1 = jnp.sum(mask_BP, axis=1, keepdims=True)
    counted_BP = jnp.where(jnp.isneginf(own_BP), num_positives_B1, 0)
    if (platform or jax.default_backend()) == "cpu":
        counts_BP = _count_reached(scores_BX, own_BP, real_BP)
    else:  # XLA fuses this and never writes the whole array
        reached_BPX = scores_BX[:, None, :] >= own_BP[:, :, None]
        counts_BP = jnp.sum(reached_BPX, axis=2, dtype=jnp.int32)
    return jnp.where(real_BP, counts_BP - counted_BP, 0)


def _count_reached(scores_BX, own_BP, real_BP):
    """Returns how many of the X scores are at least `own_BP`, int32, where `real_BP` is True.

    Loops over chunks of a list of the real slots of all rows (N: list, R: chunk).
    """
    size = max(1, min(_SLOTS_AT_ONCE, len(real_BP)))  # so that the memory is O(B X)
    num_chunks = -(-jnp.sum(real_BP) // size)
    index_BP = jnp.where(real_BP, jnp.cumsum(real_BP).reshape(real_BP.shape) - 1, -1)
    slot_N = jnp.zeros(max(1, -(-real_BP.size // size)) * size, jnp.int32)
    slot_N = slot_N.at[index_BP.ravel()].set(
        jnp.arange(real_BP.size), mode="drop", wrap_negative_indices=False
    )
    own_N, row_N = own_BP.ravel()[slot_N], slot_N // own_BP.shape[1]
    ones_X = jnp.ones(scores_BX.shape[1], jnp.float32)

    def chunk(index, counts_N):
        own_R, row_R = (
            jax.lax.dynamic_slice(array_N, (index * size,), (size,)) for array_N in (own_N, row_N)
        )
        reached_RX = (scores_BX[row_R] >= own_R[:, None]).astype(jnp.float32)
        counts_R = reached_RX @ ones_X  # this sum is vectorised on a CPU
        return jax.lax.dynamic_update_slice(counts_N, counts_R.astype(jnp.int32), (index * size,))

    counts_N = jax.lax.fori_loop(0, num_chunks, chunk, jnp.zeros(slot_N.shape, jnp.int32))
    return counts_N[index_BP]


def positives_before(own_BP, mask_BP):
    """Returns how many positives rank before each one: by score, at a tie by slot."""
    own_BP1, other_B1Q = own_BP[:, :, None], own_BP[:, None, :]  # Q: slot of the other
    slot_P = jnp.arange(own_BP.shape[1])
    earlier_PQ = slot_P[None, :] < slot_P[:, None]
    before_BPQ = (other_B1Q > own_BP1) | ((other_B1Q == own_BP1) & earlier_PQ[None])
    return jnp.sum(before_BPQ & mask_BP[:, None, :], axis=2, dtype=jnp.int32)


def precision_at_k(ranks_BP, mask_BP, k):
    """Returns the number of true hashtags among the first k, divided by k (even if k > T).

    >>> precision_at_k(jnp.array([[3, 1, 9]]), jnp.array([[True, True, True]]), 5).tolist()  # 2 / 5
    [0.4000000059604645]
    """
    return _hits(ranks_BP, mask_BP, k) / k


def recall_at_k(ranks_BP, mask_BP, k):
    """Returns the fraction of the true hashtags that are among the first k.

    >>> recall_at_k(jnp.array([[3, 1, 9, 8]]), jnp.array([[True, True, True, True]]), 5).tolist()
    [0.5]
    """
    return _hits(ranks_BP, mask_BP, k) / _at_least_one(mask_BP)


def ndcg_at_k(ranks_BP, mask_BP, k):
    """Returns NDCG@k: gain 1, discount log2(1 + rank), divided by the value of a perfect ranking.

    >>> ndcg_at_k(jnp.array([[3, 11]]), jnp.array([[True, False]]), 10).tolist()  # 1 / log2(4)
    [0.5]
    """
    xp = ranks_BP.__array_namespace__()
    gain_K = 1 / xp.log2(1.0 + xp.arange(1, k + 1))
    own_BP = gain_K[xp.clip(ranks_BP, 1, k) - 1]
    gain_B = xp.sum(xp.where(mask_BP & (ranks_BP <= k), own_BP, 0.0), axis=1)
    best_B = xp.cumsum(gain_K)[xp.clip(_at_least_one(mask_BP), 1, k) - 1]
    return gain_B / best_B


def reciprocal_rank(ranks_BP, mask_BP):
    """Returns 1 / rank of the first true hashtag (its mean over videos is MRR).

    >>> reciprocal_rank(jnp.array([[4, 2]]), jnp.array([[True, True]])).tolist()
    [0.5]
    """
    xp = ranks_BP.__array_namespace__()
    highest = xp.iinfo(ranks_BP.dtype).max
    first_B = xp.min(xp.where(mask_BP, ranks_BP, highest), axis=1, initial=highest)
    return xp.where(first_B < highest, 1 / first_B, 0.0)


def average_precision(ranks_BP, mask_BP):
    """Returns the mean over true hashtags of the precision at their rank (its mean is MAP).

    >>> average_precision(jnp.array([[4, 1]]), jnp.array([[True, True]])).tolist()  # (1 + 2/4) / 2
    [0.75]
    """
    xp = ranks_BP.__array_namespace__()
    highest = xp.iinfo(ranks_BP.dtype).max
    sorted_BP = xp.sort(xp.where(mask_BP, ranks_BP, highest), axis=1)  # no two positives tie
    found_P = xp.arange(1, ranks_BP.shape[1] + 1)
    precision_BP = found_P[None, :] / sorted_BP
    real_BP = found_P[None, :] <= xp.sum(mask_BP, axis=1)[:, None]
    return xp.sum(xp.where(real_BP, precision_BP, 0.0), axis=1) / _at_least_one(mask_BP)


def f1(mean_precision, mean_recall):
    """Returns 2PR / (P + R) of the means over videos, as in the paper's tables; 0 if both are 0.

    >>> round(f1(0.0849, 0.2110), 4)  # Table 1, UHMAN
    0.1211
    """
    total = mean_precision + mean_recall
    return 2 * mean_precision * mean_recall / total if total > 0 else 0.0


def per_video(ranks_VP, mask_VP, cutoffs=(1, 5, 10, 50)):
    """Returns the values of each video, a dict of arrays (V,), NumPy.

    >>> ranks, mask = jnp.array([[1, 3], [2, 9]]), jnp.array([[True, True], [True, False]])
    >>> {name: values.tolist() for name, values in per_video(ranks, mask, (2,)).items()}["P@2"]
    [0.5, 0.5]

    Args:
        ranks_VP: result of `ranks`, one row per video.
        mask_VP: bool, True for a real slot.
        cutoffs: the k of P and R.

    Returns:
        "P@k" and "R@k" for every cut-off, "NDCG@10", "MRR" and "MAP".
    """
    ranks_VP, mask_VP = np.asarray(ranks_VP), np.asarray(mask_VP)
    slots = 1 + max(np.flatnonzero(mask_VP.any(axis=0)), default=0)  # number in use
    # In column order NumPy sums over slots for many videos at once.
    ranks_VP, mask_VP = (np.asfortranarray(array[:, :slots]) for array in (ranks_VP, mask_VP))
    values = {}
    count_V = _at_least_one(mask_VP)
    for k in cutoffs:
        hits_V = _hits(ranks_VP, mask_VP, k)
        values |= {f"P@{k}": hits_V / k, f"R@{k}": hits_V / count_V}
    values["NDCG@10"] = ndcg_at_k(ranks_VP, mask_VP, 10)
    values["MRR"] = reciprocal_rank(ranks_VP, mask_VP)
    values["MAP"] = average_precision(ranks_VP, mask_VP)
    return values


def summary(ranks_VP, mask_VP, cutoffs=(1, 5, 10, 50)):
    """Returns the means over videos, as a dict of floats.

    >>> table = summary(jnp.array([[1, 3]]), jnp.array([[True, True]]), cutoffs=(2,))
    >>> table["P@2"], table["R@2"], table["F1@2"], table["kP/R@2"], table["MRR"]
    (0.5, 0.5, 0.5, 2.0, 1.0)

    Args:
        ranks_VP: result of `ranks`, one row per video.
        mask_VP: bool, True for a real slot.
        cutoffs: the k of P, R and F1.

    Returns:
        "P@k", "R@k", "F1@k" and "kP/R@k" for every cut-off, "NDCG@10", "MRR" and "MAP". The ratio
        k P@k / R@k depends far more on the data than on the model, so it should be about equal for
        all models; it is 0 if no true hashtag is among the first k.

    Raises:
        ValueError: there is no video.
    """
    if not len(ranks_VP):
        raise ValueError("metrics need at least one video, got 0; use a split that has videos")
    values = per_video(ranks_VP, mask_VP, cutoffs)
    means = {name: _mean(values_V) for name, values_V in values.items()}
    table = {}
    for k in cutoffs:
        precision, recall = means.pop(f"P@{k}"), means.pop(f"R@{k}")
        table |= {f"P@{k}": precision, f"R@{k}": recall, f"F1@{k}": f1(precision, recall)}
        table[f"kP/R@{k}"] = k * precision / recall if recall > 0 else 0.0
    return table | means


def _hits(ranks_BP, mask_BP, k):
    return (mask_BP & (ranks_BP <= k)).sum(axis=1)


def _at_least_one(mask_BP):
    return mask_BP.sum(axis=1).clip(1)


def _mean(values_V):
    return float(np.mean(np.asarray(values_V), dtype=np.float64))
