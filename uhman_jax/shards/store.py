"""Folders of shards: `frames-train.tfrecord-00012-of-00064` with TFDS metadata, random access.

Each shard is written atomically; metadata and index follow when all shards are written.
TFDS reads the folder with `tfds.builder_from_directory(DIR)`; training reads it with `FrameStore`.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards import metadata, tfrecord
from uhman_jax.shards import record as record_lib
from uhman_jax.shards.index import INDEX_FILE, Index, read_index, scan_shards, write_index
from uhman_jax.shards.record import FrameRecord, Schema

INFO_FILE = "extractor.json"  # written last, so a folder that has it is complete
_REBUILD = "run preprocessing again, it makes missing files again"


def shard_path(directory: str | os.PathLike, index: int, num_shards: int) -> Path:
    """Returns the file of shard `index` of `num_shards`.

    >>> shard_path("x", 12, 64).name
    'frames-train.tfrecord-00012-of-00064'
    """
    if not 0 <= index < num_shards <= 99_999:
        raise ValueError(f"a shard's index must be in [0, {num_shards}), got {index}")
    name = f"{metadata.DATASET}-{metadata.SPLIT}.tfrecord"
    return storage.path(directory) / f"{name}-{index:05d}-of-{num_shards:05d}"


def write_shard(
    directory: str | os.PathLike,
    index: int,
    num_shards: int,
    records: Iterable[FrameRecord],
    schema: Schema,
) -> Path:
    """Writes shard `index` of `num_shards`; its bytes depend only on the arguments.

    It is written atomically: if `records` raises, no file is written.

    Raises:
        ValueError: a record does not fit the schema.
    """
    path = shard_path(directory, index, num_shards)
    tfrecord.write(path, (record_lib.serialize(record, schema) for record in records))
    return path


def read_ids(path: str | os.PathLike, schema: Schema) -> tuple[str, ...]:
    """Returns the ids of a shard's records, in order; see `scan_shards` for errors."""
    return scan_shards([storage.path(path)], [tfrecord.map_file(path)], schema)[0]


def write_metadata(
    directory: str | os.PathLike,
    num_shards: int,
    schema: Schema,
    info: dict,
    lengths: Sequence[int] | None = None,
) -> None:
    """Completes a folder whose shards are all written: TFDS metadata, index and `extractor.json`.

    It also removes files of interrupted writers, so no process may be writing a shard.

    Args:
        directory: folder of the shards.
        num_shards: number of shards in the folder.
        schema: schema of the records.
        info: how the features were made, JSON values; kept in `FrameStore.info`.
        lengths: number of records of each shard. If given, no shard is read (reading would copy the
            shards of a bucket), and the first `FrameStore` of the folder writes the index.

    Raises:
        UserError: a shard is missing or damaged.
    """
    directory = storage.path(directory)
    paths = _shard_paths(directory, num_shards)
    if missing := [path for path in paths if not path.exists()]:
        raise _lost(missing[0])
    storage.remove_leftovers(directory)
    (directory / INDEX_FILE).unlink(missing_ok=True)
    if lengths is None:
        index = scan_shards(paths, _map(paths), schema)
        write_index(directory / INDEX_FILE, index)
        lengths = _lengths(index, num_shards)
    metadata.write(directory, lengths, sum(path.stat().st_size for path in paths), schema)
    content = {
        "storage": schema.storage,
        "num_regions": schema.num_regions,
        "num_channels": schema.num_channels,
        "shard_lengths": list(lengths),
        "info": info,
    }
    content["crc32c"] = _content_crc(content)
    with storage.atomic_write(directory / INFO_FILE) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


