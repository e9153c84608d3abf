"""Prepares the input of training: raw dataset, features, view, channel statistics.

Each step reports in one line what it makes, or reuses from an earlier start.
"""

import dataclasses
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from uhman_jax import lock, storage
from uhman_jax.config import Config, Duplicates, SimulatorOutput
from uhman_jax.dataset.duplicates import describe_copies, find_copies
from uhman_jax.dataset.raw import RawDataset, read_raw_dataset, summarise_problems
from uhman_jax.dataset.rules import CURRENT
from uhman_jax.dataset.truth import SIMULATED_FEATURES, Truth, load_truth
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, View, build_view
from uhman_jax.errors import UserError, count_of, storage_error
from uhman_jax.shards.store import INFO_FILE, FrameStore
from uhman_jax.storage import atomic_write

if TYPE_CHECKING:
    from uhman_jax.layers import ChannelStatistics  # imports JAX

Say = Callable[[str], object]
MAX_PROBLEMS = 5  # bad rows that are printed; --config.data.strict lists all


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The input of training and evaluation.

    Attributes:
        raw: the dataset as it was read.
        store: region features of its videos.
        view: hashtags, splits and histories.
    """

    raw: RawDataset
    store: FrameStore
    view: View

    @property
    def truth(self) -> Truth | None:
        """The truth about a simulated dataset; None for real data."""
        return load_truth(self.raw.root)


def prepare(config: Config, log: Say = print, rules: int = CURRENT) -> Prepared:
    """Makes or finds the raw dataset, its features and its view.

    Args:
        config: of the run.
        log: takes lines for a person.
        rules: version of the rules by which tables are read, see `dataset.rules`.

    Raises:
        UserError: the dataset, its files or the settings are wrong.
    """
    raw = _raw_dataset(config, log, rules)
    store, contents = _features(config, raw, log)
    view = build_view(raw, store.video_ids, config.view, contents, config.data.duplicates)
    sizes = ", ".join(
        f"{len(view.rows(split))} {name}"
        for name, split in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
    )
    log(f"View: {sizes} videos, {count_of(len(view.hashtags), 'hashtag')}.")
    _say_duplicates(config.data.duplicates, raw, view, contents, log)
    return Prepared(raw, store, view)


def _say_duplicates(
    duplicates: Duplicates, raw: RawDataset, view: View, contents: Mapping[str, str], log: Say
) -> None:
    """Reports which videos have the same content and how they are used."""
    unknown = sum(not content for content in contents.values())
    if unknown and duplicates is not Duplicates.KEEP:
        log(
            f"Duplicates: cannot be seen in {unknown} of {len(contents)} clips, whose features are "
            "of an earlier version (--config.preprocess.output_dir=NEW_FOLDER encodes them again)."
        )
    if text := describe_copies(view.report, duplicates):
        log(f"Duplicates: {text}")
        copies = find_copies(raw.videos, contents)
        for first, second, *others in copies[:MAX_PROBLEMS]:
            more = f" and {len(others)} more" if others else ""
            log(f"  {first.path} ({first.video_id}) = {second.path} ({second.video_id}){more}")
        if len(copies) > MAX_PROBLEMS:
            log("  ...")


def _raw_dataset(config: Config, log: Say, rules: int) -> RawDataset:
    """Reads the user's dataset or a simulated one, which is made first if it does not exist."""
    root = storage.path(config.data.root) if config.data.root else simulated_root(config, log)
    has_clips = not _has_simulated_features(config)
    raw = read_raw_dataset(root, strict=config.data.strict, check_files=has_clips, rules=rules)
    videos, users = count_of(len(raw.videos), "video"), count_of(len(raw.users), "user")
    log(f"Dataset: {videos} of {users} in {root}.")
    if raw.problems:
        log(summarise_problems(raw))
        for problem in raw.problems[:MAX_PROBLEMS]:
            log(f"  {problem}")
        if len(raw.problems) > MAX_PROBLEMS:
            log("  ... (--config.data.strict lists all and stops)")
    return raw


def simulated_root(config: Config, log: Say = print) -> pathlib.Path:
    """Returns the folder of a config's simulated dataset; simulates it if it does not exist."""
    from uhman_jax.dataset import simulator  # imports what renders clips: not for real data

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
    from uhman_jax.dataset import simulator

    fingerprint = simulator.simulated_fingerprint(config.simulator)
    return pathlib.Path(config.data.simulated_dir) / f"{config.simulator.door.value}-{fingerprint}"


