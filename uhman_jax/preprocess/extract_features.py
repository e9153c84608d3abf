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
from uhman_jax.runtime.progress import progress_bar
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
    size, num_packers = extractor.batch_frames, min(_MAX_PACKERS, usable_cores())
    batch: list[tuple[list, np.ndarray]] = []  # (parts of a clip's features, its images)
    running: collections.deque = collections.deque()  # (features, number of frames) of batches
    waiting: collections.deque = collections.deque()  # (clip, parts) that are not packed yet
    packed: collections.deque[concurrent.futures.Future] = collections.deque()

    def features(images: np.ndarray) -> np.ndarray:
        begin = time.monotonic()
        features_NMC = extractor.features(images)
        meter.network_seconds += time.monotonic() - begin
        return features_NMC

    def settle() -> None:
        future, count = running.popleft()
        future.result()
        meter.add_frames(count)

    def submit() -> None:
        """Starts the network on the batch; then all frames of the waiting clips are in it."""
        future = network.submit(features, np.concatenate([images for _, images in batch]))
        end = 0
        for parts, images in batch:
            begin, end = end, end + len(images)
            parts.append((future, slice(begin, end)))
        batch.clear()
        running.append((future, end))
        if len(running) > extractor.calls_at_once:
            settle()

    def pack(clip: DecodedClip, parts: list) -> tuple[DecodedClip, dict[str, np.ndarray]]:
        if not parts:
            return clip, {}
        features_FMC = np.concatenate([future.result()[rows] for future, rows in parts])
        codes_FMC, scale_C, offset_C = quantize.pack(features_FMC, storage)
        arrays = {"codes_FMC": codes_FMC, "scale_C": scale_C, "offset_C": offset_C}
        return clip, arrays | {"times_F": clip.times_F}

    def pack_waiting() -> None:
        while waiting:
            packed.append(packers.submit(pack, *waiting.popleft()))

    with (
        concurrent.futures.ThreadPoolExecutor(extractor.calls_at_once) as network,
        concurrent.futures.ThreadPoolExecutor(num_packers) as packers,
    ):
        for clip in clips:
            meter.add_clip()
            images, parts = clip.images, []
            while len(images):
                room = size - sum(len(images) for _, images in batch)
                batch.append((parts, images[:room]))
                images = images[room:]
                if len(batch[-1][1]) == room:
                    submit()
                    pack_waiting()
            waiting.append((dataclasses.replace(clip, images=images.copy()), parts))
            while packed and (packed[0].done() or len(packed) > 2 * num_packers):
                yield packed.popleft().result()
        if batch:
            submit()
        pack_waiting()
        while running:
            settle()
        while packed:
            yield packed.popleft().result()
