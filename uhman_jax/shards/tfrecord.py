"""TFRecord files: framing and checksums.

A record is: length (uint64), masked CRC32C of those 8 bytes, data, masked CRC32C of the data; all
little endian (tensorflow/core/lib/io/record_writer.h).
"""

import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Sequence

import crc32c
import numpy as np

from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
FRAMING = HEADER.size + FOOTER.size  # bytes of a record besides its data


class DamagedRecordError(UserError):
    """A shard is not as it was written.

    Attributes:
        path: path of the shard.
        offset: byte at which the damaged record begins.
    """

    def __init__(self, path: str | os.PathLike, offset: int, damage: str):
        self.path, self.offset, self.damage = storage.path(path), int(offset), damage
        super().__init__(
            f"{path}: every record must be as it was written, but the one at byte {offset} is "
            f"damaged ({damage}); delete this file and run preprocessing again, it rebuilds only "
            "this shard"
        )

    def __reduce__(self):
        """Pickles, so that worker processes can raise it."""
        return type(self), (self.path, self.offset, self.damage)


def masked_crc32c(parts: Iterable[bytes | bytearray | np.ndarray]) -> int:
    """Returns the checksum of the joined parts, rotated and offset as TFRecord defines it.

    >>> hex(masked_crc32c([b"1234", b"56789"]))  # CRC32C("123456789") is 0xe3069283
    '0xc78ab0e5'
    """
    crc = 0
    for part in parts:
        crc = crc32c.crc32c(part.data if isinstance(part, np.ndarray) else part, crc)  # no GIL
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def write(path: str | os.PathLike, records: Iterable[bytes | bytearray]) -> None:
    """Writes a TFRecord file atomically."""
    with storage.atomic_write(path) as file:
        for record in records:
            length = _LENGTH.pack(len(record))
            file.write(length + FOOTER.pack(masked_crc32c([length])))
            file.write(record)
            file.write(FOOTER.pack(masked_crc32c([record])))


def map_file(path: str | os.PathLike) -> np.ndarray:
    """Returns a read-only memory map of a file, or of the local copy of an object, as uint8."""
    with open(storage.cached_copy(path), "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # mmap refuses it
            return np.zeros(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def records(data: np.ndarray, path: str | os.PathLike) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yields the offset, the data and the checksum of each record in `map_file(path)`.

    It reads only the framing; `verify` detects damage inside the data.

    Raises:
        DamagedRecordError: a length fails its checksum or the file ends within a record.
    """
    offset = 0
    while offset < data.size:
        begin = offset + HEADER.size
        end = begin + _length(data, offset, path)
        yield offset, data[begin:end], FOOTER.unpack_from(data.data, end)[0]
        offset = end + FOOTER.size


def verify(
    data: np.ndarray, offset: int, path: str | os.PathLike, parts: Sequence[np.ndarray]
) -> int:
    """Returns the checksum of the record at byte `offset` of `map_file(path)`.

    Raises:
        DamagedRecordError: its data differs from the joined parts, contiguous uint8 arrays.
    """
    length, crc = _length(data, offset, path), masked_crc32c(parts)
    if length != sum(map(len, parts)):
        raise DamagedRecordError(path, offset, f"its data is {length} bytes long")
    if FOOTER.unpack_from(data.data, offset + HEADER.size + length) != (crc,):
        raise DamagedRecordError(path, offset, "its data does not match its checksum")
    return crc


def _length(data: np.ndarray, offset: int, path: str | os.PathLike) -> int:
    if data.size - offset < HEADER.size:
        raise DamagedRecordError(path, offset, "the file ends within its header")
    length, crc = HEADER.unpack_from(data.data, offset)
    if masked_crc32c([_LENGTH.pack(length)]) != crc:
        raise DamagedRecordError(path, offset, "its length does not match its checksum")
    if length > data.size - offset - FRAMING:
        raise DamagedRecordError(path, offset, "the file ends within its data")
    return length
