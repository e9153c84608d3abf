"""Full ranking of videos by every seed's model, and the metrics of it."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from uhman_jax import metrics
from uhman_jax.input_pipeline import Batch
from uhman_jax.model import score


class Ranking(NamedTuple):
    """Where the positives of each video stand among all hashtags; host arrays.

    Attributes:
        rows_V: int32, view rows in the order asked for.
        ranks_SVP: int32, 1-based rank of each positive, pessimistic on ties.
        mask_VP: bool, True for a real positive.
        top_SVT: int32, ids of the best hashtags, best first; as many as asked for.
        top_scores_SVT: float32, their scores.
    """

    rows_V: np.ndarray
    ranks_SVP: np.ndarray
    mask_VP: np.ndarray
    top_SVT: np.ndarray
    top_scores_SVT: np.ndarray


def _towers(model: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    return model.query(batch.video, batch.user, deterministic=True), model.hashtags()


def make_ranker(model: nn.Module, top_k: int = 0) -> Callable[..., Any]:
    """The jitted (params, statistics, batch) -> (ranks_SBP, top_SBT, top_scores_SBT).

    Args:
        model: query tower and hashtag tower.
        top_k: how many of the best hashtags to return per video; at most the vocabulary's size.
    """

    def one_seed(params, statistics, batch):
        variables = {"params": params, "statistics": statistics}
        query_BD, hashtags_TD = model.apply(variables, batch, method=_towers)
        scores_BT = score(query_BD, hashtags_TD)
        ranks_BP = metrics.ranks(scores_BT, batch.positives_BP, batch.positives_mask_BP)
        top_scores_BT, top_BT = jax.lax.top_k(scores_BT, top_k)
        return ranks_BP, top_BT, top_scores_BT

    return jax.jit(jax.vmap(one_seed, in_axes=(0, None, None)))


def rank_videos(
    ranker: Callable[..., Any],
    params: Any,
    statistics: Any,
    batches: Iterable[Batch],
    should_stop: Callable[[], bool] = lambda: False,
) -> Ranking | None:
    """Ranks all hashtags for every video of the batches.

    Args:
        ranker: what `make_ranker` returned.
        params: with a leading axis S.
        statistics: the model's constants.
        batches: padded and masked, each video once.
        should_stop: asked before every batch.

    Returns:
        The ranking; None where `should_stop` said so.
    """
    parts, waiting = [], None
    for batch in batches:
        if should_stop():
            return None
        result = ranker(params, statistics, batch)
        if waiting is not None:  # read one batch late, while the device works on the next
            parts.append(_on_host(*waiting))
        waiting = batch, result
    if waiting is None:
        raise ValueError("a ranking needs at least one video, got none; check the split")
    parts.append(_on_host(*waiting))
    rows, mask, ranks, top, scores = zip(*parts, strict=True)
    return Ranking(
        rows_V=np.concatenate(rows),
        ranks_SVP=np.concatenate(ranks, axis=1),
        mask_VP=np.concatenate(mask),
        top_SVT=np.concatenate(top, axis=1),
        top_scores_SVT=np.concatenate(scores, axis=1),
    )


def _on_host(batch: Batch, result: tuple[jax.Array, ...]) -> tuple[np.ndarray, ...]:
    """The real examples of one batch: rows, positives' mask, ranks, top hashtags, their scores."""
    real_B = np.asarray(batch.mask_B)
    ranks_SBP, top_SBT, scores_SBT = (np.asarray(array)[:, real_B] for array in result)
    rows_B, mask_BP = np.asarray(batch.row_B)[real_B], np.asarray(batch.positives_mask_BP)[real_B]
    return rows_B, mask_BP, ranks_SBP, top_SBT, scores_SBT


def summaries(ranks_SVP: np.ndarray, mask_VP: np.ndarray) -> dict[str, list[float]]:
    """All metrics of `metrics.summary`, a list over seeds each."""
    per_seed = [metrics.summary(ranks_VP, mask_VP) for ranks_VP in ranks_SVP]
    return {name: [float(summary[name]) for summary in per_seed] for name in per_seed[0]}


def rank_scores(scores_VT: np.ndarray, positives_VP: np.ndarray, mask_VP: np.ndarray) -> np.ndarray:
    """Ranks int32 (V, P) of the positives under given scores, ties against them, in blocks."""
    ranker, block = jax.jit(metrics.ranks), 1024
    parts = [
        ranker(scores_VT[v : v + block], positives_VP[v : v + block], mask_VP[v : v + block])
        for v in range(0, len(scores_VT), block)
    ]
    return np.concatenate([np.asarray(part) for part in parts])
