"""Steps that touch only the hashtags they use, so that their cost is independent of T.

A sampled loss sees the hashtags of a batch, of its negatives and of its histories. Their rows of
the tables (parameters whose names end in `_TK`) are gathered into small tables, the model runs on
those with other ids, and the small tables' updates are added to the rows they came from.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from uhman_jax.config import Optimiser, TrainConfig
from uhman_jax.devices import is_table
from uhman_jax.input_pipeline import Batch


class UsedRows(NamedTuple):
    """The hashtags that a batch uses, R at most.

    Attributes:
        ids_R: int32, ascending; T and above for places that stand for no hashtag.
        batch: with places among these in the place of ids.
        negatives_BPN: likewise.
    """

    ids_R: jax.Array
    batch: Batch
    negatives_BPN: jax.Array


def few(
    batch: Batch, negatives_BPN: jax.Array | None, num_hashtags: int, config: TrainConfig
) -> bool:
    """Whether a step changes the rows that its batch uses alone, and these are not all.

    Momentum, weight decay, AdamW and an average move every row; a loss without sampled negatives
    uses all.
    """
    if negatives_BPN is None or config.momentum or config.weight_decay or config.ema:
        return False
    most = batch.positives_BP.size + negatives_BPN.size + batch.user.history_BR.size
    return config.optimiser is Optimiser.SGD and most < num_hashtags


def find(batch: Any, negatives_BPN: Any, num_hashtags: int) -> UsedRows:
    """Lists what a batch uses; slots outside a mask use hashtag 0."""
    user = batch.user
    history_BR = jnp.where(user.history_mask_BR, user.history_BR, 0)
    positives_BP = jnp.where(batch.positives_mask_BP, batch.positives_BP, 0)
    arrays = (positives_BP, negatives_BPN, history_BR)
    flat = jnp.concatenate([ids.reshape(-1) for ids in arrays])
    ids_R, places = jnp.unique(flat, size=flat.size, fill_value=num_hashtags, return_inverse=True)
    beyond_R = jnp.cumsum(ids_R >= num_hashtags)  # so that no id is there twice
    ids_R = jnp.where(beyond_R > 0, num_hashtags + beyond_R - 1, ids_R)
    ends = [positives_BP.size, positives_BP.size + negatives_BPN.size]
    parts = [
        part.reshape(ids.shape).astype(jnp.int32)
        for part, ids in zip(jnp.split(places.reshape(-1), ends), arrays, strict=True)
    ]
    batch = batch._replace(positives_BP=parts[0], user=user._replace(history_BR=parts[2]))
    return UsedRows(ids_R.astype(jnp.int32), batch, parts[1])


def gather(params: Any, ids_R: jax.Array) -> Any:
    """The parameters with small tables in the place of the large ones; zeros for no hashtag."""

    def rows(path: Any, leaf: jax.Array) -> jax.Array:
        if not is_table(path):
            return leaf
        return leaf.at[ids_R].get(mode="fill", fill_value=0, **_HOW)

    return jax.tree_util.tree_map_with_path(rows, params)


def add(params: Any, changes: Any, ids_R: jax.Array) -> Any:
    """The parameters plus changes of what `gather` returned."""

    def added(path: Any, leaf: jax.Array, change: jax.Array) -> jax.Array:
        if not is_table(path):
            return leaf + change
        return leaf.at[ids_R].add(change, mode="drop", **_HOW)

    return jax.tree_util.tree_map_with_path(added, params, changes)


_HOW: dict[str, Any] = {"indices_are_sorted": True, "unique_indices": True}
