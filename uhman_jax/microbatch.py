"""Batches in pieces that stay in a processor's cache."""

from collections.abc import Callable
from typing import Any

import jax

from uhman_jax.input_pipeline import Batch
from uhman_jax.layers import VideoInput

CACHE_BYTES = (
    20 * 2**20
)  # measured best on two cores with 4 MiB of L2, between 10 and 40 about even


def fitting_size(video: VideoInput, hidden_size: int) -> int:
    """Videos to process at once: a divisor of the batch.

    On an accelerator the whole batch. On a CPU as many as fit `CACHE_BYTES` with their features as
    float32 and four vectors of the hidden size for every region.
    """
    batch_size, num_frames, num_regions, num_channels = video.codes_BFMC.shape
    if jax.default_backend() != "cpu":
        return batch_size
    video_bytes = 4 * num_frames * num_regions * (num_channels + 4 * hidden_size)
    most = max(1, CACHE_BYTES // video_bytes)
    return max(size for size in range(1, batch_size + 1) if batch_size % size == 0 and size <= most)


def split(arrays: Any, size: int) -> Any:
    """Every array (B, ...) as (B / size, size, ...)."""
    return jax.tree.map(
        lambda array: array.reshape(len(array) // size, size, *array.shape[1:]), arrays
    )


def in_pieces(function: Callable[[Batch], Any], batch: Batch, hidden_size: int) -> Any:
    """What `function` returns for a batch, arrays (B, ...), worked out in pieces that fit."""
    size = fitting_size(batch.video, hidden_size)
    if size == len(batch.mask_B):
        return function(batch)
    pieces = jax.lax.map(function, split(batch, size))
    whole = (len(batch.mask_B),)
    return jax.tree.map(lambda array: array.reshape(*whole, *array.shape[2:]), pieces)
