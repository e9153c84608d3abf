"""Encodes decoded clips as quantised region features, in batches of one size."""

import collections
import concurrent.futures
import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from uhman_jax.preprocess.clip_file import DecodedClip
from uhman_jax.preprocess.decode_process import usable_cores
from uhman_jax.progress import progress_bar
from uhman_jax.shards import quantize

_MAX_PACKERS = 8  # threads that quantise; one keeps up with 700 frames a second


class Meter:
    """The progress bar: clips, frames/s, time left; a context manager.

    Attributes:
        frames: encoded so far.
        seconds: from the first clip to the last frame.
        decoding_seconds: busy time, summed over the decoders.
        network_seconds: busy time, summed over the calls of the network.
    """

    def __init__(self, total: int, done: int, show: bool):
        self.frames = 0
        self.seconds = self.decoding_seconds = self.network_seconds = 0.0
        self._begin = 0.0
        self._settings = {"total": total, "initial": done, "disable": not show}
        self._bar = progress_bar(disable=True)

    def __enter__(self) -> "Meter":
        """Shows the bar."""
        self._bar = progress_bar(unit="clip", desc="features", **self._settings)
        return self

    def __exit__(self, *exc):
        """Ends the bar."""
        self._bar.close()

    def stage(self, text: str) -> None:
        """Sets the text before the bar."""
        self._bar.set_description_str(text)

    def add_clip(self) -> None:
        """Counts a clip that the decoders returned."""
        self._begin = self._begin or time.monotonic()
        self._bar.update()

    def add_frames(self, count: int) -> None:
        """Counts frames that the network returned."""
        self.frames += count
        self.seconds = time.monotonic() - self._begin
        self._bar.set_postfix_str(f"{self.frames / self.seconds:.1f} frames/s")


@dataclasses.dataclass
class _Pending:
    """A clip, without its images, whose frames are in the network."""

    clip: DecodedClip
    left: int  # frames without features
    parts: list[np.ndarray] = dataclasses.field(default_factory=list)  # features, [frames, M, C]


def encode(
    clips: Iterable[DecodedClip], extractor: Any, storage: str, meter: Meter
) -> Iterator[tuple[DecodedClip, dict[str, np.ndarray]]]:
    """Yields every clip in order, without its images, and the named arrays of its `FrameRecord`.

    A clip without a frame has no arrays. The network always gets full batches, across clips; the
    last is padded. While it computes a batch, earlier ones are quantised and written and the next
    is gathered.

    Args:
        clips: decoded clips.
        extractor: has `batch_frames`, `features`, `calls_at_once`.
        storage: as `quantize.pack` takes it.
        meter: counts clips and frames.
    """
    waiting: collections.deque[_Pending] = collections.deque()
    packed: collections.deque[concurrent.futures.Future] = collections.deque()
    running: collections.deque = collections.deque()  # (slots, features) of `_batches`
    num_packers = min(_MAX_PACKERS, usable_cores())

    def features(images):
        begin = time.monotonic()
        features_NMC = extractor.features(images)
        meter.network_seconds += time.monotonic() - begin
        return features_NMC

    def pack(pending: _Pending) -> tuple[DecodedClip, dict[str, np.ndarray]]:
        if not pending.parts:
            return pending.clip, {}
        codes_FMC, scale_C, offset_C = quantize.pack(np.concatenate(pending.parts), storage)
        arrays = {"codes_FMC": codes_FMC, "scale_C": scale_C, "offset_C": offset_C}
        return pending.clip, arrays | {"times_F": pending.clip.times_F}

    def pack_complete() -> None:
        while waiting and not waiting[0].left:
            packed.append(packers.submit(pack, waiting.popleft()))

    def settle() -> None:
        slots, future = running.popleft()
        features_NMC = future.result()
        begin = 0
        for pending, count in slots:
            pending.parts.append(features_NMC[begin : begin + count])
            pending.left -= count
            begin += count
        meter.add_frames(begin)
        pack_complete()

    with (
        concurrent.futures.ThreadPoolExecutor(extractor.calls_at_once) as network,
        concurrent.futures.ThreadPoolExecutor(num_packers) as packers,
    ):
        for slots, images in _batches(clips, extractor.batch_frames, waiting, meter):
            running.append((slots, network.submit(features, images)))
            if len(running) > extractor.calls_at_once:
                settle()
            while packed and (packed[0].done() or len(packed) > 2 * num_packers):
                yield packed.popleft().result()
        while running:
            settle()
        pack_complete()
        while packed:
            yield packed.popleft().result()


def _batches(clips: Iterable[DecodedClip], size: int, waiting, meter: Meter):
    """Yields ([(pending clip, number of its frames)], images); only the last may be smaller."""
    slots, parts, room = [], [], size
    for clip in clips:
        meter.add_clip()
        count = len(clip.images)
        pending = _Pending(dataclasses.replace(clip, images=clip.images[:0].copy()), count)
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
