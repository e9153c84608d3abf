"""Runs an extractor converted to LiteRT: ready in half a second, features equal up to rounding.

Importing TensorFlow, building the network in Keras and tracing it takes up to nine seconds. The
process that encodes single clips therefore stores the converted network in the user's cache, by
fingerprint, and later processes run that file without TensorFlow.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from uhman_jax.backbone import Backbone
from uhman_jax.preprocess.decode_process import usable_cores
from uhman_jax.preprocess.extract_features import in_batches
from uhman_jax.runtime.storage import atomic_write, user_cache
from uhman_jax.runtime.streams import quiet


class LiteExtractor:
    """A converted network, with the attributes of `extractor.Extractor` that `encode` reads.

    Raises:
        ValueError: the file is damaged.
    """

    calls_at_once = 1

    def __init__(self, backbone: Backbone, path: Path, batch_frames: int):
        from ai_edge_litert.interpreter import Interpreter

        self.backbone = backbone
        self.batch_frames = batch_frames
        self._interpreter = Interpreter(os.fspath(path), num_threads=usable_cores())
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns region features, see `extractor.Extractor.features`."""
        return in_batches(self._call, images, self)

    def _call(self, images: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input, images)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)


def cache_file(fingerprint: str, batch_frames: int) -> Path:
    """Returns the file of the converted network in the user's cache."""
    return user_cache("networks") / f"{fingerprint[:24]}-{batch_frames}.tflite"


def load(backbone: Backbone, fingerprint: str, batch_frames: int) -> LiteExtractor | None:
    """Returns the converted network; None if it is missing or damaged; removes a damaged file."""
    path = cache_file(fingerprint, batch_frames)
    if not path.is_file():
        return None
    try:
        with quiet():
            return LiteExtractor(backbone, path, batch_frames)
    except (ValueError, RuntimeError):
        path.unlink(missing_ok=True)
        return None


def keep(extractor: Any) -> None:
    """Converts and caches an extractor; if that fails, later processes only start more slowly."""
    if isinstance(extractor, LiteExtractor):
        return
    path = cache_file(extractor.fingerprint, extractor.batch_frames)
    with contextlib.suppress(Exception):  # full disk, read-only cache, unknown operation, ...
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(extractor.to_litert())
