"""Compares reading batches from shards with raw reads, in GB/s of stored features.

    python -m tools.bench.reading [--num_clips=512] [--folder=DIR] [--json=FILE]

"raw" reads all shards in sequence into one buffer of a batch's size by system calls, "raw, mapped"
from memory maps, as batches do; either can be faster. Batches are shuffled, verified by
checksums and joined with a view. Warm: the files are in the page cache. Cold: they were dropped
from it (Linux), so that the disk is read.
"""

import functools
import os
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from tools.bench import synthetic, table
from uhman_jax.dataset.view import Ragged
from uhman_jax.input_pipeline import TrainOrder, iterate, train_batches
from uhman_jax.runtime.streams import run_app
from uhman_jax.shards import store
from uhman_jax.shards.record import FrameRecord, Schema

_CLIPS = flags.DEFINE_integer("num_clips", 512, "Clips in the shards.")
_FRAMES = flags.DEFINE_integer("num_frames", 8, "Frames per clip.")
_CHANNELS = flags.DEFINE_integer("num_channels", 2048, "Channels of a region.")
_BATCH = flags.DEFINE_integer("batch_size", 64, "Videos per batch.")
_FOLDER = flags.DEFINE_string("folder", "", "Folder of the shards; empty: a temporary one.")
_COLD = flags.DEFINE_bool("cold", True, "Measure also with files dropped from the page cache.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Measurements per contestant.")
_JSON = flags.DEFINE_string("json", "", "File to write the figures to.")

_CLIPS_PER_SHARD, _EPOCHS = 64, 4


def make_shards(folder: Path) -> store.FrameStore:
    """Writes and opens shards of random codes, 64 clips each."""
    schema, rng = Schema(_CHANNELS.value), np.random.default_rng(0)
    ones_C = np.ones(_CHANNELS.value, np.float32)
    times_F = np.arange(_FRAMES.value, dtype=np.float32)
    shape = (_FRAMES.value, synthetic.NUM_REGIONS, _CHANNELS.value)

    def records(first: int, last: int):
        for clip in range(first, last):
            codes = rng.integers(0, 256, shape, dtype=np.uint8)
            yield FrameRecord(f"clip{clip}", codes, ones_C, ones_C, times_F)

    starts = range(0, _CLIPS.value, _CLIPS_PER_SHARD)
    for index, first in enumerate(starts):
        last = min(first + _CLIPS_PER_SHARD, _CLIPS.value)
        store.write_shard(folder, index, len(starts), records(first, last), schema)
    store.write_metadata(folder, len(starts), schema, {"extractor": "random numbers"})
    return store.FrameStore(folder)


def view_of(frames: store.FrameStore) -> types.SimpleNamespace:
    """Returns the fields of a view that `Join` reads: one hashtag per clip, a history of five."""
    num_clips = len(frames.video_ids)
    ids = np.arange(num_clips, dtype=np.int32)
    return types.SimpleNamespace(
        video_ids=frames.video_ids,
        gender_V=ids % synthetic.GENDERS,
        age_V=ids % synthetic.AGES,
        country_V=ids % synthetic.COUNTRIES,
        history=Ragged(
            np.tile(np.arange(5, dtype=np.int32), num_clips), 5 * np.arange(num_clips + 1)
        ),
        positives=Ragged(ids % 669, np.arange(num_clips + 1)),
        max_history=5,
        max_positives=1,
    )


def batches(folder: Path, num_threads: int) -> Callable[[], None]:
    """Opens the shards; returns a function that reads an epoch of batches."""
    frames = store.FrameStore(folder)
    view: Any = view_of(frames)
    order = TrainOrder(np.arange(_CLIPS.value), _BATCH.value, seed=0)
    ahead = iterate(train_batches(view, frames, order), num_threads=num_threads)

    def read() -> None:
        for _ in range(_CLIPS.value // _BATCH.value):
            next(ahead)

    return read


def drop_from_cache(paths: list[Path]) -> None:
    """Asks the system to drop the files from the page cache."""
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_raw(paths: list[Path], buffer: memoryview) -> None:
    """Reads the files in sequence by system calls."""
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def read_mapped(paths: list[Path], buffer: memoryview) -> None:
    """Reads the files in sequence from memory maps."""
    for path in paths:
        whole = np.memmap(path, np.uint8, "r")
        for start in range(0, len(whole), len(buffer)):
            part = whole[start : start + len(buffer)]
            np.frombuffer(buffer, np.uint8)[: len(part)] = part


def main(_: list[str]) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory(dir=_FOLDER.value or None) as name:
        frames = make_shards(Path(name))
        paths = sorted(Path(name).glob("*.tfrecord*"))
        num_bytes = sum(path.stat().st_size for path in paths)
        buffer = memoryview(bytearray(_BATCH.value * frames.max_frames * frames.schema.frame_bytes))
        del frames  # its memory maps would keep the files in the page cache

        def rate(open_shards: Callable[[], Callable[[], None]], cold: bool) -> Callable[[], float]:
            def measure() -> float:
                if cold:
                    drop_from_cache(paths)
                read, epochs = open_shards(), 1 if cold else _EPOCHS
                begin = time.perf_counter()
                for _ in range(epochs):
                    read()
                return epochs * num_bytes / (time.perf_counter() - begin) / 1e9

            return measure

        readers: dict[str, Callable[[], Callable[[], None]]] = {
            "raw": lambda: functools.partial(read_raw, paths, buffer),
            "raw, mapped": lambda: functools.partial(read_mapped, paths, buffer),
            "1 thread": lambda: batches(Path(name), 1),
            "2 threads": lambda: batches(Path(name), 2),
        }
        colds = (False, True) if _COLD.value and hasattr(os, "posix_fadvise") else (False,)
        contestants, ratios = {}, []
        for state, cold in zip(("warm", "cold"), colds, strict=False):
            for reader, open_shards in readers.items():
                contestants[key := f"{reader}, {state}"] = rate(open_shards, cold)
                for floor in () if reader.startswith("raw") else ("raw", "raw, mapped"):
                    ratios.append((key, f"{floor}, {state}", floor))
        facts = {"clips": _CLIPS.value, "MB": round(num_bytes / 1e6)}
        facts |= table.machine(("numpy", "grain", "crc32c"))
        rounds, path = _ROUNDS.value, _JSON.value
        table.compare("Shards to batches", "GB/s", contestants, rounds, ratios, facts, path)


if __name__ == "__main__":
    run_app(main)
