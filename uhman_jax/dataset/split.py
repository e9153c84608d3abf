"""Divides videos into train, validation and test."""

import hashlib
import itertools
import math
import operator
from collections.abc import Sequence
from typing import assert_never

import numpy as np
import scipy.sparse.csgraph

from uhman_jax.config import Split
from uhman_jax.dataset.raw import Video
from uhman_jax.runtime.errors import UserError, count_of

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLIT_NAMES = ("train", "validation", "test")


def stateless_hash(purpose: str, seed: int, *parts: str) -> int:
    """Returns a 64-bit hash of the arguments, equal on every machine and in every version."""
    text = "\0".join((purpose, str(seed), *parts))  # ids have no NUL
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
    """Divides videos into splits, independently of their labels.

    - random: videos are ordered by hashes of (seed, video_id); the first are the test split, the
      next the validation split.
    - temporal: the newest are the test split, the next the validation split. A video without
      timestamp is older than all others. Equal times are ordered as in `random`.
    - cold_user: users are ordered by hashes of (seed, user_id); the first are the test split, the
      next the validation split. The number of users is chosen such that the number of their videos
      is nearest to the requested one. No user is in two splits.

    All copies of a content, and all videos of a group, are in one split:

    - random: the hash of their smallest video_id gives their position.
    - temporal: they count as old as the oldest known timestamp among them.
    - cold_user: users who share a content, directly or through other users, are in one split; the
      hash of their smallest user_id gives their position.

    A group of copies counts as its number of videos. In `random` and `cold_user`, a group larger
    than both the test and the validation split is last: a clip that very many users post stays in
    train.

    Args:
        videos: with unique ids, in any order: the split of a video does not depend on it.
        split: one of the three kinds.
        test_share: fraction of the videos; if above 0, at least one video (or user) is in test.
        validation_share: fraction of the videos that are not in test; as above.
        seed: seed of the hashes.
        copies: groups of these videos that must be in one split.

    Returns:
        split_V: int8, TRAIN, VALIDATION or TEST.

    Raises:
        UserError: there are too few videos or users for the splits, or no timestamps for a temporal
            split.
    """
    match split:
        case Split.RANDOM | Split.TEMPORAL:
            unit, purpose, name = "videos", "split", operator.attrgetter("video_id")
        case Split.COLD_USER:
            unit, purpose, name = "users", "split users", operator.attrgetter("user_id")
        case _:
            assert_never(split)
    names = sorted(set(map(name, videos)))
    index = {name: i for i, name in enumerate(names)}
    chains = [[index[name(video)] for video in group] for group in copies]
    group_of_name, root_G = _components(chains, len(names))
    group_V = group_of_name[[index[name(video)] for video in videos]]
    tie_G = np.array([stateless_hash(purpose, seed, names[i]) for i in root_G], dtype=np.uint64)
    size_G = np.bincount(group_V)  # videos
    if split is Split.TEMPORAL:
        order_G = np.lexsort((tie_G, -_oldest(videos, group_V)))  # newest first
    else:
        limit = math.floor(max(test_share, validation_share) * len(videos) + 0.5)
        is_joined_G = np.bincount(group_of_name) > 1
        order_G = np.lexsort((tie_G, is_joined_G & (size_G > limit)))
    size_G = size_G[order_G]
    num_test = _count_groups(size_G, test_share)
    num_validation = _count_groups(size_G[num_test:], validation_share)
    if num_test + num_validation >= len(order_G):
        got, remedy = f"{len(names)} {unit}", f"add {unit}"
        if len(order_G) < len(names):
            groups = "1 group" if len(order_G) == 1 else f"{len(order_G)} groups"
            got += f", bound by duplicates or the column group into {groups},"
            remedy = f"set --config.data.duplicates=drop, divide groups, {remedy}"
        raise UserError(
            f"a {split.value} split must leave {unit} to train on, got {got} of "
            f"which {num_test} are test and {num_validation} validation; {remedy}, or lower "
            "view.test_share and view.validation_share"
        )
    split_G = np.full(len(order_G), TRAIN, dtype=np.int8)
    split_G[order_G[:num_test]] = TEST
    split_G[order_G[num_test : num_test + num_validation]] = VALIDATION
    return split_G[group_V]


def _components(chains: Sequence[Sequence[int]], num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the connected component of each node, and the smallest node of each component."""
    pairs = [pair for chain in chains for pair in itertools.pairwise(chain)]
    one, other = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = scipy.sparse.coo_array((np.ones(len(one)), (one, other)), shape=(num_nodes, num_nodes))
    component = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    return component, np.unique(component, return_index=True)[1]


def _oldest(videos: Sequence[Video], group_V: np.ndarray) -> np.ndarray:
    """Returns the oldest known timestamp of each group; -1 if none is known."""
    known = [
        (g, v.timestamp) for g, v in zip(group_V, videos, strict=True) if v.timestamp is not None
    ]
    if not known:
        raise UserError(
            f"a temporal split must know when videos were posted, got no timestamp in "
            f"{count_of(len(videos), 'video')}; fill the column in, or use view.split=random"
        )
    unknown = np.iinfo(np.int64).max
    time_G = np.full(group_V.max() + 1, unknown)
    group, time = np.array(known, dtype=np.int64).T
    np.minimum.at(time_G, group, time)
    return np.where(time_G == unknown, -1, time_G)


def surplus_train(
    video_ids: Sequence[str], split_V: np.ndarray, train_share: float, seed: int
) -> np.ndarray:
    """Returns surplus_V, True for train videos to leave out if only a fraction is used.

    A larger fraction keeps all videos of a smaller one.

    Args:
        video_ids: id of each video.
        split_V: TRAIN, VALIDATION or TEST.
        train_share: the fraction, in (0, 1]; at least one video is kept.
        seed: seed of the hashes by which videos are ordered.
    """
    surplus_V = np.zeros(len(video_ids), bool)
    if train_share < 1:
        rows = np.flatnonzero(split_V == TRAIN)
        hashes = [stateless_hash("train share", seed, video_ids[row]) for row in rows.tolist()]
        num_kept = max(1, math.floor(train_share * len(rows) + 0.5))
        surplus_V[rows[np.argsort(np.array(hashes, np.uint64), kind="stable")[num_kept:]]] = True
    return surplus_V


def _count_groups(size_G: np.ndarray, share: float) -> int:
    """Returns how many leading groups are nearest in size to a fraction of all videos."""
    if share <= 0 or not len(size_G):
        return 0
    total_G = np.cumsum(size_G)
    target = math.floor(share * total_G[-1] + 0.5)
    return 1 + int(np.argmin(np.abs(total_G - target)))
