"""Full ranking of videos by every seed's model, and its metrics."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import PartitionSpec

from uhman_jax import metrics
from uhman_jax.input_pipeline import Batch
from uhman_jax.microbatch import map_microbatches
from uhman_jax.models.layers import score
from uhman_jax.runtime.mesh import DATA, MODEL, Devices

_SCORES = 2**24  # maximum number of scores in memory, 64 MiB
# On a CPU 8 MiB, and more scores in blocks of 1 MiB: measured best on two cores.
_CPU_SCORES, _CPU_BLOCK = 2**21, 2**18


class Ranking(NamedTuple):
    """Ranks of the positives of each video among all hashtags; host arrays.

    Attributes:
        rows_V: int32, rows of the view in the order of the batches.
        ranks_SVP: int32, 1-based rank of each positive, pessimistic on ties.
        mask_VP: bool, True for a real positive.
        top_SVT: int32, ids of the best `top_k` hashtags, best first.
        top_scores_SVT: float32, their scores.
    """

    rows_V: np.ndarray
    ranks_SVP: np.ndarray
    mask_VP: np.ndarray
    top_SVT: np.ndarray
    top_scores_SVT: np.ndarray


class Ranker(NamedTuple):
    """Compiled functions of a model, for parameters with a leading axis S.

    Attributes:
        hashtags: params -> hashtags_STD, once for all batches.
        rank: (params, statistics, hashtags_STD, batch) -> the result of `rank_queries` with a
            leading axis S.
        place: moves a batch from the host to the devices.
    """

    hashtags: Callable[[Any], Any]
    rank: Callable[..., Any]
    place: Callable[[Batch], Batch]


def make_ranker(model: nn.Module, top_k: int = 0, devices: Devices | None = None) -> Ranker:
    """Returns the compiled ranking of batches by every seed's model.

    Args:
        model: query tower and hashtag tower, of T hashtags.
        top_k: number of best hashtags to return per video; at most T.
        devices: devices that share the work; None: one device.
    """
    platform = jax.default_backend()
    num_hashtags: int = model.num_hashtags  # type: ignore[missing-attribute]
    model = model.clone(num_hashtags=devices.num_rows) if devices else model

    def hashtags(params: Any) -> Any:
        return model.apply({"params": params}, method="hashtags")

    rank_all = functools.partial(
        rank_queries,
        top_k=top_k,
        num_hashtags=num_hashtags,
        axis=MODEL if devices else None,
        platform=platform,
    )
    if devices:
        data = PartitionSpec(DATA)
        rank_all = jax.shard_map(
            rank_all,
            mesh=devices.mesh,
            in_specs=(data, PartitionSpec(MODEL), data, data),
            out_specs=data,
            check_vma=False,  # results are equal along MODEL, which it can't infer
        )

    def rank(params, statistics, hashtags_STD, batch):
        def one_seed(params, hashtags_TD):
            def query(batch: Batch) -> Any:
                variables = {"params": params, "statistics": statistics}
                return model.apply(variables, batch.video, batch.user, method="query")

            num_seeds = len(hashtags_STD)
            query_BD = map_microbatches(query, batch, model.hidden_size, num_seeds, platform)
            return rank_all(query_BD, hashtags_TD, batch.positives_BP, batch.positives_mask_BP)

        return jax.vmap(one_seed)(params, hashtags_STD)

    def place(batch: Batch) -> Batch:
        return devices.shard_batch(batch, len(batch.mask_B)) if devices else jax.device_put(batch)

    return Ranker(
        jax.jit(jax.vmap(hashtags), out_shardings=devices and devices.row_sharded()),
        jax.jit(rank, out_shardings=devices and devices.replicated()),
        place,
    )


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
        block_size: hashtags that are scored at once; 0: `fitting_block`.
        num_hashtags: T, if padding rows follow; 0: all rows are hashtags.
        axis: mesh axis along which devices share the hashtags (within `jax.shard_map`): each has
            the same number of rows, and all return the whole ranking.
        platform: "cpu", "gpu" or "tpu"; None: JAX's default backend.

    Returns:
        (ranks_BP as by `metrics.ranks`, top_BT int32, top_scores_BT): the ids of the best `top_k`,
        best first, at a tie the lower id first; and their scores.
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
        """Returns the last `function(result, start, scores_BX)`, applied block after block."""
        if only_BX is not None:
            return function(result, first, only_BX)
        return jax.lax.scan(
            lambda result, part: (function(result, part[0], scores_of(*part)), None),
            result,
            (starts_N, blocks_NXD),
        )[0]

    unknown_BP = jnp.full(positives_BP.shape, -jnp.inf)
    nothing = (
        jnp.zeros_like(positives_BP),
        jnp.zeros((batch_size, top_k), jnp.int32),
        jnp.full((batch_size, top_k), -jnp.inf),
    )
    # Counting needs the positives' scores. If there are few positives, one gather computes these
    # scores first: bitwise the same in nearly all cases, checked below, and at T = 100,000 in half
    # the time of a first pass over the blocks. Devices that share the hashtags need that pass.
    guess_blocks = -(-positives_BP.size // block)
    if axis or not 0 < guess_blocks < num_blocks:
        own_BP = over_blocks(collect, unknown_BP)
        own_BP = jax.lax.pmax(own_BP, axis) if axis else own_BP
        counts = over_blocks(lambda counts, *part: count(counts, own_BP, *part), nothing)
    else:  # one pass, and another one only if a score was not exact

        def one_pass(state):
            _, own_BP, _ = state

            def both(result, *part):
                return collect(result[0], *part), count(result[1], own_BP, *part)

            return own_BP, *over_blocks(both, (unknown_BP, nothing))

        guess_BP = _guess(query_BD, hashtags_TD, positives_BP, positives_mask_BP, block)
        _, own_BP, counts = jax.lax.while_loop(
            lambda state: jnp.any(state[0] != state[1]),
            one_pass,
            (jnp.full_like(guess_BP, jnp.nan), guess_BP, nothing),
        )
    negatives_BP, top_BT, top_scores_BT = counts
    # A padding row scores minus infinity, so it is counted before a positive whose score is NaN.
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
    """Returns the positives' scores, from products of the same shape as those of the blocks.

    They are nearly always bitwise equal to the scores of the blocks.
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
    """Returns (top_BT, top_scores_BT): the best of X, at a tie the first."""
    top_scores_BT, index_BT = jax.lax.top_k(scores_BX, top_k)
    return jnp.take_along_axis(ids_BX, index_BT, axis=1), top_scores_BT


