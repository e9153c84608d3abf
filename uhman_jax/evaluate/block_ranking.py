"""Ranks all hashtags for a batch of queries, a block of hashtags at a time."""

import functools

import jax
import jax.numpy as jnp

from uhman_jax import metrics
from uhman_jax.models.layers import score

_SCORES = 2**24  # maximum number of scores in memory, 64 MiB
# On a CPU, up to 8 MiB of scores are one block, more are blocks of 1 MiB: fastest on two cores.
_CPU_SCORES, _CPU_BLOCK = 2**21, 2**18


def rank_queries(
    query_BD,
    hashtags_TD,
    positives_BP,
    positives_mask_BP,
    *,
    top_k,
    block_size=0,
    num_hashtags=0,
    axis=None,
    platform=None,
):
    """Ranks all T hashtags for every query, block by block, without an array of B x T scores.

    >>> query, hashtags = jnp.array([[1.0]]), jnp.array([[0.1], [0.4], [0.3]])
    >>> everything = rank_queries(query, hashtags, jnp.array([[2]]), jnp.array([[True]]), top_k=2)
    >>> [array.round(1).tolist() for array in everything]
    [[[2]], [[1, 2]], [[0.4000000059604645, 0.30000001192092896]]]

    Args:
        query_BD: float32.
        hashtags_TD: float32.
        positives_BP: int32 hashtag ids, without repetition.
        positives_mask_BP: bool, True for a real slot.
        top_k: number of best hashtags to return; at most T.
        block_size: number of hashtags to score at once; 0: `fitting_block`.
        num_hashtags: T, if `hashtags_TD` ends with padding rows; 0: all rows are hashtags.
        axis: mesh axis along which devices share the hashtags (within `jax.shard_map`): each has
            the same number of rows, and all return the whole ranking.
        platform: "cpu", "gpu" or "tpu"; None: JAX's default backend.

    Returns:
        (ranks_BP, top_BT, top_scores_BT): ranks as from `metrics.ranks`; int32 ids of the `top_k`
        best hashtags, best first, at a tie the lower id first; their scores.
    """
    platform = platform or jax.default_backend()
    num_rows, batch_size = len(hashtags_TD), len(query_BD)
    block = min(block_size or fitting_block(batch_size, num_rows, platform), num_rows)
    num_blocks = -(-num_rows // block)
    rows_TD = jnp.pad(hashtags_TD, ((0, num_blocks * block - num_rows), (0, 0)))
    blocks_NXD = rows_TD.reshape(num_blocks, block, -1)
    first = jax.lax.axis_index(axis) * num_rows if axis else 0
    total = num_hashtags or num_rows
    end = jnp.clip(total, first, first + num_rows)  # after the last hashtag on this device
    starts_N = first + block * jnp.arange(num_blocks)
    all_real = not axis and total == num_blocks * block

    def scores_of(start, hashtags_XD):
        scores_BX = score(query_BD, hashtags_XD)
        real_X = start + jnp.arange(block) < end
        return scores_BX if all_real else jnp.where(real_X[None, :], scores_BX, -jnp.inf)

    def in_block(start):
        inside_BP = (positives_BP >= start) & (positives_BP < jnp.minimum(start + block, end))
        return positives_mask_BP & inside_BP

    def collect(own_BP, start, scores_BX):
        inside_BP = in_block(start)
        found_BP = metrics.positive_scores(scores_BX, positives_BP - start, inside_BP)
        return jnp.where(inside_BP, found_BP, own_BP)

    def count(so_far, own_BP, start, scores_BX):
        negatives_BP, top_BT, top_scores_BT = so_far
        negatives_BP += metrics.negatives_at_least(
            scores_BX, positives_BP - start, in_block(start), own_BP, positives_mask_BP, platform
        )
        if top_k:
            ids_X = (start + jnp.arange(block)).astype(jnp.int32)
            ids_BX = jnp.broadcast_to(ids_X, scores_BX.shape)
            # At a tie the first wins, so the earlier ids come first.
            ids_BX = jnp.concatenate([top_BT, ids_BX], axis=1)
            scores_BX = jnp.concatenate([top_scores_BT, scores_BX], axis=1)
            top_BT, top_scores_BT = _best(ids_BX, scores_BX, top_k)
        return negatives_BP, top_BT, top_scores_BT

    only_BX = scores_of(first, hashtags_TD) if num_blocks == 1 else None

    def over_blocks(function, result):
        """Folds `function(result, start, scores_BX) -> result` over the blocks."""
        if only_BX is not None:
            return function(result, first, only_BX)
        return jax.lax.scan(
            lambda result, part: (function(result, part[0], scores_of(*part)), None),
            result,
            (starts_N, blocks_NXD),
        )[0]

    unknown_BP = jnp.full(positives_BP.shape, -jnp.inf)
    no_counts = (
        jnp.zeros_like(positives_BP),
        jnp.zeros((batch_size, top_k), jnp.int32),
        jnp.full((batch_size, top_k), -jnp.inf),
    )
    # Counting needs the positives' scores. A first pass over the blocks can collect them. If there
    # are few positives, `_guess` replaces that pass: its scores are nearly always bitwise equal,
    # which is checked below, and at T = 100,000 ranking takes half the time. Devices that share the
    # hashtags need the first pass.
    guess_blocks = -(-positives_BP.size // block)
    if axis or not 0 < guess_blocks < num_blocks:
        own_BP = over_blocks(collect, unknown_BP)
        own_BP = jax.lax.pmax(own_BP, axis) if axis else own_BP
        counts = over_blocks(lambda counts, *part: count(counts, own_BP, *part), no_counts)
    else:  # one pass, and another one only if a score was not exact

        def one_pass(state):
            _, own_BP, _ = state

            def both(result, *part):
                return collect(result[0], *part), count(result[1], own_BP, *part)

            return own_BP, *over_blocks(both, (unknown_BP, no_counts))

        guess_BP = _guess(query_BD, hashtags_TD, positives_BP, positives_mask_BP, block)
        _, own_BP, counts = jax.lax.while_loop(
            lambda state: jnp.any(state[0] != state[1]),
            one_pass,
            (jnp.full_like(guess_BP, jnp.nan), guess_BP, no_counts),
        )
    negatives_BP, top_BT, top_scores_BT = counts
    # Padding rows score -inf, so they were counted for a positive of NaN score, which is -inf too.
    padding = num_blocks * block - (end - first)
    negatives_BP -= jnp.where(jnp.isneginf(own_BP), padding, 0)
    if axis:
        negatives_BP = jax.lax.psum(negatives_BP, axis)
        if top_k:
            gather = functools.partial(jax.lax.all_gather, axis_name=axis, axis=1, tiled=True)
            top_BT, top_scores_BT = _best(gather(top_BT), gather(top_scores_BT), top_k)
    ranks_BP = 1 + negatives_BP + metrics.positives_before(own_BP, positives_mask_BP)
    ranks_BP = jnp.where(positives_mask_BP, ranks_BP, total + 1)
    return ranks_BP, top_BT, top_scores_BT


def fitting_block(batch_size: int, num_rows: int, platform: str) -> int:
    """Returns the number of hashtags to score at once for a batch, with little padding.

    >>> fitting_block(64, 669, "cpu"), fitting_block(64, 100_000, "cpu")  # the latter in 25 blocks
    (669, 4096)
    """
    whole, most = (_CPU_SCORES, _CPU_BLOCK) if platform == "cpu" else (_SCORES, _SCORES)
    if batch_size * num_rows <= whole:
        return num_rows
    num_blocks = -(-num_rows // max(512, most // batch_size))
    return 128 * -(-num_rows // (128 * num_blocks))


def _guess(query_BD, hashtags_TD, positives_BP, mask_BP, block):
    """Returns the positives' scores from matrix products of the same shape as a block's.

    So they are nearly always bitwise equal to the scores of the blocks.
    """
    num_slots = positives_BP.size
    num_blocks = -(-num_slots // block)
    ids_NX = jnp.where(mask_BP, positives_BP, 0).ravel()
    ids_NX = jnp.pad(ids_NX, (0, num_blocks * block - num_slots)).reshape(num_blocks, block)
    row_NX = jnp.minimum(jnp.arange(num_blocks * block) // positives_BP.shape[1], len(query_BD) - 1)

    def one(ids_and_rows):
        ids_X, row_X = ids_and_rows
        return score(query_BD, hashtags_TD[ids_X])[row_X, jnp.arange(block)]

    scores_NX = jax.lax.map(one, (ids_NX, row_NX.reshape(num_blocks, block)))
    scores_BP = scores_NX.ravel()[:num_slots].reshape(positives_BP.shape)
    return jnp.where(mask_BP & ~jnp.isnan(scores_BP), scores_BP, -jnp.inf)


def _best(ids_BX, scores_BX, top_k):
    """Returns (top_BT, top_scores_BT): the `top_k` best of each row, at a tie the first."""
    top_scores_BT, index_BT = jax.lax.top_k(scores_BX, top_k)
    return jnp.take_along_axis(ids_BX, index_BT, axis=1), top_scores_BT
