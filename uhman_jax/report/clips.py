"""Reads the test clips of the report: frames with attention, suggestions and profiles."""

import pathlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from uhman_jax import run_directory
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.dataset.view import View
from uhman_jax.preprocess.decode import DecodeError
from uhman_jax.report import thumbnails
from uhman_jax.report.frame_strip import Frame, frame_strip
from uhman_jax.run_directory import EXAMPLES, PREDICTIONS, VIEW, FinishedRun
from uhman_jax.runtime.errors import UserError

_BUDGET = 1_500_000  # bytes of all thumbnails before base64; keeps the page under 3 MB


class Clip(NamedTuple):
    """A test clip with the output of the first seed's model; hashtags in display spelling."""

    video_id: str
    frames: list[Frame]  # real frames in time order
    problem: str  # why the frames cannot be shown, or ""
    profile: dict[str, str]  # gender, age and country as encoded for the model
    history: tuple[str, ...]  # hashtags used before, most used first
    true: list[str]
    suggested: list[str]  # best first


def read_clips(run: FinishedRun, root: pathlib.Path | None) -> list[Clip]:
    """Returns the clips of examples.npz, joined with view.npz, predictions.parquet and videos.

    `Clip.problem` says why a video cannot be shown. Without `root`, or in a dataset that has only
    features, the attention maps are drawn without frames.

    Raises:
        UserError: a file of the run is missing or damaged; the message names it.
    """
    arrays = run_directory.read_examples(run.workdir)
    video_ids = arrays["video_ids"].tolist()
    view = View.load(run_directory.require(run.workdir / VIEW))
    rows = {video_id: row for row, video_id in enumerate(view.video_ids)}
    found = run_directory.read_predictions(run.workdir, run.config.seed, video_ids)
    predictions = {prediction["video_id"]: prediction for prediction in found}
    paths = _paths(root)
    max_bytes = _BUDGET // max(int(arrays["frame_mask_EF"].sum()), 1)
    sampling = run.config.preprocess.frames_per_second, run.config.preprocess.max_frames
    clips = []
    for e, video_id in enumerate(video_ids):
        if video_id not in rows or video_id not in predictions:
            text = f"video {video_id!r} is not in {VIEW} and {PREDICTIONS}"
            raise run_directory.damaged(run.workdir / EXAMPLES, text)
        row, prediction = rows[video_id], predictions[video_id]
        real_F = arrays["frame_mask_EF"][e].astype(bool)
        times_F = arrays["times_EF"][e][real_F]
        attention = arrays["regions_EFM"][e][real_F], arrays["frames_EF"][e][real_F]
        images, problem = _images(paths, video_id, times_F, *sampling)
        clips.append(
            Clip(
                video_id,
                frame_strip(times_F, *attention, images, max_bytes),
                problem,
                profile={
                    "Gender": view.genders[int(view.gender_V[row])],
                    "Age": view.ages[int(view.age_V[row])],
                    "Country": view.countries[int(view.country_V[row])],
                },
                history=tuple(view.spellings[int(t)] for t in view.history.row(row)),
                true=prediction["true_hashtags"],
                suggested=prediction["hashtags"],
            )
        )
    return clips


def _paths(root: pathlib.Path | None) -> dict[str, pathlib.Path | None] | str:
    """Returns each clip's file (None: only features), or why none can be listed ("": no root)."""
    if root is None:
        return ""
    try:
        videos = read_raw_dataset(root, strict=False, check_files=False).videos
    except (UserError, OSError) as error:
        return f"The clips cannot be shown: {error}"
    return {video.video_id: root / video.path if video.path else None for video in videos}


def _images(
    paths: dict[str, pathlib.Path | None] | str, video_id: str, times_F: np.ndarray, *sampling: Any
) -> tuple[list[Image.Image], str]:
    """Returns the frames of a clip and "", or no frames and the reason."""
    if isinstance(paths, str):
        return [], paths
    if video_id not in paths:
        return [], "The clip cannot be shown: the raw dataset no longer lists it."
    try:
        path = paths[video_id]
        return thumbnails.frames_at(path, times_F, *sampling) if path else [], ""
    except DecodeError as error:
        return [], f"The clip cannot be shown: {error.reason}."
    except OSError as error:
        return [], f"The clip cannot be shown: {error.strerror}."
