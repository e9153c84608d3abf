"""TFRecord files with random access: framing, checksums and an index made from headers alone.

A record is: length (uint64), masked CRC32C of those 8 bytes, data, masked CRC32C of the data; all
little endian (tensorflow/core/lib/io/record_writer.h).
"""

import mmap
import os
import struct
from collections.abc import Iterable, Sequence

import crc32c
import numpy as np

from uhman_jax import storage
from uhman_jax.errors import UserError
from uhman_jax.storage import replacing

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")


class DamagedRecordError(UserError):
    """A shard does not hold what was written to it.

    Attributes:
        path: of the file.
        offset: byte at which the damaged record begins.
    """

    def __init__(self, path: str | os.PathLike, offset: int, what: str):
        self.path, self.offset, self.what = storage.path(path), int(offset), what
        super().__init__(
            f"{path}: every record must be as it was written, but the one at byte {offset} is "
            f"damaged ({what}); delete this file and run preprocessing again, it rebuilds this "
            "shard alone"
        )

    def __reduce__(self):
        """Pickles, so that worker processes can raise it."""
        return type(self), (self.path, self.offset, self.what)


def masked_crc32c(parts: Iterable[bytes | np.ndarray]) -> int:
    """Checksum of the parts in a row, rotated and offset as TFRecord wants it.

    >>> hex(masked_crc32c([b"1234", b"56789"]))  # CRC32C("123456789") is 0xe3069283
    '0xc78ab0e5'
    """
    crc = 0
    for part in parts:
        buffer = part if isinstance(part, bytes) else part.data
        crc = crc32c.crc32c(buffer, crc)  # other threads go on meanwhile
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def write(path: str | os.PathLike, records: Iterable[Sequence[bytes | np.ndarray]]) -> int:
    """Writes a TFRecord file, whole or not at all; returns the number of records.

    Args:
        path: replaced if it exists.
        records: each as parts, bytes or contiguous uint8 arrays, that follow one another in the
            file (so large arrays need not be joined first).
    """
    num_records = 0
    with replacing(path) as file:
        for parts in records:
            length = _LENGTH.pack(sum(len(part) for part in parts))
            file.write(length + FOOTER.pack(masked_crc32c([length])))
            for part in parts:
                file.write(part if isinstance(part, bytes) else part.data)
            file.write(FOOTER.pack(masked_crc32c(parts)))
            num_records += 1
    return num_records


def map_file(path: str | os.PathLike) -> np.ndarray:
    """Bytes of a file as a read-only uint8 array over a memory map (an empty file too).

    Of an object, those of its copy on this machine.
    """
    with open(storage.cached(path), "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # mmap refuses it
            return np.zeros(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def index(data: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """Byte at which each record begins, int64; reads headers only.

    Args:
        data: from `map_file(path)`.
        path: for messages.

    Raises:
        DamagedRecordError: a length fails its checksum or the file ends within a record.  Damage
            inside the data shows in `read_at`.
    """
    offsets = []
    offset = 0
    while offset < data.size:
        offsets.append(offset)
        offset += HEADER.size + _length(data, offset, path) + FOOTER.size
    return np.array(offsets, np.int64)


def read_at(
    data: np.ndarray, offset: int, path: str | os.PathLike, *, check: bool = True
) -> np.ndarray:
    """Data of the record at byte `offset`: a read-only uint8 view, nothing is copied.

    Args:
        data: from `map_file(path)`.
        offset: from `index`.
        path: for messages.
        check: False skips the checksum of the data.

    Raises:
        DamagedRecordError: a checksum fails or the file ends within the record.
    """
    length = _length(data, offset, path)
    begin = offset + HEADER.size
    payload = data[begin : begin + length]
    if check:
        check_at(data, offset, path, [payload])
    return payload


def check_at(
    data: np.ndarray, offset: int, path: str | os.PathLike, parts: Sequence[np.ndarray]
) -> None:
    """Raises DamagedRecordError unless the parts in a row are the data of the record at `offset`.

    Args:
        data: from `map_file(path)`.
        offset: of a record that `read_at` accepts.
        path: for messages.
        parts: contiguous uint8 arrays, as long together as the data.
    """
    footer = offset + HEADER.size + sum(map(len, parts))
    (expected,) = FOOTER.unpack_from(data.data, footer)
    if masked_crc32c(parts) != expected:
        raise DamagedRecordError(path, offset, "its data does not match its checksum")


def _length(data, offset, path):
    if data.size - offset < HEADER.size:
        raise DamagedRecordError(path, offset, "the file ends within its header")
    length, crc = HEADER.unpack_from(data.data, offset)
    if masked_crc32c([_LENGTH.pack(length)]) != crc:
        raise DamagedRecordError(path, offset, "its length does not match its checksum")
    if length > data.size - offset - HEADER.size - FOOTER.size:
        raise DamagedRecordError(path, offset, "the file ends within its data")
    return length
