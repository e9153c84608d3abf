"""Ranks all hashtags for videos with every seed's model, and computes the metrics.

Several seeds also rank together, as an ensemble: by the mean over seeds of the scores.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import PartitionSpec

from uhman_jax import metrics
from uhman_jax.batch import Batch, map_microbatches
from uhman_jax.evaluate.block_ranking import rank_queries
from uhman_jax.runtime.mesh import DATA, MODEL, Devices


class Ranking(NamedTuple):
    """Ranks of the positives of each video among all hashtags; host arrays.

    Attributes:
        rows_V: int32, view row of each video, in the order of the batches.
        ranks_SVP: int32, 1-based rank of each positive, pessimistic on ties.
        mask_VP: bool, True for a real positive.
        top_SVT: int32, ids of the best `top_k` hashtags, best first.
        top_scores_SVT: float32, their scores.
        ensemble: the ranking by the seeds' mean scores, S = 1; None if there is one seed.
    """

    rows_V: np.ndarray
    ranks_SVP: np.ndarray
    mask_VP: np.ndarray
    top_SVT: np.ndarray
    top_scores_SVT: np.ndarray
    ensemble: "Ranking | None" = None


class Ranker(NamedTuple):
    """Compiled functions of a model, for parameters with a leading axis S.

    Attributes:
        hashtags: params -> hashtags_STD, computed once for all batches.
        rank: (params, statistics, hashtags_STD, batch) -> a list with the result of
            `rank_queries` with a leading axis S and, if S > 1, that of the ensemble with a leading
            axis of length 1.
        place: moves a batch from the host to the devices.
    """

    hashtags: Callable[[Any], Any]
    rank: Callable[..., list[Any]]
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
    model = model.resized(devices.num_rows) if devices else model  # type: ignore[not-callable]

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
            check_vma=False,  # JAX cannot infer that results are equal along MODEL
        )

    def rank(params, statistics, hashtags_STD, batch):
        num_seeds = len(hashtags_STD)

        def query_of(params):
            def query(batch: Batch) -> Any:
                variables = {"params": params, "statistics": statistics}
                return model.apply(variables, batch.video, batch.user, method="query")

            return map_microbatches(query, batch, model.hidden_size, num_seeds, platform)

        def rank_one(query_BD, hashtags_TD):
            return rank_all(query_BD, hashtags_TD, batch.positives_BP, batch.positives_mask_BP)

        query_SBD = jax.vmap(query_of)(params)
        models = [(query_SBD, hashtags_STD)]
        if num_seeds > 1:
            query_BX, hashtags_TX = ensemble_vectors(query_SBD, hashtags_STD)
            models.append((query_BX[None], hashtags_TX[None]))
        return [jax.vmap(rank_one)(*vectors) for vectors in models]

    def place(batch: Batch) -> Batch:
        return devices.shard_batch(batch, len(batch.mask_B)) if devices else jax.device_put(batch)

    return Ranker(
        jax.jit(jax.vmap(hashtags), out_shardings=devices and devices.row_sharded()),
        jax.jit(rank, out_shardings=devices and devices.replicated()),
        place,
    )


def ensemble_vectors(query_SBD, hashtags_STD):
    """Returns (query_BX, hashtags_TX), whose scores are the means over seeds of the seeds' scores.

    The vectors of all seeds stand side by side (X = S D), and the queries are divided by S.

    Here the seeds give the scores 2 and 12:

    >>> query, hashtags = jnp.array([[[1.0]], [[3.0]]]), jnp.array([[[2.0]], [[4.0]]])
    >>> [array.tolist() for array in ensemble_vectors(query, hashtags)]  # 0.5 * 2 + 1.5 * 4 = 7
    [[[0.5, 1.5]], [[2.0, 4.0]]]
    """

    def side_by_side(vectors_SND):
        vectors_NSD = jnp.moveaxis(vectors_SND, 0, 1)
        return vectors_NSD.reshape(len(vectors_NSD), -1)

    return side_by_side(query_SBD) / len(query_SBD), side_by_side(hashtags_STD)


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
        if pending is not None:  # reads a result while the device computes the next
            parts.append(_to_host(*pending))
        pending = batch, result
    if pending is None:
        raise ValueError("a ranking needs at least one video, got none; check the split")
    parts.append(_to_host(*pending))
    ranking, *ensemble = map(_joined, zip(*parts, strict=True))
    return ranking._replace(ensemble=ensemble[0]) if ensemble else ranking


def _to_host(batch: Batch, results: list[tuple[jax.Array, ...]]) -> list[Ranking]:
    """Returns the rankings of the real examples of a batch, on the host."""
    real_B = np.asarray(batch.mask_B)
    rows_B, mask_BP = np.asarray(batch.row_B)[real_B], np.asarray(batch.positives_mask_BP)[real_B]
    rankings = []
    for result in results:
        ranks_SBP, top_SBT, scores_SBT = (np.asarray(array)[:, real_B] for array in result)
        rankings.append(Ranking(rows_B, ranks_SBP, mask_BP, top_SBT, scores_SBT))
    return rankings


def _joined(parts: Sequence[Ranking]) -> Ranking:
    """Returns the ranking of the videos of all parts."""
    return Ranking(
        np.concatenate([part.rows_V for part in parts]),
        np.concatenate([part.ranks_SVP for part in parts], axis=1),
        np.concatenate([part.mask_VP for part in parts]),
        np.concatenate([part.top_SVT for part in parts], axis=1),
        np.concatenate([part.top_scores_SVT for part in parts], axis=1),
    )


def summaries(ranks_SVP: np.ndarray, mask_VP: np.ndarray) -> dict[str, list[float]]:
    """Returns all metrics of `metrics.summary`, each as a list over seeds."""
    per_seed = [metrics.summary(ranks_VP, mask_VP) for ranks_VP in ranks_SVP]
    return {name: [float(summary[name]) for summary in per_seed] for name in per_seed[0]}


def rank_scores(scores_VT: np.ndarray, positives_VP: np.ndarray, mask_VP: np.ndarray) -> np.ndarray:
    """Returns ranks_VP, int32, of the positives by given scores, computed in blocks of videos."""
    ranks, block = jax.jit(metrics.ranks), 1024
    parts = [
        ranks(scores_VT[v : v + block], positives_VP[v : v + block], mask_VP[v : v + block])
        for v in range(0, len(scores_VT), block)
    ]
    return np.concatenate([np.asarray(part) for part in parts])