def rank_videos(
    ranker: Ranker,
    params: Any,
    statistics: Any,
    batches: Iterable[Batch],
    should_stop: Callable[[], bool] = lambda: False,
) -> Ranking | None:
    """Ranks all hashtags for every video of the batches.

    Args:
        ranker: the result of `make_ranker`.
        params: parameters with a leading axis S.
        statistics: the model's constants.
        batches: padded and masked, each video once.
        should_stop: called before every batch.

    Returns:
        The ranking; None if `should_stop` returned True.
    """
    parts, pending, hashtags_STD = [], None, ranker.hashtags(params)
    for batch in batches:
        if should_stop():
            return None
        result = ranker.rank(params, statistics, hashtags_STD, ranker.place(batch))
        if pending is not None:  # read one batch late, while the device computes the next
            parts.append(_to_host(*pending))
        pending = batch, result
    if pending is None:
        raise ValueError("a ranking needs at least one video, got none; check the split")
    parts.append(_to_host(*pending))
    axes = (0, 1, 0, 1, 1)  # of the videos
    return Ranking(*map(np.concatenate, zip(*parts, strict=True), axes))


def _to_host(batch: Batch, result: tuple[jax.Array, ...]) -> tuple[np.ndarray, ...]:
    """Returns the fields of `Ranking` for the real examples of a batch."""
    real_B = np.asarray(batch.mask_B)
    ranks_SBP, top_SBT, scores_SBT = (np.asarray(array)[:, real_B] for array in result)
    rows_B, mask_BP = np.asarray(batch.row_B)[real_B], np.asarray(batch.positives_mask_BP)[real_B]
    return rows_B, ranks_SBP, mask_BP, top_SBT, scores_SBT


def summaries(ranks_SVP: np.ndarray, mask_VP: np.ndarray) -> dict[str, list[float]]:
    """Returns all metrics of `metrics.summary`, each as a list over seeds."""
    per_seed = [metrics.summary(ranks_VP, mask_VP) for ranks_VP in ranks_SVP]
    return {name: [float(summary[name]) for summary in per_seed] for name in per_seed[0]}


def rank_scores(scores_VT: np.ndarray, positives_VP: np.ndarray, mask_VP: np.ndarray) -> np.ndarray:
    """Returns ranks_VP, int32, of the positives under given scores, computed in blocks."""
    ranker, block = jax.jit(metrics.ranks), 1024
    parts = [
        ranker(scores_VT[v : v + block], positives_VP[v : v + block], mask_VP[v : v + block])
        for v in range(0, len(scores_VT), block)
    ]
    return np.concatenate([np.asarray(part) for part in parts])
