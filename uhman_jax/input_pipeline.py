"""Makes batches for training and evaluation by joining a view (labels) with shards (features).

Batches are addressed by step: `train_batches(...)[s]` depends only on the seed and s, so a run that
resumes at step s gets the same batches as an uninterrupted run. A batch contains the stored codes
(uint8 by default), which the model decodes.
"""

import functools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from uhman_jax.batch import Batch
from uhman_jax.dataset.view import Ragged, View
from uhman_jax.kernels.video_input import VideoInput
from uhman_jax.models.layers import UserInput
from uhman_jax.shards.buffer_pool import Recycler
from uhman_jax.shards.record import Schema
from uhman_jax.shards.store import FrameStore

if TYPE_CHECKING:
    import grain  # takes half a second, and inference does not need it

PADDING_ROW = -1  # "no video" in a list of view rows


def pad_videos(
    copies: Sequence[Callable[[np.ndarray], tuple[int, dict[str, np.ndarray]]] | None],
    schema: Schema,
    max_frames: int,
    empty: Callable[..., np.ndarray] = np.empty,
) -> VideoInput:
    """Returns a batch of videos of different lengths, padded with frames of zeros.

    Args:
        copies: one function per video, codes_FMC -> (number of frames, other arrays by name). It
            writes the codes of the video to the first frames of its argument. None gives a video
            without frames.
        schema: schema of the records; each of its `clip_fields` becomes an array of `VideoInput`.
        max_frames: F.
        empty: allocates the array of codes; same arguments as `np.empty`.
    """
    shape = (len(copies), max_frames, schema.num_regions, schema.num_channels)
    codes_BFMC = empty(shape, schema.dtype)
    fields = schema.clip_fields.items()
    arrays = {name: np.zeros((len(copies), *f.shape_of(1)), f.dtype) for name, f in fields}
    num_frames_B = np.zeros(len(copies), np.int32)
    for b, copy in enumerate(copies):
        if copy:
            num_frames_B[b], values = copy(codes_BFMC[b])
            for name, value in values.items():
                arrays[name][b] = value
        codes_BFMC[b, num_frames_B[b] :] = 0
    batched = {name.replace("_", "_B"): array for name, array in arrays.items()}
    mask_BF = np.arange(max_frames) < num_frames_B[:, np.newaxis]
    return VideoInput.plain(codes_BFMC, mask_BF=mask_BF, **batched)


class Join:
    """Reads the videos of given view rows into one batch.

    The memory of a batch's codes is reused once nothing refers to them.

    Args:
        view: labels of the videos.
        store: features of the videos.
        max_frames: F, at least the length of the longest record; 0: that length.
        history_parts: whether batches have `history_parts_BR`.

    Raises:
        UserError: the store lacks a video.
    """

    def __init__(
        self, view: View, store: FrameStore, max_frames: int = 0, history_parts: bool = False
    ):
        """Finds the record of every video."""
        self.view, self.store = view, store
        self._max_frames = max_frames or store.max_frames
        self._record_V = store.rows(view.video_ids)
        offsets = view.history.offsets
        self._parts = Ragged(view.history_parts, offsets) if history_parts else None
        self._recycler = Recycler()

    def __call__(self, row_B: np.ndarray) -> Batch:
        """Returns the batch of these view rows; PADDING_ROW gives a padding example.

        Raises:
            DamagedRecordError: a record is damaged; the message names file and offset.
        """
        view, store = self.view, self.store
        row_B = np.asarray(row_B, np.int32)
        mask_B = row_B != PADDING_ROW
        copies = [
            functools.partial(store.copy, self._record_V[row]) if row != PADDING_ROW else None
            for row in row_B
        ]
        video = pad_videos(copies, store.schema, self._max_frames, self._recycler.empty)
        gender_B, age_B, country_B = (
            np.where(mask_B, value_V[row_B], 0).astype(np.int32)
            for value_V in (view.gender_V, view.age_V, view.country_V)
        )
        history = pad(view.history, row_B, view.max_history)
        parts_BR = pad(self._parts, row_B, view.max_history)[0] if self._parts else None
        user = UserInput(gender_B, age_B, country_B, *history, parts_BR)
        positives = pad(view.positives, row_B, view.max_positives)
        return Batch(video, user, *positives, row_B, mask_B)


