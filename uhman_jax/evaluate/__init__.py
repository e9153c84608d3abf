"""Evaluation: full ranking of every test video, references, slices, attention, confidence.

`evaluate(...)` writes metrics.json, predictions.parquet, calibration.json and examples.npz.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from flax import linen as nn

from uhman_jax import metrics
from uhman_jax.batch import Batch
from uhman_jax.clip_means import ClipMeans
from uhman_jax.config import Config
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, View
from uhman_jax.evaluate import attention, calibration, confidence, reference_rankings
from uhman_jax.evaluate.bootstrap import half_widths
from uhman_jax.evaluate.clip_inputs import ClipInputs
from uhman_jax.evaluate.ranking import Ranking, make_ranker, rank_videos, summaries
from uhman_jax.evaluate.reference_rankings import ReferenceRanking
from uhman_jax.evaluate.slices import slice_metrics
from uhman_jax.input_pipeline import eval_batches, iterate
from uhman_jax.models.two_paths import PATHS, TwoPaths
from uhman_jax.run_directory import EXAMPLES, METRICS, write_json, write_npz, write_predictions
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError, count_of
from uhman_jax.runtime.mesh import Devices
from uhman_jax.scores import COMPARED, ENSEMBLE, MODEL, PARTS, REFERENCES, Score, Scores, difference
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
    means: ClipMeans | None = None,
    extra: dict[str, Any] | None = None,
    log: Callable[[str], object] = print,
    devices: Devices | None = None,
) -> dict[str, Any]:
    """Ranks all hashtags for every test video and writes metrics, predictions and examples.

    A metric has one value per video; each seed's mean over videos is averaged over seeds. If there
    are several seeds, their ensemble is evaluated too. The ensemble, or the model of the only seed,
    is compared with each reference that needs no truth: the difference of a video's values is
    averaged over videos, with the interval of `bootstrap`.

    Args:
        model: query tower and hashtag tower.
        params: parameters of all seeds, with a leading axis S.
        statistics: the model's constants.
        config: valid settings.
        view: labels of the videos; its test split is ranked.
        store: features of the videos.
        workdir: folder of the files.
        truth: truth of a simulated dataset, for oracles and the attention on planted objects.
        means: mean features, for the references that see the clip; None: without these.
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

    def rank(rows_V: np.ndarray, params: Any = shared_params) -> Ranking:
        ranking = rank_videos(ranker, params, shared_statistics, batches(rows_V))
        assert ranking is not None  # because no `should_stop` is passed
        return ranking

    ranking = rank(rows_V)
    together = ranking.ensemble
    videos = count_of(len(rows_V), "test video")
    log(f"Ranked {count_of(len(view.hashtags), 'hashtag')} for {videos}.")
    validation_V = view.rows(VALIDATION)
    calibrated, calibrated_together = [], None
    if len(validation_V):
        validation = rank(validation_V)
        calibrated = calibration.fit_seeds(view, validation)
        if validation.ensemble:
            (calibrated_together,) = calibration.fit_seeds(view, validation.ensemble)
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
    inputs = ClipInputs(view, means) if means else None
    references = reference_rankings.rank_references(view, rows_V, truth, inputs)
    if isinstance(model, TwoPaths):
        for name in PATHS:
            alone = rank(rows_V, model.alone(shared_params, name))
            ranks_VP = (alone.ensemble or alone).ranks_SVP[0]
            references[name] = ReferenceRanking(np.arange(len(rows_V)), ranks_VP, {})
    scores = Scores.over_seeds(MODEL, summaries(ranking.ranks_SVP, ranking.mask_VP))
    if together:
        found = summaries(together.ranks_SVP, together.mask_VP)
        scores.update({(ENSEMBLE, metric): Score(value) for metric, (value,) in found.items()})
    scores.update(reference_rankings.reference_scores(references, ranking.mask_VP))
    scores.update(_over_clips(scores, ranking, references, view))
    if inputs:
        values["references"] = {
            "validation_videos": len(inputs.validation_V),  # on which the settings were chosen
            **{name: references[name].settings for name in ("knn", "ridge")},
        }
        _log_choices(values["references"], log)
    if truth is not None:
        scores.update(_gap_closed(scores))
        facts = attention.attention_facts(attention_of(rows_V), truth)
        scores.update(Scores.over_seeds("attention", facts))
    values |= scores.to_metrics()
    values["slices"] = slice_metrics(view, ranking)
    if calibrated:
        values |= calibration.reliability_values(calibrated[0], view, ranking)
    if together and calibrated_together:
        error = calibration.reliability_of(calibrated_together, view, together).error
        values |= Scores({("calibration_ensemble", "error@10"): Score(error)}).to_metrics()

    chosen = np.random.default_rng(config.seed).permutation(rows_V)[:NUM_EXAMPLES]
    arrays = attention.examples(attention_of(chosen), store.max_frames)
    if devices and not devices.is_main_process:
        return values
    write_npz(workdir / EXAMPLES, arrays)
    if calibrated:
        confidence.save(workdir, calibrated, calibrated_together)
    else:
        (workdir / confidence.FILE).unlink(missing_ok=True)
    seeds: list[int | None] = [*range(config.seed, config.seed + len(ranking.ranks_SVP))]
    top_SVT, top_scores_SVT = ranking.top_SVT, ranking.top_scores_SVT
    if together:
        seeds.append(None)
        top_SVT = np.concatenate([top_SVT, together.top_SVT])
        top_scores_SVT = np.concatenate([top_scores_SVT, together.top_scores_SVT])
    write_predictions(workdir, view, ranking.rows_V, top_SVT, top_scores_SVT, seeds)
    write_json(workdir / METRICS, values)  # last, as a sign that the other files are complete
    return values


