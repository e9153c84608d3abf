"""Names, reads and writes the files of a run directory.

    config.json          settings, versions and fingerprints of the data
    view.npz             hashtags, splits and histories, see `dataset.view`
    metrics.jsonl        one JSON object per validation, written by `train.metrics_log`
    checkpoints/         training states, see `train.checkpoints`
    metrics.json         scores, see `scores`, and facts about the evaluation
    predictions.parquet  best hashtags of each test video, by seed; seed null: of the ensemble
    examples.npz         attention weights for a few test videos, first seed
    report.html          figures and tables, see `report`

`confidence` reads and writes calibration.json, which only some runs have.
"""

import dataclasses
import functools
import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uhman_jax.config import Config, from_dict, to_dict
from uhman_jax.dataset.view import View
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError
from uhman_jax.scores import Scores

CONFIG, VIEW, LOG, CHECKPOINTS = "config.json", "view.npz", "metrics.jsonl", "checkpoints"
METRICS, PREDICTIONS, EXAMPLES = "metrics.json", "predictions.parquet", "examples.npz"
REPORT = "report.html"
_FACTS = "run"  # key of config.json for versions and fingerprints
_EXAMPLES = ("video_ids", "times_EF", "frame_mask_EF", "regions_EFM", "frames_EF")


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A trained and evaluated run."""

    workdir: pathlib.Path
    config: Config
    facts: dict[str, Any]  # versions and fingerprints, the other part of config.json
    metrics: dict[str, Any]  # content of metrics.json

    @functools.cached_property
    def scores(self) -> Scores:
        """Scores of the evaluation."""
        return Scores.from_metrics(self.metrics)

    @property
    def system(self) -> str:
        """Title of the trained model in tables."""
        return self.config.model.name.title(**vars(self.config.model))


def read_run(workdir: pathlib.Path) -> FinishedRun:
    """Reads config.json and metrics.json.

    Raises:
        UserError: a file is missing or damaged; the message names it.
    """
    require(workdir / CONFIG)
    config, facts = read_config(workdir)
    return FinishedRun(workdir, config, facts, read_json(require(workdir / METRICS)))


def read_config(workdir: pathlib.Path) -> tuple[Config, dict[str, Any]]:
    """Returns the settings and the facts in config.json.

    Raises:
        FileNotFoundError: there is no config.json.
        UserError: the file is damaged or of another version.
    """
    path = workdir / CONFIG
    try:
        values = json.loads(path.read_text("utf-8"))
        facts = dict(values.pop(_FACTS, {}))
        return from_dict(values), facts
    except UserError as error:
        raise UserError(f"{path} is damaged or of another version: {error}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} must be a JSON object as the run wrote it, got a damaged file ({error}); "
            "train in another directory"
        ) from error


def write_config(workdir: pathlib.Path, config: Config, facts: dict[str, Any]) -> None:
    """Writes config.json."""
    with storage.atomic_write(workdir / CONFIG) as file:
        file.write((json.dumps({**to_dict(config), _FACTS: facts}, indent=2) + "\n").encode())


def which_seed(config: Config, seed: int | None) -> int:
    """Returns `seed`, or the first seed of the run if it is None.

    Raises:
        UserError: the run has no such seed.
    """
    first, last = config.seed, config.seed + config.train.num_seeds - 1
    if seed is None:
        return first
    if not first <= seed <= last:
        raise UserError(
            f"--seed must be one of the run's, {first} to {last}, got {seed}; "
            "leave it out for the first"
        )
    return seed


def read_log(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the entries of metrics.jsonl in step order; empty if there is no file.

    If a resumed run wrote a step twice, the last entry counts. An incomplete last line, which an
    interrupted run may leave, is skipped.

    Raises:
        UserError: another line is damaged.
    """
    path = workdir / LOG
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    entries = {}
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            entries[entry["step"]] = entry
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise UserError(
                    f"{path}:{number} must be a JSON object with a step, got {line[:40]!r}; "
                    "remove the line"
                ) from error
    return [entries[step] for step in sorted(entries)]


