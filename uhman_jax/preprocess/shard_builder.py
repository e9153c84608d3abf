"""The making of shards: decoders ahead, one network, one writer."""

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import numpy as np

from uhman_jax import storage
from uhman_jax.config import Backend, Precision, PreprocessConfig
from uhman_jax.errors import UserError
from uhman_jax.preprocess import ledger
from uhman_jax.preprocess.clip_file import IMAGE_SIZE
from uhman_jax.preprocess.decode_pool import DecoderPool
from uhman_jax.preprocess.decode_process import Clip, LibraryFault, failed
from uhman_jax.preprocess.extract_features import Meter, encode
from uhman_jax.preprocess.ledger import Entry, Shard
from uhman_jax.shards import store
from uhman_jax.shards.record import Schema

_PACKAGES = ("av", "jax", "keras", "numpy", "tensorflow", "tensorflow-cpu")


def restore_extractor(
    output_dir: str | os.PathLike,
    network=None,
    *,
    batch_frames: int = 0,
    precision: Precision = Precision.FLOAT32,
    backend: Backend = Backend.TENSORFLOW,
):
    """The extractor that made the features of a folder, weights and all.

    Args:
        output_dir: the folder.
        network: stands in for `extractor.Extractor`; tests use a small one.
        batch_frames: images per call of the network; 0: as when the features were made.
        precision: of the activations.
        backend: what runs the network. AUTO imports JAX, which takes an accelerator's memory.

    Raises:
        UserError: the folder or its weights are missing or damaged.
    """
    directory = storage.path(output_dir)
    facts = ledger.read_json(directory / ledger.SETTINGS_FILE)
    path = directory / ledger.WEIGHTS_FILE
    extractor = (network or extractor_class(backend)).restore(
        storage.cached_copy(path),
        facts["description"],
        batch_frames or facts["settings"]["batch_frames"],
        precision,
    )
    if extractor.fingerprint != facts["fingerprint"]:
        raise UserError(
            f"{path} must hold the weights that made the features beside it, it holds others; "
            "delete the folder and run preprocessing again"
        )
    return extractor


def extractor_class(backend: Backend):
    """The class `Extractor`, on Keras with this backend; importing it takes seconds.

    Raises:
        UserError: Keras runs on another one in this process already.
    """
    match backend:
        case Backend.AUTO:
            import jax  # not where TensorFlow was asked for: it looks at every device

            backend = Backend.TENSORFLOW if jax.default_backend() == "cpu" else Backend.JAX
        case Backend.TENSORFLOW | Backend.JAX:
            pass
        case _:
            assert_never(backend)
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend.value
    from uhman_jax.preprocess import extractor

    if (running := extractor.keras.backend.backend()) != backend.value:
        raise UserError(
            f"preprocess.backend must be {running} in a process whose Keras runs on that already, "
            f"got {backend.value}; start another process"
        )
    return extractor.Extractor


def decoder_pool(
    paths: Sequence[str | Clip],
    config: PreprocessConfig,
    max_frames: int,
    size: int,
    frame_times: int = ledger.FRAME_TIMES,
) -> DecoderPool:
    """Decoders of these files, with the limits of a config; see `ledger.frame_times`."""
    options = {
        "frames_per_second": config.frames_per_second,
        "max_frames": max_frames,
        "size": size,
        "max_megabytes": config.max_megabytes,
        "max_seconds": config.max_seconds,
        "max_megapixels": config.max_megapixels,
        "frame_times": frame_times,
    }
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return DecoderPool(
        paths,
        options,
        num_decoders=config.num_decoders or min(8, cores or 1),
        timeout=config.clip_timeout,
        memory_bytes=int(config.decoder_memory * 2**30),
    )


