"""Records the outcome of every input video, shard by shard, and which shards are finished.

A folder of features holds, besides the shards and their metadata,

    settings.json            how the features are made; written first
    extractor.weights.h5     the network's weights, used for every later clip too
    ledger/00012.jsonl       the entries of a shard; written after the shard, marks it as finished
    ledger.jsonl             all entries; written when every shard is finished

Each file is written atomically. This module does not import TensorFlow.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from uhman_jax.backbone import BACKBONES
from uhman_jax.config import Precision, PreprocessConfig
from uhman_jax.preprocess.clip_file import FRAME_TIMES
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards import store

STATES = ("ok", "short", "corrupt", "no_video", "unsupported", "timeout")
SETTINGS_FILE = "settings.json"
WEIGHTS_FILE = "extractor.weights.h5"
LEDGER_FILE = "ledger.jsonl"
_SHARD_LEDGERS = "ledger"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Attributes:
        video_id: id of the input.
        path: relative to the root, as `clip_file.printable` returns it.
        state: one of STATES; only "ok" has features.
        frames: number of encoded frames.
        seconds: display duration of the clip.
        reason: "" or one sentence, see `DecodedClip`.
        content: hash of the video stream, equal for copies of one file; "": unknown.
    """

    video_id: str
    path: str
    state: str
    frames: int
    seconds: float
    reason: str
    content: str = ""


@dataclasses.dataclass(frozen=True)
class Shard:
    """The inputs of one shard.

    Attributes:
        index: from 0.
        videos: (video_id, path) in order of id.
        key: hash of the ids and paths.
        sizes: hash of the file sizes; "": not read.
    """

    index: int
    videos: tuple[tuple[str, str], ...]
    key: str
    sizes: str


def plan(
    root: Path | None, inputs: Iterable[tuple[str, str]], videos_per_shard: int
) -> list[Shard]:
    """Divides the videos, in order of id, into shards; reads file sizes only if `root` is given.

    Raises:
        UserError: there is no input, or an id is empty or not unique.
    """
    videos = sorted(inputs)
    if not videos:
        raise UserError("preprocessing needs a video, got none; put clips into the folder")
    ids = [video_id for video_id, _ in videos]
    if twice := [a for a, b in zip(ids, ids[1:], strict=False) if a == b]:
        raise UserError(f"each video_id must be given once, got {twice[0]!r} twice; rename one")
    if not all(ids):
        raise UserError("a video_id must not be empty; name every video")
    sizes = _sizes(root, [path for _, path in videos]) if root else []
    shards = []
    for begin in range(0, len(videos), videos_per_shard):
        rows = slice(begin, begin + videos_per_shard)
        shard_videos, sizes_hash = tuple(videos[rows]), _hash(sizes[rows]) if root else ""
        shards.append(Shard(len(shards), shard_videos, _hash(shard_videos), sizes_hash))
    return shards


def frame_times(directory: Path) -> int:
    """Returns the version of the rule for frame times that a features folder uses.

    A new folder has the current version; a folder that names none has version 1. See
    `video_index.read_index`.

    Raises:
        UserError: the folder was made by a later release, with a rule that this one lacks.
    """
    path = directory / SETTINGS_FILE
    rule = read_json(path).get("frame_times", 1) if path.exists() else FRAME_TIMES
    if rule not in (1, FRAME_TIMES):
        raise UserError(
            f"frame_times must be 1 or {FRAME_TIMES} in {path}, got {rule!r}; use the version of "
            "uhman_jax that made the folder, or name another folder for the features"
        )
    return rule


def _hash(facts: Sequence) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _sizes(root: Path, paths: Sequence[str]) -> list[int]:
    """Returns the sizes of files below the root; -1 if a size is unknown."""
    if storage.is_remote(root):
        listed = storage.sizes(root)
        return [listed.get(os.path.normpath(path), -1) for path in paths]
    sizes = [-1] * len(paths)
    for i, path in enumerate(paths):
        with contextlib.suppress(OSError, ValueError):
            sizes[i] = os.stat(root / path).st_size
    return sizes


