"""Stores ragged lists, and builds histories: the hashtags that a video's user used elsewhere.

A model that gets whole histories in training can learn each user's set of hashtags, and then find a
video's own hashtags as the ones that its history lacks. `history_parts` divides a user's videos
into parts, so that training can show a random selection of them instead.
"""

from typing import NamedTuple

import numpy as np


class Ragged(NamedTuple):
    """One list of ids per video; the list of video v is values[offsets[v]:offsets[v + 1]]."""

    values: np.ndarray  # int32, all lists one after the other
    offsets: np.ndarray  # int64, one more than the number of videos

    def row(self, v: int) -> np.ndarray:
        """Returns the list of one video, int32."""
        return self.values[self.offsets[v] : self.offsets[v + 1]]

    @classmethod
    def build(cls, row: np.ndarray, values: np.ndarray, num_rows: int) -> "Ragged":
        """Returns the lists that (row, value) pairs form; the pairs are sorted by row."""
        return cls(values.astype(np.int32), row_offsets(row, num_rows))


def row_offsets(row: np.ndarray, num_rows: int) -> np.ndarray:
    """Returns the start of each row among entries sorted by row, and the end of the last row.

    >>> row_offsets(np.array([0, 0, 2]), 3)
    array([0, 2, 2, 3])
    """
    return np.concatenate([[0], np.cumsum(np.bincount(row, minlength=num_rows))]).astype(np.int64)


def index_in_row(row: np.ndarray) -> np.ndarray:
    """Returns the index of each entry within its row; `row` is sorted.

    >>> index_in_row(np.array([0, 0, 2, 5, 5, 5]))
    array([0, 1, 0, 0, 1, 2])
    """
    first = np.concatenate([[True], row[1:] != row[:-1]])[: len(row)]
    start = np.flatnonzero(first)
    return np.arange(len(row)) - np.repeat(start, np.diff(np.append(start, len(row))))


NUM_PARTS = 32  # bits of an int32


def history_parts(
    user_V: np.ndarray, is_train_V: np.ndarray, positives: Ragged, history: Ragged
) -> np.ndarray:
    """Returns for each entry of a history the parts of the user's other videos that have it.

    The train videos of a user are divided into 32 parts: video i of the user, in the order of the
    rows, is in part i mod 32. Bit p of the result is set if a train video in part p, other than the
    history's own, has the hashtag. An entry that only users.csv has belongs to a part by its id.

    Args:
        user_V: user of each video, 0, 1, ...
        is_train_V: bool, True for a train video.
        positives: hashtag ids of each video.
        history: hashtag ids that the user used elsewhere.

    Returns:
        int32, one value per entry of `history.values`, never 0.
    """
    num_hashtags = 1 + max(positives.values.max(initial=0), history.values.max(initial=0))
    train = np.flatnonzero(is_train_V)
    train = train[np.argsort(user_V[train], kind="stable")]
    part_V = np.zeros(len(user_V), np.int64)
    part_V[train] = index_in_row(user_V[train]) % NUM_PARTS

    use_video = np.repeat(np.arange(len(user_V)), np.diff(positives.offsets))
    in_train = is_train_V[use_video]
    video, hashtag = use_video[in_train], positives.values[in_train]
    # Uses by user, hashtag and part, and the number of videos with each.
    key = (user_V[video] * num_hashtags + hashtag) * NUM_PARTS + part_V[video]
    key_K, count_K = np.unique(key, return_counts=True)
    pair_K, part_K = np.divmod(key_K, NUM_PARTS)
    pair_Q, start_Q = np.unique(pair_K, return_index=True)
    bits_Q = np.bitwise_or.reduceat(1 << part_K, start_Q) if len(pair_Q) else pair_Q

    entry_video = np.repeat(np.arange(len(user_V)), np.diff(history.offsets))
    wanted = user_V[entry_video] * num_hashtags + history.values
    bits = _lookup(pair_Q, bits_Q, wanted)
    own = np.isin(entry_video * num_hashtags + history.values, video * num_hashtags + hashtag)
    own_key = wanted * NUM_PARTS + part_V[entry_video]
    is_only_own = own & (_lookup(key_K, count_K, own_key) == 1)
    bits = np.where(is_only_own, bits & ~(1 << part_V[entry_video]), bits)
    bits = np.where(bits == 0, 1 << (history.values.astype(np.int64) % NUM_PARTS), bits)
    return bits.astype(np.uint32).view(np.int32)


def _lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the values of the wanted keys, 0 for a missing one; `keys` are ascending."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[index] == wanted, values[index], 0)


def build_histories(
    user_V: np.ndarray,
    is_train_V: np.ndarray,
    uses: tuple[np.ndarray, np.ndarray],
    past: tuple[np.ndarray, np.ndarray],
    name_rank_T: np.ndarray,
    max_history: int,
) -> Ragged:
    """Returns for each video the hashtags that its user used elsewhere, most used first.

    A use counts if it is in the user's list in users.csv or on *another train* video of the user.
    Uses on the video itself and on validation and test videos do not count. A hashtag of the video
    that the user also used elsewhere stays, because its absence would reveal the label.

    Ties are ordered by name, not by frequency in train, which depends on the video's label.

    Args:
        user_V: user of each video, 0, 1, ...
        is_train_V: bool, True for a train video.
        uses: (video, hashtag) of each use on a video, sorted by video; no pair twice.
        past: (user, hashtag) of each entry in users.csv; no pair twice.
        name_rank_T: rank of each hashtag in the order of the names.
        max_history: maximum number of hashtags per video.

    Returns:
        Ragged of hashtag ids, each at most once in a row.
    """
    num_videos, num_hashtags = len(user_V), len(name_rank_T)
    use_video, use_hashtag = uses
    in_train = is_train_V[use_video]
    pair = np.concatenate(
        [
            user_V[use_video[in_train]] * num_hashtags + use_hashtag[in_train],
            past[0] * num_hashtags + past[1],
        ]
    )
    pair, count = np.unique(pair, return_counts=True)
    user, hashtag = pair // num_hashtags, pair % num_hashtags
    order = np.lexsort((name_rank_T[hashtag], -count, user))
    # Removing a video's own uses moves others up by at most `most_own` places, so the rest is not
    # needed. Without this bound, the cost of a user with many videos is videos times hashtags.
    most_own = int(np.bincount(use_video, minlength=1).max())
    order = order[index_in_row(user[order]) < max_history + most_own]
    user, hashtag, count = user[order], hashtag[order], count[order]

    offsets_U = row_offsets(user, int(user_V.max(initial=-1)) + 1)
    length_V = np.diff(offsets_U)[user_V]
    video = np.repeat(np.arange(num_videos), length_V)
    entry = offsets_U[user_V[video]] + index_in_row(video)
    own = np.isin(
        video * num_hashtags + hashtag[entry],
        use_video[in_train] * num_hashtags + use_hashtag[in_train],
    )
    left = count[entry] - own
    video, entry, left = video[left > 0], entry[left > 0], left[left > 0]
    order = np.lexsort((name_rank_T[hashtag[entry]], -left, video))
    order = order[index_in_row(video[order]) < max_history]
    return Ragged.build(video[order], hashtag[entry[order]], num_videos)
