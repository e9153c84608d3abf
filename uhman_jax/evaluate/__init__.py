"""Evaluation: full ranking of every test video, reference rankings, slices, attention, confidence.

`evaluate(...)` writes metrics.json, predictions.parquet, calibration.json and examples.npz.
"""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from flax import linen as nn

from uhman_jax.batch import Batch
from uhman_jax.config import Config
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, View
from uhman_jax.evaluate import attention, calibration, confidence, reference_rankings
from uhman_jax.evaluate.ranking import Ranking, make_ranker, rank_videos, summaries
from uhman_jax.evaluate.slices import slice_metrics
from uhman_jax.input_pipeline import eval_batches, iterate
from uhman_jax.run_directory import EXAMPLES, METRICS, write_json, write_npz, write_predictions
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError, count_of
from uhman_jax.runtime.mesh import Devices
from uhman_jax.scores import MODEL, Scores
from uhman_jax.shards.store import FrameStore
from uhman_jax.simulator.truth import Truth

__all__ = ["evaluate"]

NUM_EXAMPLES = 12  # test clips whose attention the report shows


def evaluate(
    model: nn.Module,
    params: Any,
    statistics: Any,
    config: Config,
    view: View,
    store: FrameStore,
    workdir: str | os.PathLike[str],
    *,
    truth: Truth | None = None,
    extra: dict[str, Any] | None = None,
    log: Callable[[str], object] = print,
    devices: Devices | None = None,
) -> dict[str, Any]:
    """Ranks all hashtags for every test video and writes metrics, predictions and examples.

    A metric has one value per video; each seed's mean over videos is averaged over seeds.

    Args:
        model: query tower and hashtag tower.
        params: parameters of all seeds, with a leading axis S.
        statistics: the model's constants.
        config: valid settings.
        view: labels of the videos; its test split is ranked.
        store: features of the videos.
        workdir: folder of the files.
        truth: truth of a simulated dataset, for oracles and the attention on planted objects.
        extra: further entries of metrics.json.
        log: receives progress messages.
        devices: a mesh to rank on, whose first process writes the files; None: one device.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: the test split is empty, or the truth does not fit the view.
    """
    rows_V = view.rows(TEST)
    if not len(rows_V):
        raise UserError(
            "evaluation needs at least one test video, got none; "
            "use more videos, a larger view.test_share or a smaller view.min_count"
        )
    workdir = storage.path(workdir)

    def batches(rows_V: np.ndarray) -> Iterator[Batch]:
        size = config.evaluate.batch_size
        return iterate(eval_batches(view, store, rows=rows_V, batch_size=size))

    ranker = make_ranker(model, min(config.evaluate.top_k, len(view.hashtags)), devices)
    shared_params, shared_statistics = params, statistics
    if devices:
        shared_params, shared_statistics = devices.shard_state((params, statistics))

    def rank(rows_V: np.ndarray) -> Ranking:
        ranking = rank_videos(ranker, shared_params, shared_statistics, batches(rows_V))
        assert ranking is not None  # because no `should_stop` is passed
        return ranking

    ranking = rank(rows_V)
    videos = count_of(len(rows_V), "test video")
    log(f"Ranked {count_of(len(view.hashtags), 'hashtag')} for {videos}.")
    validation_V = view.rows(VALIDATION)
    calibrated = calibration.fit_seeds(view, rank(validation_V)) if len(validation_V) else []
    observer = functools.partial(attention.make_observer(model), params, statistics)

    def attention_of(rows_V: np.ndarray) -> Iterator[attention.ClipAttention]:
        return attention.observe(observer, batches(rows_V), view, store)

    values: dict[str, Any] = {
        "simulated": truth is not None,
        "num_seeds": len(ranking.ranks_SVP),
        "extractor": str(store.info.get("extractor", store.info.get("weights", "unknown"))),
        "data": _data_counts(view),
        **(extra or {}),
    }
    scores = Scores.over_seeds(MODEL, summaries(ranking.ranks_SVP, ranking.mask_VP))
    scores.update(reference_rankings.reference_scores(view, rows_V, truth))
    if truth is not None:
        scores.update(_gap_closed(scores))
        facts = attention.attention_facts(attention_of(rows_V), truth)
        scores.update(Scores.over_seeds("attention", facts))
    values |= scores.to_metrics()
    values["slices"] = slice_metrics(view, ranking)
    if calibrated:
        values |= calibration.reliability_values(calibrated[0], view, ranking)

    chosen = np.random.default_rng(config.seed).permutation(rows_V)[:NUM_EXAMPLES]
    arrays = attention.examples(attention_of(chosen), store.max_frames)
    if devices and not devices.is_main_process:
        return values
    write_npz(workdir / EXAMPLES, arrays)
    if calibrated:
        confidence.save(workdir, calibrated)
    else:
        (workdir / confidence.FILE).unlink(missing_ok=True)
    best = (ranking.rows_V, ranking.top_SVT, ranking.top_scores_SVT)
    write_predictions(workdir, view, *best, first_seed=config.seed)
    write_json(workdir / METRICS, values)  # last, as a sign that the other files are complete
    return values


def _data_counts(view: View) -> dict[str, Any]:
    """Returns the sizes of a view, and how many videos and hashtags were left out of it."""
    return {
        "train_videos": len(view.rows(TRAIN)),
        "validation_videos": len(view.rows(VALIDATION)),
        "test_videos": len(view.rows(TEST)),
        "hashtags": len(view.hashtags),
        "users": len(set(view.user_ids)),
        **view.report,
    }


def _gap_closed(scores: Scores) -> Scores:
    """Returns the fraction of the gap between popularity and oracle that the model closes."""
    fractions = {}
    for metric in ("P@5", "P@10"):
        low, high = scores["popularity", metric].mean, scores["oracle", metric].mean
        if high > low:
            seeds = scores[MODEL, metric].seeds
            fractions[metric] = [(seed - low) / (high - low) for seed in seeds]
    return Scores.over_seeds("gap_closed", fractions)
