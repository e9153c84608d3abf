"""Computes the mean and standard deviation of each feature channel, to standardise features."""

import numpy as np

from uhman_jax.dataset.view import TRAIN, View
from uhman_jax.kernels.video_input import ChannelStatistics
from uhman_jax.runtime.errors import UserError
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.shards.store import FrameStore

# Minimum deviation of a channel, as a fraction of the root mean square over channels. Without it, a
# channel that is constant in the training split would get huge values in the test split.
_STD_FLOOR = 1e-3


def measure(view: View, store: FrameStore) -> ChannelStatistics:
    """Returns the statistics of each channel over the training videos.

    Every real frame and region counts once, so a longer video counts more. Moments are float64 and
    merged video by video (Chan et al. 1979), so a small deviation with a large mean is accurate.

    Args:
        view: only its training rows are read.
        store: features of the videos.

    Returns:
        float32 statistics. A deviation is at least 1e-3 of the root mean square over channels, or 1
        if no channel varies.

    Raises:
        UserError: there is no training video.
    """
    record_V = store.rows([view.video_ids[row] for row in view.rows(TRAIN)])
    if not len(record_V):
        raise UserError(
            "statistics need one train video or more, got none; add videos, lower "
            "view.min_count or raise view.train_share"
        )
    count, mean_C, square_C = 0, np.zeros(store.num_channels), np.zeros(store.num_channels)
    for record in progress_bar(record_V, desc="channel statistics", unit="clip"):
        clip = store[record]
        size, clip_mean_C, clip_square_C = _moments(clip.codes_FMC)
        clip_mean_C = clip_mean_C * clip.scale_C + clip.offset_C
        clip_square_C = clip_square_C * np.square(clip.scale_C, dtype=np.float64)
        delta_C = clip_mean_C - mean_C
        square_C += clip_square_C + np.square(delta_C) * (count * size / (count + size))
        count += size
        mean_C += delta_C * (size / count)
    std_C = np.sqrt(square_C / count)
    floor = _STD_FLOOR * np.sqrt(np.mean(np.square(std_C)))
    std_C = np.maximum(std_C, floor) if floor > 0 else np.ones_like(std_C)
    return ChannelStatistics(mean_C.astype(np.float32), std_C.astype(np.float32))


def _moments(codes_FMC):
    """Returns count, mean and sum of squared deviations of each channel of a clip, float64."""
    rows_NC = codes_FMC.reshape(-1, codes_FMC.shape[-1])
    size = len(rows_NC)
    if rows_NC.dtype != np.uint8:
        values_NC = rows_NC.astype(np.float64)
        mean_C = values_NC.mean(axis=0)
        return size, mean_C, np.square(values_NC - mean_C).sum(axis=0)
    sum_C, square_C = np.zeros((2, rows_NC.shape[1]))
    # 256 squares of uint8 sum to less than 2 ** 24, so float32 is exact (and faster). `einsum`
    # avoids BLAS, whose threads make this 200 times slower on busy cores.
    block_NC = np.empty((min(size, 256), rows_NC.shape[1]), np.float32)
    for start in range(0, size, 256):
        values_NC = block_NC[: size - start]
        values_NC[:] = rows_NC[start : start + 256]
        sum_C += values_NC.sum(axis=0)
        square_C += np.einsum("nc,nc->c", values_NC, values_NC)
    mean_C = sum_C / size
    return size, mean_C, square_C - sum_C * mean_C
