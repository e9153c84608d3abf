"""Folders of shards: `frames-train.tfrecord-00012-of-00064` with TFDS metadata, read at random.

A shard is written alone, whole or not at all; the metadata follow when all are there.  TFDS reads
the folder with `tfds.builder_from_directory(DIR)`; training reads it with `FrameStore`.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from uhman_jax import storage
from uhman_jax.errors import UserError
from uhman_jax.shards import example, metadata, tfrecord
from uhman_jax.shards.example import FrameRecord, Schema

INFO_FILE = "extractor.json"  # ours; written last, so a folder that has it is complete
_REBUILD = "run preprocessing again, it rebuilds what is missing"


def shard_path(directory: str | os.PathLike, index: int, num_shards: int) -> Path:
    """File of shard `index` of `num_shards`.

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
    """Writes one shard, whole or not at all; its bytes depend on the arguments alone.

    Args:
        directory: exists.
        index: of this shard, from 0.
        num_shards: in the folder.
        records: with ids that no other shard of the folder has; may be empty, may be an iterator.
            If it raises, no shard is left behind.
        schema: of the folder.

    Raises:
        ValueError: a record that does not fit the schema, or an id twice.
    """
    path = shard_path(directory, index, num_shards)
    seen = set()

    def serialized():
        for record in records:
            if record.video_id in seen:
                raise ValueError(f"a video must be in a shard once, got {record.video_id!r} twice")
            seen.add(record.video_id)
            yield example.serialize(record, schema)

    tfrecord.write(path, serialized())
    return path


def read_heads(
    path: str | os.PathLike, schema: Schema, *, check_data: bool = False
) -> list[example.Head]:
    """Ids and frame counts of a shard, in order.

    A cheap test whether a shard on the disk is whole, from the heads alone; `check_data` reads
    everything and verifies every byte.

    Raises:
        DamagedRecordError: the file is cut short, a head (or a byte of data) is damaged, or its
            records do not fit the schema.
        FileNotFoundError: it is not there.
    """
    return _scan(tfrecord.map_file(path), path, schema, check_data)[1]


def write_metadata(
    directory: str | os.PathLike,
    num_shards: int,
    schema: Schema,
    info: dict,
    lengths: Sequence[int] | None = None,
) -> None:
    """Completes a folder whose shards are all written: TFDS metadata and `extractor.json`.

    Also removes what interrupted writers left behind, so no shard may be in the making.

    Args:
        directory: of the shards.
        num_shards: all of them.
        schema: of the records.
        info: how the features were made (weights and their fingerprint, frames per second,
            max_frames, versions ...): JSON values, kept in `FrameStore.info`.
        lengths: records of each shard; None: they are counted, which reads the heads of all and
            so copies all of a bucket's.

    Raises:
        UserError: a shard is missing or damaged.
    """
    directory = storage.path(directory)
    paths = [shard_path(directory, index, num_shards) for index in range(num_shards)]
    if missing := [path.name for path in paths if not path.exists()]:
        raise UserError(f"all shards must be there, {_list(missing)} missing; {_REBUILD}")
    storage.remove_leftovers(directory)
    if lengths is None:
        lengths = [len(read_heads(path, schema)) for path in paths]
    metadata.write(directory, lengths, sum(path.stat().st_size for path in paths), schema)
    content = {
        "storage": schema.storage,
        "num_regions": schema.num_regions,
        "num_channels": schema.num_channels,
        "shard_lengths": list(lengths),
        "info": info,
    }
    content["crc32c"] = _content_crc(content)
    with storage.replacing(directory / INFO_FILE) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


