"""The files of an evaluation, each written whole or not at all."""

import json
import math
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.special

from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, View
from uhman_jax.evaluate.ranking import Ranking
from uhman_jax.storage import replacing


def interval(values: list[float]) -> float | None:
    """Half-width of the 95 % t-interval of a mean; None for fewer than two values.

    Two values a distance d apart: 12.706 * (d / sqrt(2)) / sqrt(2) = 6.353 d.

    >>> interval([1.0]), round(interval([1.0, 2.0]), 3)
    (None, 6.353)
    """
    if len(values) < 2:
        return None
    deviation = np.std(values, ddof=1) / math.sqrt(len(values))
    return float(scipy.special.stdtrit(len(values) - 1, 0.975) * deviation)


def over_seeds(prefix: str, values: dict[str, list[float]]) -> dict[str, Any]:
    """For each metric its mean over seeds, the seeds' values and the half-width of the interval."""
    entries: dict[str, Any] = {}
    for name, seeds in values.items():
        key = f"{prefix}/{name}"
        entries[key] = float(np.mean(seeds))
        entries[f"{key}/seeds"] = seeds
        entries[f"{key}/interval"] = interval(seeds)
    return entries


def data_counts(view: View) -> dict[str, Any]:
    """Sizes of a view and what it left out."""
    return {
        "train_videos": len(view.rows(TRAIN)),
        "validation_videos": len(view.rows(VALIDATION)),
        "test_videos": len(view.rows(TEST)),
        "hashtags": len(view.hashtags),
        "users": len(set(view.user_ids)),
        **view.report,
    }


def predictions_table(view: View, ranking: Ranking, first_seed: int) -> pa.Table:
    """One row per seed and video: true hashtags, best hashtags and their scores.

    Hashtags are spelled as people are shown them.
    """
    names = np.array(view.spellings, dtype=object)
    num_seeds = len(ranking.ranks_SVP)
    rows = ranking.rows_V.tolist() * num_seeds
    true = [names[view.positives.row(row)].tolist() for row in ranking.rows_V] * num_seeds
    top_VT = ranking.top_SVT.reshape(-1, ranking.top_SVT.shape[-1])
    seeds = np.repeat(np.arange(num_seeds) + first_seed, len(ranking.rows_V))
    return pa.table(
        {
            "video_id": pa.array([view.video_ids[row] for row in rows], pa.string()),
            "user_id": pa.array([view.user_ids[row] for row in rows], pa.string()),
            "seed": pa.array(seeds, pa.int64()),
            "true_hashtags": pa.array(true, pa.list_(pa.string())),
            "hashtags": pa.array(names[top_VT].tolist(), pa.list_(pa.string())),
            "scores": pa.array(
                ranking.top_scores_SVT.reshape(top_VT.shape).tolist(), pa.list_(pa.float32())
            ),
        }
    )


def write_json(path: pathlib.Path, values: dict[str, Any]) -> None:
    """Writes strict JSON: a number that is not finite becomes null."""
    with replacing(path) as file:
        text = json.dumps(_finite(values), indent=2, allow_nan=False, ensure_ascii=False)
        file.write((text + "\n").encode())


def write_parquet(path: pathlib.Path, table: pa.Table) -> None:
    """Writes a table with a checksum for each page."""
    with replacing(path) as file:
        pq.write_table(table, file, write_page_checksum=True)


def write_npz(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes named arrays."""
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
