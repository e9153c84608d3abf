"""Sparse updates: a step reads and changes only the hashtags that it uses, not all T.

With a sampled loss these are the positives, the negatives and the histories of a batch. Their rows
of the tables (parameters with a row for every hashtag) are gathered into small tables. The model
runs on the small tables, and the updates are added to the original rows.
"""

from typing import Any

import jax
import jax.numpy as jnp

from uhman_jax.batch import Batch
from uhman_jax.config import Optimiser, TrainConfig
from uhman_jax.runtime.mesh import is_table

# For `ids_R` as index of a table.
_HOW: dict[str, Any] = {"indices_are_sorted": True, "unique_indices": True}


def few(
    batch: Batch, negatives_BPN: jax.Array | None, num_hashtags: int, config: TrainConfig
) -> bool:
    """Returns whether an update changes only the rows that a batch uses, and fewer than T.

    Momentum, weight decay, AdamW and a moving average change every row. A loss without sampled
    negatives uses all rows.
    """
    if negatives_BPN is None or config.momentum or config.weight_decay or config.ema:
        return False
    most = batch.positives_BP.size + negatives_BPN.size + batch.user.history_BR.size
    return config.optimiser is Optimiser.SGD and most < num_hashtags


def find(batch: Any, negatives_BPN: Any, num_hashtags: int) -> tuple[jax.Array, Batch, jax.Array]:
    """Finds the hashtags that a batch uses; masked slots use hashtag 0.

    Returns:
        (ids_R, batch, negatives_BPN): int32 hashtag ids, unique and ascending, where ids from T on
        are padding; the batch and the negatives, each hashtag id replaced by its index in `ids_R`.
    """
    user = batch.user
    history_BR = jnp.where(user.history_mask_BR, user.history_BR, 0)
    positives_BP = jnp.where(batch.positives_mask_BP, batch.positives_BP, 0)
    arrays = (positives_BP, negatives_BPN, history_BR)
    flat = jnp.concatenate([ids.reshape(-1) for ids in arrays])
    ids_R, index = jnp.unique(flat, size=flat.size, fill_value=num_hashtags, return_inverse=True)
    beyond_R = jnp.cumsum(ids_R >= num_hashtags)  # makes the ids of the padding unique
    ids_R = jnp.where(beyond_R > 0, num_hashtags + beyond_R - 1, ids_R)
    ends = [positives_BP.size, positives_BP.size + negatives_BPN.size]
    parts = [
        part.reshape(ids.shape).astype(jnp.int32)
        for part, ids in zip(jnp.split(index.reshape(-1), ends), arrays, strict=True)
    ]
    batch = batch._replace(positives_BP=parts[0], user=user._replace(history_BR=parts[2]))
    return ids_R.astype(jnp.int32), batch, parts[1]


def gather(params: Any, ids_R: jax.Array) -> Any:
    """Returns the parameters with only the rows `ids_R` of each table; padding rows are 0."""

    def rows(path: Any, leaf: jax.Array) -> jax.Array:
        if not is_table(path):
            return leaf
        return leaf.at[ids_R].get(mode="fill", fill_value=0, **_HOW)

    return jax.tree_util.tree_map_with_path(rows, params)


def add(params: Any, changes: Any, ids_R: jax.Array) -> Any:
    """Returns the parameters plus `changes`, which have only the rows `ids_R` of each table."""

    def added(path: Any, leaf: jax.Array, change: jax.Array) -> jax.Array:
        if not is_table(path):
            return leaf + change
        return leaf.at[ids_R].add(change, mode="drop", **_HOW)

    return jax.tree_util.tree_map_with_path(added, params, changes)
