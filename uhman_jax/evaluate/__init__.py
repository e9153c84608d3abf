"""Evaluation: full ranking of every test video, reference rankings, slices, attention, confidence.

`evaluate(...)` writes metrics.json, predictions.parquet, calibration.json and examples.npz.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from flax import linen as nn

from uhman_jax import confidence, storage
from uhman_jax.config import Config
from uhman_jax.dataset.truth import Truth
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, View
from uhman_jax.devices import Devices
from uhman_jax.errors import UserError, count_of
from uhman_jax.evaluate import attention, calibration, references
from uhman_jax.evaluate.ranking import make_ranker, rank_videos, summaries
from uhman_jax.evaluate.slices import slice_metrics
from uhman_jax.input_pipeline import Batch, eval_batches, iterate
from uhman_jax.run_directory import EXAMPLES, METRICS, write_json, write_npz, write_predictions
from uhman_jax.scores import MODEL, Score, Scores
from uhman_jax.shards.store import FrameStore

__all__ = ["evaluate"]

NUM_EXAMPLES = 12  # test clips whose attention the report draws


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
    say: Callable[[str], object] = print,
    devices: Devices | None = None,
) -> dict[str, Any]:
    """Ranks all hashtags for every test video and writes the results.

    Metrics are one value per video, averaged once over videos, per seed; then over seeds.

    Args:
        model: query tower and hashtag tower.
        params: parameters of all seeds, with a leading axis S.
        statistics: the model's constants.
        config: a valid config.
        view: its test split is ranked.
        store: the region features.
        workdir: the run directory.
        truth: of the simulated dataset, for the oracles and the attention facts.
        extra: further entries of metrics.json.
        say: takes lines for a person.
        devices: that share the ranking, if there are several; only the first process writes.

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
    spread = devices.spread if devices else lambda tree: tree
    ranking = rank_videos(ranker, spread(params), spread(statistics), batches(rows_V))
    assert ranking is not None  # nothing asked it to stop
    hashtags, videos = count_of(len(view.hashtags), "hashtag"), count_of(len(rows_V), "test video")
    say(f"Ranked {hashtags} for {videos}.")
    values: dict[str, Any] = {
        "simulated": truth is not None,
        "num_seeds": len(ranking.ranks_SVP),
        "extractor": str(store.info.get("extractor", store.info.get("weights", "unknown"))),
        "data": _data_counts(view),
        **(extra or {}),
    }
    scores = Scores.over_seeds(MODEL, summaries(ranking.ranks_SVP, ranking.mask_VP))
    scores.update(references.reference_scores(view, rows_V, truth))
    observer = attention.make_observer(model)
    if truth is not None:
        scores.update(_gap_closed(scores))
        facts = attention.attention_facts(
            observer, params, statistics, batches(rows_V), view, store, truth
        )
        scores.update(Scores.over_seeds("attention", facts))
    values |= scores.to_metrics()
    values["slices"] = slice_metrics(view, ranking)
    calibrated: list[confidence.Calibration] = []
    if len(validation_V := view.rows(VALIDATION)):
        fitted = rank_videos(ranker, spread(params), spread(statistics), batches(validation_V))
        assert fitted is not None
        calibrated = [
            calibration.fit(scores_VT, calibration.hits_of(view, fitted, seed))
            for seed, scores_VT in enumerate(fitted.top_scores_SVT)
        ]
        said_VT = calibrated[0].confidence(ranking.top_scores_SVT[0])[:, :10]
        hits_VT = calibration.hits_of(view, ranking)[:, :10]
        reliability = calibration.reliability(said_VT, hits_VT)
        error = Scores({("calibration", "error@10"): Score(reliability.error)})
        values |= error.to_metrics()
        values["reliability"] = {
            name.removesuffix("_G"): column.tolist()
            for name, column in reliability._asdict().items()
        }

    chosen = np.random.default_rng(config.seed).permutation(rows_V)[:NUM_EXAMPLES]
    arrays = attention.examples(observer, params, statistics, batches(chosen), view, store)
    if devices and not devices.primary:
        return values
    write_npz(workdir / EXAMPLES, arrays)
    if calibrated:
        confidence.save(workdir, calibrated)
    else:
        (workdir / confidence.FILE).unlink(missing_ok=True)
    best = (ranking.rows_V, ranking.top_SVT, ranking.top_scores_SVT)
    write_predictions(workdir, view, *best, first_seed=config.seed)
    write_json(workdir / METRICS, values)  # last: it states that the other files are complete
    return values


def _data_counts(view: View) -> dict[str, Any]:
    """Returns sizes of a view, and how much was left out of it."""
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
    shares = {}
    for metric in ("P@5", "P@10"):
        low, high = scores["popularity", metric].mean, scores["oracle", metric].mean
        if high > low:
            seeds = scores[MODEL, metric].seeds
            shares[metric] = [(seed - low) / (high - low) for seed in seeds]
    return Scores.over_seeds("gap_closed", shares)
