"""Selects the hashtags of a view, and which of their uses to keep. A use is a hashtag of a video.

The `balanced` distribution downsamples frequent hashtags to the frequency of the others.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import assert_never

import numpy as np

from uhman_jax.config import Distribution, ViewConfig
from uhman_jax.dataset.history import index_in_row
from uhman_jax.dataset.raw import Video
from uhman_jax.dataset.split import SPLIT_NAMES, TRAIN, stateless_hash
from uhman_jax.runtime.errors import UserError, count_of

_SHOWN_COUNTS = (3, 5, 10)  # values of view.min_count whose effect is logged


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The hashtags of a view and their uses."""

    hashtags: tuple[str, ...]  # T names, most used in train first, then by name
    spellings: tuple[str, ...]  # of the same hashtags, see `choose_spellings`
    counts_T: np.ndarray  # int64, uses in train; 0 only after `leave_out`
    kept_T: np.ndarray  # float64 in (0, 1], fraction of the uses that downsampling keeps
    video: np.ndarray  # int64, index of the video of each use, ascending
    hashtag: np.ndarray  # int64, index of the hashtag of each use
    report: dict[str, int]  # number of uses that were left out, by reason


def select_hashtags(videos: Sequence[Video], split_V: np.ndarray, config: ViewConfig) -> Vocabulary:
    """Selects hashtags by their uses in train, and the uses to keep in all splits.

    First, hashtags with fewer than `min_count` uses (at least 1) are removed. Then `balanced`
    downsamples the frequent ones, and a video keeps its first `max_positives` hashtags. Last,
    hashtags without a remaining use in train are removed.

    The spelling of a hashtag depends on all uses in train, also removed ones, so `natural` and
    `balanced` show the same spellings.

    Raises:
        UserError: no hashtag is frequent enough, or `balanced_top` leaves no other hashtag.
    """
    names = sorted({hashtag for video in videos for hashtag in video.hashtags})
    index = {name: i for i, name in enumerate(names)}
    hashtag = np.array([index[name] for video in videos for name in video.hashtags], dtype=np.int64)
    video = np.repeat(np.arange(len(videos)), [len(video.hashtags) for video in videos])
    is_train_V = split_V == TRAIN
    count_T = np.bincount(hashtag[is_train_V[video]], minlength=len(names))
    frequent_T = count_T >= config.min_count
    if not frequent_T.any():
        raise UserError(
            f"a hashtag must have {config.min_count} uses in train (view.min_count), got "
            f"{count_T.max()} for the most used one in {is_train_V.sum()} train videos; "
            "lower view.min_count or add videos"
        )
    report = {}

    def remove(reason: str, keep: np.ndarray) -> None:
        nonlocal video, hashtag
        report[reason] = int(np.sum(~keep))
        video, hashtag = video[keep], hashtag[keep]

    remove("rare_uses", frequent_T[hashtag])
    rate_T = np.ones(len(names))
    match config.distribution:
        case Distribution.NATURAL:
            pass
        case Distribution.BALANCED:
            rate_T[frequent_T] = keep_rates(count_T[frequent_T], config.balanced_top)
            uses = [videos[v].video_id for v in video.tolist()], [names[t] for t in hashtag]
            remove("downsampled_uses", draw_uses(rate_T[hashtag].tolist(), *uses, config.seed))
        case _:
            assert_never(config.distribution)
    remove("surplus_uses", index_in_row(video) < config.max_positives)
    known_T = np.bincount(hashtag[is_train_V[video]], minlength=len(names)) > 0
    keep = known_T[hashtag]
    spelling = choose_spellings(itertools.compress(videos, is_train_V))
    hashtags = tuple(itertools.compress(names, known_T))
    vocabulary = Vocabulary(
        hashtags,
        tuple(spelling[name] for name in hashtags),
        count_T[known_T],  # with removed uses; `_ranked` counts again
        rate_T[known_T],
        video[keep],
        (np.cumsum(known_T) - 1)[hashtag[keep]],
        report,
    )
    return _ranked(vocabulary, is_train_V)


def fitting_min_count(num_train: int) -> int:
    """Returns the minimum number of training uses of a hashtag that fits a number of train videos.

    It is used if `view.min_count` is 0. With the paper's 7,400 train videos it is the paper's 10,
    which drops more of the uses the fewer videos there are: of the keywords of Open Clip Art
    (experiments/real_tags) 27 % with 3,000 clips, 38 % with 1,000 and 56 % with 300. There, 5, 5
    and 3 drop 20 %, 28 % and 30 %. Fewer than 3 uses leave almost nothing to learn from.

    >>> [fitting_min_count(number) for number in (999, 1000, 4999, 5000)]
    [3, 5, 5, 10]
    """
    return 3 if num_train < 1000 else 5 if num_train < 5000 else 10


