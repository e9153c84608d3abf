"""Reads the files of a run directory."""

import dataclasses
import json
import pathlib
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uhman_jax.config import ModelName
from uhman_jax.dataset.view import View
from uhman_jax.errors import UserError
from uhman_jax.run import damaged, read_json


@dataclasses.dataclass(frozen=True)
class Example:
    """A test clip with what the first seed's model did with it.

    Attributes:
        times_F: seconds of the real frames.
        regions_FM: share of each frame's attention per region, rows sum to 1.
        weights_F: share of each frame in the clip, sums to 1.
        profile: gender, age and country as shown to the model; "unknown" where empty.
        history: hashtags used before, most used first; all hashtags are spelled as people see them.
        true: hashtags of the clip.
        suggested: hashtags, best first.
    """

    video_id: str
    times_F: np.ndarray
    regions_FM: np.ndarray
    weights_F: np.ndarray
    profile: dict[str, str]
    history: tuple[str, ...]
    true: tuple[str, ...]
    suggested: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory in memory; `curve` has one entry per validation, in step order."""

    config: dict[str, Any]
    metrics: dict[str, Any]
    curve: list[dict[str, Any]]
    examples: list[Example]

    @property
    def name(self) -> str:
        """Name of the config."""
        return str(self.config.get("name", "run"))

    @property
    def model(self) -> str:
        """Name of the system, as tables write it."""
        model = self.config.get("model", {})
        return ModelName(model.get("name", "uhman")).title(**model)

    @property
    def sampling(self) -> tuple[float, int]:
        """Frames per second and most frames per clip of the features; the paper's if unsaid."""
        settings = self.config.get("preprocess", {})
        return float(settings.get("frames_per_second", 5.0)), int(settings.get("max_frames", 16))


def load_run(workdir: pathlib.Path) -> Run:
    """Reads config.json, metrics.json, metrics.jsonl, predictions.parquet, examples.npz, view.npz.

    Raises:
        UserError: a file is missing or damaged; the sentence names it.
    """
    for name in ("config.json", "metrics.json", "metrics.jsonl"):
        _require(workdir / name)
    return Run(
        config=read_json(workdir / "config.json"),
        metrics=read_json(workdir / "metrics.json"),
        curve=_read_curve(workdir / "metrics.jsonl"),
        examples=_read_examples(workdir),
    )


def _require(path: pathlib.Path) -> pathlib.Path:
    if not path.is_file():
        raise UserError(
            f"a report needs {path.name} in the run directory, got none in {path.parent}; "
            "train and evaluate there first"
        )
    return path


def _read_curve(path: pathlib.Path) -> list[dict[str, Any]]:
    """Last entry of every step: a resumed run may have written a step twice."""
    entries = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            entries[entry["step"]] = entry
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):  # an interrupted run may leave half a last line
                raise damaged(path, f"line {number}: {error}") from error
    return [entries[step] for step in sorted(entries)]


def _read_examples(workdir: pathlib.Path) -> list[Example]:
    path = _require(workdir / "examples.npz")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            video_ids = [str(video_id) for video_id in arrays["video_ids"]]
            times_EF, mask_EF = arrays["times_EF"], arrays["frame_mask_EF"]
            regions_EFM, frames_EF = arrays["regions_EFM"], arrays["frames_EF"]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise damaged(path, error) from error
    view = View.load(_require(workdir / "view.npz"))
    predictions = _read_predictions(_require(workdir / "predictions.parquet"), video_ids)
    rows = {video_id: row for row, video_id in enumerate(view.video_ids)}
    examples = []
    for e, video_id in enumerate(video_ids):
        if video_id not in rows or video_id not in predictions:
            raise damaged(path, f"video {video_id!r} is not in view.npz and predictions.parquet")
        true, suggested = predictions[video_id]
        profile, history = _profile(view, rows[video_id])
        real_F = mask_EF[e].astype(bool)
        examples.append(
            Example(
                video_id=video_id,
                times_F=times_EF[e][real_F],
                regions_FM=regions_EFM[e][real_F],
                weights_F=frames_EF[e][real_F],
                profile=profile,
                history=history,
                true=true,
                suggested=suggested,
            )
        )
    return examples


def _read_predictions(
    path: pathlib.Path, video_ids: list[str]
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """True and suggested hashtags of some videos, by the first seed's model."""
    columns = ["video_id", "seed", "true_hashtags", "hashtags"]
    try:
        with path.open("rb") as file:
            table = pq.read_table(
                file,
                columns=columns,
                filters=[("video_id", "in", video_ids)],
                page_checksum_verification=True,
            )
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        raise damaged(path, error) from error
    first = {}
    for row in sorted(table.to_pylist(), key=lambda row: row["seed"], reverse=True):
        first[row["video_id"]] = (tuple(row["true_hashtags"]), tuple(row["hashtags"]))
    return first


def _profile(view: View, row: int) -> tuple[dict[str, str], tuple[str, ...]]:
    profile = {
        "Gender": view.genders[int(view.gender_V[row])],
        "Age": view.ages[int(view.age_V[row])],
        "Country": view.countries[int(view.country_V[row])],
    }
    return profile, tuple(view.spellings[int(hashtag)] for hashtag in view.history.row(row))