class Making:
    """Makes shards: decoders, network and writer together."""

    def __init__(
        self, root: Path, directory: Path, config: PreprocessConfig, network, meter: Meter
    ):
        self.root = root
        self.directory = directory
        self.config = config
        self.network = network
        self._meter = meter

    def first_extractor(self, shards: Sequence[Shard]):
        """Loads the weights and keeps them in the folder; None where they are there already."""
        facts = ledger.read_json(self.directory / ledger.SETTINGS_FILE)
        if (self.directory / ledger.WEIGHTS_FILE).exists() and "fingerprint" in facts:
            return None
        return self._load([video for shard in shards for video in shard.videos])

    def run(
        self, missing: Sequence[Shard], num_shards: int, extractor=None
    ) -> dict[int, list[Entry]]:
        """Makes the missing shards; returns their entries.

        Args:
            missing: shards to make.
            num_shards: of the folder.
            extractor: where it is loaded already.
        """
        videos = [video for shard in missing for video in shard.videos]
        made = {}
        self._meter.stage("features")
        # The decoders start before Keras is imported, and work meanwhile.
        with self._decode(videos, self.config.max_frames) as pool:
            if extractor is None:
                extractor = restore_extractor(
                    self.directory,
                    self.network,
                    precision=self.config.precision,
                    backend=self.config.backend,
                )
            clips = iter(pool)
            try:
                for shard in missing:
                    made[shard.index] = self._make(
                        shard, num_shards, zip(shard.videos, clips, strict=False), extractor
                    )
            except LibraryFault:
                for shard in missing:  # it may have taken good clips for broken ones before
                    ledger.mark_unfinished(self.directory, shard)
                raise
        self._meter.decoding_seconds += pool.busy_seconds
        return made

    def _make(self, shard: Shard, num_shards: int, clips, extractor) -> list[Entry]:
        entries: list[Entry] = []
        storage = self.config.storage.value
        schema = Schema(extractor.NUM_CHANNELS, storage, extractor.NUM_REGIONS)
        records = encode(clips, extractor, storage, entries, self._meter)
        store.write_shard(self.directory, shard.index, num_shards, records, schema)
        ledger.write_shard_ledger(self.directory, shard, extractor.fingerprint, entries)
        return entries

    def _decode(self, videos, max_frames: int) -> DecoderPool:
        paths = [self._locate(path) for _, path in videos]
        rule = ledger.frame_times(self.directory)
        return decoder_pool(paths, self.config, max_frames, self._image_size, rule)

    @property
    def _image_size(self) -> int:
        return self.network.IMAGE_SIZE if self.network else IMAGE_SIZE

    def _locate(self, path: str) -> str | Clip:
        """The file, unless its name or a link leads out of the root."""
        outside = failed("unsupported", "the file lies outside the folder")
        if storage.is_remote(self.root):
            name = os.path.normpath(path)
            return outside if name.startswith(("/", "..")) else str(self.root / name)
        try:
            target = (self.root / path).resolve()
            inside = target.is_relative_to(self.root.resolve())
        except (OSError, ValueError, RuntimeError) as error:
            return failed("corrupt", f"the path cannot be followed: {error}")
        return str(target) if inside else outside

    def _load(self, videos):
        """Loads the weights asked for and keeps them in the folder."""
        config = self.config
        images = None
        self._meter.stage("loading the network")
        if config.weights == "random" and config.calibration_frames:
            self._meter.stage("calibrating the network")
            images = self._calibration_images(videos)
        extractor = (self.network or extractor_class(config.backend)).load(
            config.weights,
            seed=config.weights_seed,
            calibration_images=images,
            batch_frames=config.batch_frames,
            precision=config.precision,
        )
        extractor.save(self.directory / ledger.WEIGHTS_FILE)
        facts = ledger.read_json(self.directory / ledger.SETTINGS_FILE) | {
            "settings": ledger.settings(config),
            "description": extractor.description,
            "fingerprint": extractor.fingerprint,
            "channels": extractor.NUM_CHANNELS,
            "regions": extractor.NUM_REGIONS,
            "versions": _versions(),
        }
        ledger.write_json(self.directory / ledger.SETTINGS_FILE, facts)
        return extractor

    def _calibration_images(self, videos) -> np.ndarray:
        """Frames spread over the clips, and over each clip where clips are few."""
        total = self.config.calibration_frames
        chosen = spread(len(videos), total)
        rest = sorted(set(range(len(videos))) - set(chosen))  # stand in for what fails
        per_clip = -(-total // len(chosen))
        images: list[np.ndarray] = []
        with self._decode([videos[i] for i in [*chosen, *rest]], per_clip) as pool:
            for clip in pool:
                images.extend(clip.images)
                if len(images) >= total:
                    break
        size = self._image_size
        return np.array(images[:total], np.uint8).reshape(-1, size, size, 3)


def spread(count: int, total: int) -> list[int]:
    """At most `total` indices of `count`, the middles of equal parts.

    >>> spread(10, 3)
    [1, 5, 8]
    """
    total = min(count, total)
    return [(2 * i + 1) * count // (2 * total) for i in range(total)]


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
