"""Does the network ever wait? Frames per second of extraction against Inception-v3 alone.

    python -m tools.bench.encoding [--root=DATASET] [--num_clips=48] [--json=FILE]

All see the same frames. Alone: the frames lie decoded in memory and go through the network, batch
by batch. Extraction: child processes decode clips; they are encoded, quantised and written to
shards. Plain loop, the peer: decode a clip, then `predict` its frames with Keras' InceptionV3,
clip by clip, and keep nothing. Loading and compiling the network is left out of all.
"""

import pathlib
import sys
import tempfile
import time

import keras
import numpy as np
from absl import app, flags

from tools.bench import table
from uhman_jax.config import Config, PreprocessConfig
from uhman_jax.dataset.raw import RawDataset, read_raw_dataset
from uhman_jax.prepare import simulated_root
from uhman_jax.preprocess import pipeline
from uhman_jax.preprocess.decode import sample_frames
from uhman_jax.preprocess.extractor import Extractor

_ROOT = flags.DEFINE_string("root", "", "Raw dataset with clips; empty: simulated ones.")
_NUM_CLIPS = flags.DEFINE_integer("num_clips", 48, "Clips to use.")
_MAX_FRAMES = flags.DEFINE_integer("max_frames", 16, "Frames per clip.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds.")
_JSON = flags.DEFINE_string("json", "", "File to write the figures to.")


class _Loaded:
    """Stands in for the class `Extractor`: hands out a network that is loaded and compiled."""

    IMAGE_SIZE = Extractor.IMAGE_SIZE

    def __init__(self, extractor: Extractor):
        self._extractor = extractor

    def load(self, *unused, **settings) -> Extractor:
        return self._extractor

    restore = load


def main(_: list[str]) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        run(read_raw_dataset(_ROOT.value or simulated_clips(folder), strict=False))


def simulated_clips(folder: str) -> pathlib.Path:
    """A raw dataset of clips as the embedded one has them."""
    config = Config()
    config.data.simulated_dir, config.simulator.num_videos = folder, _NUM_CLIPS.value
    return simulated_root(config)


def run(raw: RawDataset) -> None:
    """Measures the clips of a dataset."""
    inputs = [(video.video_id, video.path) for video in raw.videos[: _NUM_CLIPS.value]]
    config = PreprocessConfig(max_frames=_MAX_FRAMES.value, calibration_frames=0)
    extractor = Extractor.load("random", batch_frames=config.batch_frames)
    images = np.concatenate(
        [sample_frames(raw.root / path, max_frames=config.max_frames).images for _, path in inputs]
    )
    extractor.features(images[:1])

    def alone() -> float:
        begin = time.perf_counter()
        for start in range(0, len(images), config.batch_frames):
            extractor.features(images[start : start + config.batch_frames])
        return len(images) / (time.perf_counter() - begin)

    def extraction() -> float:
        with tempfile.TemporaryDirectory() as folder:
            summary = pipeline.preprocess(
                raw.root, inputs, folder, config, network=_Loaded(extractor), progress=False
            )
        if summary.frames != len(images):
            sys.exit(f"extraction saw {summary.frames} frames instead of {len(images)}")
        return summary.frames / summary.seconds

    model = keras.applications.InceptionV3(include_top=False, weights=None)

    def plain_loop() -> float:
        begin, frames = time.perf_counter(), 0
        for _, path in inputs:
            clip = sample_frames(raw.root / path, max_frames=config.max_frames).images
            model.predict(clip.astype(np.float32) / 127.5 - 1, verbose=0)
            frames += len(clip)
        return frames / (time.perf_counter() - begin)

    plain_loop()  # compiles the shapes
    contestants = {"extraction": extraction, "Inception alone": alone, "plain loop": plain_loop}
    figures = table.interleave(contestants, _ROUNDS.value)
    ratios = {
        f"extraction / {name}": table.ratio(figures, "extraction", name)
        for name in ("Inception alone", "plain loop")
    }
    facts = {"clips": len(inputs), "frames": len(images)}
    table.report(
        "Encoding clips",
        "frames/s",
        figures,
        ratios,
        facts | table.machine(("tensorflow-datasets", "keras", "av")),
        _JSON.value,
    )


if __name__ == "__main__":
    app.run(main)
