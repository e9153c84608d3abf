"""Does the network ever wait? Frames per second of extraction against Inception-v3 alone.

    python -m tools.bench.encoding --root=data/pixels-... [--num_clips=64] [--json=FILE]

Both see the same frames. Alone: the frames lie decoded in memory and go through the network, batch
by batch. Extraction: child processes decode clips; they are encoded, quantised and written to
shards. Loading and compiling the network is left out of both.
"""

import sys
import tempfile
import time

import numpy as np
from absl import app, flags

from tools.bench import table
from uhman_jax.config import PreprocessConfig
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.preprocess import pipeline
from uhman_jax.preprocess.decode import sample_frames
from uhman_jax.preprocess.extractor import Extractor

_ROOT = flags.DEFINE_string("root", None, "Raw dataset whose clips are encoded.", required=True)
_NUM_CLIPS = flags.DEFINE_integer("num_clips", 64, "Clips to use.")
_MAX_FRAMES = flags.DEFINE_integer("max_frames", 4, "Frames per clip.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds.")
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
    raw = read_raw_dataset(_ROOT.value, strict=False)
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

    figures = table.interleave({"extraction": extraction, "Inception alone": alone}, _ROUNDS.value)
    share = table.ratio(figures, "extraction", "Inception alone")
    facts = {"clips": len(inputs), "frames": len(images)}
    table.report(
        "Encoding clips",
        "frames/s",
        figures,
        {"extraction / alone": share},
        facts | table.machine(("tensorflow-datasets", "keras", "av")),
        _JSON.value,
    )


if __name__ == "__main__":
    app.run(main)
