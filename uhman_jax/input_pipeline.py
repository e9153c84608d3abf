"""Batches for training and evaluation: a view joined with the shards.

Batches are addressed by step: `train_batches(...)[s]` depends on the seed and s alone, so a run
that starts again at step s sees what the unbroken run saw.  Codes stay as stored (uint8 by default)
until the model.
"""

import functools
import math
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uhman_jax.dataset.view import TRAIN, Ragged, View
from uhman_jax.errors import UserError
from uhman_jax.model import UserInput, VideoInput
from uhman_jax.progress import progress_bar
from uhman_jax.shards.recycle import Recycler
from uhman_jax.shards.store import FrameStore

if TYPE_CHECKING:
    import grain  # half a second that those who only use a model need not wait

PADDING_ROW = -1  # stands for "no video" where view rows are listed
# Channels that vary less than this share of the root mean square over channels are scaled as if
# they varied that much: a channel that is constant in train must not blow up what test holds there.
STD_FLOOR = 1e-3


class Batch(NamedTuple):
    """B videos with their users and hashtags, NumPy arrays of fixed shape.

    Attributes:
        video: features of the clips.
        user: who posts them.
        positives_BP: int32 hashtag ids, ascending; 0 where masked.
        positives_mask_BP: bool, True for a real slot.
        row_B: int32 row in the view; -1 for a padding example.
        mask_B: bool, False for a padding example, whose other masks are False and values 0.
    """

    video: VideoInput
    user: UserInput
    positives_BP: np.ndarray
    positives_mask_BP: np.ndarray
    row_B: np.ndarray
    mask_B: np.ndarray


class Join:
    """Reads the videos of given view rows into one batch.

    The memory of a batch's codes is used again when nothing holds them any more.

    Args:
        view: whose videos are read.
        store: has them all.
        max_frames: F of the batches, at least the store's longest record; 0: exactly that.

    Raises:
        UserError: the store lacks a video or has longer ones.
    """

    def __init__(self, view: View, store: FrameStore, max_frames: int = 0):
        """Finds the record of every video."""
        self.view, self.store = view, store
        self.max_frames = max_frames or store.max_frames
        if self.max_frames < store.max_frames:
            raise UserError(
                f"max_frames must be at least the {store.max_frames} frames of the longest clip in "
                f"{store.directory}, got {max_frames}; preprocess again to keep fewer frames"
            )
        self._record_V = store.rows(view.video_ids)
        self._recycler = Recycler()

    def __reduce__(self):
        """Pickles as its arguments."""
        return type(self), (self.view, self.store, self.max_frames)

    def __call__(self, row_B: np.ndarray) -> Batch:
        """The batch of these view rows; PADDING_ROW gives a padding example.

        Raises:
            DamagedRecordError: a record is not what was written; names file and offset.
        """
        view, store = self.view, self.store
        row_B = np.asarray(row_B, np.int32)
        mask_B = row_B != PADDING_ROW
        size, frames, channels = len(row_B), self.max_frames, store.num_channels
        codes_BFMC = self._recycler.empty(
            (size, frames, store.num_regions, channels), store.schema.dtype
        )
        scale_BC = np.zeros((size, channels), np.float32)
        offset_BC = np.zeros((size, channels), np.float32)
        num_frames_B = np.zeros(size, np.int32)
        for slot, row in enumerate(row_B):
            if mask_B[slot]:
                num_frames_B[slot], scale_BC[slot], offset_BC[slot] = store.copy(
                    self._record_V[row], codes_BFMC[slot]
                )
            codes_BFMC[slot, num_frames_B[slot] :] = 0
        video = VideoInput(
            codes_BFMC, scale_BC, offset_BC, np.arange(frames) < num_frames_B[:, np.newaxis]
        )

        def attribute(value_V):
            return np.where(mask_B, value_V[row_B], 0).astype(np.int32)

        history_BR, history_mask_BR = pad(view.history, row_B, view.max_history)
        user = UserInput(
            attribute(view.gender_V),
            attribute(view.age_V),
            attribute(view.country_V),
            history_BR,
            history_mask_BR,
        )
        positives_BP, positives_mask_BP = pad(view.positives, row_B, view.max_positives)
        return Batch(video, user, positives_BP, positives_mask_BP, row_B, mask_B)


