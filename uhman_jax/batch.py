"""Batches, and microbatches: parts of a batch that fit the cache of a CPU."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.kernels.cpu import largest_divisor
from uhman_jax.kernels.region_projection import goes_by_video
from uhman_jax.kernels.video_input import VideoInput
from uhman_jax.models.layers import UserInput

CACHE_BYTES = 20 * 2**20  # of a microbatch: fastest on two cores; 10 to 40 MiB are similar
GRADIENTS = 4  # minimum size of a microbatch's activations, in multiples of the gradient
MOST_SCORES = 2**28  # maximum number, 1 GiB; a loss over all hashtags needs a few such arrays


class Batch(NamedTuple):
    """B videos with their users and hashtags, as arrays of fixed shape.

    Attributes:
        video: features of the videos.
        user: users who post them.
        positives_BP: int32 hashtag ids, ascending; 0 where masked.
        positives_mask_BP: bool, True for a real slot.
        row_B: int32 row in the view; -1 for a padding example.
        mask_B: bool, False for a padding example; its other masks are False and its values 0.
    """

    video: VideoInput
    user: UserInput
    positives_BP: np.ndarray
    positives_mask_BP: np.ndarray
    row_B: np.ndarray
    mask_B: np.ndarray


def take(batch: Batch, index_X: Any) -> Batch:
    """Selects X examples of a batch by index, as JAX arrays; the codes are shared, not copied.

    Only if X = V the codes are copied in the new order, which `VideoInput` then requires.
    """
    video: Any = batch.video
    codes_VFMC = video.codes_VFMC
    part = _take(batch._replace(video=video._replace(codes_VFMC=None)), index_X)
    slot_X = part.video.slot_B
    if len(codes_VFMC) == len(slot_X):
        codes_VFMC, slot_X = codes_VFMC[slot_X], jnp.arange(len(slot_X), dtype=jnp.int32)
    return part._replace(video=part.video._replace(codes_VFMC=codes_VFMC, slot_B=slot_X))


@jax.jit
def _take(tree, index_X):
    return jax.tree.map(lambda array: array[index_X], tree)


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
    """Returns the number of videos to process at once, a divisor of the batch size.

    An accelerator processes the whole batch, unless it has more than `MOST_SCORES` scores. One CPU
    processes at most the videos that fit `CACHE_BYTES`. A video needs four vectors of the hidden
    size per seed and region, and float32 features unless `region_product` loops over videos.

    Args:
        video: VideoInput of the batch.
        hidden_size: K.
        platform: "cpu", "gpu" or "tpu".
        num_scores: T, if the scores of all hashtags are in memory; else 0.
        region_share: fraction of the regions that a step uses.
        num_seeds: number of models that process a video together.
        num_parameters: number of parameters of a seed, if gradients are accumulated; else 0.
    """
    _, num_frames, num_regions, num_channels = video.codes_VFMC.shape
    most = MOST_SCORES // max(1, num_scores * num_seeds)
    if platform == "cpu" and jax.device_count() == 1:
        regions = num_frames * num_regions * region_share
        features = 0 if goes_by_video(video, hidden_size, platform) else num_channels
        num_bytes = max(CACHE_BYTES, GRADIENTS * 4 * num_seeds * num_parameters)
        most = min(most, int(num_bytes / (4 * regions * (features + 4 * num_seeds * hidden_size))))
    return largest_divisor(len(video.slot_B), most)


def split(batch: Batch, size: int) -> tuple[Any, Callable[[Any], Batch]]:
    """Returns microbatches, arrays (B / size, ...), and a function from one of them to its Batch.

    Codes in the order of the batch are split without a gather, so that devices which share the
    batch keep their examples. Other codes are not split.
    """
    num_videos = len(batch.mask_B)
    if len(batch.video.codes_VFMC) != num_videos:
        return jnp.arange(num_videos).reshape(-1, size), functools.partial(take, batch)
    shape = num_videos // size, size
    pieces = jax.tree.map(lambda array: array.reshape(*shape, *array.shape[1:]), batch)
    return pieces, lambda piece: piece._replace(
        video=piece.video.with_codes(piece.video.codes_VFMC)
    )


def map_microbatches(
    function: Callable[[Batch], Any], batch: Batch, hidden_size: int, num_seeds: int, platform: str
) -> Any:
    """Returns `function(batch)`, arrays (B, ...), computed microbatch by microbatch."""
    num_videos = len(batch.mask_B)
    size = microbatch_size(batch.video, hidden_size, platform, num_seeds=num_seeds)
    if size == num_videos:
        return function(batch)
    pieces, batch_of = split(batch, size)
    results = jax.lax.map(lambda piece: function(batch_of(piece)), pieces)
    return jax.tree.map(lambda array: array.reshape(num_videos, *array.shape[2:]), results)
