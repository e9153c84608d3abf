"""Sizes that fit the cache, and pieces that put together are the whole."""

import jax.numpy as jnp
import numpy as np
import pytest

from uhman_jax.batch import Batch, map_microbatches, microbatch_size
from uhman_jax.kernels.video_input import VideoInput
from uhman_jax.models.layers import UserInput


def make_batch(size, num_channels, num_frames=8):
    """A batch without content; its row_B counts."""
    ids_B, mask_B = np.arange(size, dtype=np.int32), np.ones(size, bool)
    video = VideoInput.plain(
        np.zeros((size, num_frames, 64, num_channels), np.uint8),
        np.zeros((size, num_channels), np.float32),
        np.zeros((size, num_channels), np.float32),
        np.ones((size, num_frames), bool),
    )
    nothing_B0 = np.zeros((size, 0), np.int32)
    user = UserInput(ids_B, ids_B, ids_B, nothing_B0, nothing_B0.astype(bool))
    return Batch(video, user, nothing_B0, nothing_B0.astype(bool), ids_B, mask_B)


@pytest.mark.parametrize(
    ("batch_size", "num_channels", "hidden_size", "expected"),
    [
        (64, 64, 128, 16),  # 8 * 64 * (64 + 4 * 128) float32 are 1.125 MiB a video: 17 fit 20 MiB
        (6, 64, 512, 3),  # 4.1 MiB a video: 4 fit, which do not divide the batch
        (2, 64, 128, 2),
        (3, 64, 4096, 1),  # not even one fits
        (64, 1024, 128, 4),  # 3 MiB a video: 6 fit
        (64, 1025, 128, 16),  # decoded one after the other: 1 MiB a video, and 20 fit
        (64, 2048, 32, 64),
    ],
)
def test_a_piece_fits_the_cache_and_divides_the_batch(
    batch_size, num_channels, hidden_size, expected
):
    video = make_batch(batch_size, num_channels).video
    assert microbatch_size(video, hidden_size, "cpu") == expected
    assert microbatch_size(video, hidden_size, "gpu") == batch_size


@pytest.mark.parametrize(
    ("num_channels", "hidden_size", "counts", "expected"),
    [
        (64, 128, {"region_share": 0.5}, 32),  # 35 fit
        (64, 32, {"num_seeds": 8}, 8),  # 9 fit
        (2048, 32, {"num_seeds": 8}, 8),  # 10 fit
        # A piece is large beside the gradient, of which there is one for each piece.
        (64, 128, {"num_parameters": 1_000_000}, 16),  # 4 times 3.8 MiB are less than the cache
        (64, 128, {"num_parameters": 3_000_000}, 32),  # 45.8 MiB, of 1.125 MiB a video: 40 fit
        (64, 128, {"num_parameters": 3_000_000, "num_seeds": 8}, 32),  # of 8.125 MiB: 45 fit
    ],
)
def test_regions_seeds_and_parameters_count(num_channels, hidden_size, counts, expected):
    video = make_batch(64, num_channels).video
    assert microbatch_size(video, hidden_size, "cpu", **counts) == expected


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_scores_of_all_hashtags_fit_a_gibibyte(platform):
    video = make_batch(1024, 1, num_frames=1).video
    for num_scores, num_seeds, expected in (
        (669, 1, 1024),
        (1_000_000, 1, 256),  # 268 fit
        (1_000_000, 8, 32),  # 33 fit
        (2**30, 1, 1),
    ):
        counts = {"num_scores": num_scores, "num_seeds": num_seeds}
        assert microbatch_size(video, 1, platform, **counts) == expected


@pytest.mark.parametrize("hidden_size", [32, 512])
def test_pieces_together_are_the_whole(hidden_size):
    batch = make_batch(6, 64)
    seen = []

    def function(piece):
        seen.append(len(piece.mask_B))
        return {"twice": 2 * piece.row_B, "outer": piece.row_B[:, None] * np.arange(3)[None, :]}

    whole = map_microbatches(function, batch, hidden_size, 1, "cpu")
    np.testing.assert_array_equal(whole["twice"], 2 * np.arange(6))
    np.testing.assert_array_equal(whole["outer"], np.outer(np.arange(6), np.arange(3)))
    assert set(seen) == {6 if hidden_size == 32 else 3}
    seen.clear()
    map_microbatches(function, batch, hidden_size, 128, "cpu")
    assert set(seen) == {1}


def test_codes_that_lie_elsewhere_come_with_their_piece():
    batch = make_batch(6, 64)
    codes_VFMC = np.broadcast_to(np.arange(9, dtype=np.uint8)[:, None, None, None], (9, 8, 64, 64))
    slot_B = np.array([8, 2, 2, 0, 5, 1], np.int32)
    video = batch.video._replace(codes_VFMC=jnp.asarray(codes_VFMC), slot_B=slot_B)
    batch = batch._replace(video=video)
    whole = map_microbatches(lambda piece: piece.video.codes_BFMC[:, 0, 0, 0], batch, 512, 1, "cpu")
    np.testing.assert_array_equal(whole, slot_B)