class FrameStore:
    """Random access to the records of a folder of shards, through memory maps.

    Every record that is read is verified by its checksum.  A store can be pickled (its folder is
    what is sent) and used from several threads.  Do not change the folder under an open store.

    Attributes:
        directory: of the shards.
        schema: of the records.
        info: what `write_metadata` was given.
        video_ids: of the records, in the order of the folder; unique.
        num_frames_V: int32, of each record.
    """

    def __init__(self, directory: str | os.PathLike):
        """Scans the heads of all shards.

        Raises:
            UserError: the folder is not there, not complete, or damaged; names the file.
        """
        self.directory = storage.path(directory)
        content = _read_info(self.directory)
        self.schema = Schema(content["num_channels"], content["storage"], content["num_regions"])
        self.info: dict = content["info"]
        lengths = content["shard_lengths"]
        self._paths = [shard_path(self.directory, i, len(lengths)) for i in range(len(lengths))]
        self._data = []
        heads, offsets, shards = [], [], []
        for index, (path, length) in enumerate(zip(self._paths, lengths, strict=True)):
            try:
                data = tfrecord.map_file(path)
            except FileNotFoundError:
                raise UserError(
                    f"all shards must be there, {path} is missing; {_REBUILD}"
                ) from None
            shard_offsets, shard_heads = _scan(data, path, self.schema)
            if len(shard_heads) != length:
                raise tfrecord.DamagedRecordError(
                    path, data.size, f"{len(shard_heads)} records instead of {length}"
                )
            self._data.append(data)
            heads += shard_heads
            offsets.append(shard_offsets)
            shards.append(np.full(length, index, np.int32))
        self._offset_V = np.concatenate([np.zeros(0, np.int64), *offsets])
        self._shard_V = np.concatenate([np.zeros(0, np.int32), *shards])
        self.video_ids = tuple(head.video_id for head in heads)
        self.num_frames_V = np.array([head.num_frames for head in heads], np.int32)
        self._id_size_V = [len(video_id.encode()) for video_id in self.video_ids]
        self._index = {video_id: i for i, video_id in enumerate(self.video_ids)}
        if len(self._index) != len(self.video_ids):
            twice = [v for i, v in enumerate(self.video_ids) if self._index[v] != i]
            raise UserError(
                f"a video must be in one shard of {self.directory}, {_list(twice)} in several; "
                "delete the folder and run preprocessing again"
            )

    @classmethod
    def open(cls, directory: str | os.PathLike) -> "FrameStore":
        """The store in a folder; see `__init__` for errors."""
        return cls(directory)

    def __len__(self):
        """Number of records."""
        return len(self.video_ids)

    def __reduce__(self):
        """Pickles as the folder's path."""
        return type(self), (self.directory,)

    @property
    def num_regions(self) -> int:
        """M."""
        return self.schema.num_regions

    @property
    def num_channels(self) -> int:
        """C."""
        return self.schema.num_channels

    @property
    def storage(self) -> str:
        """How codes are held: "uint8", "bfloat16" or "float32"."""
        return self.schema.storage

    @property
    def max_frames(self) -> int:
        """Frames of the longest record; 0 in an empty store."""
        return int(self.num_frames_V.max(initial=0))

    def rows(self, video_ids: Sequence[str]) -> np.ndarray:
        """Record index of each video, int64.

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
        """Record `index`; its arrays are read-only views of the memory map, perhaps unaligned.

        Raises:
            DamagedRecordError: the record is not what was written.
        """
        shard, offset = self._shard_V[index], int(self._offset_V[index])
        path = self._paths[shard]
        payload = tfrecord.read_at(self._data[shard], offset, path)
        try:
            return example.read(payload, self.schema)
        except ValueError as error:
            raise tfrecord.DamagedRecordError(path, offset, str(error)) from error

    def copy(self, index: int, codes_FMC: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        """Copies the codes of record `index`, and verifies the copy.

        The checksum is worked out over bytes that the copying has just brought into the cache:
        half the time of verifying first.

        Args:
            index: of the record.
            codes_FMC: contiguous, of the schema's type, with room for the record's frames.

        Returns:
            (number of frames, scale_C, offset_C); the arrays are views of the memory map.

        Raises:
            DamagedRecordError: the record is not what was written.
        """
        shard, offset = self._shard_V[index], int(self._offset_V[index])
        data, path, num_frames = (
            self._data[shard],
            self._paths[shard],
            int(self.num_frames_V[index]),
        )
        layout = example.layout(self._id_size_V[index], num_frames, self.schema)
        head = tfrecord.read_at(data, offset, path, check=False)
        begin, _ = layout.spans[example.CODES]
        before = head[begin - len(layout.before_codes) : begin].tobytes()
        if len(head) != layout.size or before != layout.before_codes:
            raise tfrecord.DamagedRecordError(path, offset, f"it does not fit {self.schema}")
        codes = codes_FMC[:num_frames].reshape(-1).view(np.uint8)
        codes[:] = head[begin:]
        tfrecord.check_at(data, offset, path, [head[:begin], codes])
        scale_C, offset_C = (
            head[slice(*layout.spans[name])].view("<f4") for name in (example.SCALE, example.OFFSET)
        )
        return num_frames, scale_C, offset_C


def _scan(data, path, schema, check_data=False):
    """Offsets and heads of the records of a shard."""
    offsets = tfrecord.index(data, path)
    heads = []
    for offset in offsets.tolist():
        try:
            payload = tfrecord.read_at(data, offset, path, check=check_data)
            head = example.read_head(payload)
            if head.num_frames < 1 or len(payload) <= head.num_frames * schema.frame_bytes:
                raise ValueError(f"too short for {head.num_frames} frames of {schema}")
        except ValueError as error:
            if isinstance(error, tfrecord.DamagedRecordError):
                raise
            raise tfrecord.DamagedRecordError(path, offset, str(error)) from error
        heads.append(head)
    return offsets, heads


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
    """At most five names and how many more, with the verb.

    >>> _list(["a"]), _list(["a", "b"])
    ('a is', 'a, b are')
    """
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(str, names[:5])) + more + (" is" if len(names) == 1 else " are")
