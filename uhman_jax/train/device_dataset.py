"""The features of a view on the device: read once, then batches refer to them."""

import contextlib
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, assert_never

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.config import Features
from uhman_jax.dataset.view import View
from uhman_jax.errors import UserError, count_of
from uhman_jax.input_pipeline import PADDING_ROW, Batch, Join, padded_rows, take
from uhman_jax.layers import VideoInput
from uhman_jax.progress import progress_bar
from uhman_jax.shards.store import FrameStore

Condense = Callable[[VideoInput], VideoInput]

_SHARE = 0.5  # fraction of the device's memory for features; the rest: parameters, activations
_LOADED_AT_ONCE = 64


class DeviceDataset(NamedTuple):
    """Videos of a view on the device.

    Attributes:
        videos: one large batch; its last example is padding.
        slot_V: int32, the index in it of each view row; a last entry, of PADDING_ROW, refers to the
            padding.
    """

    videos: Batch
    slot_V: jax.Array

    def batch(self, row_B: jax.Array | np.ndarray) -> Batch:
        """Returns the batch of these view rows, as `Join` does, but without a copy of the codes."""
        return take(self.videos, self.slot_V[row_B])


def fits_on_device(
    view: View,
    store: FrameStore,
    rows: np.ndarray,
    features: Features,
    pool_features: Condense | None = None,
) -> bool:
    """Returns whether the features of these view rows should go to the device.

    Args:
        view: has these rows.
        store: their features.
        rows: of the view.
        features: the user's choice.
        pool_features: as for `load`, to one vector per clip.

    Raises:
        UserError: they must, and don't fit.
    """
    codes = 4 * store.num_channels if pool_features else store.max_frames * store.schema.frame_bytes
    clip_bytes = codes + 8 * store.num_channels  # and scale and offset
    needed, room = len(rows) * clip_bytes, int(_SHARE * device_memory())
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
    """Returns the free bytes of the first device; for a CPU half of the memory."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return _machine_memory() // 2


def _machine_memory() -> int:
    """Returns the bytes of memory that this process may use: containers and jobs have limits."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers in ("", "memory"):
                root = pathlib.Path("/sys/fs/cgroup", controllers)
                file = "memory.limit_in_bytes" if controllers else "memory.max"
                limits += _limits(root, name.strip("/"), file)
    return min(limits)


def _limits(root: pathlib.Path, name: str, file: str) -> list[int]:
    """Returns the limits of a control group and its parents; "max" is no limit."""
    folders = [root / name, *(root / name).parents]
    found = []
    for folder in folders[: 1 + len(pathlib.PurePath(name).parts)]:
        with contextlib.suppress(OSError, ValueError):
            found.append(int((folder / file).read_text("utf-8")))
    return found


def load(
    view: View,
    store: FrameStore,
    rows: np.ndarray,
    should_stop: Callable[[], bool] = lambda: False,
    pool_features: Condense | None = None,
) -> DeviceDataset | None:
    """Reads the videos of view rows onto the device, piece by piece; None if it was stopped.

    Args:
        view: has these rows.
        store: their features.
        rows: to read.
        should_stop: called between pieces.
        pool_features: reduces the videos to what a model uses, if it does not use all regions.

    Raises:
        DamagedRecordError: a record differs from what was written.
    """
    join = Join(view, store)
    with_padding = np.append(rows, PADDING_ROW)  # one slot or more
    padded = padded_rows(with_padding, _LOADED_AT_ONCE)
    slot_V = np.full(len(view.video_ids) + 1, padded.size - 1, np.int32)
    slot_V[rows] = np.arange(len(rows))

    @jax.jit
    def zeros(piece):
        return jax.tree.map(
            lambda part: jnp.zeros((padded.size, *part.shape[1:]), part.dtype), piece
        )

    def put(videos, piece, start):
        def into(all_videos, part):
            return jax.lax.dynamic_update_slice_in_dim(all_videos, part, start, axis=0)

        return jax.tree.map(into, videos, piece)

    kept = jax.jit(pool_features) if pool_features else None
    put_in_place = jax.jit(put, donate_argnums=0)
    videos: Any = None
    with progress_bar(total=len(rows), desc="Features to the device", unit="clip") as bar:
        for index, piece_rows in enumerate(padded):
            if should_stop():
                return None
            piece = join(piece_rows)
            if kept:
                piece = piece._replace(video=kept(piece.video))
            videos = zeros(piece) if videos is None else videos
            videos = put_in_place(videos, piece, index * _LOADED_AT_ONCE)
            bar.update(int(piece.mask_B.sum()))
    video = videos.video._replace(slot_B=jnp.arange(padded.size, dtype=jnp.int32))
    videos = jax.block_until_ready(videos._replace(video=video))
    return DeviceDataset(videos, jnp.asarray(slot_V))