def _over_clips(
    scores: Scores,
    ranking: Ranking,
    references: dict[str, ReferenceRanking],
    view: View,
) -> Scores:
    """Returns the models' scores with intervals over clips, and the differences to references."""
    user_ids = np.array([view.user_ids[row] for row in ranking.rows_V], dtype=object)
    per_seed = [metrics.per_video(ranks_VP, ranking.mask_VP) for ranks_VP in ranking.ranks_SVP]
    values = {
        MODEL: {name: np.mean([one[name] for one in per_seed], axis=0) for name in per_seed[0]}
    }
    if together := ranking.ensemble:
        values[ENSEMBLE] = metrics.per_video(together.ranks_SVP[0], together.mask_VP)
    found = Scores()
    for key, own in values.items():
        for metric, width in half_widths(own, user_ids).items():
            found[key, metric] = dataclasses.replace(scores[key, metric], interval_clips=width)
    own = values[scores.compared]
    for name in filter(references.get, (*REFERENCES, *PARTS)):
        index_V, ranks_VP, _ = references[name]
        other = metrics.per_video(ranks_VP, ranking.mask_VP[index_V])
        gaps = {metric: own[metric][index_V] - other[metric] for metric in COMPARED}
        for metric, width in half_widths(gaps, user_ids[index_V]).items():
            mean = float(np.mean(gaps[metric], dtype=np.float64))
            found[difference(name), metric] = Score(mean, interval_clips=width)
    return found


def _log_choices(chosen: dict[str, Any], log: Callable[[str], object]) -> None:
    """Logs the settings of the references that see the clip, and how they were chosen."""
    how = "fixed, because there is no validation video to choose them on"
    if chosen["validation_videos"]:
        how = f"chosen on {count_of(chosen['validation_videos'], 'validation video')}"
    log(
        "References: {neighbours} nearest neighbours, the user's own hashtags with weight "
        "{own_weight:g}; ridge with penalty {penalty:g} ({how}).".format(
            how=how, **chosen["knn"], **chosen["ridge"]
        )
    )


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
    """Returns the fraction of the gap between popularity and oracle that the models close."""
    found = Scores()
    for metric in ("P@5", "P@10"):
        low, high = scores["popularity", metric].mean, scores["oracle", metric].mean
        if high > low:
            seeds = [(seed - low) / (high - low) for seed in scores[MODEL, metric].seeds]
            found["gap_closed", metric] = Score.over_seeds(seeds)
            if (ENSEMBLE, metric) in scores:
                together = (scores[ENSEMBLE, metric].mean - low) / (high - low)
                found["gap_closed_ensemble", metric] = Score(together)
    return found