def pad(ragged: Ragged, row_B: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a ragged array side by side, padded with 0.

    >>> pad(Ragged(np.int32([7, 8, 9]), np.int64([0, 1, 3])), np.int32([1, -1, 0]), 2)[0].tolist()
    [[8, 9], [0, 0], [7, 0]]

    Args:
        ragged: int32 values.
        row_B: rows of it; PADDING_ROW gives an empty one.
        width: at least the length of each row asked for (ValueError otherwise).

    Returns:
        (values, mask), int32 and bool, both (B, width).
    """
    start_B = ragged.offsets[row_B]
    length_B = np.where(row_B == PADDING_ROW, 0, ragged.offsets[row_B + 1] - start_B)
    if (length_B > width).any():
        raise ValueError(f"rows must fit the width {width}, got one of {length_B.max()} values")
    slots = np.arange(width)
    mask = slots < length_B[:, np.newaxis]
    values = np.zeros(mask.shape, np.int32)
    values[mask] = ragged.values[(start_B[:, np.newaxis] + slots)[mask]]
    return values, mask


class TrainOrder:
    """Endless batches of view rows: `order[s]` is the int64 row_B of step s.

    Each epoch is another permutation of all rows.  Epochs follow one another without a gap, so a
    batch may hold the end of one and the begin of the next and no row is ever dropped; epoch e ends
    with step ceil(e * len(rows) / batch_size) - 1.

    Args:
        rows: of the view.
        batch_size: B.
        seed: of the permutations.

    Raises:
        UserError: there are no rows.
    """

    def __init__(self, rows: np.ndarray, batch_size: int, seed: int):
        """Keeps the rows."""
        if not len(rows):
            raise UserError(
                "training needs one video or more, got none; add videos or lower view.min_count"
            )
        self._rows = np.asarray(rows, np.int64)
        self._batch_size, self._seed = batch_size, seed

    def __len__(self) -> int:
        """As many steps as one can ask for."""
        return sys.maxsize // self._batch_size

    def __getitem__(self, index: int) -> np.ndarray:
        """The rows of step `index`."""
        start, parts, missing = index * self._batch_size, [], self._batch_size
        while missing:
            epoch, place = divmod(start, len(self._rows))
            order = _permutation(len(self._rows), self._seed, epoch)
            parts.append(order[place : place + missing])
            start, missing = start + len(parts[-1]), missing - len(parts[-1])
        return self._rows[np.concatenate(parts)]


@functools.lru_cache(maxsize=2)  # a batch may lie in two epochs
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def train_batches(
    view: View,
    store: FrameStore,
    *,
    rows: np.ndarray,
    batch_size: int,
    seed: int,
    max_frames: int = 0,
    places: np.ndarray | None = None,
) -> "grain.MapDataset":
    """Endless batches of shuffled videos; `train_batches(...)[s]` is the Batch of step s.

    Args:
        view: what the videos are labelled with.
        store: what they look like.
        rows: of the view, usually `view.rows(TRAIN)`; order as in `TrainOrder`.
        batch_size: B.
        seed: of the order.
        max_frames: F; 0: the store's longest record.
        places: of the examples in a batch that are read; None: all.
    """
    import grain

    join = Join(view, store, max_frames)
    order = grain.MapDataset.source(TrainOrder(rows, batch_size, seed))
    return order.map(join if places is None else lambda row_B: join(row_B[places]))


def eval_batches(
    view: View, store: FrameStore, *, rows: np.ndarray, batch_size: int, max_frames: int = 0
) -> "grain.MapDataset":
    """Every row once, in the order given; the last batch is padded and masked.

    Args:
        view: what the videos are labelled with.
        store: what they look like.
        rows: of the view; none gives no batch.
        batch_size: B.
        max_frames: F; 0: the store's longest record.
    """
    import grain

    source = grain.MapDataset.source(list(padded_rows(rows, batch_size)))
    return source.map(Join(view, store, max_frames))


def padded_rows(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Rows in batches, int64 (N, B), the last one filled up with PADDING_ROW.

    >>> padded_rows(np.arange(5), 3).tolist()
    [[0, 1, 2], [3, 4, -1]]
    """
    num_batches = math.ceil(len(rows) / batch_size)
    padded_NB = np.full((num_batches, batch_size), PADDING_ROW, np.int64)
    padded_NB.reshape(-1)[: len(rows)] = rows
    return padded_NB


def iterate(
    batches: "grain.MapDataset", start_step: int = 0, *, prefetch: int = 0, num_threads: int = 0
) -> Iterator[Batch]:
    """Batches from `start_step` on, read ahead in threads.

    Args:
        batches: from `train_batches` or `eval_batches`.
        start_step: first batch.
        prefetch: batches held ready, each of B * F * M * C codes; 0: two more than threads.
        num_threads: that read; one batch is read by one. 0: half as many as cores, 2 to 8.
    """
    import grain

    num_threads = num_threads or min(max((os.cpu_count() or 1) // 2, 2), 8)
    prefetch = prefetch or num_threads + 2
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
    return iter(batches[start_step:].to_iter_dataset(options))


def channel_statistics(
    view: View, store: FrameStore, *, progress: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over the train videos, for standardisation.

    Every real frame and region counts once (so a longer clip counts more), in float64, merged clip
    by clip (Chan et al. 1979), so a large mean does not swallow a small deviation.

    Args:
        view: only its train rows are read.
        store: has their features.
        progress: shows a progress bar on standard error.

    Returns:
        (mean_C, std_C) in float32; std_C is positive: at least 1e-3 of its root mean square over
        the channels, and 1 everywhere if nothing varies.

    Raises:
        UserError: there is no train video.
    """
    records = store.rows([view.video_ids[row] for row in view.rows(TRAIN)])
    if not len(records):
        raise UserError("statistics need one train video or more, got none; add videos")
    count, mean_C, square_C = 0, np.zeros(store.num_channels), np.zeros(store.num_channels)
    for index in progress_bar(
        records, desc="channel statistics", unit="clip", disable=not progress
    ):
        record = store[index]
        size, clip_mean_C, clip_square_C = _moments(record.codes_FMC)
        clip_mean_C = clip_mean_C * record.scale_C + record.offset_C
        clip_square_C = clip_square_C * np.square(record.scale_C, dtype=np.float64)
        delta_C = clip_mean_C - mean_C
        square_C += clip_square_C + np.square(delta_C) * (count * size / (count + size))
        count += size
        mean_C += delta_C * (size / count)
    std_C = np.sqrt(square_C / count)
    floor = STD_FLOOR * np.sqrt(np.mean(np.square(std_C)))
    std_C = np.maximum(std_C, floor) if floor > 0 else np.ones_like(std_C)
    return mean_C.astype(np.float32), std_C.astype(np.float32)


def _moments(codes_FMC):
    """Count, mean and sum of squared deviations of each channel of one clip, float64."""
    rows_NC = codes_FMC.reshape(-1, codes_FMC.shape[-1])
    size = len(rows_NC)
    if rows_NC.dtype != np.uint8:
        values_NC = rows_NC.astype(np.float64)
        mean_C = values_NC.mean(axis=0)
        return size, mean_C, np.square(values_NC - mean_C).sum(axis=0)
    sum_C, square_C = np.zeros((2, rows_NC.shape[1]))
    # 256 squares of uint8 add up to less than 2 ** 24, so float32 is exact (and faster).  No BLAS:
    # its threads made this 200 times slower when the cores were busy.
    block_NC = np.empty((min(size, 256), rows_NC.shape[1]), np.float32)
    for start in range(0, size, 256):
        values_NC = block_NC[: size - start]
        values_NC[:] = rows_NC[start : start + 256]
        sum_C += values_NC.sum(axis=0)
        square_C += np.einsum("nc,nc->c", values_NC, values_NC)
    mean_C = sum_C / size
    return size, mean_C, square_C - sum_C * mean_C
