"""Measures how much of the network's own rate the extraction of features reaches.

    python -m tools.bench.encoding [--root=DATASET] [--num_clips=48] [--json=FILE]
    python -m tools.bench.encoding --batch_frames=128 --precision=bfloat16 --repeats=8   # a GPU

Figures are frames per second; all contestants process the same frames. "Inception alone": decoded
frames lie in memory (the accelerator's, if there is one) and go through the network in batches.
"extraction": child processes decode clips, whose features are computed, quantised and written to
shards. "decoded beforehand": the same without decoders. "decoding": only the decoders. "plain
loop", the peer: decodes a clip, calls `predict` of Keras' InceptionV3 on its frames and keeps
nothing, clip by clip. Loading and compiling the network is not counted.
"""

import itertools
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import flags

from tools.bench import table
from uhman_jax.backbone import BACKBONES
from uhman_jax.config import Backend, Config, Precision, PreprocessConfig
from uhman_jax.dataset.raw import RawDataset, read_raw_dataset
from uhman_jax.prepare import simulated_root
from uhman_jax.preprocess import ledger, shard_builder
from uhman_jax.preprocess.decode import sample_frames
from uhman_jax.preprocess.extract_features import Meter, encode
from uhman_jax.runtime.streams import run_app
from uhman_jax.shards import store
from uhman_jax.shards.record import FrameRecord, Schema

_ROOT = flags.DEFINE_string("root", "", "Raw dataset with clips; empty: simulated ones.")
_NUM_CLIPS = flags.DEFINE_integer("num_clips", 48, "Clips to use.")
_REPEATS = flags.DEFINE_integer("repeats", 1, "Uses of each clip.")
_MAX_FRAMES = flags.DEFINE_integer("max_frames", 16, "Frames per clip.")
_BATCH_FRAMES = flags.DEFINE_integer("batch_frames", 16, "Frames per call of the network.")
_PRECISION = flags.DEFINE_enum_class(
    "precision", Precision.FLOAT32, Precision, "Type of activations."
)
_NUM_DECODERS = flags.DEFINE_integer("num_decoders", 0, "Decoders; 0: one per core, at most 8.")
_PEERS = flags.DEFINE_bool("peers", True, "Measure the plain loop as well.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds.")
_JSON = flags.DEFINE_string("json", "", "File to write the figures to.")


def main(_: list[str]) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        config = Config()
        config.data.simulated_dir, config.simulator.num_videos = folder, _NUM_CLIPS.value
        run(read_raw_dataset(_ROOT.value or simulated_root(config), strict=False))


def run(raw: RawDataset) -> None:
    """Measures all contestants on the clips of a dataset."""
    paths = [video.path for video in raw.videos[: _NUM_CLIPS.value]]
    inputs = [(f"{i}", path) for i, path in enumerate(paths * _REPEATS.value)]
    config = PreprocessConfig(
        max_frames=_MAX_FRAMES.value,
        calibration_frames=0,
        batch_frames=_BATCH_FRAMES.value,
        precision=_PRECISION.value,
        num_decoders=_NUM_DECODERS.value,
    )
    on_accelerator = jax.default_backend() != "cpu"
    backbone = BACKBONES[config.backbone.value]
    extractor = shard_builder.extractor_class(Backend.AUTO).load(
        backbone, "random", batch_frames=config.batch_frames, precision=config.precision
    )
    decoded = {path: sample_frames(raw.root / path, max_frames=config.max_frames) for path in paths}
    clips = [decoded[path] for _, path in inputs]
    num_frames = sum(len(clip.images) for clip in clips)
    images = np.concatenate([decoded[path].images for path in paths])
    extractor.features(images[:1])
    starts = range(0, len(images), config.batch_frames)
    batches = [images[start : start + config.batch_frames] for start in starts]
    if on_accelerator:  # only full batches: the program has one shape
        batches = jax.device_put(batches[: len(images) // config.batch_frames])

    def network() -> float:
        begin, out = time.perf_counter(), None
        for batch in itertools.chain.from_iterable([batches] * _REPEATS.value):
            out = extractor.on_device(batch) if on_accelerator else extractor.features(batch)
        jax.block_until_ready(out)
        frames = sum(map(len, batches)) * _REPEATS.value
        return frames / (time.perf_counter() - begin)

    shards = ledger.plan(raw.root, inputs, config.videos_per_shard)

    def extraction() -> float:
        with tempfile.TemporaryDirectory() as folder, Meter(len(inputs), 0, show=False) as meter:
            work = shard_builder.ShardBuilder(raw.root, pathlib.Path(folder), config, None, meter)
            work.run(shards, len(shards), extractor)
        if meter.frames != num_frames:
            sys.exit(f"extraction saw {meter.frames} frames instead of {num_frames}")
        return meter.frames / meter.seconds

    def decoded_beforehand() -> float:
        schema = Schema(backbone.num_channels, config.storage.value, backbone.num_regions)
        with tempfile.TemporaryDirectory() as folder, Meter(len(inputs), 0, show=False) as meter:
            encoded = encode(clips, extractor, config.storage.value, meter)
            named = zip(inputs, encoded, strict=True)
            records = (FrameRecord(video_id, **arrays) for (video_id, _), (_, arrays) in named)
            store.write_shard(pathlib.Path(folder), 0, 1, records, schema)
            return meter.frames / meter.seconds

    def decoding() -> float:
        begin, frames = time.perf_counter(), 0
        absolute = [str(raw.root / path) for _, path in inputs]
        with shard_builder.decoder_pool(
            absolute, config, config.max_frames, backbone.image_size
        ) as pool:
            for clip in pool:
                begin = begin if frames else time.perf_counter()  # the children have started
                frames += len(clip.images)
        return frames / (time.perf_counter() - begin)

    contestants = {
        "extraction": extraction,
        "decoded beforehand": decoded_beforehand,
        "decoding": decoding,
        "Inception alone": network,
    }
    if _PEERS.value:
        contestants["plain loop"] = plain_loop(raw, paths, config.max_frames)
    ratios = [
        ("extraction", "Inception alone"),
        ("decoded beforehand", "Inception alone"),
        ("extraction", "plain loop"),
    ]
    facts = {
        "clips": len(inputs),
        "frames": num_frames,
        "batch": config.batch_frames,
        "precision": config.precision.value,
        "device": jax.devices()[0].device_kind,
        "keras on": os.environ["KERAS_BACKEND"],
    } | table.machine(("jax", "keras", "av"))
    ratios = ratios if _PEERS.value else ratios[:2]
    rounds, path = _ROUNDS.value, _JSON.value
    table.compare("Encoding clips", "frames/s", contestants, rounds, ratios, facts, path)


def plain_loop(raw: RawDataset, paths: list[str], max_frames: int) -> Callable[[], float]:
    """Returns the peer, compiled: decodes a clip, calls Keras on it, takes the next."""
    import keras  # after its backend was chosen

    model = keras.applications.InceptionV3(include_top=False, weights=None)

    def measure() -> float:
        begin, frames = time.perf_counter(), 0
        for path in paths:
            clip = sample_frames(raw.root / path, max_frames=max_frames).images
            model.predict(clip.astype(np.float32) / 127.5 - 1, verbose=0)
            frames += len(clip)
        return frames / (time.perf_counter() - begin)

    measure()  # compiles the shapes
    return measure


if __name__ == "__main__":
    run_app(main)
