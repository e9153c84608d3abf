"""Intervals over clips, from a bootstrap that resamples users.

Clips of one user are alike, so they count as fewer independent values than there are clips. Users
are therefore resampled with all their clips (the cluster bootstrap; Davison and Hinkley 1997,
section 3.8).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.special

_NUM_DRAWS = 1000


def half_widths(
    values: Mapping[str, np.ndarray], user_ids: Sequence[str] | np.ndarray
) -> dict[str, float | None]:
    """Returns the half-width of the 95 % interval of the mean over clips of each metric.

    A draw takes U of the U users, with replacement, and averages over their clips; U is below 2 **
    31. The half-width is the standard deviation over 1,000 draws, times sqrt(U / (U - 1)) since
    resampling makes it too small, times the quantile of Student's t with U - 1 degrees of freedom.
    With one clip per user it is that of `scores.interval`, but for the draws.

    Two users with values 0 and 1 give about 6.353, see `scores.interval`:

    >>> width = half_widths({"P@1": np.array([0.0, 1.0])}, ["ann", "bob"])["P@1"]
    >>> bool(abs(width / 6.353 - 1) < 0.05)
    True

    Args:
        values: one value per clip, by metric.
        user_ids: the user of each clip.

    Returns:
        Half-widths; None if there is only one user. For each P@k with R@k there is also F1@k, which
        is a function of their means.
    """
    _, user_V = np.unique(np.array(user_ids, dtype=object), return_inverse=True)
    num_users = int(user_V.max()) + 1
    sums_U = [np.bincount(user_V, value_V) for value_V in values.values()]
    sums_UX = np.stack([np.bincount(user_V).astype(np.float64), *sums_U], axis=1)
    rng = np.random.default_rng(0)
    total_ZX = np.empty((_NUM_DRAWS, sums_UX.shape[1]))
    for z in range(_NUM_DRAWS):
        times_U = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users)
        total_ZX[z] = times_U @ sums_UX
    draws = dict(zip(values, (total_ZX[:, 1:] / total_ZX[:, :1]).T, strict=True))
    for name in values:
        if name.startswith("P@") and (other := f"R@{name[2:]}") in values:
            product_Z, sum_Z = draws[name] * draws[other], draws[name] + draws[other]
            draws[f"F1@{name[2:]}"] = 2 * product_Z / np.where(sum_Z > 0, sum_Z, 1)
    if num_users < 2:
        return dict.fromkeys(draws)
    factor = scipy.special.stdtrit(num_users - 1, 0.975) * math.sqrt(num_users / (num_users - 1))
    return {name: float(factor * draw_Z.std()) for name, draw_Z in draws.items()}
