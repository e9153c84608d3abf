"""Prepares the input of training: raw dataset, features, view, statistics, mean features.

Each step logs a line about its result, and reuses the result of an earlier start.
"""

import dataclasses
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from uhman_jax.config import (
    MAX_FRAMES,
    Config,
    Duplicates,
    PreprocessConfig,
    SimulatorOutput,
)
from uhman_jax.dataset.duplicates import describe_copies, find_copies
from uhman_jax.dataset.raw import RawDataset, read_raw_dataset, summarise_problems
from uhman_jax.dataset.rules import CURRENT
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, View, build_view
from uhman_jax.runtime import lock, storage
from uhman_jax.runtime.errors import count_of, storage_error
from uhman_jax.shards.store import INFO_FILE, FrameStore
from uhman_jax.simulator.truth import MARKER, SIMULATED_FEATURES, Truth, load_truth

if TYPE_CHECKING:
    from uhman_jax.clip_means import ClipMeans
    from uhman_jax.kernels.video_input import ChannelStatistics

Log = Callable[[str], object]
MAX_PROBLEMS = 5  # maximum number of lines logged about problems of one kind
# Users are the sample, because videos of one user have similar scores. P@10 of a test video has a
# standard deviation of 0.15 (experiments/paper), so the mean over 20 users has a standard error of
# 0.03. That is more than most choices change it.
_FEW_USERS = 20


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The input of training and evaluation."""

    raw: RawDataset
    store: FrameStore  # region features of its videos
    view: View  # hashtags, splits and histories

    @property
    def truth(self) -> Truth | None:
        """The ground truth of a simulated dataset; None for real data."""
        return load_truth(self.raw.root)


def prepare(config: Config, log: Log = print, rules: int = CURRENT) -> Prepared:
    """Returns the raw dataset, its features and its view; creates the first two if missing.

    Args:
        config: config of the run.
        log: function that logs one line of text.
        rules: version of the rules for reading tables, see `dataset.rules`.

    Raises:
        UserError: the dataset, its files or the settings are wrong.
    """
    raw = _raw_dataset(config, log, rules)
    store, contents = _features(config, raw, log)
    view = build_view(raw, store.video_ids, config.view, contents, config.data.duplicates, log)
    sizes = ", ".join(
        f"{len(view.rows(split))} {name}"
        for name, split in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
    )
    log(f"View: {sizes} videos, {count_of(len(view.hashtags), 'hashtag')}.")
    _log_few_users(view, log)
    _log_duplicates(config.data.duplicates, raw, view, contents, log)
    return Prepared(raw, store, view)


def _log_few_users(view: View, log: Log) -> None:
    """Logs a warning if validation has videos of few users."""
    rows = view.rows(VALIDATION)
    users = len({view.user_ids[row] for row in rows})
    if 0 < users < _FEW_USERS:
        log(
            f"Warning: validation has {count_of(len(rows), 'video')} of only "
            f"{count_of(users, 'user')}, so choices made on it, such as the best epoch, are "
            "uncertain; raise view.validation_share or add videos of other users, to "
            f"{_FEW_USERS} users or more."
        )


def _log_first(log: Log, lines: Sequence[str], more: str = "") -> None:
    """Logs the first `MAX_PROBLEMS` lines, and `more` if there are more lines."""
    for line in lines[:MAX_PROBLEMS]:
        log(f"  {line}")
    if len(lines) > MAX_PROBLEMS:
        log(f"  ...{more}")


def _log_duplicates(
    duplicates: Duplicates, raw: RawDataset, view: View, contents: Mapping[str, str], log: Log
) -> None:
    """Logs which videos have the same content and how they are used."""
    unknown = sum(not content for content in contents.values())
    if unknown and duplicates is not Duplicates.KEEP:
        log(
            f"Duplicates: not known for {unknown} of {len(contents)} clips, whose features are "
            "of an earlier version (--config.preprocess.output_dir=NEW_FOLDER encodes them again)."
        )
    if text := describe_copies(view.report, duplicates):
        log(f"Duplicates: {text}")
        lines = []
        for copies in find_copies(raw.videos, contents):
            names = " = ".join(f"{video.path} ({video.video_id})" for video in copies[:2])
            lines.append(names + (f" and {len(copies) - 2} more" if len(copies) > 2 else ""))
        _log_first(log, lines)


def _raw_dataset(config: Config, log: Log, rules: int) -> RawDataset:
    """Reads the user's dataset, or a simulated dataset, which is created if it does not exist."""
    root = storage.path(config.data.root) if config.data.root else simulated_root(config, log)
    has_clips = not _has_simulated_features(config)
    raw = read_raw_dataset(root, strict=config.data.strict, check_files=has_clips, rules=rules)
    videos, users = count_of(len(raw.videos), "video"), count_of(len(raw.users), "user")
    log(f"Dataset: {videos} of {users} in {root}.")
    if raw.problems:
        log(summarise_problems(raw))
        _log_first(log, [*map(str, raw.problems)], " (--config.data.strict lists all and stops)")
    return raw


def simulated_root(config: Config, log: Log = print) -> pathlib.Path:
    """Returns the folder of a config's simulated dataset; simulates it if it does not exist."""
    from uhman_jax import simulator  # imports PyAV, which real data do not need here

    root = dataset_root(config)
    if not simulator.is_simulated(root):
        with lock.hold(root, "wait for it, or use another --config.data.simulated_dir"):
            log(f"Simulating {count_of(config.simulator.num_videos, 'clip')} into {root}.")
            simulator.simulate(root, config.simulator)
    else:
        log(f"Simulated dataset: reused {root}.")
    return root


