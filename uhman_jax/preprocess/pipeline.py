"""Makes shards of region features from videos, and continues after any interruption.

A shard is a pure function of its videos, the settings and the weights: each shard starts with a new
batch, and a finished shard is never made again.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from uhman_jax.config import PreprocessConfig
from uhman_jax.preprocess import ledger, shard_builder
from uhman_jax.preprocess.extract_features import Meter
from uhman_jax.preprocess.ledger import Entry
from uhman_jax.runtime import lock, storage
from uhman_jax.runtime.errors import UserError, storage_error
from uhman_jax.shards import metadata, store
from uhman_jax.shards.record import Schema


@dataclasses.dataclass(frozen=True)
class Summary:
    """The result of a call of `preprocess`.

    Attributes:
        entries: the ledger, in order of id.
        counts: videos by state.
        reused: number of videos in shards that were already finished.
        frames: number of frames encoded by this call.
        seconds: time from the first clip to the last frame; 0 if no shard was missing.
    """

    entries: tuple[Entry, ...]
    counts: dict[str, int]
    reused: int
    frames: int
    seconds: float


class Part(NamedTuple):
    """A part of a folder's shards, which one of several machines makes."""

    number: int  # from 1; 0: no shard, only the weights that the others need
    count: int  # number of parts, without part 0

    def __str__(self) -> str:
        """Returns the text that `parse` reads, e.g. "2/16"."""
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Returns the part that a text such as "2/16" names.

        Raises:
            UserError: the text names no part.
        """
        match = re.fullmatch(r"(\d{1,9})/([1-9]\d{0,8})", text)
        if not match or int(match[1]) > int(match[2]):
            raise UserError(
                f"--part must be NUMBER/COUNT, from 0/COUNT to COUNT/COUNT, got {text!r}; "
                "write e.g. --part=2/16"
            )
        return cls(int(match[1]), int(match[2]))


def features_dir(root: str | os.PathLike, config: PreprocessConfig) -> Path:
    """Returns ROOT/features/<12 hex digits of a hash of all settings that decide the features>."""
    text = json.dumps(ledger.settings(config), sort_keys=True)
    return storage.path(root) / "features" / hashlib.sha256(text.encode()).hexdigest()[:12]


def is_complete(
    output_dir: str | os.PathLike,
    inputs: Iterable[tuple[str, str]],
    config: PreprocessConfig,
    root: str | os.PathLike | None = None,
) -> bool:
    """Returns whether `preprocess` would have nothing to do; it reads only small files.

    With `root` it also detects a file whose size has changed.
    """
    directory = storage.path(output_dir)
    path = directory / ledger.SETTINGS_FILE
    if not path.exists() or ledger.read_json(path).get("settings") != ledger.settings(config):
        return False
    shards = ledger.plan(storage.path(root) if root else None, inputs, config.videos_per_shard)
    return _has_summaries(directory, len(shards)) and all(
        ledger.read_finished(directory, shard, len(shards)) for shard in shards
    )


def _has_summaries(directory: Path, num_shards: int) -> bool:
    """Returns whether a folder has the files that `_finish` writes, and no further shard."""
    names = (store.INFO_FILE, *metadata.FILES, ledger.LEDGER_FILE)
    complete = all((directory / name).exists() for name in names)
    return complete and len(list(directory.glob("*.tfrecord-*-of-*"))) == num_shards


def preprocess(
    root: str | os.PathLike,
    inputs: Iterable[tuple[str, str]],
    output_dir: str | os.PathLike,
    config: PreprocessConfig,
    *,
    network: Any = None,
    progress: bool = True,
    retry: Collection[str] = (),
    beam_options: Any = None,
    part: Part | None = None,
) -> Summary:
    """Makes all shards, their metadata and the ledger; skips finished shards.

    Args:
        root: folder of the videos; no file outside it is read.
        inputs: (video_id, path relative to root), ids unique.
        output_dir: created if missing; it holds features of these settings only.
        config: settings of the features.
        network: replaces `extractor.Extractor`; tests use a small one.
        progress: shows clips, frames/s and time left on standard error.
        retry: states, e.g. "timeout"; finished shards that hold a clip in such a state are made
            again.
        beam_options: makes the shards on Apache Beam, see `beam.options_of`; None: in this process.
        part: makes only some shards; parts may run in parallel, and a call without a part
            completes the folder.

    Raises:
        UserError: weights cannot be loaded, `output_dir` has other settings or is used by another
            process, or no clip could be decoded (the ledger is written in that case too).
    """
    root, directory = storage.path(root), storage.path(output_dir)
    with _exclusive(directory, part):
        shards = ledger.plan(root, inputs, config.videos_per_shard)
        facts = ledger.check_settings(directory, ledger.settings(config))
        has_weights = (directory / ledger.WEIGHTS_FILE).exists()
        number, count = part or (0, 0)
        if number and not (has_weights and "fingerprint" in facts):
            raise UserError(
                f"--part={part} needs the weights that --part=0/{count} keeps in {directory}, got "
                "none; run that first, with the same settings"
            )
        chosen = shards[number - 1 :: count] if number else shards
        entries = _finished(directory, chosen, len(shards), facts, retry, adopt_shard=not number)
        if len(entries) < len(chosen) and not has_weights:
            entries = {}  # the weights of the finished shards are lost
        missing = [shard for shard in chosen if shard.index not in entries]
        reused = sum(map(len, entries.values()))
        only_weights = part and not number
        if missing and not number:
            (directory / store.INFO_FILE).unlink(missing_ok=True)
        total, show = sum(len(shard.videos) for shard in chosen), bool(missing or only_weights)
        with Meter(total, reused, progress and show) as meter:
            work = shard_builder.ShardBuilder(root, directory, config, network, meter)
            if only_weights:
                work.first_extractor(shards)
            elif missing:
                extractor = work.first_extractor(shards)
                if beam_options is None:
                    entries |= work.run(missing, len(shards), extractor)
                else:
                    entries |= _on_beam(work, missing, len(shards), beam_options, meter)
        if not part and (missing or not _has_summaries(directory, len(shards))):
            _finish(directory, config, entries, len(shards))
        flat = _in_order(entries)
        return Summary(flat, ledger.counts(flat), reused, meter.frames, meter.seconds)


@contextlib.contextmanager
def _exclusive(directory: Path, part: Part | None) -> Iterator[None]:
    """Holds the lock of a folder, or of a part of it; reports disk errors."""
    held = f"{lock.LOCK_FILE}.{part.number}-of-{part.count}" if part else lock.LOCK_FILE
    try:
        with lock.hold(directory, "wait for it, or name another folder for the features", held):
            yield
    except OSError as error:
        if error.errno != errno.ENOENT and not storage_error(error):
            raise
        raise UserError(
            f"features must be written below {directory}, which failed ({error.strerror}: "
            f"{error.filename or 'no file named'}); fix that and run again, finished shards stay"
        ) from error


def _on_beam(work, missing, num_shards: int, options, meter: Meter) -> dict[int, list[Entry]]:
    from uhman_jax.preprocess import beam  # an optional dependency; its import takes seconds

    for shard in missing:  # a retried shard would count as finished
        ledger.mark_unfinished(work.directory, shard)
    begin = time.monotonic()
    meter.frames = beam.make(work, missing, num_shards, options, meter).get("frames", 0)
    meter.seconds = time.monotonic() - begin
    entries = {}
    for shard in missing:
        found = ledger.read_finished(work.directory, shard, num_shards)
        if not found:
            raise UserError(
                f"a shard must be in the folder when Beam has made it, shard {shard.index} is not; "
                "let workers write to the same folder and run again"
            )
        entries[shard.index] = found[1]
    return entries


def _finished(
    directory: Path, shards, num_shards: int, facts: dict, retry, *, adopt_shard: bool
) -> dict[int, list[Entry]]:
    """Returns the entries of the shards that need not be made again."""
    finished = {}
    for shard in shards:
        found = ledger.read_finished(directory, shard, num_shards, adopt_shard=adopt_shard)
        header, entries = found or ({}, [])
        same = found and header.get("weights") == facts.get("fingerprint")
        if same and not any(entry.state in retry for entry in entries):
            finished[shard.index] = entries
    return finished


def _finish(
    directory: Path, config: PreprocessConfig, entries: dict[int, list[Entry]], num_shards: int
) -> None:
    for path in directory.glob(f"{lock.LOCK_FILE}.*-of-*"):  # locks of parts
        path.unlink()
    flat = _in_order(entries)
    ledger.merge(directory, flat, num_shards)
    counts = ledger.counts(flat)
    if not counts["ok"]:
        states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        raise UserError(
            f"at least one clip must be decodable, got {states}; the reasons are in "
            f"{directory / ledger.LEDGER_FILE}"
        )
    facts = ledger.read_json(directory / ledger.SETTINGS_FILE)
    schema = Schema(facts["channels"], config.storage.value, facts["regions"])
    info = facts["settings"] | {
        **{name: facts[name] for name in ("frame_times",) if name in facts},
        "extractor": facts["description"],
        "fingerprint": facts["fingerprint"],
        "versions": facts["versions"],
    }
    lengths = None
    if storage.is_remote(directory):
        lengths = [ledger.counts(entries[i])["ok"] for i in range(num_shards)]
    store.write_metadata(directory, num_shards, schema, info, lengths)


def _in_order(entries: dict[int, list[Entry]]) -> tuple[Entry, ...]:
    return tuple(entry for index in sorted(entries) for entry in entries[index])
