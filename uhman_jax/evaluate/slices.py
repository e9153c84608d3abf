"""Metrics of groups of test videos: by frequency of hashtags and by known profile of users."""

from typing import Any

import numpy as np

from uhman_jax.dataset.view import View
from uhman_jax.evaluate.ranking import Ranking
from uhman_jax.evaluate.reference_rankings import positives_of
from uhman_jax.metrics import precision_at_k, recall_at_k

SHOWN = {"P@10": (precision_at_k, 10), "R@10": (recall_at_k, 10), "R@50": (recall_at_k, 50)}


def slice_metrics(view: View, ranking: Ranking) -> list[dict[str, Any]]:
    """Returns the metrics of each group, means over seeds; empty groups are left out.

    By frequency: the rare, medium and frequent thirds of the vocabulary, by training uses. Only
    positives in a third count, over the videos that have one; so R@k is the fraction of these
    positives among the first k.

    By user: clips without history, clips with an unknown gender, age or country (a clip may be in
    both groups), and all other clips.

    Args:
        view: labels of the ranked videos.
        ranking: ranking of the test split.
    """
    positives_VP, _ = positives_of(view, ranking.rows_V)
    groups = []
    for name, ids in frequency_groups(view):
        mask_VP = ranking.mask_VP & np.isin(positives_VP, ids)
        groups.append(("frequency", name, mask_VP, np.asarray(mask_VP.any(axis=1))))
    for name, member_V in user_groups(view, ranking.rows_V):
        groups.append(("user", name, ranking.mask_VP, member_V))
    return [_entry(ranking, *group) for group in groups if group[-1].any()]


def frequency_groups(view: View) -> list[tuple[str, np.ndarray]]:
    """Returns name and ids of the rare, medium and frequent thirds of the vocabulary.

    A vocabulary of one or two hashtags has one or two groups.
    """
    thirds = np.array_split(np.arange(len(view.hashtags)), 3)  # most used first
    groups = []
    for name, ids in zip(("frequent", "medium", "rare"), thirds, strict=True):
        if len(ids):
            low, high = view.counts_T[ids[-1]], view.counts_T[ids[0]]
            uses = f"{low} to {high}" if low < high else f"{low}"
            groups.append((f"{name}: {uses} uses", ids))
    return groups[::-1]


def user_groups(view: View, rows_V: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Returns name and members (bool, V) of the groups of clips by known profile of the user."""
    length_V = np.diff(view.history.offsets)[rows_V]
    attributes = (view.gender_V, view.age_V, view.country_V)
    missing_V = np.any([values[rows_V] == 0 for values in attributes], axis=0)
    return [
        ("no history", length_V == 0),
        ("missing attributes", missing_V),
        ("history and all attributes", (length_V > 0) & ~missing_V),
    ]


def _entry(
    ranking: Ranking, by: str, name: str, mask_VP: np.ndarray, member_V: np.ndarray
) -> dict[str, Any]:
    entry: dict[str, Any] = {"by": by, "name": name, "num_videos": int(member_V.sum())}
    for metric, (at_k, k) in SHOWN.items():
        values_SV = [at_k(ranks_VP, mask_VP, k)[member_V] for ranks_VP in ranking.ranks_SVP]
        entry[metric] = float(np.mean(values_SV, dtype=np.float64))
    return entry
