"""Test clips: frames with the attention over them, the user, true and suggested hashtags."""

import dataclasses
import math
import pathlib

from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.errors import UserError
from uhman_jax.preprocess.decode import DecodeError
from uhman_jax.report import thumbnails
from uhman_jax.report.examples import Example
from uhman_jax.report.strip import Frame, frame_strip

_NUM_SUGGESTED = 10
_NUM_HISTORY = 12
_BUDGET = 1_500_000  # bytes of all thumbnails before base64; keeps the page under 3 MB


@dataclasses.dataclass(frozen=True)
class ClipCard:
    """A clip as the page shows it.

    Attributes:
        video_id: of the clip.
        problem: says why its frames can't be shown; "" if they are.
        frames: in time order.
        profile: gender, age and country as shown to the model.
        history: the first hashtags that the user used before.
        num_more: number of the others.
        true: hashtags of the clip, best ranked first, whether each is suggested, and its rank in
            words.
        suggested: hashtags, best first, and whether each is true.
    """

    video_id: str
    problem: str
    frames: list[Frame]
    profile: dict[str, str]
    history: tuple[str, ...]
    num_more: int
    true: list[tuple[str, bool, str]]
    suggested: list[tuple[str, bool]]

    @property
    def num_hits(self) -> int:
        """Number of the clip's hashtags that are suggested."""
        return sum(hit for _, hit in self.suggested)


def clip_cards(
    examples: list[Example], root: pathlib.Path | None, sampling: tuple[float, int]
) -> list[ClipCard]:
    """Returns one card per clip.

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
    cards = []
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
        frames = frame_strip(
            example.times_F, example.regions_FM, example.weights_F, images, max_bytes
        )
        cards.append(_card(example, frames, problem))
    return cards


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


def _card(example: Example, frames: list[Frame], problem: str) -> ClipCard:
    ranks = {hashtag: rank for rank, hashtag in enumerate(example.suggested, start=1)}
    true = []
    for hashtag in sorted(example.true, key=lambda hashtag: ranks.get(hashtag, math.inf)):
        rank = ranks.get(hashtag, math.inf)
        known = hashtag in ranks
        note = f"rank {rank}" if known else f"below {len(example.suggested)}"
        true.append((hashtag, rank <= _NUM_SUGGESTED, note))
    return ClipCard(
        video_id=example.video_id,
        problem=problem,
        frames=frames,
        profile=example.profile,
        history=example.history[:_NUM_HISTORY],
        num_more=max(len(example.history) - _NUM_HISTORY, 0),
        true=true,
        suggested=[(name, name in example.true) for name in example.suggested[:_NUM_SUGGESTED]],
    )
