"""Batches in pieces that stay in a processor's cache."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from uhman_jax.input_pipeline import Batch, take
from uhman_jax.layers import VideoInput
from uhman_jax.region_projection import goes_by_video, largest_divisor

CACHE_BYTES = 20 * 2**20  # measured best on two cores; 10 to 40 MiB are about equal
GRADIENTS = 4  # a piece takes at least this many times the memory of the gradient that it adds
MOST_SCORES = 2**28  # 1 GiB; a loss over all hashtags holds a few arrays of this size


def microbatch_size(
    video: VideoInput,
    hidden_size: int,
    platform: str,
    *,
    num_scores: int = 0,
    region_share: float = 1.0,
    num_seeds: int = 1,
    num_parameters: int = 0,
) -> int:
    """Returns how many videos to process at once: a divisor of the batch size.

    An accelerator takes the whole batch, unless there are too many scores. On one CPU as many as
    fit `CACHE_BYTES`, with four vectors of the hidden size for every seed and region, and with the
    float32 features unless `region_product` decodes one video after the other.

    Args:
        video: of the batch.
        hidden_size: K.
        platform: "cpu", "gpu" or "tpu".
        num_scores: T, if the scores of all hashtags are held, per video and seed; else 0.
        region_share: fraction of the regions that a step uses.
        num_seeds: models that process a video at once.
        num_parameters: of a seed, if gradients are accumulated; else 0.
    """
    _, num_frames, num_regions, num_channels = video.codes_VFMC.shape
    most = MOST_SCORES // max(1, num_scores * num_seeds)
    if platform == "cpu" and jax.device_count() == 1:
        seen = num_frames * num_regions * region_share
        features = 0 if goes_by_video(video, hidden_size, platform) else num_channels
        held_bytes = max(CACHE_BYTES, GRADIENTS * 4 * num_seeds * num_parameters)
        most = min(most, int(held_bytes / (4 * seen * (features + 4 * num_seeds * hidden_size))))
    return largest_divisor(len(video.slot_B), most)


def split(batch: Batch, size: int) -> tuple[Any, Callable[[Any], Batch]]:
    """Returns pieces, arrays (B / size, ...) to loop over, and a function from piece to Batch.

    Codes in the order of the batch are divided without a gather, so that devices which share the
    batch keep their examples. Other codes stay whole.
    """
    num_videos = len(batch.mask_B)
    if len(batch.video.codes_VFMC) != num_videos:
        return jnp.arange(num_videos).reshape(-1, size), functools.partial(take, batch)
    shape = num_videos // size, size
    pieces = jax.tree.map(lambda array: array.reshape(*shape, *array.shape[1:]), batch)
    return pieces, lambda piece: piece._replace(video=VideoInput.plain(*piece.video[:4]))


def map_microbatches(
    function: Callable[[Batch], Any], batch: Batch, hidden_size: int, num_seeds: int, platform: str
) -> Any:
    """Returns the arrays (B, ...) that `function` makes of a batch, computed in pieces that fit."""
    num_videos = len(batch.mask_B)
    size = microbatch_size(batch.video, hidden_size, platform, num_seeds=num_seeds)
    if size == num_videos:
        return function(batch)
    pieces, batch_of = split(batch, size)
    results = jax.lax.map(lambda piece: function(batch_of(piece)), pieces)
    return jax.tree.map(lambda array: array.reshape(num_videos, *array.shape[2:]), results)
