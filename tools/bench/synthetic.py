"""Generates batches and configs of a given size, without dataset, shards or TensorFlow."""

import types
from typing import Any

import jax
import numpy as np
import scipy.sparse

from uhman_jax.batch import Batch
from uhman_jax.config import Config, Precision
from uhman_jax.kernels.video_input import ChannelStatistics, VideoInput
from uhman_jax.models.layers import UserInput

NUM_REGIONS, MAX_HISTORY, MAX_POSITIVES = 64, 32, 16
GENDERS, AGES, COUNTRIES = 3, 6, 60


def view_sizes(num_hashtags: int) -> types.SimpleNamespace:
    """Returns the fields of a view that `build_model` reads."""
    sizes = {"hashtags": num_hashtags, "genders": GENDERS, "ages": AGES, "countries": COUNTRIES}
    return types.SimpleNamespace(**{name: range(size) for name, size in sizes.items()})


def make_batch(
    *, batch_size: int, num_frames: int, num_channels: int, num_hashtags: int, seed: int = 0
) -> Batch:
    """Returns a batch of uint8 features with all frames and the paper's 3.42 hashtags per video."""
    rng = np.random.default_rng(seed)
    shape_BFMC = (batch_size, num_frames, NUM_REGIONS, num_channels)
    ids_BP, mask_BP = positives(rng, batch_size, num_hashtags)
    history_mask_BR = np.arange(MAX_HISTORY) < rng.integers(0, 16, (batch_size, 1))
    history_BR = rng.integers(0, num_hashtags, (batch_size, MAX_HISTORY))
    return Batch(
        video=VideoInput.plain(
            codes_BFMC=rng.integers(0, 256, shape_BFMC, dtype=np.uint8),
            scale_BC=np.full((batch_size, num_channels), 0.01, np.float32),
            offset_BC=np.zeros((batch_size, num_channels), np.float32),
            mask_BF=np.ones((batch_size, num_frames), bool),
        ),
        user=UserInput(
            gender_B=rng.integers(0, GENDERS, batch_size, dtype=np.int32),
            age_B=rng.integers(0, AGES, batch_size, dtype=np.int32),
            country_B=rng.integers(0, COUNTRIES, batch_size, dtype=np.int32),
            history_BR=np.where(history_mask_BR, history_BR, 0).astype(np.int32),
            history_mask_BR=history_mask_BR,
        ),
        positives_BP=ids_BP,
        positives_mask_BP=mask_BP,
        row_B=np.arange(batch_size, dtype=np.int32),
        mask_B=np.ones(batch_size, bool),
    )


def positives(
    rng: np.random.Generator, num_videos: int, num_hashtags: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns hashtag ids (int32) and mask, both (V, P): 3.42 per video on average, uniform."""
    most = min(MAX_POSITIVES, num_hashtags)
    counts_V = 1 + rng.binomial(most - 1, 2.42 / (MAX_POSITIVES - 1), num_videos)
    mask_VP = np.arange(most) < counts_V[:, None]
    # Sorted ids of a row are made at least 1 apart, so that none repeats.
    sorted_VP = np.sort(rng.integers(0, num_hashtags - most + 1, (num_videos, most)), axis=1)
    ids_VP = rng.permuted(sorted_VP + np.arange(most), axis=1)
    return np.where(mask_VP, ids_VP, 0).astype(np.int32), mask_VP


def in_batches(array_VP: np.ndarray, size: int) -> np.ndarray:
    """Returns rows in batches, (N, B, P); zeros fill the last one."""
    padding = ((0, -len(array_VP) % size), (0, 0))
    return np.pad(array_VP, padding).reshape(-1, size, array_VP.shape[1])


def interactions(ids_VP: np.ndarray, mask_VP: np.ndarray, num_hashtags: int) -> Any:
    """Returns the positives as a sparse SciPy matrix (V, T) of float32 ones."""
    rows, slots = np.nonzero(mask_VP)
    ones = np.ones(len(rows), np.float32)
    shape = len(ids_VP), num_hashtags
    return scipy.sparse.coo_matrix((ones, (rows, ids_VP[rows, slots])), shape=shape)


def config_of(*, hidden_size: int, batch_size: int, num_seeds: int = 1) -> Config:
    """Returns the defaults at K = d = `hidden_size`, in bfloat16 on an accelerator."""
    config = Config()
    if jax.default_backend() != "cpu":
        config.model.precision = Precision.BFLOAT16
    config.model.hidden_size = config.model.embedding_size = hidden_size
    config.train.batch_size, config.train.num_seeds = batch_size, num_seeds
    return config


def statistics(num_channels: int) -> ChannelStatistics:
    """Returns mean and standard deviation of the features of `make_batch`, for uniform codes."""
    ones_C = np.ones(num_channels, np.float32)
    return ChannelStatistics(1.275 * ones_C, 0.739 * ones_C)