def dataset_root(config: Config) -> pathlib.Path:
    """Returns the folder of a config's raw dataset, which may not exist."""
    if config.data.root:
        return storage.path(config.data.root)
    from uhman_jax import simulator

    fingerprint = simulator.simulated_fingerprint(config.simulator)
    return pathlib.Path(config.data.simulated_dir) / f"{config.simulator.door.value}-{fingerprint}"


def _has_simulated_features(config: Config) -> bool:
    """Returns whether the dataset consists of simulated features instead of clips."""
    if not config.data.root:
        return config.simulator.door is SimulatorOutput.FEATURES
    path = dataset_root(config) / SIMULATED_FEATURES / INFO_FILE
    return path.is_file() and b'"weights": "simulated"' in path.read_bytes()


def extraction_settings(config: Config) -> PreprocessConfig:
    """Returns the settings of the features, with a number in place of an automatic `max_frames`.

    All configs have the same number for a user's own clips, so that another config encodes nothing
    again.
    """
    settings = config.preprocess
    if settings.max_frames:
        return settings
    is_simulated = not config.data.root or (dataset_root(config) / MARKER).is_file()
    number = config.data.simulated_frames if is_simulated else MAX_FRAMES
    return dataclasses.replace(settings, max_frames=number)


def features_dir(config: Config) -> pathlib.Path:
    """Returns the folder of the features of a config's dataset, which may not exist.

    Raises:
        UserError: the weights file of the config cannot be read.
    """
    root = dataset_root(config)
    if _has_simulated_features(config):
        return root / SIMULATED_FEATURES
    from uhman_jax.preprocess import pipeline

    settings = extraction_settings(config)
    return storage.path(settings.output_dir or pipeline.features_dir(root, settings))


def _features(config: Config, raw: RawDataset, log: Log) -> tuple[FrameStore, dict[str, str]]:
    """Returns the region features of the videos, and the content hash of each clip by video_id.

    Encodes clips without features. For a features folder of an earlier version, tables are read by
    the rules of that version, so videos that only the current rules find get no features.

    The hash is "" if an earlier version made the features; simulated features have no hashes.
    """
    directory = features_dir(config)
    if _has_simulated_features(config):
        log(f"Features: written by the simulator, reused {directory}.")
        return FrameStore(directory), {}
    from uhman_jax.preprocess import pipeline  # imports TensorFlow only if clips are encoded
    from uhman_jax.preprocess.ledger import LEDGER_FILE, frame_times, read_ledger

    settings, videos = extraction_settings(config), raw.videos
    if frame_times(directory) == 1 and raw.rules != 1:
        videos = read_raw_dataset(raw.root, strict=False, rules=1).videos
    inputs = [(video.video_id, video.path) for video in videos]
    if pipeline.is_complete(directory, inputs, settings, raw.root):
        log(f"Features: reused {directory}.")
    else:
        log(f"Features: encoding the clips into {directory}.")
        pipeline.preprocess(raw.root, inputs, directory, settings)
    entries = read_ledger(directory)
    if lost := [entry for entry in entries if entry.state != "ok"]:
        log(f"Features: {len(lost)} of {count_of(len(inputs), 'clip')} could not be used:")
        lines = [f"{storage.escape_name(e.path)}: {e.state}, {e.reason}" for e in lost]
        _log_first(log, lines, f" ({directory / LEDGER_FILE} lists all)")
    contents = {entry.video_id: entry.content for entry in entries if entry.state == "ok"}
    return FrameStore(directory), contents


def channel_statistics(prepared: Prepared, log: Log = print) -> "ChannelStatistics":
    """Returns the channel statistics of the training split, cached beside the shards.

    If there is no cached result, reads each training video once.
    """
    from uhman_jax.channel_statistics import ChannelStatistics, measure

    view, store = prepared.view, prepared.store
    shapes = dict.fromkeys(ChannelStatistics._fields, (store.num_channels,))
    path = store.directory / "statistics" / f"{view.fingerprint}.npz"
    if kept := _read_arrays(path, shapes, log):
        return ChannelStatistics(**kept)
    statistics = measure(view, store)
    _keep_arrays(path, statistics._asdict(), "Channel statistics", log)
    return statistics


def clip_means(prepared: Prepared, log: Log = print) -> "ClipMeans":
    """Returns the mean features of the clips of the view, cached beside the shards.

    If there is no cached result, reads each of these clips once.
    """
    from uhman_jax.clip_means import ClipMeans, measure, rows_of

    view, store = prepared.view, prepared.store
    rows_V = rows_of(view)
    shapes = {"rows_V": rows_V.shape, "means_VC": (len(rows_V), store.num_channels)}
    path = store.directory / "clip_means" / f"{view.fingerprint}.npz"
    if kept := _read_arrays(path, shapes, log):
        return ClipMeans(**kept)
    means = measure(view, store)
    _keep_arrays(path, means._asdict(), "Mean features", log)
    return means


def _read_arrays(
    path: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], log: Log
) -> dict[str, np.ndarray] | None:
    """Returns the arrays of a cache file; None if it is missing, damaged or of other shapes."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in shapes}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        log(f"{path} is damaged; it is written again.")
        return None
    return kept if all(kept[name].shape == shape for name, shape in shapes.items()) else None


def _keep_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray], title: str, log: Log) -> None:
    """Writes a cache file; logs the reason if the storage does not let it."""
    try:
        path.parent.mkdir(exist_ok=True)
        with storage.atomic_write(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        if not (reason := storage_error(error)):
            raise
        log(f"{title} are not kept in {path.parent}: {reason}.")
