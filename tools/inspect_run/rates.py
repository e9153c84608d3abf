"""Compares the rates of hashtags between the users of a kind and all others, with intervals.

The rate of a hashtag is the fraction of a user's test clips that have it, averaged over users. Such
a mean has at most the variance of a proportion, so intervals for proportions are valid; they are a
little too wide if users have several clips.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats

LEVEL = 0.95  # of all intervals together
MIN_USERS = 5  # fewer users of a kind, or of a hashtag, are not compared
MAX_HASHTAGS = 500  # compared hashtags; each one widens all intervals


class Difference(NamedTuple):
    """The difference of a hashtag's rate between the users of a kind and all others."""

    here: float  # rate among the users of the kind
    elsewhere: float  # rate among the others
    difference: float  # here - elsewhere
    interval: tuple[float, float]

    @property
    def sign(self) -> int:
        """Returns 1 or -1 if the interval lies on one side of 0, else 0."""
        low, high = self.interval
        return 1 if low > 0 else -1 if high < 0 else 0


def wilson(rate: float, num_users: int, z: float) -> tuple[float, float]:
    """Returns Wilson's score interval of a proportion.

    >>> [round(bound, 4) for bound in wilson(0.8, 70, 1.96)]
    [0.6918, 0.877]
    """
    spread = z * math.sqrt(rate * (1 - rate) / num_users + z**2 / (4 * num_users**2))
    middle, scale = rate + z**2 / (2 * num_users), 1 + z**2 / num_users
    return (middle - spread) / scale, (middle + spread) / scale


def difference(
    here: float, num_here: int, elsewhere: float, num_elsewhere: int, z: float
) -> Difference:
    """Returns the difference of two rates with Newcombe's interval (1998, method 10).

    His Table II compares 56 of 70 with 48 of 80:

    >>> found = difference(0.8, 70, 0.6, 80, 1.96)
    >>> round(found.difference, 4), [round(bound, 4) for bound in found.interval]
    (0.2, [0.0524, 0.3339])

    Args:
        here: rate among the users of the kind.
        num_here: number of these users.
        elsewhere: rate among the others.
        num_elsewhere: number of the others.
        z: normal quantile of the level.
    """
    low_here, high_here = wilson(here, num_here, z)
    low_elsewhere, high_elsewhere = wilson(elsewhere, num_elsewhere, z)
    gap = here - elsewhere
    low = gap - math.hypot(here - low_here, high_elsewhere - elsewhere)
    high = gap + math.hypot(high_here - here, elsewhere - low_elsewhere)
    return Difference(here, elsewhere, gap, (low, high))


def joint_quantile(num_intervals: int) -> float:
    """Returns the normal quantile for intervals that hold jointly (Bonferroni).

    >>> round(joint_quantile(1), 3), round(joint_quantile(1000), 3)
    (1.96, 4.056)
    """
    return float(scipy.stats.norm.isf((1 - LEVEL) / 2 / max(num_intervals, 1)))


def rates_of_users(user_V: np.ndarray, tags_V: list[np.ndarray], ids_X: np.ndarray) -> np.ndarray:
    """Returns rates_UX, float64: the fraction of a user's clips that have a hashtag.

    >>> user_V, tags_V = np.array([0, 0, 1]), [np.array([4, 7]), np.array([4]), np.array([7])]
    >>> rates_of_users(user_V, tags_V, np.array([7, 4])).tolist()
    [[0.5, 1.0], [1.0, 0.0]]

    Args:
        user_V: index of each clip's user, all of 0, 1, ... in use.
        tags_V: hashtag ids of each clip, each once.
        ids_X: hashtags to compare.
    """
    count_UX = np.zeros((int(user_V.max(initial=-1)) + 1, len(ids_X)))
    for user, tags in zip(user_V, tags_V, strict=True):
        count_UX[user] += np.isin(ids_X, tags)
    return count_UX / np.bincount(user_V)[:, np.newaxis]


def looked_at(user_V: np.ndarray, *lists: list[np.ndarray]) -> np.ndarray:
    """Returns the ids of hashtags that at least MIN_USERS users have, most users first."""
    pairs = np.concatenate(
        [
            np.stack([np.full(len(tags), user), tags], axis=1)
            for tags_V in lists
            for user, tags in zip(user_V.tolist(), tags_V, strict=True)
        ]
    )
    ids, counts = np.unique(np.unique(pairs, axis=0)[:, 1], return_counts=True)
    order = np.lexsort((ids, -counts))
    order = order[counts[order] >= MIN_USERS]
    return ids[order][:MAX_HASHTAGS]


def compare(rates_UX: np.ndarray, member_U: np.ndarray, z: float) -> list[Difference]:
    """Returns the difference between members and others for every hashtag; neither is empty."""
    num_here, num_elsewhere = int(member_U.sum()), int((~member_U).sum())
    here_X, elsewhere_X = rates_UX[member_U].mean(axis=0), rates_UX[~member_U].mean(axis=0)
    return [
        difference(here, num_here, elsewhere, num_elsewhere, z)
        for here, elsewhere in zip(here_X.tolist(), elsewhere_X.tolist(), strict=True)
    ]