def pad(ragged: Ragged, row_B: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows of a ragged array, padded with 0 to the same width.

    >>> pad(Ragged(np.int32([7, 8, 9]), np.int64([0, 1, 3])), np.int32([1, -1, 0]), 2)[0].tolist()
    [[8, 9], [0, 0], [7, 0]]

    Args:
        ragged: int32 values.
        row_B: indices of rows; PADDING_ROW gives an empty row.
        width: at least the length of the longest of these rows (ValueError otherwise).

    Returns:
        (values, mask), int32 and bool, both (B, width).
    """
    start_B = ragged.offsets[row_B]
    length_B = np.where(row_B == PADDING_ROW, 0, ragged.offsets[row_B + 1] - start_B)
    if (length_B > width).any():
        raise ValueError(f"rows must fit the width {width}, got a row of {length_B.max()} values")
    slots = np.arange(width)
    mask = slots < length_B[:, np.newaxis]
    values = np.zeros(mask.shape, np.int32)
    values[mask] = ragged.values[(start_B[:, np.newaxis] + slots)[mask]]
    return values, mask


class TrainOrder:
    """Endless batches of view rows: `order[s]` is the int64 row_B of step s.

    Each epoch is a new permutation of all rows. A batch may contain the end of one epoch and the
    start of the next, so no row is ever dropped.
    Epoch e ends with step ceil(e * len(rows) / batch_size) - 1.

    Args:
        rows: rows of the view, one or more; usually `view.rows(TRAIN)`.
        batch_size: B.
        seed: seed of the permutations.
    """

    def __init__(self, rows: np.ndarray, batch_size: int, seed: int):
        """Keeps the rows."""
        self._rows = np.asarray(rows, np.int64)
        self.batch_size, self._seed = batch_size, seed

    def __len__(self) -> int:
        """Returns the number of steps that can be addressed."""
        return sys.maxsize // self.batch_size

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns the rows of step `index`."""
        start, parts, missing = index * self.batch_size, [], self.batch_size
        while missing:
            epoch, first = divmod(start, len(self._rows))
            order = _permutation(len(self._rows), self._seed, epoch)
            parts.append(order[first : first + missing])
            start, missing = start + len(parts[-1]), missing - len(parts[-1])
        return self._rows[np.concatenate(parts)]


@functools.lru_cache(maxsize=2)  # a batch may belong to two epochs
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def train_batches(
    view: View,
    store: FrameStore,
    order: TrainOrder,
    slots: np.ndarray | None = None,
    history_parts: bool = False,
) -> "grain.MapDataset":
    """Returns endless batches of shuffled videos; `train_batches(...)[s]` is the Batch of step s.

    Args:
        view: labels of the videos.
        store: features of the videos.
        order: rows of the view by step.
        slots: indices of the examples of each batch that this process reads, if several processes
            share it; they become `slot_B`. None: all.
        history_parts: see `Join`.
    """
    import grain

    join = Join(view, store, history_parts=history_parts)

    def read(row_B: np.ndarray) -> Batch:
        if slots is None:
            return join(row_B)
        batch = join(row_B[slots])
        return batch._replace(video=batch.video._replace(slot_B=slots.astype(np.int32)))

    return grain.MapDataset.source(order).map(read)


def eval_batches(
    view: View, store: FrameStore, *, rows: np.ndarray, batch_size: int, max_frames: int = 0
) -> "grain.MapDataset":
    """Returns batches of all rows in the given order; the last batch is padded and masked.

    Args:
        view: labels of the videos.
        store: features of the videos.
        rows: rows of the view; if empty, there is no batch.
        batch_size: B.
        max_frames: F; 0: the length of the longest record.
    """
    import grain

    source = grain.MapDataset.source(list(padded_rows(rows, batch_size)))
    return source.map(Join(view, store, max_frames))


def padded_rows(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Returns the rows as N batches, int64 (N, B); the last is padded with PADDING_ROW.

    >>> padded_rows(np.arange(5), 3).tolist()
    [[0, 1, 2], [3, 4, -1]]
    """
    num_batches = math.ceil(len(rows) / batch_size)
    padded_NB = np.full((num_batches, batch_size), PADDING_ROW, np.int64)
    padded_NB.reshape(-1)[: len(rows)] = rows
    return padded_NB


def iterate(
    batches: "grain.MapDataset", start_step: int = 0, *, num_threads: int = 0
) -> Iterator[Batch]:
    """Returns an iterator over the batches from `start_step` on; threads read them ahead.

    Args:
        batches: result of `train_batches` or `eval_batches`.
        start_step: index of the first batch.
        num_threads: number of threads, each of which reads one batch at a time; 0: half the number
            of cores, within 2 to 8. Memory holds `num_threads` + 2 batches of B * F * M * C codes.
    """
    import grain

    num_threads = num_threads or min(max((os.cpu_count() or 1) // 2, 2), 8)
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads + 2)
    return iter(batches[start_step:].to_iter_dataset(options))
