"""The same clips as if somebody else had posted them: what changes among the best hashtags."""

import collections
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from uhman_jax.dataset.view import View
from uhman_jax.evaluate.ranking import make_ranker
from uhman_jax.input_pipeline import eval_batches, iterate
from uhman_jax.progress import progress_bar
from uhman_jax.shards.store import FrameStore

MAX_VALUES = 12  # of an attribute that are swapped in, the most used
ATTRIBUTES = {"gender": "genders", "age": "ages", "country": "countries"}


class Swap(NamedTuple):
    """Clips of others, with one attribute set to a value; clip and history stay.

    Attributes:
        attribute: "gender", "age" or "country".
        value: what it is set to.
        num_clips: test clips of users with another value.
        changed: share of them whose best hashtags are others.
        replaced: how many of the best are others, mean over clips.
        enter: hashtags that come in, with the share of clips, most often first.
        leave: likewise those that go.
    """

    attribute: str
    value: str
    num_clips: int
    changed: float
    replaced: float
    enter: list[tuple[str, float]]
    leave: list[tuple[str, float]]


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
    """Every value of every attribute, swapped in for all others; features are read once.

    Args:
        model: query tower and hashtag tower.
        variables: "params" and "statistics" of one seed.
        view: of the run.
        store: its features.
        rows: clips to rank.
        top_k: how many of the best hashtags count.
        batch_size: clips at once.
    """
    ranker = make_ranker(model, top_k)
    params = jax.tree.map(lambda leaf: leaf[np.newaxis], variables["params"])
    hashtags_STD = ranker.hashtags(params)

    def best(batch, user):
        placed = ranker.place(batch._replace(user=user))
        _, top_SBT, _ = ranker.rank(params, variables["statistics"], hashtags_STD, placed)
        return np.asarray(top_SBT)[0]

    chosen = [
        (attribute, value)
        for attribute, names in ATTRIBUTES.items()
        for value in _values(view, attribute, getattr(view, names))
    ]
    before, after = [], collections.defaultdict(list)
    batches = eval_batches(view, store, rows=rows, batch_size=batch_size)
    for batch in progress_bar(iterate(batches), total=len(batches), desc="Swapping", unit="batch"):
        before.append(best(batch, batch.user)[batch.mask_B])
        for attribute, value in chosen:
            field = f"{attribute}_B"
            swapped = np.full_like(getattr(batch.user, field), value)
            user = batch.user._replace(**{field: swapped})
            after[attribute, value].append(best(batch, user)[batch.mask_B])
    before_VT = np.concatenate(before)
    return [
        _swap(view, attribute, value, rows, before_VT, np.concatenate(after[attribute, value]))
        for attribute, value in chosen
    ]


def _values(view: View, attribute: str, names: tuple[str, ...]) -> list[int]:
    """Places of the values that most users of the view have, in their order; unknown always."""
    count_A = np.bincount(getattr(view, f"{attribute}_V"), minlength=len(names))
    most = np.argsort(-count_A[1:], kind="stable")[:MAX_VALUES] + 1
    return [0, *sorted(most.tolist())]


def _swap(
    view: View,
    attribute: str,
    value: int,
    rows: np.ndarray,
    before_VT: np.ndarray,
    after_VT: np.ndarray,
) -> Swap:
    others = np.flatnonzero(getattr(view, f"{attribute}_V")[rows] != value)
    enter, leave, replaced = collections.Counter(), collections.Counter(), []
    for v in others:
        old, new = set(before_VT[v].tolist()), set(after_VT[v].tolist())
        enter.update(new - old)
        leave.update(old - new)
        replaced.append(len(new - old))

    def often(counter: collections.Counter) -> list[tuple[str, float]]:
        ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
        return [(view.spellings[t], count / len(others)) for t, count in ranked[:6]]

    return Swap(
        attribute,
        getattr(view, ATTRIBUTES[attribute])[value],
        len(others),
        float(np.mean([count > 0 for count in replaced])) if replaced else 0.0,
        float(np.mean(replaced)) if replaced else 0.0,
        often(enter),
        often(leave),
    )