def final_metrics(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Returns metrics.json, or None if training or evaluation is not finished."""
    try:
        metrics = json.loads((workdir / METRICS).read_text("utf-8"))
        return metrics if metrics["step"] == metrics["num_steps"] else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def read_predictions(
    workdir: pathlib.Path, seed: int | None = None, video_ids: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Returns predictions as dicts of `video_id`, `seed`, `true_hashtags`, `hashtags` (best first).

    Args:
        workdir: the run directory.
        seed: selects the model of one seed; None: those of all seeds, without the ensemble.
        video_ids: selects test videos; None: all.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = require(workdir / PREDICTIONS)
    chosen = pc.field("seed").is_valid() if seed is None else pc.field("seed") == seed
    if video_ids is not None:
        chosen &= pc.field("video_id").isin(video_ids)
    try:
        with path.open("rb") as file:
            return pq.read_table(
                file,
                columns=["video_id", "seed", "true_hashtags", "hashtags"],
                filters=chosen,
                page_checksum_verification=True,
            ).to_pylist()
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        raise damaged(path, error) from error


def write_predictions(
    workdir: pathlib.Path,
    view: View,
    rows_V: np.ndarray,
    top_SVT: np.ndarray,
    top_scores_SVT: np.ndarray,
    seeds: Sequence[int | None],
) -> None:
    """Writes one row per model and video, with hashtags in their display spelling.

    Args:
        workdir: the run directory.
        view: the view of the run.
        rows_V: view rows of the videos.
        top_SVT: ids of the best hashtags, best first.
        top_scores_SVT: scores of these hashtags.
        seeds: seed of each of the S models; None for the ensemble.
    """
    names = np.array(view.spellings, dtype=object)
    num_models, num_videos, top_k = top_SVT.shape
    rows = rows_V.tolist() * num_models
    true = [names[view.positives.row(row)].tolist() for row in rows_V] * num_models
    seed_of = [seed for seed in seeds for _ in range(num_videos)]
    hashtags = names[top_SVT.reshape(-1, top_k)].tolist()
    table = {
        "video_id": pa.array([view.video_ids[row] for row in rows], pa.string()),
        "user_id": pa.array([view.user_ids[row] for row in rows], pa.string()),
        "seed": pa.array(seed_of, pa.int64()),
        "true_hashtags": pa.array(true, pa.list_(pa.string())),
        "hashtags": pa.array(hashtags, pa.list_(pa.string())),
        "scores": pa.array(top_scores_SVT.reshape(-1, top_k).tolist(), pa.list_(pa.float32())),
    }
    with storage.atomic_write(workdir / PREDICTIONS) as file:
        pq.write_table(pa.table(table), file, write_page_checksum=True)


def read_examples(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of `evaluate.attention.examples`.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = require(workdir / EXAMPLES)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in _EXAMPLES}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise damaged(path, error) from error


def require(path: pathlib.Path) -> pathlib.Path:
    """Returns the path of a file that a finished run must have.

    Raises:
        UserError: the file does not exist, or libraries cannot read its name.
    """
    storage.check_name(path.parent, "--run")
    if not path.is_file():
        raise UserError(
            f"a trained and evaluated run must have {path.name}, got none in {path.parent}; "
            "train and evaluate it first, or name another"
        )
    return path


def damaged(path: pathlib.Path, reason: object) -> UserError:
    """Returns the error for a damaged file of a finished run."""
    return UserError(
        f"{path} must be as the run wrote it, got a damaged file ({reason}); evaluate the run again"
    )


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object of a finished run.

    Raises:
        UserError: the file is damaged.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise damaged(path, error) from error
    if not isinstance(values, dict):
        raise damaged(path, "no JSON object")
    return values


def write_json(path: pathlib.Path, values: dict[str, Any]) -> None:
    """Writes strict JSON: NaN and infinity become null."""
    text = json.dumps(values, default=lambda value: value.item())  # NumPy numbers
    finite = json.loads(text, parse_constant=lambda name: None)
    text = json.dumps(finite, indent=2, ensure_ascii=False)
    with storage.atomic_write(path) as file:
        file.write((text + "\n").encode())


def write_npz(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes named arrays to one compressed file."""
    with storage.atomic_write(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
