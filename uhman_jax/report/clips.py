"""Test clips: frames with the attention over them, the user, true and suggested hashtags."""

import math
import pathlib

from PIL import Image

from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.errors import UserError
from uhman_jax.preprocess.decode import DecodeError
from uhman_jax.report import thumbnails
from uhman_jax.report.examples import Example
from uhman_jax.report.frame_strip import frame_strip
from uhman_jax.report.markup import Markup, element, join

_NUM_SUGGESTED = 10
_NUM_HISTORY = 12
_BUDGET = 1_500_000  # bytes of all thumbnails before base64; keeps the page under 3 MB


def clip_cards(
    examples: list[Example], root: pathlib.Path | None, sampling: tuple[float, int]
) -> Markup:
    """One card per clip.

    A clip whose video is missing or unreadable says why; a dataset without videos shows the
    attention maps alone.

    Args:
        examples: the clips.
        root: raw dataset; None: none is at hand.
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
        cards.append(_card(example, images, problem, max_bytes))
    return element("div", cards, class_="clips")


def _paths(
    examples: list[Example], root: pathlib.Path | None
) -> tuple[dict[str, pathlib.Path | None], str]:
    """Video files of the examples (None: features alone), and why none is known."""
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


def _card(example: Example, images: list[Image.Image], problem: str, max_bytes: int) -> Markup:
    hits = set(example.true) & set(example.suggested[:_NUM_SUGGESTED])
    title = element("h3", "Clip ", element("bdi", example.video_id))
    score = element(
        "p",
        element("b", f"{len(hits)} of {len(example.true)}"),
        f" hashtags among the first {_NUM_SUGGESTED}",
        class_="score",
    )
    return element(
        "article",
        element("header", title, score),
        element("p", problem, class_="placeholder", role="note") if problem else None,
        frame_strip(example.times_F, example.regions_FM, example.weights_F, images, max_bytes),
        _user(example),
        element("div", _true_tags(example), _suggested_tags(example), class_="tags"),
        class_="card clip",
    )


def _user(example: Example) -> Markup:
    """The profile as the model saw it."""
    rows = [
        element("div", element("dt", name), element("dd", element("bdi", value)))
        for name, value in example.profile.items()
    ]
    history = [_tag(hashtag) for hashtag in example.history[:_NUM_HISTORY]]
    more = len(example.history) - _NUM_HISTORY
    if more > 0:
        history.append(element("span", f"and {more} more", class_="quiet"))
    content = element("span", history, class_="chips") if history else "none"
    rows.append(element("div", element("dt", "Used before"), element("dd", content), class_="wide"))
    return element("dl", rows, class_="profile")


def _true_tags(example: Example) -> Markup:
    """The clip's hashtags, best ranked first, each with the rank that the model gave it."""
    rank = {hashtag: place for place, hashtag in enumerate(example.suggested, start=1)}
    chips = []
    for hashtag in sorted(example.true, key=lambda hashtag: rank.get(hashtag, math.inf)):
        place = rank.get(hashtag)
        note = f"rank {place}" if place else f"below {len(example.suggested)}"
        hit = place is not None and place <= _NUM_SUGGESTED
        chips.append(element("li", _tag(hashtag, hit=hit, note=note)))
    return element("section", element("h4", "The user wrote"), element("ul", chips, class_="chips"))


def _suggested_tags(example: Example) -> Markup:
    chips = []
    for place, hashtag in enumerate(example.suggested[:_NUM_SUGGESTED], start=1):
        tag = _tag(hashtag, hit=hashtag in example.true)
        chips.append(element("li", element("span", f"{place}", class_="place"), tag))
    head = element("h4", "The model suggests")
    return element("section", head, element("ol", chips, class_="chips"))


def _tag(hashtag: str, *, hit: bool = False, note: str | None = None) -> Markup:
    """A hashtag; a hit carries a tick and a word for screen readers, not colour alone."""
    mark = None
    if hit:
        mark = join(
            element("span", "✓ ", aria_hidden="true"), element("span", "hit: ", class_="unseen")
        )
    text = element("bdi", f"#{hashtag}")
    after = element("small", note) if note else None
    return element("span", mark, text, after, class_="tag hit" if hit else "tag")
