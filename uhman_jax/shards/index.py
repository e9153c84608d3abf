"""The index of a folder of shards: the position of each record and of its arrays."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uhman_jax.runtime import storage
from uhman_jax.shards import record, tfrecord
from uhman_jax.shards.record import Schema

INDEX_FILE = "index.npz"
Index = tuple[tuple[str, ...], np.ndarray]  # ids and entries (`fact_type`) of all records, in order


def fact_type(schema: Schema) -> np.dtype:
    """Returns the type of a record's index entry; `begin_*` are byte positions of its arrays."""
    facts = [("shard", "<i4"), ("num_frames", "<i4"), ("offset", "<i8"), ("size", "<i8")]
    begins = [(f"begin_{field.name}", "<i4") for field in schema.fields.values()]
    return np.dtype([*facts, ("crc32c", "<u4"), *begins])


def write_index(path: Path, index: Index) -> None:
    """Writes an index as .npz and a checksum, atomically; its bytes are reproducible."""
    buffer = io.BytesIO()
    ids = np.frombuffer(json.dumps(index[0]).encode(), np.uint8)
    np.savez(buffer, video_ids=ids, facts=index[1])
    with storage.atomic_write(path) as file:
        file.write(buffer.getvalue() + _checksum(buffer.getvalue()))


def read_index(path: Path, data: Sequence[np.ndarray], schema: Schema) -> Index | None:
    """Returns the index in a file; None if it is missing, damaged or belongs to other shards."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if _checksum(content[:-4]) != content[-4:]:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        ids, facts = tuple(json.loads(arrays["video_ids"].tobytes())), arrays["facts"]
    if facts.dtype != fact_type(schema):
        return None
    ends = np.zeros(len(data), np.int64)
    np.maximum.at(ends, facts["shard"], facts["offset"] + facts["size"] + tfrecord.FRAMING)
    return (ids, facts) if ends.tolist() == [content.size for content in data] else None


def _checksum(content: bytes) -> bytes:
    return tfrecord.masked_crc32c([content]).to_bytes(4, "little")


def scan_shards(paths: Sequence[Path], data: Sequence[np.ndarray], schema: Schema) -> Index:
    """Returns the index of shards with content `data`; reads the framing and head of each record.

    Raises:
        DamagedRecordError: a file is cut short, or a head is damaged or does not fit the schema.
    """
    ids, facts = [], []
    for shard, (path, content) in enumerate(zip(paths, data, strict=True)):
        for offset, payload, crc in tfrecord.records(content, path):
            try:
                video_id, num_frames, begins = record.locate(payload, schema)
            except ValueError as error:
                raise tfrecord.DamagedRecordError(path, offset, str(error)) from error
            ids.append(video_id)
            facts.append((shard, num_frames, offset, len(payload), crc, *begins))
    return tuple(ids), np.array(facts, fact_type(schema))