def describe_min_count(videos: Sequence[Video], split_V: np.ndarray, min_count: int) -> str:
    """Returns a sentence about the hashtags that `view.min_count` drops, and that others would.

    Only uses in train count, as for the vocabulary, so test labels stay unseen.
    """
    in_train = [video.hashtags for video in itertools.compress(videos, split_V == TRAIN)]
    count = collections.Counter(itertools.chain(*in_train))
    most = [max(count[name] for name in hashtags) for hashtags in in_train]

    def dropped(minimum: int) -> tuple[str, str]:
        uses = sum(uses for uses in count.values() if uses < minimum) / count.total()
        clips = sum(uses < minimum for uses in most) / len(most)
        return f"{100 * uses:.1f} %", f"{100 * clips:.1f} %"

    uses, clips = dropped(min_count)
    others = [
        f"{minimum} drops {' and '.join(dropped(minimum))}"
        for minimum in _SHOWN_COUNTS
        if minimum != min_count
    ]
    return (
        f"Vocabulary: hashtags with at least {count_of(min_count, 'use')} in train "
        f"(view.min_count). This drops {uses} of the uses and {clips} of the videos in train; "
        f"{', '.join(others)}."
    )


def keep_rates(count_T: np.ndarray, num_top: int) -> np.ndarray:
    """Returns the fraction of each hashtag's uses to keep (paper, section 3.1).

    The paper makes the `num_top` most common hashtags "similar in frequency to other hashtags";
    here that is the mean frequency of the others. No hashtag is made more frequent.

    >>> keep_rates(np.array([40, 8, 10, 12]), 1)
    array([0.25, 1.  , 1.  , 1.  ])

    Args:
        count_T: training uses of each hashtag of the vocabulary.
        num_top: number of most frequent hashtags to downsample; ties by index.

    Returns:
        rate_T: float64 in (0, 1].

    Raises:
        UserError: there are at most `num_top` hashtags.
    """
    if num_top >= len(count_T):
        raise UserError(
            f"view.balanced_top must be below the number of hashtags ({len(count_T)}), "
            f"got {num_top}; use {len(count_T) // 5} (the paper's 150 are about a fifth of its 669)"
        )
    order_T = np.argsort(-count_T, kind="stable")
    rate_T = np.ones(len(count_T))
    top, rest = order_T[:num_top], order_T[num_top:]
    rate_T[top] = np.minimum(1, count_T[rest].mean() / count_T[top])
    return rate_T


def draw_uses(
    rates: Sequence[float], video_ids: Sequence[str], hashtags: Sequence[str], seed: int
) -> np.ndarray:
    """Returns whether to keep each use, bool: True with the probability of its rate.

    Each decision depends only on the rate and on (seed, video_id, hashtag), not on other uses or
    their order.
    """
    return np.array(
        [
            rate >= 1 or stateless_hash("balance", seed, video_id, hashtag) < rate * 2**64
            for rate, video_id, hashtag in zip(rates, video_ids, hashtags, strict=True)
        ],
        dtype=bool,
    )


def choose_spellings(videos: Iterable[Video]) -> dict[str, str]:
    """Returns for each hashtag the spelling that most users write.

    Users are counted, so one user with many videos does not decide for all. Ties are decided by the
    number of uses, then by code points.

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


def leave_out(
    vocabulary: Vocabulary, videos_left_out_V: np.ndarray, is_train_V: np.ndarray
) -> Vocabulary:
    """Returns the same hashtags without the uses on some videos, counted and ordered again.

    A hashtag without a remaining use in train stays in the vocabulary with count 0, and all keep
    their spelling, so runs on more and less data rank and show the same hashtags.

    Args:
        vocabulary: vocabulary of all videos.
        videos_left_out_V: bool, True for a video whose uses are removed.
        is_train_V: bool, True for a train video.
    """
    keep = ~videos_left_out_V[vocabulary.video]
    video, hashtag = vocabulary.video[keep], vocabulary.hashtag[keep]
    return _ranked(dataclasses.replace(vocabulary, video=video, hashtag=hashtag), is_train_V)


def _ranked(vocabulary: Vocabulary, is_train_V: np.ndarray) -> Vocabulary:
    """Returns the hashtags counted and ordered by their uses in train, then by name."""
    names = np.array(vocabulary.hashtags, dtype=object)
    in_train = is_train_V[vocabulary.video]
    count_T = np.bincount(vocabulary.hashtag[in_train], minlength=len(names))
    order_T = np.lexsort((np.argsort(np.argsort(names)), -count_T))  # names as ranks
    return dataclasses.replace(
        vocabulary,
        hashtags=tuple(names[order_T]),
        spellings=tuple(vocabulary.spellings[t] for t in order_T),
        counts_T=count_T[order_T].astype(np.int64),
        kept_T=vocabulary.kept_T[order_T],
        hashtag=np.argsort(order_T)[vocabulary.hashtag],
    )


def count_without_hashtag(
    vocabulary: Vocabulary, split_V: np.ndarray, min_count: int
) -> dict[str, int]:
    """Returns the number of videos of each split without a hashtag of the vocabulary.

    Raises:
        UserError: a split has videos, but none with a hashtag of the vocabulary.
    """
    has_hashtag_V = np.bincount(vocabulary.video, minlength=len(split_V)) > 0
    report = {}
    for split, name in enumerate(SPLIT_NAMES):
        members = split_V == split
        report[f"{name}_videos_without_hashtag"] = int(np.sum(members & ~has_hashtag_V))
        if members.any() and not (members & has_hashtag_V).any():
            raise UserError(
                f"the {name} split must have a video with a hashtag that train uses {min_count} "
                f"times (view.min_count), got none in {members.sum()} videos; lower "
                "view.min_count, add videos, or try another view.seed"
            )
    return report
