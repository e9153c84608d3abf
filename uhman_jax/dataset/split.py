"""Divides videos into train, validation and test."""

import hashlib
import itertools
import math
from collections.abc import Sequence
from typing import assert_never

import numpy as np

from uhman_jax.config import Split
from uhman_jax.dataset.raw import Video
from uhman_jax.errors import UserError, count_of

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLIT_NAMES = ("train", "validation", "test")


def stateless_hash(purpose: str, seed: int, *parts: str) -> int:
    """Returns 64 bits that depend only on the arguments, on every machine and in every version."""
    text = "\0".join((purpose, str(seed), *parts))  # ids hold no NUL
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def assign_splits(
    videos: Sequence[Video],
    split: Split,
    *,
    test_share: float,
    validation_share: float,
    seed: int,
    copies: Sequence[Sequence[Video]] = (),
) -> np.ndarray:
    """Divides videos independently of their labels.

    - random: videos are ordered by hashes of (seed, video_id); the first are the test split.
    - temporal: the newest are the test split, the newest of the rest the validation split. A video
      without timestamp counts as the oldest. Videos of equal time are ordered as in `random`.
    - cold_user: users are ordered by hashes; whole users are taken until the number of their videos
      is nearest to the requested one. No user is in two splits.

    All copies of a content are in one split:

    - random: they have the position of the smallest video_id among them.
    - temporal: also the oldest known timestamp among them, when the content was new.
    - cold_user: users who share a content, directly or through others, have the position of the
      smallest user_id among them.

    Copies are taken together, as the videos of a user are, and counted as videos. In `random` and
    `cold_user`, a group of duplicates that exceeds both the test and the validation split comes
    last: a clip that very many users post stays in train.

    Args:
        videos: with unique ids, in any order: the split of a video does not depend on it.
        split: one of the three kinds.
        test_share: fraction of the videos; above 0 at least one video (or user).
        validation_share: the same of the videos that are not test.
        seed: of the hashes.
        copies: groups of these videos of equal content; no video is in two groups.

    Returns:
        split_V: int8, TRAIN, VALIDATION or TEST.

    Raises:
        UserError: too few videos or users for the requested splits, or a temporal split without any
            timestamp.
    """
    match split:
        case Split.RANDOM | Split.TEMPORAL:
            unit, purpose = "videos", "split"
        case Split.COLD_USER:
            unit, purpose = "users", "split users"
        case _:
            assert_never(split)
    names = sorted({_name(video, split) for video in videos})
    number = {name: i for i, name in enumerate(names)}
    roots = _join(len(names), [[number[_name(v, split)] for v in group] for group in copies])
    root_G, group_of_name = np.unique(roots, return_inverse=True)
    name_V = np.array([number[_name(video, split)] for video in videos], dtype=np.int64)
    group_V = group_of_name[name_V]
    ties = [stateless_hash(purpose, seed, names[i]) for i in root_G]
    tie_G = np.array(ties, dtype=np.uint64)
    size_G = np.bincount(group_V, minlength=len(root_G))  # videos
    if split is Split.TEMPORAL:
        order_G = np.lexsort((tie_G, -_oldest(_timestamps(videos), group_V)))  # newest first
    else:
        limit = math.floor(max(test_share, validation_share) * len(videos) + 0.5)
        is_joined_G = np.bincount(group_of_name, minlength=len(root_G)) > 1
        order_G = np.lexsort((tie_G, is_joined_G & (size_G > limit)))
    size_G = size_G[order_G]
    num_test = _count_groups(size_G, test_share)
    num_validation = _count_groups(size_G[num_test:], validation_share)
    if num_test + num_validation >= len(order_G):
        got, remedy = f"{len(names)} {unit}", f"add {unit}"
        if len(order_G) < len(names):
            groups = "1 group" if len(order_G) == 1 else f"{len(order_G)} groups"
            got += f", bound by duplicates into {groups},"
            remedy = f"set --config.data.duplicates=drop, {remedy}"
        raise UserError(
            f"a {split.value} split must leave {unit} to train on, got {got} of "
            f"which {num_test} are test and {num_validation} validation; {remedy}, or lower "
            "view.test_share and view.validation_share"
        )
    split_G = np.full(len(order_G), TRAIN, dtype=np.int8)
    split_G[order_G[:num_test]] = TEST
    split_G[order_G[num_test : num_test + num_validation]] = VALIDATION
    return split_G[group_V]


def _name(video: Video, split: Split) -> str:
    """Returns the id of the unit that a split divides: a user or a video."""
    return video.user_id if split is Split.COLD_USER else video.video_id


def _join(num_nodes: int, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns, for each of the nodes 0, 1, ..., the smallest node that groups connect it to."""
    parent = list(range(num_nodes))  # never larger than the node itself

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for group in groups:
        for one, other in itertools.pairwise(group):
            low, high = sorted((root(one), root(other)))
            parent[high] = low
    return np.array([root(node) for node in range(num_nodes)], dtype=np.int64)


def _oldest(time_V: np.ndarray, group_V: np.ndarray) -> np.ndarray:
    """Returns the smallest known time of each group, -1 if none is known."""
    unknown = np.iinfo(np.int64).max
    time_G = np.full(group_V.max(initial=-1) + 1, unknown)
    np.minimum.at(time_G, group_V, np.where(time_V < 0, unknown, time_V))
    return np.where(time_G == unknown, -1, time_G)


def surplus_train(
    video_ids: Sequence[str], split_V: np.ndarray, train_share: float, seed: int
) -> np.ndarray:
    """Marks the training videos beyond a fraction; a larger one keeps all videos of a smaller one.

    Args:
        video_ids: of each video.
        split_V: TRAIN, VALIDATION or TEST.
        train_share: the fraction, in (0, 1]; at least one video stays.
        seed: of the hashes by which videos are ordered.

    Returns:
        surplus_V: bool.
    """
    surplus_V = np.zeros(len(video_ids), bool)
    rows = np.flatnonzero(split_V == TRAIN).tolist()
    if train_share < 1 and rows:
        order = [stateless_hash("train share", seed, video_ids[row]) for row in rows]
        num_kept = max(1, math.floor(train_share * len(rows) + 0.5))
        surplus = np.argsort(np.array(order, np.uint64), kind="stable")[num_kept:]
        surplus_V[np.array(rows)[surplus]] = True
    return surplus_V


def _timestamps(videos: Sequence[Video]) -> np.ndarray:
    """Returns unix seconds, -1 if unknown, which is older than all."""
    if all(video.timestamp is None for video in videos):
        raise UserError(
            f"a temporal split must know when videos were posted, got no timestamp in "
            f"{count_of(len(videos), 'video')}; fill the column in, or use view.split=random"
        )
    return np.array([-1 if video.timestamp is None else video.timestamp for video in videos])


def _count_groups(size_G: np.ndarray, share: float) -> int:
    """Returns the number of first groups whose videos are nearest to this fraction of all."""
    if share <= 0 or not len(size_G):
        return 0
    total_G = np.cumsum(size_G)
    target = math.floor(share * total_G[-1] + 0.5)
    return 1 + int(np.argmin(np.abs(total_G - target)))
