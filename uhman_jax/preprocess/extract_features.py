"""Encodes decoded clips as quantised region features, in batches of fixed size."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from uhman_jax.preprocess.clip_file import DecodedClip
from uhman_jax.preprocess.decode_process import usable_cores
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.shards import quantize

_MAX_PACKERS = 8  # threads that quantise; one keeps up with 700 frames a second
_Part = tuple[concurrent.futures.Future, slice]  # features of a batch, rows of one clip


class Meter(contextlib.AbstractContextManager["Meter"]):
    """Counts frames and seconds, and shows a progress bar: clips, frames/s, time left.

    Attributes:
        frames: number of frames encoded so far.
        seconds: time from the first clip to the latest frame.
    """

    def __init__(self, total: int, done: int, show: bool):
        self.frames = 0
        self.seconds = self._begin = 0.0
        options = {"total": total, "initial": done, "disable": not show}
        self._bar = progress_bar(unit="clip", desc="features", **options)

    def __exit__(self, *exc):
        """Closes the progress bar."""
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

    A clip without a frame has no arrays. Every batch is full, because it can span several clips;
    the last is padded. While the network computes a batch, earlier ones are quantised and written
    and the next is gathered.

    Args:
        clips: decoded clips.
        extractor: has `batch_frames`, `features`, `calls_at_once`.
        storage: see `quantize.pack`.
        meter: counts clips and frames.
    """
    num_packers = min(_MAX_PACKERS, usable_cores())
    packed: collections.deque[concurrent.futures.Future] = collections.deque()
    with (
        concurrent.futures.ThreadPoolExecutor(extractor.calls_at_once) as network,
        concurrent.futures.ThreadPoolExecutor(num_packers) as packers,
    ):
        for submitted in _submit(clips, extractor, network, meter):
            packed.extend(packers.submit(_pack, *clip, storage) for clip in submitted)
            while packed and (packed[0].done() or len(packed) > 2 * num_packers):
                yield packed.popleft().result()
        while packed:
            yield packed.popleft().result()


def _submit(
    clips: Iterable[DecodedClip],
    extractor: Any,
    network: concurrent.futures.Executor,
    meter: Meter,
) -> Iterator[list[tuple[DecodedClip, list[_Part]]]]:
    """Sends frames to the network; after each clip, yields the clips whose frames are all sent.

    The clips are in order and without their images; the last list follows the end of `clips`.
    """
    batch: list[tuple[list[_Part], np.ndarray]] = []  # (parts of a clip, its images)
    waiting: list[tuple[DecodedClip, list[_Part]]] = []  # clips with frames in this batch
    running: collections.deque = collections.deque()  # (features, number of frames) of batches

    def submit() -> None:
        images = np.concatenate([images for _, images in batch])
        future, end = network.submit(extractor.features, images), 0
        for parts, images in batch:
            begin, end = end, end + len(images)
            parts.append((future, slice(begin, end)))
        batch.clear()
        running.append((future, end))

    def wait(max_running: int) -> None:
        while len(running) > max_running:
            future, count = running.popleft()
            future.result()
            meter.add_frames(count)

    for clip in clips:
        meter.add_clip()
        images, parts, submitted = clip.images, [], []
        while len(images):
            room = extractor.batch_frames - sum(len(images) for _, images in batch)
            batch.append((parts, images[:room]))
            images = images[room:]
            if len(batch[-1][1]) == room:
                submit()
                wait(extractor.calls_at_once)
                submitted += waiting
                waiting.clear()
        # `images` is empty by now; the copy drops its reference to the clip's memory.
        waiting.append((dataclasses.replace(clip, images=images.copy()), parts))
        yield submitted
    if batch:
        submit()
    yield waiting
    wait(0)


def _pack(
    clip: DecodedClip, parts: list[_Part], storage: str
) -> tuple[DecodedClip, dict[str, np.ndarray]]:
    if not parts:
        return clip, {}
    features_FMC = np.concatenate([future.result()[rows] for future, rows in parts])
    return clip, quantize.pack(features_FMC, storage)._asdict() | clip.arrays


def in_batches(
    call: Callable[[np.ndarray], np.ndarray], images: np.ndarray, extractor: Any
) -> np.ndarray:
    """Returns the features of images, float32 [N, M, C].

    Args:
        call: the network for `extractor.batch_frames` images; the last batch is padded with zeros.
        images: uint8 [N, size, size, 3].
        extractor: has `batch_frames` and `backbone`.
    """
    size, backbone = extractor.batch_frames, extractor.backbone
    shape = (backbone.num_regions, backbone.num_channels)
    features = np.empty((len(images), *shape), np.float32)
    for begin in range(0, len(images), size):
        batch = images[begin : begin + size]
        count = len(batch)
        if count < size:
            batch = np.pad(batch, [(0, size - count), (0, 0), (0, 0), (0, 0)])
        features[begin : begin + count] = call(batch).reshape(size, *shape)[:count]
    return features
