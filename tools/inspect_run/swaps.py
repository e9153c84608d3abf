"""Ranks the same clips for other users, and compares their best hashtags."""

import collections
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from uhman_jax.dataset.view import View
from uhman_jax.evaluate.ranking import make_ranker
from uhman_jax.input_pipeline import eval_batches, iterate
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.shards.store import FrameStore

MAX_VALUES = 12  # most frequent values of an attribute that are swapped in
ATTRIBUTES = {"gender": "genders", "age": "ages", "country": "countries"}


class Swap(NamedTuple):
    """The effect of setting one attribute to a value for all users with another value."""

    attribute: str  # "gender", "age" or "country"
    value: str
    num_clips: int  # test clips of users with another value
    changed: float  # fraction of these clips whose best hashtags change
    replaced: float  # mean number of best hashtags that are replaced
    enter: list[tuple[str, float]]  # new hashtags with their fraction of clips, most frequent first
    leave: list[tuple[str, float]]  # hashtags that they replace


def swaps(
    model: nn.Module,
    variables: dict[str, Any],
    view: View,
    store: FrameStore,
    rows: np.ndarray,
    *,
    top_k: int,
    batch_size: int,
) -> list[Swap]:
    """Returns the effect of every value of every attribute; reads the features once.

    Args:
        model: query tower and hashtag tower.
        variables: "params" and "statistics" of one seed.
        view: view of the run.
        store: features of the run.
        rows: clips to rank.
        top_k: number of best hashtags that count.
        batch_size: clips per batch.
    """
    ranker = make_ranker(model, top_k)
    params = jax.tree.map(lambda leaf: leaf[np.newaxis], variables["params"])
    hashtags_STD = ranker.hashtags(params)
    chosen = [(name, value) for name in ATTRIBUTES for value in _values(view, name)]
    parts = collections.defaultdict(list)  # ids of the best hashtags by swap; (): without one
    batches = eval_batches(view, store, rows=rows, batch_size=batch_size)
    for batch in progress_bar(iterate(batches), total=len(batches), desc="Swapping", unit="batch"):
        for swap in ((), *chosen):
            user = batch.user
            if swap:
                attribute, value = swap
                user = user._replace(**{f"{attribute}_B": np.full_like(user.gender_B, value)})
            placed = ranker.place(batch._replace(user=user))
            found = ranker.rank(params, variables["statistics"], hashtags_STD, placed)
            _, top_SBT, _ = found[0]
            parts[swap].append(np.asarray(top_SBT)[0][batch.mask_B])
    best = {swap: np.concatenate(ids) for swap, ids in parts.items()}
    return [_swap(view, *swap, rows, best[()], best[swap]) for swap in chosen]


def _values(view: View, attribute: str) -> list[int]:
    """Returns the indices of the most frequent values in ascending order, with 0 (unknown)."""
    names = getattr(view, ATTRIBUTES[attribute])
    count_A = np.bincount(getattr(view, f"{attribute}_V"), minlength=len(names))
    most = np.argsort(-count_A[1:], kind="stable")[:MAX_VALUES] + 1
    return [0, *sorted(most.tolist())]


def _swap(
    view: View,
    attribute: str,
    value: int,
    rows: np.ndarray,
    before_VX: np.ndarray,
    after_VX: np.ndarray,
) -> Swap:
    """Compares the ids of the best hashtags (X) of the clips `rows` before and after the swap."""
    others_V = getattr(view, f"{attribute}_V")[rows] != value
    old_VX, new_VX = before_VX[others_V], after_VX[others_V]
    enter_VX = (new_VX[:, :, None] != old_VX[:, None]).all(axis=2)
    leave_VX = (old_VX[:, :, None] != new_VX[:, None]).all(axis=2)
    replaced_V = enter_VX.sum(axis=1)
    num_clips = max(len(replaced_V), 1)

    def often(ids: np.ndarray) -> list[tuple[str, float]]:
        counts = collections.Counter(ids.tolist())
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return [(view.spellings[t], count / num_clips) for t, count in ranked[:6]]

    return Swap(
        attribute,
        getattr(view, ATTRIBUTES[attribute])[value],
        len(replaced_V),
        int(np.sum(replaced_V > 0)) / num_clips,
        int(np.sum(replaced_V)) / num_clips,
        often(new_VX[enter_VX]),
        often(old_VX[leave_VX]),
    )
