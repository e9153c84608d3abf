"""The test clips of the report, with attention, suggestions and profiles."""

import dataclasses

import numpy as np

from uhman_jax import run_directory
from uhman_jax.dataset.view import View
from uhman_jax.run_directory import EXAMPLES, VIEW, FinishedRun


@dataclasses.dataclass(frozen=True)
class Example:
    """A test clip with the output of the first seed's model.

    Attributes:
        video_id: of the clip.
        times_F: seconds of the real frames.
        regions_FM: fraction of each frame's attention per region; rows sum to 1.
        weights_F: fraction of the clip's attention per frame; sums to 1.
        profile: gender, age and country as shown to the model; "unknown" if empty.
        history: hashtags used before, most used first; all hashtags are spelled for people.
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


def read_examples(run: FinishedRun) -> list[Example]:
    """Joins examples.npz, view.npz and predictions.parquet.

    Raises:
        UserError: a file is missing or damaged; the message names it.
    """
    arrays = run_directory.read_examples(run.workdir)
    video_ids = arrays["video_ids"].tolist()
    view = View.load(run_directory.require(run.workdir / VIEW))
    rows = {video_id: row for row, video_id in enumerate(view.video_ids)}
    found = run_directory.read_predictions(run.workdir, run.config.seed, video_ids)
    predictions = {prediction["video_id"]: prediction for prediction in found}
    examples = []
    for e, video_id in enumerate(video_ids):
        if video_id not in rows or video_id not in predictions:
            reason = f"video {video_id!r} is not in {VIEW} and {run_directory.PREDICTIONS}"
            raise run_directory.damaged(run.workdir / EXAMPLES, reason)
        row, prediction = rows[video_id], predictions[video_id]
        real_F = arrays["frame_mask_EF"][e].astype(bool)
        examples.append(
            Example(
                video_id=video_id,
                times_F=arrays["times_EF"][e][real_F],
                regions_FM=arrays["regions_EFM"][e][real_F],
                weights_F=arrays["frames_EF"][e][real_F],
                profile={
                    "Gender": view.genders[int(view.gender_V[row])],
                    "Age": view.ages[int(view.age_V[row])],
                    "Country": view.countries[int(view.country_V[row])],
                },
                history=tuple(view.spellings[int(t)] for t in view.history.row(row)),
                true=tuple(prediction["true_hashtags"]),
                suggested=tuple(prediction["hashtags"]),
            )
        )
    return examples
