"""Videos to shards of region features: decode ahead, encode in fixed batches, resume by shard.

A shard is a pure function of its videos, the settings and the weights: batches begin anew with each
shard, and a finished shard is never made again. The same command goes on after any interruption.
"""

import dataclasses
import errno
import hashlib
import itertools
import json
import os
import re
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from uhman_jax import lock, storage
from uhman_jax.config import PreprocessConfig
from uhman_jax.errors import UserError, storage_error
from uhman_jax.preprocess import ledger, shard_builder
from uhman_jax.preprocess.extract_features import Meter
from uhman_jax.preprocess.ledger import Entry
from uhman_jax.shards import metadata, store
from uhman_jax.shards.record import Schema


@dataclasses.dataclass(frozen=True)
class Summary:
    """What preprocessing did.

    Attributes:
        entries: the ledger, in order of id.
        counts: videos by state.
        reused: videos of shards that were there already.
        frames: encoded by this call.
        seconds: of encoding, from the first batch to the last; 0 if all was there.
    """

    entries: tuple[Entry, ...]
    counts: dict[str, int]
    reused: int
    frames: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Part:
    """Some of a folder's shards, for one of several machines.

    Attributes:
        number: from 1; 0: no shard, but the weights that the others need.
        count: of all parts but that.
    """

    number: int
    count: int

    def __str__(self) -> str:
        """As it is written: "2/16"."""
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Reads "2/16".

        Raises:
            UserError: it is none.
        """
        match = re.fullmatch(r"(\d{1,9})/([1-9]\d{0,8})", text)
        if not match or int(match[1]) > int(match[2]):
            raise UserError(
                f"--part must be NUMBER/COUNT, from 0/COUNT to COUNT/COUNT, got {text!r}; "
                "write e.g. --part=2/16"
            )
        return cls(int(match[1]), int(match[2]))


def features_dir(root: str | os.PathLike, config: PreprocessConfig) -> Path:
    """ROOT/features/<12 hex digits of all settings that decide the features>."""
    text = json.dumps(ledger.settings(config), sort_keys=True)
    return storage.path(root) / "features" / hashlib.sha256(text.encode()).hexdigest()[:12]


def is_complete(
    output_dir: str | os.PathLike,
    inputs: Iterable[tuple[str, str]],
    config: PreprocessConfig,
    root: str | os.PathLike | None = None,
) -> bool:
    """Whether `preprocess` would have nothing to do. Reads small files only, no TensorFlow.

    With `root` it also notices a file whose size is another now.
    """
    directory = storage.path(output_dir)
    names = (store.INFO_FILE, *metadata.FILES, ledger.LEDGER_FILE, ledger.SETTINGS_FILE)
    if not all((directory / name).exists() for name in names):
        return False
    if ledger.read_json(directory / ledger.SETTINGS_FILE).get("settings") != ledger.settings(
        config
    ):
        return False
    shards = ledger.plan(storage.path(root) if root else None, inputs, config.videos_per_shard)
    if len(list(directory.glob("*.tfrecord-*-of-*"))) != len(shards):
        return False
    return all(ledger.read_finished(directory, shard, len(shards)) for shard in shards)


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
    """Makes all shards, their metadata and the ledger; skips what is finished.

    Args:
        root: folder of the videos; nothing outside it is read.
        inputs: (video_id, path relative to root), ids unique.
        output_dir: made if it is not there; holds features of these settings only.
        config: how.
        network: stands in for `extractor.Extractor`; tests use a small one.
        progress: shows clips, frames/s and time left on standard error.
        retry: states, e.g. "timeout": finished shards that hold such a clip are made again.
        beam_options: makes the shards on Apache Beam, see `beam.options_of`; None: here.
        part: makes some shards alone; parts may run at once, and a call without one ends the work.

    Raises:
        UserError: weights that cannot be had, other settings or another process in `output_dir`,
            or no clip that could be decoded (the ledger is written all the same).
    """
    try:
        held = f"{lock.LOCK_FILE}.{part.number}-of-{part.count}" if part else lock.LOCK_FILE
        with lock.hold(output_dir, "wait for it, or name another folder for the features", held):
            return _preprocess(
                storage.path(root),
                list(inputs),
                storage.path(output_dir),
                config,
                network,
                progress,
                retry,
                beam_options,
                part,
            )
    except OSError as error:
        if error.errno != errno.ENOENT and not storage_error(error):
            raise
        raise UserError(
            f"features must be written below {output_dir}, which failed ({error.strerror}: "
            f"{error.filename or 'no file named'}); mend that and run again, finished shards stay"
        ) from error


def _preprocess(
    root: Path, inputs, directory: Path, config, network, progress, retry, beam_options, part
) -> Summary:
    shards = ledger.plan(root, inputs, config.videos_per_shard)
    facts = ledger.check_settings(directory, ledger.settings(config))
    if part and part.number:
        return _make_part(root, shards, directory, config, network, progress, facts, part)
    entries = _finished(directory, shards, len(shards), facts, retry, adopt_shard=True)
    if len(entries) < len(shards) and not (directory / ledger.WEIGHTS_FILE).exists():
        entries = {}  # the weights of the finished shards are lost
    reused = sum(map(len, entries.values()))
    meter = Meter(len(inputs), reused, progress)
    if part:
        if len(entries) < len(shards):
            (directory / store.INFO_FILE).unlink(missing_ok=True)
        with meter:
            shard_builder.Making(root, directory, config, network, meter).first_extractor(shards)
        return _summary(entries, reused, meter)
    if len(entries) < len(shards):
        (directory / store.INFO_FILE).unlink(missing_ok=True)
        with meter:
            work = shard_builder.Making(root, directory, config, network, meter)
            missing = [shard for shard in shards if shard.index not in entries]
            extractor = work.first_extractor(shards)
            if beam_options is None:
                entries |= work.run(missing, len(shards), extractor)
            else:
                entries |= _on_beam(work, missing, len(shards), beam_options, meter)
    elif is_complete(directory, inputs, config, root):
        return _summary(entries, reused, meter)
    _finish(directory, config, entries, len(shards))
    return _summary(entries, reused, meter)


def _make_part(
    root: Path, shards, directory: Path, config, network, progress, facts, part: Part
) -> Summary:
    if not (directory / ledger.WEIGHTS_FILE).exists() or "fingerprint" not in facts:
        raise UserError(
            f"--part={part} needs the weights that --part=0/{part.count} keeps in {directory}, got "
            "none; run that first, with the same settings"
        )
    mine = [shard for shard in shards if shard.index % part.count == part.number - 1]
    entries = _finished(directory, mine, len(shards), facts)
    missing = [shard for shard in mine if shard.index not in entries]
    reused = sum(map(len, entries.values()))
    meter = Meter(sum(len(shard.videos) for shard in mine), reused, progress)
    if missing:
        with meter:
            work = shard_builder.Making(root, directory, config, network, meter)
            entries |= work.run(missing, len(shards))
    return _summary(entries, reused, meter)


def _on_beam(work, missing, num_shards: int, options, meter: Meter) -> dict[int, list[Entry]]:
    from uhman_jax.preprocess import beam  # seconds, and an extra

    for shard in missing:  # else a shard to be made again would count as finished
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


restore_extractor = shard_builder.restore_extractor


def _finished(
    directory: Path, shards, num_shards: int, facts: dict, retry=(), *, adopt_shard: bool = False
) -> dict[int, list[Entry]]:
    """Entries of those shards that need not be made again."""
    entries = {}
    for shard in shards:
        found = ledger.read_finished(directory, shard, num_shards, adopt_shard=adopt_shard)
        if found and _is_valid(found, facts, retry):
            entries[shard.index] = found[1]
    return entries


def _is_valid(found: tuple[dict, list[Entry]], facts: dict, retry: Collection[str]) -> bool:
    header, entries = found
    same = header.get("weights") == facts.get("fingerprint")
    return same and not any(entry.state in retry for entry in entries)


def _summary(entries: dict[int, list[Entry]], reused: int, meter: Meter) -> Summary:
    flat = tuple(itertools.chain.from_iterable(entries[i] for i in sorted(entries)))
    return Summary(flat, ledger.counts(flat), reused, meter.frames, meter.seconds)


def _finish(
    directory: Path, config: PreprocessConfig, entries: dict[int, list[Entry]], num_shards: int
) -> None:
    for path in directory.glob(f"{lock.LOCK_FILE}.*-of-*"):  # of parts
        path.unlink()
    flat = [entry for i in range(num_shards) for entry in entries[i]]
    ledger.merge(directory, flat, num_shards)
    if not any(entry.state == "ok" for entry in flat):
        raise UserError(
            f"at least one clip must be decodable, got {_words(ledger.counts(flat))}; the reasons "
            f"are in {directory / ledger.LEDGER_FILE}"
        )
    facts = ledger.read_json(directory / ledger.SETTINGS_FILE)
    schema = Schema(facts["channels"], config.storage.value, facts["regions"])
    rule = {name: facts[name] for name in ("frame_times",) if name in facts}
    info = (
        facts["settings"]
        | rule
        | {
            "extractor": facts["description"],
            "fingerprint": facts["fingerprint"],
            "versions": facts["versions"],
        }
    )
    lengths = None
    if storage.is_remote(directory):
        lengths = [ledger.counts(entries[i])["ok"] for i in range(num_shards)]
    store.write_metadata(directory, num_shards, schema, info, lengths)


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)
