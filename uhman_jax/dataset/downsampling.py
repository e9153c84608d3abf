"""Downsamples frequent hashtags to the frequency of the rest, for the `balanced` distribution."""

from collections.abc import Sequence

import numpy as np

from uhman_jax.dataset.split import stateless_hash
from uhman_jax.runtime.errors import UserError


def keep_rates(count_T: np.ndarray, num_top: int) -> np.ndarray:
    """Returns the fraction of each hashtag's uses to keep (paper, section 3.1).

    The paper makes the `num_top` most common hashtags "similar in frequency to other hashtags";
    here that is the mean frequency of the others. No hashtag is made more frequent.

    >>> keep_rates(np.array([40, 8, 10, 12]), 1)
    array([0.25, 1.  , 1.  , 1.  ])

    Args:
        count_T: training uses of each hashtag of the vocabulary.
        num_top: number of most frequent hashtags to downsample; equal ones by index.

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
    """Returns a bool per use (a hashtag of a video): True with the probability of its rate.

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
