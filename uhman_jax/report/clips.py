"""Test clips: the videos behind the examples of a run, and their frames with the attention."""

import pathlib
from typing import NamedTuple

from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.errors import UserError
from uhman_jax.preprocess.decode import DecodeError
from uhman_jax.report import thumbnails
from uhman_jax.report.examples import Example
from uhman_jax.report.frame_strip import Frame, frame_strip

_BUDGET = 1_500_000  # bytes of all thumbnails before base64; keeps the page under 3 MB


class Clip(NamedTuple):
    """An example with its frames in time order; `problem` says why they can't be shown, if so."""

    example: Example
    frames: list[Frame]
    problem: str


def read_clips(
    examples: list[Example], root: pathlib.Path | None, sampling: tuple[float, int]
) -> list[Clip]:
    """Returns the examples with their frames.

    A clip whose video is missing or unreadable says why; a dataset without videos shows only the
    attention maps.

    Args:
        examples: the clips.
        root: raw dataset; None: none is known.
        sampling: frames per second and most frames per clip, as the features were extracted.
    """
    paths, reason = _paths(examples, root)
    num_frames = sum(len(example.times_F) for example in examples)
    max_bytes = _BUDGET // max(num_frames, 1)
    clips = []
    for example in examples:
        images, problem = [], reason
        if example.video_id in paths:
            path = paths[example.video_id]
            try:
                if path is not None:
                    images = thumbnails.frames_at(path, example.times_F, *sampling)
            except DecodeError as error:
                problem = f"The clip cannot be shown: {error.reason}."
        elif root is not None and not problem:
            problem = "The clip cannot be shown: the raw dataset no longer lists it."
        attention = example.regions_FM, example.weights_F
        frames = frame_strip(example.times_F, *attention, images, max_bytes)
        clips.append(Clip(example, frames, problem))
    return clips


def _paths(
    examples: list[Example], root: pathlib.Path | None
) -> tuple[dict[str, pathlib.Path | None], str]:
    """Returns the video files of the examples (None: only features), or why none is known."""
    if root is None:
        return {}, ""
    try:
        raw = read_raw_dataset(root, strict=False, check_files=False)
    except (UserError, OSError) as error:
        return {}, f"The clips cannot be shown: {error}"
    wanted = {example.video_id for example in examples}
    return {
        video.video_id: root / video.path if video.path else None
        for video in raw.videos
        if video.video_id in wanted
    }, ""
