"""Explains the suggestions for one clip, as a page or as a picture."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from PIL import Image

from uhman_jax.preprocess.decode import DecodeError
from uhman_jax.recommend.figure import draw
from uhman_jax.recommend.occlusion import Explainer
from uhman_jax.recommend.page import Side, render
from uhman_jax.recommend.profile import Profile
from uhman_jax.recommend.recommender import Recommender
from uhman_jax.recommend.start import check_output
from uhman_jax.report.thumbnails import frames_at
from uhman_jax.runtime.storage import atomic_write
from uhman_jax.shards.record import FrameRecord


def explain(
    recommender: Recommender,
    video: str | os.PathLike[str],
    users: Sequence[Profile],
    output: str | os.PathLike[str],
    *,
    top_k: int = 10,
    exclude: Sequence[str] = (),
    min_confidence: float = 0.0,
) -> list[Side]:
    """Writes an explanation as page (.html) or picture (.png); returns one `Side` per profile.

    Args:
        recommender: the recommender of the run.
        video: path of the clip.
        users: one profile, or two to compare.
        output: path of the file; an existing file is replaced.
        top_k: maximum number of suggestions per profile.
        exclude: hashtags to leave out.
        min_confidence: less confident suggestions are left out.

    Raises:
        UserError: the clip has no readable frame, or the model has no attention.
    """
    path, clip = check_output(output), pathlib.Path(video)
    explainer = Explainer(recommender.model)
    record = recommender.features(clip)
    choice = {"top_k": top_k, "exclude": exclude, "min_confidence": min_confidence}
    sides = [side_of(recommender, explainer, record, user, **choice) for user in users]
    images = frames_of(recommender, clip, record)
    if path.suffix.lower() == ".png":
        data = draw(clip, record.times_F, images, sides)
    else:
        data = render(clip, record.times_F, images, sides, recommender.metrics)
        data = data.encode("utf-8", "replace")
    with atomic_write(path) as file:
        file.write(data)
    return sides


def side_of(
    recommender: Recommender,
    explainer: Explainer | None,
    record: FrameRecord,
    user: Profile,
    **choice: Any,
) -> Side:
    """Returns suggestions for a profile and, with an explainer, why; `choice` goes to `suggest`."""
    (suggestions,) = recommender.suggest(record, [user], **choice)
    user_input, notes = recommender.encode([user]), list(recommender.notes)
    if explainer is None:
        return Side(user, suggestions, None, notes)
    vectors_TD = recommender.vectors([suggestion.hashtag for suggestion in suggestions])
    why = explainer(recommender.variables, recommender.video_input(record), user_input, vectors_TD)
    return Side(user, suggestions, why, notes)


def frames_of(
    recommender: Recommender, clip: pathlib.Path, record: FrameRecord
) -> list[Image.Image]:
    """Returns the frames that the model saw, upright; empty if the file cannot be read."""
    settings = recommender.config.preprocess
    try:
        return frames_at(clip, record.times_F, settings.frames_per_second, settings.max_frames)
    except (DecodeError, OSError):
        return []
