"""Decoded clips to records of region features, in batches of one size."""

import collections
import concurrent.futures
import dataclasses
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from uhman_jax.preprocess.clip_file import printable
from uhman_jax.preprocess.decode_process import Clip
from uhman_jax.preprocess.ledger import Entry
from uhman_jax.progress import progress_bar
from uhman_jax.shards import quantize
from uhman_jax.shards.record import FrameRecord

_MAX_PACKERS = 8  # threads that quantise; one keeps up with 700 frames a second


class Meter:
    """The progress bar: clips, frames/s, time left; a context manager.

    Attributes:
        frames: encoded so far.
        seconds: from the first clip to the last frame.
        decoding_seconds: that decoders were busy, added up over them.
        network_seconds: that the network was busy, added up over its calls.
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
    parts: list[np.ndarray]  # features of its frames so far, [frames, M, C] each
    left: int


def encode(
    clips: Iterable[tuple[tuple[str, str], Clip]],
    extractor: Any,
    storage: str,
    entries: list[Entry],
    meter: Meter,
) -> Iterator[FrameRecord]:
    """Yields the record of every decodable clip, in order.

    The network always gets full batches, across clips; the last is padded. While it computes some,
    earlier ones are quantised and written and the next is gathered.

    Args:
        clips: ((video_id, path), decoded clip).
        extractor: has `batch_frames`, `features`, `calls_at_once`.
        storage: as `quantize.pack` takes it.
        entries: gets one entry per clip.
        meter: is told of clips and frames.
    """
    waiting: collections.deque[_Pending] = collections.deque()
    packed: collections.deque[concurrent.futures.Future] = collections.deque()

    def features(images):
        begin = time.monotonic()
        features_NMC = extractor.features(images)
        meter.network_seconds += time.monotonic() - begin
        return features_NMC

    def pack(clip: _Pending) -> FrameRecord:
        features_FMC = np.concatenate(clip.parts)
        return FrameRecord(clip.video_id, *quantize.pack(features_FMC, storage), clip.times_F)

    def settle(batch) -> None:
        slots, future = batch
        features_NMC = future.result()
        begin = 0
        for pending, count in slots:
            pending.parts.append(features_NMC[begin : begin + count])
            pending.left -= count
            begin += count
        meter.add_frames(begin)
        while waiting and not waiting[0].left:
            packed.append(packers.submit(pack, waiting.popleft()))

    num_packers = min(_MAX_PACKERS, os.cpu_count() or 1)
    with (
        concurrent.futures.ThreadPoolExecutor(extractor.calls_at_once) as network,
        concurrent.futures.ThreadPoolExecutor(num_packers) as packers,
    ):
        running: collections.deque = collections.deque()
        for slots, images in _batches(clips, extractor.batch_frames, waiting, entries, meter):
            running.append((slots, network.submit(features, images)))
            if len(running) > extractor.calls_at_once:
                settle(running.popleft())
            while packed and (packed[0].done() or len(packed) > 2 * num_packers):
                yield packed.popleft().result()
        while running:
            settle(running.popleft())
        while packed:
            yield packed.popleft().result()


def _batches(clips, size: int, waiting, entries: list[Entry], meter):
    """Full batches over the frames of the clips, the last may be smaller.

    Yields:
        ([(pending clip, number of its frames)], images).
    """
    slots, parts, room = [], [], size
    for (video_id, path), clip in clips:
        count = len(clip.images)
        seconds = round(clip.seconds, 3)
        facts = clip.state, count, seconds, clip.reason, clip.content
        entries.append(Entry(video_id, printable(path), *facts))
        meter.add_clip()
        if not count:
            continue
        pending = _Pending(video_id, clip.times_F, [], count)
        waiting.append(pending)
        begin = 0
        while begin < count:
            taken = min(room, count - begin)
            slots.append((pending, taken))
            parts.append(clip.images[begin : begin + taken])
            begin, room = begin + taken, room - taken
            if not room:
                yield slots, np.concatenate(parts)
                slots, parts, room = [], [], size
    if slots:
        yield slots, np.concatenate(parts)
