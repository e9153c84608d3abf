"""An extractor as a TensorFlow program that is ready to run: the same features, sooner.

Importing TensorFlow, building Inception-v3 in Keras, filling and tracing it takes seconds. Where
single clips are asked for, the traced network is therefore kept in the user's cache, by
fingerprint, and later processes load that: the same operations on the same weights, without the
Python of TensorFlow.
"""

import contextlib
import importlib.metadata
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from uhman_jax.preprocess import tensorflow_c
from uhman_jax.preprocess.clip_file import IMAGE_SIZE
from uhman_jax.storage import user_cache

NUM_REGIONS, NUM_CHANNELS = 64, 2048
_ABANDONED = 600.0  # seconds; freezing takes ten


class FrozenExtractor:
    """Stands in for `extractor.Extractor`, with `features` alone."""

    IMAGE_SIZE, NUM_REGIONS, NUM_CHANNELS = IMAGE_SIZE, NUM_REGIONS, NUM_CHANNELS
    calls_at_once = 1

    def __init__(self, model: tensorflow_c.SavedModel, batch_frames: int):
        """Keeps what TensorFlow loaded."""
        self.batch_frames = batch_frames
        self._model = model

    def features(self, images: np.ndarray) -> np.ndarray:
        """Region features, float32 [N, 64, 2048], the bytes that the extractor gives."""
        shape = (self.NUM_REGIONS, self.NUM_CHANNELS)
        return in_batches(self._model, images, self.batch_frames, shape)


def cache_folder(fingerprint: str, batch_frames: int) -> Path:
    """Where the frozen network is kept; another TensorFlow has another."""
    return user_cache("networks") / f"{fingerprint[:24]}-{batch_frames}-{_version()}"


def _version() -> str:
    for package in ("tensorflow-cpu", "tensorflow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return "unknown"


def load(fingerprint: str, batch_frames: int) -> FrozenExtractor | None:
    """The frozen network of an extractor; None where none is kept, or a damaged one."""
    folder = cache_folder(fingerprint, batch_frames)
    if not folder.is_dir():
        return None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet():
            return FrozenExtractor(tensorflow_c.SavedModel(folder), batch_frames)
    except (OSError, tensorflow_c.TensorFlowError):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def keep(extractor: Any) -> None:
    """Freezes an extractor for the next process; a cache that can't be written is no loss."""
    if isinstance(extractor, FrozenExtractor) or not tensorflow_c.library_path():
        return
    import tensorflow as tf

    folder = cache_folder(extractor.fingerprint, extractor.batch_frames)
    temporary = folder.with_name(f".{secrets.token_hex(4)}.{folder.name}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(".*"):  # by a process that was killed
            if time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
        extractor.freeze(temporary)
        os.replace(temporary, folder)
    except (OSError, tf.errors.OpError):
        pass  # another process was first, or the disk is full
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def quiet():
    """Sends file descriptor 2 nowhere: TensorFlow greets from C++ whatever its log level."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def in_batches(
    call: Callable[[np.ndarray], np.ndarray], images: np.ndarray, size: int, shape: tuple[int, int]
) -> np.ndarray:
    """Features of images by a network that takes `size` at once, the last batch padded with zeros.

    Returns:
        float32 [N, *shape].
    """
    features = np.empty((len(images), *shape), np.float32)
    for begin in range(0, len(images), size):
        batch = images[begin : begin + size]
        count = len(batch)
        if count < size:
            padding = np.zeros((size - count, *batch.shape[1:]), np.uint8)
            batch = np.concatenate([batch, padding])
        features[begin : begin + count] = call(batch).reshape(size, *shape)[:count]
    return features