def settings(config: PreprocessConfig) -> dict:
    """Returns all settings that determine the features of a video, as JSON values.

    Raises:
        UserError: the weights file cannot be read.
    """
    assert config.max_frames, "an automatic number is resolved before"
    network = BACKBONES[config.backbone.value].network
    values = {"network": network, "weights": config.weights}
    if config.weights == "random":
        values |= {"weights_seed": config.weights_seed, "kernels": "gaussian window"}
        values |= {"calibration_frames": config.calibration_frames}
    elif config.weights != "imagenet":
        try:
            path = os.fspath(storage.cached_copy(config.weights))
            status = os.stat(path)
            digest = _digest(path, status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError as error:
            raise UserError(
                "weights must be random, imagenet or a Keras .h5 file that can be read, got "
                f"{config.weights!r} ({error.strerror}); correct the path"
            ) from None
        values["weights"] = f"sha256:{digest}"
    if config.precision is not Precision.FLOAT32:
        values["precision"] = config.precision.value
    names = ("frames_per_second", "max_frames", "videos_per_shard", "batch_frames")
    return values | {n: getattr(config, n) for n in names} | {"storage": config.storage.value}


@functools.lru_cache(maxsize=8)
def _digest(path: str, *state: int) -> str:
    """Returns the SHA-256 of a file, cached by its path and `state` (inode, size, time)."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_settings(directory: Path, new: dict) -> dict:
    """Checks that a folder has the settings `new`, or writes them to a new folder.

    Returns:
        The content of the settings file; {} for a new folder.

    Raises:
        UserError: the folder was made with other settings, or holds other shards.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / SETTINGS_FILE
    if not path.exists():
        if any(directory.glob("*.tfrecord-*")):
            raise UserError(
                f"features must go to a folder of their own, {directory} holds shards that this "
                "command did not write; name another folder for them"
            )
        write_json(path, {"settings": new, "frame_times": FRAME_TIMES})
        return {}
    found = read_json(path)
    old = found.get("settings", {})
    names = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    if names:
        changes = ", ".join(f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in names)
        raise UserError(
            f"{directory} was made with other settings ({changes}); use these or name another "
            "folder for the features"
        )
    return found


def read_finished(
    directory: Path, shard: Shard, num_shards: int, *, adopt_shard: bool = False
) -> tuple[dict, list[Entry]] | None:
    """Returns header and entries of a finished shard; None if it must be made.

    With `adopt_shard`, a shard of the same videos from a time when the folder had another number of
    shards is renamed and counts as finished.
    """
    try:
        lines = _shard_ledger(directory, shard.index).read_text(encoding="utf-8").splitlines()
        header, entries = json.loads(lines[0]), [Entry(**json.loads(line)) for line in lines[1:]]
    except (OSError, ValueError, TypeError, IndexError):
        return None
    same = header.get("key") == shard.key and len(entries) == len(shard.videos)
    same = same and shard.sizes in ("", header.get("sizes"))
    path = store.shard_path(directory, shard.index, num_shards)
    if same and (path.exists() or (adopt_shard and _adopt_shard(directory, shard.index, path))):
        return header, entries
    return None


def _adopt_shard(directory: Path, index: int, path: Path) -> bool:
    found = list(directory.glob(store.shard_path(directory, index, 99_999).name[:-5] + "*"))
    if len(found) != 1:
        return False
    (directory / store.INFO_FILE).unlink(missing_ok=True)  # no longer complete
    found[0].replace(path)
    return True


def write_shard_ledger(directory: Path, shard: Shard, weights: str, entries: list[Entry]) -> None:
    """Marks a shard, whose file must exist, as finished."""
    path = _shard_ledger(directory, shard.index)
    path.parent.mkdir(exist_ok=True)
    header = {"key": shard.key, "sizes": shard.sizes, "weights": weights}
    _write_lines(path, [header, *map(dataclasses.asdict, entries)])


def mark_unfinished(directory: Path, shard: Shard) -> None:
    """Removes the ledger of a shard, so that the shard is made again."""
    _shard_ledger(directory, shard.index).unlink(missing_ok=True)


def merge(directory: Path, entries: Sequence[Entry], num_shards: int) -> None:
    """Writes the ledger of all videos and removes files of shards that no longer exist."""
    folder, numbers = directory / _SHARD_LEDGERS, range(num_shards)
    names = {store.shard_path(directory, i, num_shards).name for i in numbers}
    names |= {_shard_ledger(directory, i).name for i in numbers}
    storage.remove_leftovers(folder)
    for path in [*directory.glob("*.tfrecord-*-of-*"), *folder.glob("*.jsonl")]:
        if path.name not in names:
            path.unlink()
    _write_lines(directory / LEDGER_FILE, map(dataclasses.asdict, entries))


def counts(entries: Iterable[Entry]) -> dict[str, int]:
    """Returns the number of videos in each of STATES."""
    found = collections.Counter(entry.state for entry in entries)
    return {state: found[state] for state in STATES}


def read_ledger(directory: str | os.PathLike) -> list[Entry]:
    """Returns the merged ledger of a folder.

    Raises:
        UserError: it is missing or damaged.
    """
    path = storage.path(directory) / LEDGER_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Entry(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} must be as it was written, it cannot be read ({error}); delete it and run "
            "preprocessing again"
        ) from None


def _shard_ledger(directory: Path, index: int) -> Path:
    return directory / _SHARD_LEDGERS / f"{index:05d}.jsonl"


def _write_lines(path: Path, values: Iterable[dict]) -> None:
    with storage.atomic_write(path) as file:
        for value in values:
            file.write(json.dumps(value).encode() + b"\n")


def write_json(path: Path, value: dict) -> None:
    """Writes a JSON object atomically."""
    with storage.atomic_write(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> dict:
    """Returns the object that `write_json` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path} must be as it was written; delete its folder and run again")
    return value
