"""Batches in pieces that stay in a processor's cache."""

from collections.abc import Callable
from typing import Any

import jax

from uhman_jax.input_pipeline import Batch
from uhman_jax.layers import VideoInput, without_codes
from uhman_jax.region_product import goes_by_video, largest_divisor

CACHE_BYTES = 20 * 2**20  # measured best on two cores, between 10 and 40 about even
GRADIENTS = 4  # a piece is at least so many times the gradient that it adds to the others'
MOST_SCORES = 2**28  # 1 GiB, of which a loss over all hashtags holds a few


def fitting_size(
    video: VideoInput,
    hidden_size: int,
    *,
    num_scores: int = 0,
    region_share: float = 1.0,
    num_seeds: int = 1,
    num_parameters: int = 0,
) -> int:
    """Videos to process at once: a divisor of the batch.

    On an accelerator the whole batch, unless its scores are too many. On one CPU as many as fit
    `CACHE_BYTES` with every seed's four vectors of the hidden size for every region, and with their
    features as float32 where `region_product` does not decode one video after the other.

    Args:
        video: of the batch.
        hidden_size: K.
        num_scores: of a video and a seed, where those of all hashtags are held: T; else 0.
        region_share: of the regions, that a step looks at.
        num_seeds: models that look at one video; each holds vectors of its own.
        num_parameters: of a seed, whose gradient is summed up; else 0.
    """
    batch_size, (_, num_frames, num_regions, num_channels) = (
        len(video.mask_BF),
        video.codes_BFMC.shape,
    )
    most = MOST_SCORES // max(1, num_scores * num_seeds)
    if jax.default_backend() == "cpu" and jax.device_count() == 1:
        seen = num_frames * num_regions * region_share
        features = 0 if goes_by_video(video, hidden_size) else num_channels
        held_bytes = max(CACHE_BYTES, GRADIENTS * 4 * num_seeds * num_parameters)
        most = min(most, int(held_bytes / (4 * seen * (features + 4 * num_seeds * hidden_size))))
    return largest_divisor(batch_size, most)


def split(batch: Batch, others: Any, size: int) -> tuple[Batch, Any]:
    """Every array (B, ...) of a batch and of others as (B / size, size, ...).

    Codes that lie elsewhere are left out: `with_codes` gives them to every piece.
    """
    if batch.video.slot_B is not None:
        batch = batch._replace(video=without_codes(batch.video))
    return jax.tree.map(
        lambda array: array.reshape(len(array) // size, size, *array.shape[1:]), (batch, others)
    )


def with_codes(piece: Batch, batch: Batch) -> Batch:
    """A piece of a batch with the codes that `split` left out, if it did."""
    if batch.video.slot_B is None:
        return piece
    return piece._replace(video=piece.video._replace(codes_BFMC=batch.video.codes_BFMC))


def in_pieces(
    function: Callable[[Batch], Any], batch: Batch, hidden_size: int, num_seeds: int
) -> Any:
    """What `function` returns for a batch, arrays (B, ...), worked out in pieces that fit."""
    size = fitting_size(batch.video, hidden_size, num_seeds=num_seeds)
    if size == len(batch.mask_B):
        return function(batch)
    pieces = jax.lax.map(
        lambda piece: function(with_codes(piece, batch)), split(batch, None, size)[0]
    )
    whole = (len(batch.mask_B),)
    return jax.tree.map(lambda array: array.reshape(*whole, *array.shape[2:]), pieces)
