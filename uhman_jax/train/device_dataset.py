"""Features of a view on the device: they are read once, and batches index them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, assert_never

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.batch import Batch, take
from uhman_jax.config import Features
from uhman_jax.dataset.view import View
from uhman_jax.input_pipeline import PADDING_ROW, Join, padded_rows
from uhman_jax.kernels.video_input import VideoInput
from uhman_jax.runtime.errors import UserError, count_of
from uhman_jax.runtime.memory import machine_memory
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.shards.store import FrameStore

PoolFeatures = Callable[[VideoInput], VideoInput]

_FEATURES_FRACTION = 0.5  # of the device's memory; parameters and activations need the rest
_LOADED_AT_ONCE = 64  # videos


class DeviceDataset(NamedTuple):
    """Videos of a view on the device.

    Attributes:
        videos: all videos as one batch, whose last example is padding.
        slot_V: int32, index of each view row in that batch. The last entry, which PADDING_ROW
            selects, refers to the padding example.
    """

    videos: Batch
    slot_V: jax.Array

    def batch(self, row_B: jax.Array | np.ndarray) -> Batch:
        """Returns the batch of view rows, as `Join` does, but without copying their features."""
        return take(self.videos, self.slot_V[row_B])


def fits_on_device(
    store: FrameStore,
    rows: np.ndarray,
    features: Features,
    pool_features: PoolFeatures | None = None,
) -> bool:
    """Returns whether to keep the features of view rows on the device.

    Args:
        store: features of the videos.
        rows: rows of a view.
        features: setting of the run; STREAM always gives False.
        pool_features: as for `load`; None, or a function that returns one vector per clip.

    Raises:
        UserError: `features` is DEVICE, and the features do not fit.
    """
    codes = 4 * store.num_channels if pool_features else store.max_frames * store.schema.frame_bytes
    clip_bytes = codes + 8 * store.num_channels  # plus scale and offset of each channel
    needed, room = len(rows) * clip_bytes, int(_FEATURES_FRACTION * device_memory())
    match features:
        case Features.STREAM:
            return False
        case Features.AUTO:
            return needed <= room
        case Features.DEVICE if needed > room:
            raise UserError(
                f"train.features=device needs the features of {count_of(len(rows), 'clip')} to fit "
                f"half of the device's memory, {room / 2**30:.1f} GiB, got "
                f"{needed / 2**30:.1f} GiB; use --config.train.features=stream, or fewer frames "
                "per clip"
            )
        case Features.DEVICE:
            return True
        case _:
            assert_never(features)


def device_memory() -> int:
    """Returns the free bytes of the first device; for a CPU, half of the machine's memory."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return machine_memory() // 2


def load(
    view: View,
    store: FrameStore,
    rows: np.ndarray,
    should_stop: Callable[[], bool] = lambda: False,
    pool_features: PoolFeatures | None = None,
    history_parts: bool = False,
) -> DeviceDataset | None:
    """Loads the videos of view rows onto the device, in pieces; returns None if stopped.

    Args:
        view: labels of the videos.
        store: features of the videos.
        rows: rows of the view.
        should_stop: called between pieces.
        pool_features: reduces a video to the features that the model uses; None: keeps all.
        history_parts: see `Join`.

    Raises:
        DamagedRecordError: a shard is damaged.
    """
    join = Join(view, store, history_parts=history_parts)
    padded = padded_rows(np.append(rows, PADDING_ROW), _LOADED_AT_ONCE)
    slot_V = np.full(len(view.video_ids) + 1, padded.size - 1, np.int32)
    slot_V[rows] = np.arange(len(rows))

    def zeros(part):
        return jnp.zeros((padded.size, *part.shape[1:]), part.dtype)

    @functools.partial(jax.jit, donate_argnums=0)
    def update(videos, piece, start):
        def one(whole, part):
            return jax.lax.dynamic_update_slice_in_dim(whole, part, start, axis=0)

        return jax.tree.map(one, videos, piece)

    pool = pool_features and jax.jit(pool_features)
    videos: Any = None
    with progress_bar(total=len(rows), desc="Features to the device", unit="clip") as bar:
        for index, piece_rows in enumerate(padded):
            if should_stop():
                return None
            piece = join(piece_rows)
            if pool:
                piece = piece._replace(video=pool(piece.video))
            videos = jax.tree.map(zeros, piece) if videos is None else videos
            videos = update(videos, piece, index * _LOADED_AT_ONCE)
            bar.update(int(piece.mask_B.sum()))
    video = videos.video._replace(slot_B=jnp.arange(padded.size, dtype=jnp.int32))
    videos = jax.block_until_ready(videos._replace(video=video))
    return DeviceDataset(videos, jnp.asarray(slot_V))