class FrameStore:
    """Random access to the records of a folder of shards, through memory maps and an index.

    Every record that is read is verified by its checksum. A store can be pickled (as its path) and
    used from several threads. Do not change the folder of an open store.

    Attributes:
        directory: folder of the shards.
        schema: schema of the records.
        info: the argument of `write_metadata`.
        video_ids: ids of the records, unique, in the order of the folder.
        num_frames_V: int32, number of frames of each record.
    """

    def __init__(self, directory: str | os.PathLike):
        """Reads the index; makes it if it is missing (older versions), damaged or out of date.

        Raises:
            UserError: the folder is missing, incomplete or damaged; the message names the file.
        """
        self.directory = storage.path(directory)
        content = _read_info(self.directory)
        self.schema = Schema(content["num_channels"], content["storage"], content["num_regions"])
        self.num_regions, self.num_channels = self.schema.num_regions, self.schema.num_channels
        self.info: dict = content["info"]
        lengths = content["shard_lengths"]
        self._paths = _shard_paths(self.directory, len(lengths))
        self._data = _map(self._paths)
        self.video_ids, self._facts = self._open_index(lengths)
        self.num_frames_V = self._facts["num_frames"].astype(np.int32)
        self._index = {video_id: i for i, video_id in enumerate(self.video_ids)}
        if len(self._index) != len(self.video_ids):
            twice = [v for i, v in enumerate(self.video_ids) if self._index[v] != i]
            raise UserError(
                f"a video must be in one shard of {self.directory}, {_list(twice)} in several; "
                "delete the folder and run preprocessing again"
            )

    def __len__(self):
        """Returns the number of records."""
        return len(self.video_ids)

    def __reduce__(self):
        """Pickles as the folder's path."""
        return type(self), (self.directory,)

    @property
    def max_frames(self) -> int:
        """Returns the frames of the longest record; 0 in an empty store."""
        return int(self.num_frames_V.max(initial=0))

    def rows(self, video_ids: Sequence[str]) -> np.ndarray:
        """Returns the record index of each video, int64.

        Raises:
            UserError: the store lacks a video.
        """
        if missing := [video_id for video_id in video_ids if video_id not in self._index]:
            raise UserError(
                f"every video of the view needs features in {self.directory}, {_list(missing)} "
                "missing; run preprocessing and build the view again"
            )
        return np.array([self._index[video_id] for video_id in video_ids], np.int64)

    def __getitem__(self, index: int) -> FrameRecord:
        """Returns record `index`; its arrays are read-only views of the map, perhaps unaligned.

        Raises:
            DamagedRecordError: the record is not as it was written.
        """
        facts, payload, spans = self._locate(index)
        self._verify(facts, [payload])
        arrays = {
            name: payload[spans[name]].view(field.dtype).reshape(field.shape_of(facts[1]))
            for name, field in self.schema.fields.items()
        }
        return FrameRecord(self.video_ids[index], **arrays)

    def copy(self, index: int, codes_FMC: np.ndarray) -> tuple[int, dict[str, np.ndarray]]:
        """Copies the codes of record `index`, and verifies the copy.

        The copy brings the bytes into the cache before the checksum reads them, which takes half
        the time of verifying first.

        Args:
            index: index of the record.
            codes_FMC: contiguous, of the schema's type, with room for the record's frames.

        Returns:
            (number of frames, arrays of `Schema.clip_fields`); they are views of the memory map.

        Raises:
            DamagedRecordError: the record is not as it was written.
        """
        facts, payload, spans = self._locate(index)
        num_frames, span = facts[1], spans["codes_FMC"]
        codes = codes_FMC[:num_frames].reshape(-1).view(np.uint8)
        codes[:] = payload[span]
        self._verify(facts, [payload[: span.start], codes])  # the codes are the last array
        fields = self.schema.clip_fields.items()
        return num_frames, {name: payload[spans[name]].view(f.dtype) for name, f in fields}

    def _open_index(self, lengths: list[int]) -> Index:
        """Returns the index in the file; if it cannot be used, scans the shards and writes it."""
        if index := read_index(self.directory / INDEX_FILE, self._data, self.schema):
            return index
        index = scan_shards(self._paths, self._data, self.schema)
        found = _lengths(index, len(lengths))
        for path, data, count, length in zip(self._paths, self._data, found, lengths, strict=True):
            if count != length:
                raise tfrecord.DamagedRecordError(path, data.size, f"{count} records, not {length}")
        with contextlib.suppress(OSError, UserError):  # the folder may be read-only
            write_index(self.directory / INDEX_FILE, index)
        return index

    def _locate(self, index: int) -> tuple[tuple[int, ...], np.ndarray, dict[str, slice]]:
        """Returns the index entry of a record, its data, and the positions of its arrays."""
        facts = self._facts[index].item()
        shard, num_frames, offset, size = facts[:4]
        payload = self._data[shard][(begin := offset + tfrecord.HEADER.size) : begin + size]
        return facts, payload, record_lib.array_spans(self.schema, num_frames, facts[5:])

    def _verify(self, facts: tuple[int, ...], parts: Sequence[np.ndarray]) -> None:
        shard, _, offset, _, crc = facts[:5]
        path = self._paths[shard]
        if tfrecord.verify(self._data[shard], offset, path, parts) != crc:
            raise UserError(
                f"{self.directory / INDEX_FILE} must match the shards beside it, but {path.name} "
                "was replaced; delete the index and run again"
            )


def _shard_paths(directory: Path, num_shards: int) -> list[Path]:
    return [shard_path(directory, index, num_shards) for index in range(num_shards)]


def _map(paths: list[Path]) -> list[np.ndarray]:
    try:
        return [tfrecord.map_file(path) for path in paths]
    except FileNotFoundError as error:
        raise _lost(error.filename) from None


def _lost(path: str | os.PathLike) -> UserError:
    return UserError(f"all shards must be there, {os.fspath(path)} is missing; {_REBUILD}")


def _lengths(index: Index, num_shards: int) -> list[int]:
    return np.bincount(index[1]["shard"], minlength=num_shards).tolist()


def _read_info(directory):
    path = directory / INFO_FILE
    if not directory.is_dir():
        raise UserError(f"features must be a folder of shards, got {directory}; run preprocessing")
    for name in (*metadata.FILES, INFO_FILE):
        if not (directory / name).exists():
            raise UserError(f"a folder of shards needs {name}, {directory} lacks it; {_REBUILD}")
    try:
        content = json.loads(path.read_bytes())
        if content["crc32c"] == _content_crc(content):
            return content
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} must be as it was written, its checksum fails; delete it, {_REBUILD}")


def _content_crc(content):
    rest = {key: value for key, value in content.items() if key != "crc32c"}
    return tfrecord.masked_crc32c([json.dumps(rest, sort_keys=True).encode()])


def _list(names):
    """Returns at most five names and how many more, with the verb.

    >>> _list(["a"]), _list(["a", "b"])
    ('a is', 'a, b are')
    """
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(str, names[:5])) + more + (" is" if len(names) == 1 else " are")
