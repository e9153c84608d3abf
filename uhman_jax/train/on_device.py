"""The features of a view on the device: read once, where batches then refer to them."""

import contextlib
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple, assert_never

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.config import Features
from uhman_jax.dataset.view import View
from uhman_jax.errors import UserError, count_of
from uhman_jax.input_pipeline import PADDING_ROW, Batch, Join, padded_rows
from uhman_jax.layers import VideoInput, without_codes
from uhman_jax.progress import progress_bar
from uhman_jax.shards.store import FrameStore

Condense = Callable[[VideoInput], VideoInput]

_SHARE = 0.5  # of the device's memory for features; the rest is for parameters and activations
_LOADED_AT_ONCE = 64


class OnDevice(NamedTuple):
    """Videos of a view on the device.

    Attributes:
        videos: one large batch; its last example is padding.
        slot_V: int32, where in it each view row is; one entry more than the view has rows, for
            the padding.
    """

    videos: Batch
    slot_V: jax.Array


def wanted(
    view: View,
    store: FrameStore,
    rows: np.ndarray,
    features: Features,
    condense: Condense | None = None,
) -> bool:
    """Whether the features of these view rows should go to the device.

    Args:
        view: its rows.
        store: their features.
        rows: whose features.
        features: the user's choice.
        condense: as for `load`, to one vector a clip.

    Raises:
        UserError: they must, and don't fit.
    """
    codes = 4 * store.num_channels if condense else store.max_frames * store.schema.frame_bytes
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
    """Bytes of the first device that are free; of a CPU half of the memory."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return _machine_memory() // 2


def _machine_memory() -> int:
    """Bytes of the machine's memory that this process may use: a container or a job has a limit."""
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
    """What a group and those around it say; "max" says nothing."""
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
    condense: Condense | None = None,
) -> OnDevice | None:
    """Reads the videos of view rows onto the device, piece by piece; None where it was stopped.

    Args:
        view: its rows.
        store: their features.
        rows: to read.
        should_stop: asked between pieces.
        condense: what is kept of the videos, where a model does not look at all regions.

    Raises:
        DamagedRecordError: a record is not what was written.
    """
    join = Join(view, store)
    with_padding = np.append(rows, PADDING_ROW)  # one slot or more
    padded = padded_rows(with_padding, _LOADED_AT_ONCE)
    slot_V = np.full(len(view.video_ids) + 1, padded.size - 1, np.int32)
    slot_V[rows] = np.arange(len(rows))

    @jax.jit
    def nothing(piece):
        return jax.tree.map(
            lambda part: jnp.zeros((padded.size, *part.shape[1:]), part.dtype), piece
        )

    def put(videos, piece, start):
        def into(all_videos, part):
            return jax.lax.dynamic_update_slice_in_dim(all_videos, part, start, axis=0)

        return jax.tree.map(into, videos, piece)

    kept = jax.jit(condense) if condense else None
    put_in_place = jax.jit(put, donate_argnums=0)
    videos = None
    with progress_bar(total=len(rows), desc="Features to the device", unit="clip") as bar:
        for index, piece_rows in enumerate(padded):
            if should_stop():
                return None
            piece = join(piece_rows)
            if kept:
                piece = piece._replace(video=kept(piece.video))
            videos = nothing(piece) if videos is None else videos
            videos = put_in_place(videos, piece, index * _LOADED_AT_ONCE)
            bar.update(int(piece.mask_B.sum()))
    return OnDevice(jax.block_until_ready(videos), jnp.asarray(slot_V))


def take(on_device: OnDevice, row_B: jax.Array) -> Batch:
    """The batch of these view rows, as `Join` has it; PADDING_ROW gives a padding example.

    The codes stay where they are (`VideoInput.slot_B`): a model reads what it needs of them there.
    """
    batch = _take_others(on_device, row_B)
    codes_BFMC = on_device.videos.video.codes_BFMC
    return batch._replace(video=batch.video._replace(codes_BFMC=codes_BFMC))


@jax.jit
def _take_others(on_device: OnDevice, row_B: jax.Array) -> Batch:
    """All but the codes: what a program returns is copied, and they must not be."""
    slot_B = on_device.slot_V[row_B]  # -1 is the last entry, that of the padding
    videos = on_device.videos._replace(video=without_codes(on_device.videos.video))
    batch = jax.tree.map(lambda part: part[slot_B], videos)
    return batch._replace(video=batch.video._replace(slot_B=slot_B))
