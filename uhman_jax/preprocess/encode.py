"""Decoded clips to records of region features, in batches of one size."""

import collections
import concurrent.futures
import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from uhman_jax.preprocess.ledger import Entry
from uhman_jax.preprocess.pool import Clip
from uhman_jax.progress import progress_bar
from uhman_jax.shards import quantize
from uhman_jax.shards.example import FrameRecord


class Meter:
    """The progress bar: clips, frames/s, time left; a context manager.

    Attributes:
        frames: encoded so far.
        seconds: from the first clip to the last frame.
        decoding_seconds: that decoders were busy, added up over them.
        network_seconds: that the network was busy.
    """

    def __init__(self, total: int, done: int, show: bool):
        self.frames = 0
        self.seconds = self.decoding_seconds = self.network_seconds = 0.0
        self._begin = 0.0
        self._total, self._done, self._show = total, done, show
        self._bar = progress_bar(disable=True)

    def __enter__(self) -> "Meter":
        """Shows the bar."""
        self._bar = progress_bar(
            total=self._total,
            initial=self._done,
            unit="clip",
            desc="features",
            disable=not self._show,
        )
        return self

    def __exit__(self, *exc):
        """Ends the bar."""
        self._bar.close()

    def stage(self, text: str) -> None:
        """What is going on, shown before the bar."""
        self._bar.set_description_str(text)

    def add_clip(self) -> None:
        """A clip has come from the decoders."""
        self._begin = self._begin or time.monotonic()
        self._bar.update()

    def add_frames(self, count: int) -> None:
        """So many frames have come from the network."""
        self.frames += count
        self.seconds = time.monotonic() - self._begin
        self._bar.set_postfix_str(f"{self.frames / self.seconds:.1f} frames/s")


@dataclasses.dataclass
class _Pending:
    """A clip whose frames are in the network."""

    video_id: str
    times_F: np.ndarray
    features_FMC: np.ndarray
    left: int


def encode(
    clips: Iterable[tuple[tuple[str, str], Clip]],
    extractor: Any,
    storage: str,
    entries: list[Entry],
    meter: Meter,
) -> Iterator[FrameRecord]:
    """Yields the record of every decodable clip, in order.

    The network always gets full batches, across clips; the last is padded. While it computes one,
    the previous is quantised and written and the next is gathered.

    Args:
        clips: ((video_id, path), decoded clip).
        extractor: has `batch_frames`, `features`, NUM_REGIONS, NUM_CHANNELS.
        storage: as `quantize.pack` takes it.
        entries: gets one entry per clip.
        meter: is told of clips and frames.
    """
    waiting: collections.deque[_Pending] = collections.deque()

    def settle(batch) -> Iterator[FrameRecord]:
        slots, future = batch
        for (pending, frame), features_MC in zip(slots, future.result(), strict=True):
            pending.features_FMC[frame] = features_MC
            pending.left -= 1
        meter.add_frames(len(slots))
        while waiting and not waiting[0].left:
            done = waiting.popleft()
            packed = quantize.pack(done.features_FMC, storage)
            yield FrameRecord(done.video_id, *packed, done.times_F)

    def features(images):
        begin = time.monotonic()
        features_NMC = extractor.features(images)
        meter.network_seconds += time.monotonic() - begin
        return features_NMC

    shape = (extractor.NUM_REGIONS, extractor.NUM_CHANNELS)
    with concurrent.futures.ThreadPoolExecutor(1) as network:
        running = None
        for slots, images in _batches(
            clips, extractor.batch_frames, shape, waiting, entries, meter
        ):
            submitted = slots, network.submit(features, images)
            if running:
                yield from settle(running)
            running = submitted
        if running:
            yield from settle(running)


def _batches(clips, size: int, shape, waiting, entries: list[Entry], meter):
    """Full batches (slots, images) over the frames of the clips; the last may be smaller."""
    slots, images = [], []
    for (video_id, path), clip in clips:
        count = len(clip.images)
        seconds = round(clip.seconds, 3)
        entries.append(Entry(video_id, path, clip.state, count, seconds, clip.reason))
        meter.add_clip()
        if not count:
            continue
        pending = _Pending(video_id, clip.times_F, np.empty((count, *shape), np.float32), count)
        waiting.append(pending)
        for frame, image in enumerate(clip.images):
            slots.append((pending, frame))
            images.append(image)
            if len(slots) == size:
                yield slots, np.stack(images)
                slots, images = [], []
    if slots:
        yield slots, np.stack(images)