def _has_simulated_features(config: Config) -> bool:
    """Returns whether the simulator writes, or wrote, features of a dataset instead of clips."""
    if not config.data.root:
        return config.simulator.door is SimulatorOutput.FEATURES
    path = dataset_root(config) / SIMULATED_FEATURES / INFO_FILE
    return path.is_file() and b'"weights": "simulated"' in path.read_bytes()


def features_dir(config: Config) -> pathlib.Path:
    """Returns the folder of the features of a config's dataset, which may not exist.

    Raises:
        UserError: the weights file that it names cannot be read.
    """
    root = dataset_root(config)
    if _has_simulated_features(config):
        return root / SIMULATED_FEATURES
    from uhman_jax.preprocess import pipeline

    settings = config.preprocess
    return storage.path(settings.output_dir or pipeline.features_dir(root, settings))


def _features(config: Config, raw: RawDataset, log: Say) -> tuple[FrameStore, dict[str, str]]:
    """Returns the region features of the videos; encodes the clips that have none yet.

    A folder that an earlier version began holds the videos that its rules found in the tables, and
    stays as it is: further videos, which only the current rules find, get no features there.

    Also returns the hash of each video's content by video_id: "" if an earlier version made the
    features; no entries for simulated features.
    """
    directory = features_dir(config)
    if _has_simulated_features(config):
        log(f"Features: written by the simulator, reused {directory}.")
        return FrameStore.open(directory), {}
    from uhman_jax.preprocess import pipeline  # imports TensorFlow only if clips are encoded
    from uhman_jax.preprocess.ledger import LEDGER_FILE, frame_times, read_ledger

    settings, videos = config.preprocess, raw.videos
    if frame_times(directory) == 1 and raw.rules != 1:
        videos = read_raw_dataset(raw.root, strict=False, rules=1).videos
    inputs = [(video.video_id, video.path) for video in videos]
    if pipeline.is_complete(directory, inputs, settings, raw.root):
        log(f"Features: reused {directory}.")
    else:
        log(f"Features: encoding the clips into {directory}.")
        pipeline.preprocess(raw.root, inputs, directory, settings)
    entries = read_ledger(directory)
    lost = [entry for entry in entries if entry.state != "ok"]
    if lost:
        log(f"Features: {len(lost)} of {count_of(len(inputs), 'clip')} could not be used:")
        for entry in lost[:MAX_PROBLEMS]:
            log(f"  {storage.escape_name(entry.path)}: {entry.state}, {entry.reason}")
        if len(lost) > MAX_PROBLEMS:
            log(f"  ... ({directory / LEDGER_FILE} lists all)")
    contents = {entry.video_id: entry.content for entry in entries if entry.state == "ok"}
    return FrameStore.open(directory), contents


def channel_statistics(prepared: Prepared, log: Say = print) -> "ChannelStatistics":
    """Returns the statistics of the training split, cached beside the shards.

    Without the cache every training video is read once.
    """
    from uhman_jax import input_pipeline

    view, store = prepared.view, prepared.store
    path = store.directory / "statistics" / f"{view.fingerprint}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in input_pipeline.ChannelStatistics._fields}
        if all(array.shape == (store.num_channels,) for array in kept.values()):
            return input_pipeline.ChannelStatistics(**kept)
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        log(f"{path} is damaged; it is made again.")
    statistics = input_pipeline.channel_statistics(view, store)
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, **statistics._asdict())
    except OSError as error:
        if not (trouble := storage_error(error)):
            raise
        log(f"Channel statistics are not kept in {path.parent}: {trouble}.")
    return statistics


def check_same_view(before: View, view: View, path: pathlib.Path) -> None:
    """Raises UserError if the data of a run have changed since it began.

    Args:
        before: the view that the run began with.
        view: the view of the current data.
        path: the file of `before`, for the message.
    """
    if before.fingerprint != view.fingerprint:
        raise UserError(
            f"the data must stay as they were when the run began, but {path} describes "
            f"{count_of(len(before.video_ids), 'video')} and "
            f"{count_of(len(before.hashtags), 'hashtag')} that differ from "
            f"the {len(view.video_ids)} and {len(view.hashtags)} of now; use another --workdir"
        )
