"""Which videos are train, validation and test."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from uhman_jax.config import Split
from uhman_jax.dataset.raw import Video
from uhman_jax.errors import UserError, count_of

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLIT_NAMES = ("train", "validation", "test")


def stateless_hash(purpose: str, seed: int, *parts: str) -> int:
    """Returns 64 bits that depend on the arguments alone, on every machine and in every version."""
    text = "\0".join((purpose, str(seed), *parts))  # ids hold no NUL
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def assign_splits(
    videos: Sequence[Video], split: Split, *, test_share: float, validation_share: float, seed: int
) -> np.ndarray:
    """Divides videos; labels play no part.

    - random: videos in an order that hashes of (seed, video_id) give; the first are the test.
    - temporal: the newest are the test, the newest of the rest the validation. A video without
      timestamp counts as older than all others. Videos of one second are ordered as in `random`.
    - cold_user: users in an order that hashes give; whole users are taken until the number of their
      videos comes nearest to the share. No user is in two splits.

    Args:
        videos: with unique ids, in any order: the split of a video does not depend on it.
        split: which of the three.
        test_share: of the videos; a share above 0 gives one video (or user) at least.
        validation_share: of the videos that are not test; likewise.
        seed: of the hashes.

    Returns:
        split_V: int8, TRAIN, VALIDATION or TEST.

    Raises:
        UserError: too few videos or users for the parts asked for, or a temporal split without any
            timestamp.
    """
    tie_V = np.array(
        [stateless_hash("split", seed, video.video_id) for video in videos], dtype=np.uint64
    )
    if split is Split.COLD_USER:
        user_ids = sorted({video.user_id for video in videos})
        number = {user_id: i for i, user_id in enumerate(user_ids)}
        group_V = np.array([number[video.user_id] for video in videos], dtype=np.int64)
        tie_G = [stateless_hash("split users", seed, user_id) for user_id in user_ids]
        order_G = np.argsort(np.array(tie_G, dtype=np.uint64), kind="stable")
    else:
        group_V = np.arange(len(videos))
        order_G = np.argsort(tie_V, kind="stable")
        if split is Split.TEMPORAL:
            order_G = np.lexsort((tie_V, -_timestamps(videos)))  # newest first
    size_G = np.bincount(group_V, minlength=len(order_G))[order_G]  # videos, in that order
    num_test = _count_groups(size_G, test_share)
    num_validation = _count_groups(size_G[num_test:], validation_share)
    if num_test + num_validation >= len(order_G):
        unit = "users" if split is Split.COLD_USER else "videos"
        raise UserError(
            f"a {split.value} split must leave {unit} to train on, got {len(order_G)} {unit} of "
            f"which {num_test} are test and {num_validation} validation; add {unit}, or lower "
            "view.test_share and view.validation_share"
        )
    split_G = np.full(len(order_G), TRAIN, dtype=np.int8)
    split_G[order_G[:num_test]] = TEST
    split_G[order_G[num_test : num_test + num_validation]] = VALIDATION
    return split_G[group_V]


def surplus_train(
    video_ids: Sequence[str], split_V: np.ndarray, train_share: float, seed: int
) -> np.ndarray:
    """Marks the training videos beyond a share of them; what a smaller share keeps, a larger does.

    Args:
        video_ids: of each video.
        split_V: TRAIN, VALIDATION or TEST.
        train_share: in (0, 1]; one video at least stays.
        seed: of the order, which is that of hashes.

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
    """Returns unix seconds, -1 where unknown, which is older than all."""
    if all(video.timestamp is None for video in videos):
        raise UserError(
            f"a temporal split must know when videos were posted, got no timestamp in "
            f"{count_of(len(videos), 'video')}; fill the column in, or use view.split=random"
        )
    return np.array([-1 if video.timestamp is None else video.timestamp for video in videos])


def _count_groups(size_G: np.ndarray, share: float) -> int:
    """Returns how many groups, from the front, hold nearest to this share of all videos."""
    if share <= 0 or not len(size_G):
        return 0
    total_G = np.cumsum(size_G)
    target = math.floor(share * total_G[-1] + 0.5)
    return 1 + int(np.argmin(np.abs(total_G - target)))
