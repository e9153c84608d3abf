"""Selects the hashtags of a view, and which of their uses to keep."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import assert_never

import numpy as np

from uhman_jax.config import Distribution, ViewConfig
from uhman_jax.dataset.downsampling import draw_uses, keep_rates
from uhman_jax.dataset.history import index_in_row
from uhman_jax.dataset.raw import Video
from uhman_jax.dataset.split import TRAIN
from uhman_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The hashtags of a view and their uses."""

    hashtags: tuple[str, ...]  # T names, most used in train first, then by name
    spellings: tuple[str, ...]  # of the same hashtags, see `choose_spellings`
    counts_T: np.ndarray  # int64, uses in train, at least 1
    kept_T: np.ndarray  # float64 in (0, 1], fraction of the uses that downsampling keeps
    video: np.ndarray  # int64, index of the video of each use, ascending
    hashtag: np.ndarray  # int64, index of the hashtag of each use
    report: dict[str, int]  # number of uses that were left out, by reason


def select_hashtags(videos: Sequence[Video], split_V: np.ndarray, config: ViewConfig) -> Vocabulary:
    """Selects hashtags by their uses in train, and the uses to keep in all splits.

    The steps: hashtags with fewer than `min_count` uses are removed; `balanced` downsamples
    frequent ones; a video keeps its first `max_positives` hashtags; hashtags without a remaining
    use in train are removed.

    Removed uses in train also count for the spelling of a hashtag, so `natural` and `balanced` show
    the same spellings.

    Raises:
        UserError: no hashtag is frequent enough, or `balanced_top` leaves none to compare with.
    """
    names = sorted({hashtag for video in videos for hashtag in video.hashtags})
    index = {name: i for i, name in enumerate(names)}
    hashtag = np.array([index[name] for video in videos for name in video.hashtags], dtype=np.int64)
    video = np.repeat(np.arange(len(videos)), [len(video.hashtags) for video in videos])

    def train_counts() -> np.ndarray:
        return np.bincount(hashtag[split_V[video] == TRAIN], minlength=len(names))

    count_T = train_counts()
    min_count = max(1, config.min_count)
    frequent_T = count_T >= min_count
    if not frequent_T.any():
        raise UserError(
            f"a hashtag must have {min_count} uses in train (view.min_count), got "
            f"{count_T.max()} for the most used one in {np.sum(split_V == TRAIN)} train videos; "
            "lower view.min_count or add videos"
        )
    keep = frequent_T[hashtag]
    report = {"rare_uses": int(np.sum(~keep))}
    video, hashtag = video[keep], hashtag[keep]

    rate_T = np.ones(len(names))
    match config.distribution:
        case Distribution.NATURAL:
            pass
        case Distribution.BALANCED:
            rate_T[frequent_T] = keep_rates(count_T[frequent_T], config.balanced_top)
            video_ids, uses = [videos[v].video_id for v in video], [names[t] for t in hashtag]
            keep = draw_uses(rate_T[hashtag].tolist(), video_ids, uses, config.seed)
            report["downsampled_uses"] = int(np.sum(~keep))
            video, hashtag = video[keep], hashtag[keep]
        case _:
            assert_never(config.distribution)

    keep = index_in_row(video) < config.max_positives
    report["surplus_uses"] = int(np.sum(~keep))
    video, hashtag = video[keep], hashtag[keep]

    count_T = train_counts()
    keep = count_T[hashtag] > 0
    video, hashtag = video[keep], hashtag[keep]
    chosen = np.argsort(-count_T, kind="stable")[: np.count_nonzero(count_T)]  # names are sorted
    new_id = np.full(len(names), -1)
    new_id[chosen] = np.arange(len(chosen))
    hashtags = tuple(names[t] for t in chosen)
    train = [video for video, split in zip(videos, split_V, strict=True) if split == TRAIN]
    spelling = choose_spellings(train)
    return Vocabulary(
        hashtags,
        tuple(spelling[name] for name in hashtags),
        count_T[chosen].astype(np.int64),
        rate_T[chosen],
        video,
        new_id[hashtag],
        report,
    )


def choose_spellings(videos: Iterable[Video]) -> dict[str, str]:
    """Returns for each hashtag of some videos the spelling that most users write.

    Ties are decided by the number of uses, then by code points. So one user with many videos does
    not decide for all.

    >>> videos = [
    ...     Video("a", "", "ann", ("nyc",), None, ("NYC",)),
    ...     Video("b", "", "bob", ("nyc",), None, ("nyc",)),
    ...     Video("c", "", "bob", ("nyc",), None, ("nyc",)),
    ...     Video("d", "", "eva", ("nyc",), None, ("NYC",)),
    ... ]
    >>> choose_spellings(videos)
    {'nyc': 'NYC'}
    """
    uses: collections.Counter[tuple[str, str]] = collections.Counter()
    writers: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for video in videos:
        for pair in zip(video.hashtags, video.written, strict=True):
            uses[pair] += 1
            writers[pair].add(video.user_id)
    chosen: dict[str, str] = {}
    for hashtag, spelling in sorted(
        uses, key=lambda pair: (-len(writers[pair]), -uses[pair], pair)
    ):
        chosen.setdefault(hashtag, spelling)
    return chosen


def leave_out(vocabulary: Vocabulary, videos_left_out_V: np.ndarray, is_train_V: np.ndarray):
    """Returns the same hashtags, counted and ordered without the uses on some videos.

    A hashtag without a remaining use in train stays in the vocabulary with count 0, and all keep
    their spelling, so runs on more and less data rank and show the same hashtags.

    Args:
        vocabulary: of all videos.
        videos_left_out_V: bool.
        is_train_V: bool.
    """
    keep = ~videos_left_out_V[vocabulary.video]
    video, hashtag = vocabulary.video[keep], vocabulary.hashtag[keep]
    names = np.array(vocabulary.hashtags, dtype=object)
    count_T = np.bincount(hashtag[is_train_V[video]], minlength=len(names))
    name_rank_T = np.argsort(np.argsort(names))
    order_T = np.lexsort((name_rank_T, -count_T))
    new_id = np.argsort(order_T)
    return dataclasses.replace(
        vocabulary,
        hashtags=tuple(names[order_T]),
        spellings=tuple(vocabulary.spellings[t] for t in order_T),
        counts_T=count_T[order_T].astype(np.int64),
        kept_T=vocabulary.kept_T[order_T],
        video=video,
        hashtag=new_id[hashtag],
    )
