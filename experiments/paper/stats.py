"""Statistics of the study: intervals over seeds and worlds, a paired randomisation test, Holm."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats

from uhman_jax.scores import interval

# Two worlds leave one degree of freedom, so t is 12.7 and the interval says nothing.
MIN_WORLDS = 3
_BLOCK = 256  # sign vectors drawn at once: 12 MB for 6,000 videos

Worlds = Mapping[int, Sequence[float]]  # the seeds' values by world seed


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of means, with the half-width of its 95 % t interval.

    Attributes:
        mean: over worlds, of the means over seeds.
        half_width: as `over` says; None where there are too few values.
        over: "worlds" where there are MIN_WORLDS or more: what another world may give. Else
            "seeds": what training again in these worlds may give.
        num_worlds: how many worlds (or data sets) the mean is over.
        agree: whether all worlds have the sign of the mean.
    """

    mean: float
    half_width: float | None
    over: str
    num_worlds: int
    agree: bool


def over_worlds(worlds: Worlds) -> Estimate:
    """Mean over worlds of the seeds' means.

    Seeds of one world share its clips and users, so they are no independent draws of a world: with
    enough worlds only the worlds count.

    >>> over_worlds({0: [0.1, 0.3], 1: [0.5]}).mean  # (0.2 + 0.5) / 2
    0.35
    """
    means = [float(np.mean(seeds)) for seeds in worlds.values()]
    return _estimate(means, list(worlds.values()))


def difference(first: Worlds, second: Worlds) -> Estimate | None:
    """First - second over the worlds that both have, paired by world; None where they share none.

    Seeds are not paired: seed s of one system has nothing in common with seed s of another.
    """
    shared = [world for world in first if world in second]
    if not shared:
        return None
    gaps = [float(np.mean(first[world]) - np.mean(second[world])) for world in shared]
    return _estimate(gaps, [side[world] for side in (first, second) for world in shared])


def _estimate(means: list[float], groups: list[Sequence[float]]) -> Estimate:
    mean, many = float(np.mean(means)), len(means) >= MIN_WORLDS
    return Estimate(
        mean,
        interval(means) if many else seeds_interval(groups, len(means)),
        "worlds" if many else "seeds",
        len(means),
        all(value * mean > 0 for value in means),
    )


def seeds_interval(groups: Sequence[Sequence[float]], num_worlds: int = 1) -> float | None:
    """Half-width for a sum or difference of the groups' means over `num_worlds` (Welch 1947).

    One group is the ordinary t interval. None where a group has fewer than two values.

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
    """Two-sided p value of a paired randomisation test that the mean difference is 0.

    Under the null the two systems are exchangeable on every video, so each difference is as likely
    to have either sign. Where all sign vectors are no more than `num_draws` they are enumerated and
    p is exact; else p = (1 + count at least as extreme) / (1 + num_draws), which never is 0 and
    keeps the test valid (Phipson and Smyth 2010). Differences of 0 change nothing.

    The test asks whether the order holds on other videos, for these trained models; variation
    between seeds and worlds is in the intervals.

    >>> sign_flip_p(np.array([1.0, 2.0, 0.0]))  # of 3, 1, -1, -3 two are at least 3 from 0
    0.5
    """
    differences_V = np.asarray(differences_V, np.float64)
    differences_V = differences_V[differences_V != 0]
    num_videos = len(differences_V)
    if num_videos == 0:
        return 1.0
    total = differences_V.sum()
    # Sums that are equal on paper differ by rounding.
    bound = abs(total) - 1e-9 * np.abs(differences_V).sum()

    def extreme(plus: np.ndarray) -> int:
        """How many rows of 0 (minus) and 1 (plus) give a sum as far from 0 as the one seen."""
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
    """P values corrected for the family that they form (Holm 1979), in the order given.

    >>> holm([0.04, 0.01, 0.03])  # 3 x 0.01; 2 x 0.03; 0.04, raised to the one before
    [0.06, 0.03, 0.06]
    """
    corrected = [0.0] * len(p_values)
    before = 0.0
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for place, index in enumerate(order):
        before = max(before, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = before
    return corrected
