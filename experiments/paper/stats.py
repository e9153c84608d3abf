"""Statistics over seeds and worlds (simulated datasets): intervals, a randomisation test, Holm."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats

from uhman_jax.scores import interval

# With two worlds there is one degree of freedom: t is 12.7 and the interval useless.
MIN_WORLDS = 3
_BLOCK = 256  # sign vectors drawn at once: 12 MB for 6,000 videos

Worlds = Mapping[int, Sequence[float]]  # the seeds' values by world seed


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of means, with the half-width of its 95 % t interval.

    With at least MIN_WORLDS worlds, the interval is over worlds. With fewer, it is over seeds on
    these worlds.
    """

    mean: float  # over worlds, of the means over seeds
    half_width: float | None  # None if there are too few values
    agree: bool  # whether all worlds have the sign of the mean


def over_worlds(worlds: Worlds) -> Estimate | None:
    """Returns the mean over worlds of the means over seeds; None without worlds.

    The seeds of one world share its clips and users, so they are not independent. With enough
    worlds, the interval uses only their means.

    >>> over_worlds({0: [0.1, 0.3], 1: [0.5]}).mean  # (0.2 + 0.5) / 2
    0.35
    """
    means = [float(np.mean(seeds)) for seeds in worlds.values()]
    return _estimate(means, list(worlds.values())) if means else None


def difference(first: Worlds, second: Worlds) -> Estimate | None:
    """Returns first - second, paired by world, over the shared worlds; None if there are none.

    Seeds are not paired: seed s of one system is independent of seed s of another.
    """
    shared = [world for world in first if world in second]
    if not shared:
        return None
    gaps = [float(np.mean(first[world]) - np.mean(second[world])) for world in shared]
    return _estimate(gaps, [side[world] for side in (first, second) for world in shared])


def _estimate(means: list[float], groups: list[Sequence[float]]) -> Estimate:
    mean, many = float(np.mean(means)), len(means) >= MIN_WORLDS
    half_width = interval(means) if many else seeds_interval(groups, len(means))
    return Estimate(mean, half_width, all(value * mean > 0 for value in means))


def seeds_interval(groups: Sequence[Sequence[float]], num_worlds: int = 1) -> float | None:
    """Returns the half-width of (sum or difference of group means) / `num_worlds` (Welch 1947).

    One group gives the ordinary t interval. Returns None if a group has fewer than two values.

    >>> round(seeds_interval([[0.0, 1.0], [0.0, 1.0]]), 3)  # 2 degrees: 4.303 * sqrt(0.25 + 0.25)
    3.042
    """
    if min(map(len, groups)) < 2:
        return None
    errors = [float(np.var(values, ddof=1)) / len(values) for values in groups]
    if sum(errors) == 0:
        return 0.0
    parts = [error**2 / (len(values) - 1) for error, values in zip(errors, groups, strict=True)]
    degrees = sum(errors) ** 2 / sum(parts)
    return float(scipy.stats.t.ppf(0.975, degrees) * math.sqrt(sum(errors)) / num_worlds)


def sign_flip_p(differences_V: np.ndarray, *, num_draws: int = 10_000, seed: int = 0) -> float:
    """Returns the two-sided p value of a paired randomisation test that the mean difference is 0.

    Under the null hypothesis the systems are exchangeable on every video, so both signs of each
    difference are equally likely. If there are at most `num_draws` sign vectors, all are enumerated
    and p is exact. Otherwise p = (1 + number at least as extreme) / (1 + num_draws), which is never
    0 and keeps the test valid (Phipson and Smyth 2010). Differences of 0 change nothing.

    p refers to other videos and the same models; intervals refer to other seeds or worlds.

    >>> sign_flip_p(np.array([1.0, 2.0, 0.0]))  # two of 3, 1, -1, -3 are at least 3 from 0
    0.5
    """
    differences_V = np.asarray(differences_V, np.float64)
    differences_V = differences_V[differences_V != 0]
    num_videos = len(differences_V)
    if num_videos == 0:
        return 1.0
    total = differences_V.sum()
    # Equal sums may differ by rounding.
    bound = abs(total) - 1e-9 * np.abs(differences_V).sum()

    def extreme(plus: np.ndarray) -> int:
        """Counts rows of 0 (minus) and 1 (plus) whose sum is as far from 0 as the observed one."""
        return int(np.sum(np.abs(2 * (plus @ differences_V) - total) >= bound))

    if 2**num_videos <= num_draws:
        numbers = np.arange(2**num_videos)
        return extreme((numbers[:, None] >> np.arange(num_videos)) & 1) / 2**num_videos
    rng = np.random.default_rng(seed)
    count, width = 0, -(-num_videos // 8)
    for start in range(0, num_draws, _BLOCK):
        size = min(_BLOCK, num_draws - start)
        packed = np.frombuffer(rng.bytes(size * width), np.uint8).reshape(size, width)
        count += extreme(np.unpackbits(packed, axis=1, count=num_videos).astype(np.float64))
    return (1 + count) / (1 + num_draws)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p values of a family, corrected (Holm 1979), in the given order.

    >>> holm([0.04, 0.01, 0.03])  # 3 x 0.01; 2 x 0.03; 0.04, raised to 0.06
    [0.06, 0.03, 0.06]
    """
    corrected = [0.0] * len(p_values)
    before = 0.0
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for position, index in enumerate(order):
        before = max(before, min(1.0, (len(p_values) - position) * p_values[index]))
        corrected[index] = before
    return corrected
