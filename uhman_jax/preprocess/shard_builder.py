"""Builds shards: decoders run ahead of one network and one writer."""

import contextlib
import functools
import importlib.metadata
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from uhman_jax.backbone import BACKBONES, Backbone
from uhman_jax.config import Backend, Precision, PreprocessConfig
from uhman_jax.preprocess import ledger
from uhman_jax.preprocess.clip_file import DecodedClip, DecodeError, printable
from uhman_jax.preprocess.decode_pool import DecoderPool
from uhman_jax.preprocess.decode_process import LibraryFault
from uhman_jax.preprocess.extract_features import Meter, encode
from uhman_jax.preprocess.ledger import Entry, Shard
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards import store
from uhman_jax.shards.record import FrameRecord, Schema

_PACKAGES = ("av", "jax", "keras", "numpy", "tensorflow", "tensorflow-cpu")


def restore_extractor(
    output_dir: str | os.PathLike,
    network=None,
    *,
    batch_frames: int = 0,
    precision: Precision = Precision.FLOAT32,
    backend: Backend = Backend.TENSORFLOW,
):
    """Returns the extractor that made the features of a folder, with its weights.

    Args:
        output_dir: the folder.
        network: replaces `extractor.Extractor`; tests use a small one.
        batch_frames: images per call of the network; 0: as when the features were made.
        precision: of the activations.
        backend: see `extractor_class`.

    Raises:
        UserError: the folder or its weights are missing or damaged.
    """
    directory = storage.path(output_dir)
    facts = ledger.read_json(directory / ledger.SETTINGS_FILE)
    path = directory / ledger.WEIGHTS_FILE
    extractor = (network or extractor_class(backend)).restore(
        backbone_of(directory, network),
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


def backbone_of(directory: Path, network=None) -> Backbone:
    """Returns the backbone of a folder's features, or of the `network` that replaces it."""
    if network:
        return network.BACKBONE
    return of_network(ledger.read_json(directory / ledger.SETTINGS_FILE)["settings"]["network"])


def of_network(network: str) -> Backbone:
    """Returns the backbone for the `Backbone.network` that a features folder stores.

    Raises:
        UserError: this version does not know the network.
    """
    backbone = BACKBONES.get(network.split("/")[0])
    if backbone is None or backbone.network != network:
        raise UserError(
            f"features must be of a network that this version knows, got {network!r}; use the "
            "version of uhman_jax that made them"
        )
    return backbone


def extractor_class(backend: Backend, platform: str = ""):
    """Returns the class `Extractor`, on Keras with this backend; the import takes seconds.

    Args:
        backend: AUTO means TensorFlow if `platform` is "cpu", else JAX.
        platform: of JAX's devices; "": AUTO asks JAX, which reserves an accelerator's memory.

    Raises:
        UserError: Keras runs on another backend in this process already.
    """
    if backend is Backend.AUTO:
        import jax  # only for AUTO: it initialises every device

        platform = platform or jax.default_backend()
        backend = Backend.TENSORFLOW if platform == "cpu" else Backend.JAX
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend.value
    from uhman_jax.preprocess import extractor

    if (running := extractor.keras.backend.backend()) != backend.value:
        raise UserError(
            f"preprocess.backend must be {running} in a process whose Keras runs on that already, "
            f"got {backend.value}; start another process"
        )
    return extractor.Extractor


class ShardBuilder:
    """Builds the shards of `directory` from the videos below `root`; see `pipeline.preprocess`."""

    def __init__(
        self, root: Path, directory: Path, config: PreprocessConfig, network, meter: Meter
    ):
        self.root, self.directory = root, directory
        self.config, self.network = config, network
        self._meter = meter
        self._backbone = network.BACKBONE if network else BACKBONES[config.backbone.value]

    def first_extractor(self, shards: Sequence[Shard]):
        """Returns a new extractor whose weights it stores; None if the folder has weights."""
        facts = ledger.read_json(self.directory / ledger.SETTINGS_FILE)
        if (self.directory / ledger.WEIGHTS_FILE).exists() and "fingerprint" in facts:
            return None
        config, images = self.config, None
        self._meter.stage("loading the network")
        if config.weights == "random" and config.calibration_frames:
            self._meter.stage("calibrating the network")
            images = self._calibration_images([path for s in shards for _, path in s.videos])
        extractor = (self.network or extractor_class(config.backend)).load(
            self._backbone,
            config.weights,
            seed=config.weights_seed,
            calibration_images=images,
            batch_frames=config.batch_frames,
            precision=config.precision,
        )
        extractor.save(self.directory / ledger.WEIGHTS_FILE)
        facts |= {
            "settings": ledger.settings(config),
            "description": extractor.description,
            "fingerprint": extractor.fingerprint,
            "channels": extractor.backbone.num_channels,
            "regions": extractor.backbone.num_regions,
            "versions": _versions(),
        }
        ledger.write_json(self.directory / ledger.SETTINGS_FILE, facts)
        return extractor

    def run(
        self, missing: Sequence[Shard], num_shards: int, extractor=None
    ) -> dict[int, list[Entry]]:
        """Builds the missing shards; returns their entries by index.

        Args:
            missing: shards to build.
            num_shards: number of shards in the folder.
            extractor: the loaded extractor; None: it is loaded from the folder.

        Raises:
            LibraryFault: the decoders fail their self-test; no shard then counts as finished.
        """
        entries = {}
        self._meter.stage("features")
        # The decoders start before Keras is imported, and work in parallel.
        paths = [path for shard in missing for _, path in shard.videos]
        config = self.config
        with self._decode(paths, config.max_frames) as pool:
            extractor = extractor or restore_extractor(
                self.directory, self.network, precision=config.precision, backend=config.backend
            )
            clips = iter(pool)
            try:
                for shard in missing:
                    of_shard = itertools.islice(clips, len(shard.videos))
                    entries[shard.index] = self._build(shard, num_shards, of_shard, extractor)
            except LibraryFault:
                for shard in missing:  # earlier shards may lack good clips
                    ledger.mark_unfinished(self.directory, shard)
                raise
        return entries

    def _build(
        self, shard: Shard, num_shards: int, clips: Iterator[DecodedClip], extractor
    ) -> list[Entry]:
        entries: list[Entry] = []
        storage, backbone = self.config.storage.value, extractor.backbone

        def records() -> Iterator[FrameRecord]:
            encoded = encode(clips, extractor, storage, self._meter)
            for (video_id, path), (clip, arrays) in zip(shard.videos, encoded, strict=True):
                facts = len(clip.times_F), round(clip.seconds, 3), clip.reason, clip.content
                entries.append(Entry(video_id, printable(path), clip.state, *facts))
                if arrays:
                    yield FrameRecord(video_id, **arrays)

        schema = Schema(backbone.num_channels, storage, backbone.num_regions)
        store.write_shard(self.directory, shard.index, num_shards, records(), schema)
        ledger.write_shard_ledger(self.directory, shard, extractor.fingerprint, entries)
        return entries

    def _decode(self, paths: Sequence[str], max_frames: int) -> DecoderPool:
        rule, locate = ledger.frame_times(self.directory), functools.partial(_file_below, self.root)
        size = self._backbone.image_size
        return DecoderPool(paths, self.config, max_frames, size, rule, locate)

    def _calibration_images(self, paths: Sequence[str]) -> np.ndarray:
        """Returns frames spread over the clips; several frames per clip if there are few clips."""
        total = self.config.calibration_frames
        chosen = spread(len(paths), total)
        rest = sorted(set(range(len(paths))) - set(chosen))  # used if chosen clips fail
        images: list[np.ndarray] = []
        with self._decode([paths[i] for i in [*chosen, *rest]], -(-total // len(chosen))) as pool:
            for clip in pool:
                images.extend(clip.images)
                if len(images) >= total:
                    break
        size = self._backbone.image_size
        return np.array(images[:total], np.uint8).reshape(-1, size, size, 3)


def _file_below(root: Path, path: str) -> str:
    """Returns the file of a path below the root.

    Raises:
        DecodeError: the path leads out of the root, also through a symbolic link.
    """
    if storage.is_remote(root):
        name = os.path.normpath(path)
        inside = not name.startswith(("/", ".."))
        target = root / name if inside else root
    else:
        try:
            target = (root / path).resolve()
            inside = target.is_relative_to(root.resolve())
        except (OSError, ValueError, RuntimeError) as error:
            raise DecodeError("corrupt", f"the path cannot be followed: {error}") from None
    if not inside:
        raise DecodeError("unsupported", "the file lies outside the folder")
    return str(target)


def spread(count: int, total: int) -> list[int]:
    """Returns the middle index of each of `total` equal parts of range(count), at most all indices.

    >>> spread(10, 3)
    [1, 5, 8]
    """
    total = min(count, total)
    return [(2 * i + 1) * count // (2 * total) for i in range(total)]


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
