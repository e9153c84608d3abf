"""Finds and describes videos that have the same content and different ids."""

import collections
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from uhman_jax.config import Duplicates
from uhman_jax.dataset.raw import Video
from uhman_jax.runtime.errors import UserError

Copies = Sequence[Sequence[Video]]  # the videos of each content that several videos have


def find_copies(videos: Sequence[Video], contents: Mapping[str, str]) -> Copies:
    """Returns groups of videos with equal content, ordered by their smallest video_id.

    In a group, videos are ordered by time, then by id; unknown times are last. The result does not
    depend on the order of the argument.

    Args:
        videos: of the dataset.
        contents: hash of the content by video_id; absent or "" if it is not known.
    """
    groups = collections.defaultdict(list)
    for video in videos:
        if content := contents.get(video.video_id):
            groups[content].append(video)
    copies = [sorted(group, key=_posting_order) for group in groups.values() if len(group) > 1]
    return sorted(copies, key=lambda group: min(video.video_id for video in group))


def find_groups(videos: Sequence[Video]) -> Copies:
    """Returns the videos of each group that videos.csv names, ordered by its name."""
    groups = collections.defaultdict(list)
    for video in videos:
        if video.group:
            groups[video.group].append(video)
    return [groups[name] for name in sorted(groups)]


def _posting_order(video: Video) -> tuple[bool, int, str]:
    return video.timestamp is None, video.timestamp or 0, video.video_id


def leave_out_copies(videos: Sequence[Video], copies: Copies) -> list[Video]:
    """Returns the videos, with only the first of each group of copies."""
    surplus = {video.video_id for group in copies for video in group[1:]}
    return [video for video in videos if video.video_id not in surplus]


def count_copies(
    videos: Sequence[Video],
    copies: Copies,
    duplicates: Duplicates,
    divide: Callable[[Sequence[Video]], np.ndarray],
) -> dict[str, int]:
    """Returns the counts of duplicates for a view's report; {} if there are no copies.

    Args:
        videos: all videos.
        copies: result of `find_copies`.
        duplicates: how the view treats the copies.
        divide: returns split_V of videos, ignoring copies.
    """
    if not copies:
        return {}
    try:
        parts = zip(videos, divide(videos).tolist(), strict=True)
        part = {video.video_id: split for video, split in parts}
    except UserError:  # this split is impossible
        part = {}
    apart = sum(len({part.get(video.video_id) for video in group}) > 1 for group in copies)
    num_videos = sum(map(len, copies))
    counts = {
        "duplicate_contents": len(copies),
        "duplicate_videos": num_videos,
        "duplicate_contents_in_several_parts_if_kept": apart,
    }
    if duplicates is Duplicates.DROP:
        counts["duplicate_videos_left_out"] = num_videos - len(copies)
    return counts


def describe_copies(report: Mapping[str, int], duplicates: Duplicates) -> str:
    """Returns sentences about the duplicates in a view's report; "" without duplicates."""
    if not (num_contents := report.get("duplicate_contents", 0)):
        return ""
    apart = report["duplicate_contents_in_several_parts_if_kept"]
    several = "in several of train, validation and test"
    drop = "--config.data.duplicates=drop keeps only the first video of each"
    have = "content has" if num_contents == 1 else "contents have"
    text = f"{num_contents} {have} several ids, {report['duplicate_videos']} videos in all. "
    if duplicates is Duplicates.KEEP:
        text += f"They count as different videos, which puts {apart} of the contents {several} "
        return f"{text}(--config.data.duplicates=together keeps each in one of them, {drop})."
    mixed = f"{apart} of the contents would otherwise be {several}"
    if duplicates is Duplicates.DROP:
        left_out = report["duplicate_videos_left_out"]
        return f"{text}Only the first video of each is kept, which leaves out {left_out}; {mixed}."
    return f"{text}All videos of a content are kept in one part of the split; {mixed} ({drop})."
