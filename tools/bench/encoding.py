"""Compares the rate of feature extraction with that of the network and of a plain loop.

    python -m tools.bench.encoding [--root=DATASET] [--num_clips=48] [--json=FILE]
    python -m tools.bench.encoding --batch_frames=128 --precision=bfloat16 --repeats=8   # a GPU

Figures are frames per second; all contestants process the same frames. "Inception alone": only the
network, on batches of decoded frames in memory (the accelerator's, if there is one). "extraction":
child processes decode clips, whose features are computed, quantised and written to shards. "decoded
beforehand": extraction without decoders. "decoding": only the decoders. "plain loop", the peer:
decodes clip by clip, calls `predict` of Keras' InceptionV3 and discards the result. Loading and
compiling the network is not counted.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from absl import flags

from tools.bench import table
from uhman_jax.backbone import BACKBONES
from uhman_jax.config import Backend, Config, Precision, PreprocessConfig
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.prepare import simulated_root
from uhman_jax.preprocess import ledger, shard_builder
from uhman_jax.preprocess.decode import sample_frames
from uhman_jax.preprocess.decode_pool import DecoderPool
from uhman_jax.preprocess.extract_features import Meter, encode
from uhman_jax.runtime.streams import run_app
from uhman_jax.shards import store
from uhman_jax.shards.record import FrameRecord, Schema

_ROOT = flags.DEFINE_string("root", "", "Raw dataset with clips; empty: simulated ones.")
_NUM_CLIPS = flags.DEFINE_integer("num_clips", 48, "Clips to use.")
_REPEATS = flags.DEFINE_integer("repeats", 1, "Times that each clip is used.")
_MAX_FRAMES = flags.DEFINE_integer("max_frames", 16, "Frames per clip.")
_BATCH_FRAMES = flags.DEFINE_integer("batch_frames", 16, "Frames per call of the network.")
_PRECISION = flags.DEFINE_enum_class(
    "precision", Precision.FLOAT32, Precision, "Type of activations."
)
_NUM_DECODERS = flags.DEFINE_integer("num_decoders", 0, "Decoders; 0: one per core, at most 8.")
_PEERS = flags.DEFINE_bool("peers", True, "Measure the plain loop as well.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Measurements per contestant.")
_JSON = flags.DEFINE_string("json", "", "File to write the figures to.")


def main(_: list[str]) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        config = Config()
        config.data.simulated_dir, config.simulator.num_videos = folder, _NUM_CLIPS.value
        raw = read_raw_dataset(_ROOT.value or simulated_root(config), strict=False)
        work = Encoding(raw.root, [video.path for video in raw.videos[: _NUM_CLIPS.value]])
        contestants = {
            "extraction": work.extraction,
            "decoded beforehand": work.decoded_beforehand,
            "decoding": work.decoding,
            "Inception alone": work.network,
        }
        ratios = [(name, "Inception alone") for name in ("extraction", "decoded beforehand")]
        if _PEERS.value:
            contestants["plain loop"] = plain_loop(work)
            ratios.append(("extraction", "plain loop"))
        facts = {
            "clips": len(work.inputs),
            "frames": work.num_frames,
            "batch": work.config.batch_frames,
            "precision": work.config.precision.value,
            "device": jax.devices()[0].device_kind,
            "keras on": os.environ["KERAS_BACKEND"],
        } | table.machine(("jax", "keras", "av"))
        rounds, path = _ROUNDS.value, _JSON.value
        table.compare("Encoding clips", "frames/s", contestants, rounds, ratios, facts, path)


class Encoding:
    """The clips, the network and the contestants; each contestant returns frames per second."""

    def __init__(self, root: Path, paths: list[str]):
        self.root, self.paths = root, paths
        self.inputs = [(f"{i}", path) for i, path in enumerate(paths * _REPEATS.value)]
        self.config = config = PreprocessConfig(
            max_frames=_MAX_FRAMES.value,
            calibration_frames=0,
            batch_frames=_BATCH_FRAMES.value,
            precision=_PRECISION.value,
            num_decoders=_NUM_DECODERS.value,
        )
        self.extractor = shard_builder.extractor_class(Backend.AUTO).load(
            BACKBONES[config.backbone.value],
            "random",
            batch_frames=config.batch_frames,
            precision=config.precision,
        )
        decoded = [sample_frames(root / path, max_frames=config.max_frames) for path in paths]
        self._clips = decoded * _REPEATS.value
        self.num_frames = sum(len(clip.images) for clip in self._clips)
        images = np.concatenate([clip.images for clip in decoded])
        self.extractor.features(images[:1])  # compiles
        starts = range(0, len(images), config.batch_frames)
        self._batches = [images[start : start + config.batch_frames] for start in starts]
        self._features = self.extractor.features
        if jax.default_backend() != "cpu":  # only full batches: the program has one shape
            self._batches = jax.device_put(self._batches[: len(images) // config.batch_frames])
            self._features = self.extractor.on_device

    def network(self) -> float:
        """Measures only the network, on batches in memory."""
        begin, frames, out = time.perf_counter(), 0, None
        for batch in self._batches * _REPEATS.value:
            out, frames = self._features(batch), frames + len(batch)
        jax.block_until_ready(out)
        return frames / (time.perf_counter() - begin)

    def extraction(self) -> float:
        """Measures decoders, network, quantisation and shards together."""
        shards = ledger.plan(self.root, self.inputs, self.config.videos_per_shard)
        with tempfile.TemporaryDirectory() as folder, self._meter() as meter:
            work = shard_builder.ShardBuilder(self.root, Path(folder), self.config, None, meter)
            work.run(shards, len(shards), self.extractor)
        if meter.frames != self.num_frames:
            sys.exit(f"extraction saw {meter.frames} frames instead of {self.num_frames}")
        return meter.frames / meter.seconds

    def decoded_beforehand(self) -> float:
        """Measures the extraction without decoders."""
        backbone, storage = self.extractor.backbone, self.config.storage.value
        schema = Schema(backbone.num_channels, storage, backbone.num_regions)
        with tempfile.TemporaryDirectory() as folder, self._meter() as meter:
            encoded = enumerate(encode(self._clips, self.extractor, storage, meter))
            records = (FrameRecord(f"{i}", **arrays) for i, (_, arrays) in encoded)
            store.write_shard(folder, 0, 1, records, schema)
            return meter.frames / meter.seconds

    def decoding(self) -> float:
        """Measures only the decoders, from the first clip on, when the processes have started."""
        begin, frames, config = time.perf_counter(), 0, self.config
        paths = [str(self.root / path) for _, path in self.inputs]
        size = self.extractor.backbone.image_size
        with DecoderPool(paths, config, config.max_frames, size) as pool:
            for clip in pool:
                begin = begin if frames else time.perf_counter()
                frames += len(clip.images)
        return frames / (time.perf_counter() - begin)

    def _meter(self) -> Meter:
        return Meter(len(self.inputs), 0, show=False)


def plain_loop(work: Encoding) -> Callable[[], float]:
    """Returns the peer, compiled: decodes one clip and calls Keras on it, then the next."""
    import keras  # after its backend was chosen

    model = keras.applications.InceptionV3(include_top=False, weights=None)

    def measure() -> float:
        begin, frames = time.perf_counter(), 0
        for path in work.paths:
            clip = sample_frames(work.root / path, max_frames=work.config.max_frames).images
            model.predict(clip.astype(np.float32) / 127.5 - 1, verbose=0)
            frames += len(clip)
        return frames / (time.perf_counter() - begin)

    measure()  # compiles the shapes
    return measure


if __name__ == "__main__":
    run_app(main)
