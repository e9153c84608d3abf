"""The bytes of one record: a tf.train.Example as TFDS reads it, written and read without copies.

TFDS's own serialiser is not used for the records: the order of its fields differs from process to
process (a shard must be the same bytes wherever it is made), it takes 0.36 ms for a record of 1 MB
and its parser 0.15 ms (here 0.015 ms each, no copies), and it may put the id behind the features,
where a scan does not want to look.  `tests/store_test.py` holds these bytes against TFDS's parsers.

Every feature is one bytes value.  The order is fixed: video_id, times, head_crc32c, scale, offset,
codes.  `head_crc32c` covers all bytes of the record before it, so that a scan of the heads can
trust ids and frame counts without reading the features.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from uhman_jax.shards import quantize, tfrecord

ID, TIMES, HEAD = "video_id", "times", "head_crc32c"
SCALE, OFFSET, CODES = "scale", "offset", "codes"
ORDER = (ID, TIMES, HEAD, SCALE, OFFSET, CODES)
_TAG_1, _TAG_2 = b"\x0a", b"\x12"  # protocol buffers: field 1 or 2, length-delimited


class FrameRecord(NamedTuple):
    """Region features of one video.

    Attributes:
        video_id: not empty.
        codes_FMC: uint8, bfloat16 or float32; F >= 1.  A value is `code * scale + offset`.
        scale_C: float32; ones unless the codes are uint8.
        offset_C: float32; zeros unless the codes are uint8.
        times_F: float32 seconds from the start of the clip.
    """

    video_id: str
    codes_FMC: np.ndarray
    scale_C: np.ndarray
    offset_C: np.ndarray
    times_F: np.ndarray


@dataclasses.dataclass(frozen=True)
class Schema:
    """What every record of a folder of shards has in common.

    Attributes:
        num_channels: C.
        storage: "uint8", "bfloat16" or "float32".
        num_regions: M.
    """

    num_channels: int
    storage: str = "uint8"
    num_regions: int = 64

    def __post_init__(self):
        """Raises ValueError on a storage that is not known or an empty axis."""
        if self.storage not in quantize.DTYPES:
            known = ", ".join(quantize.DTYPES)
            raise ValueError(f"storage must be one of {known}, got {self.storage!r}")
        if self.num_channels < 1 or self.num_regions < 1:
            raise ValueError(f"a schema needs a region and a channel or more, got {self}")

    @property
    def dtype(self) -> np.dtype:
        """Type of the codes."""
        return quantize.DTYPES[self.storage]

    @property
    def frame_bytes(self) -> int:
        """Bytes of the codes of one frame."""
        return self.num_regions * self.num_channels * self.dtype.itemsize

    def check(self, record: FrameRecord) -> None:
        """Raises ValueError unless the record fits."""
        frame_shape = (self.num_regions, self.num_channels)
        codes = record.codes_FMC
        if codes.ndim != 3 or not len(codes) or codes.shape[1:] != frame_shape:
            raise ValueError(
                f"codes of {record.video_id!r} must be (1 or more, {self.num_regions}, "
                f"{self.num_channels}), got {codes.shape}"
            )
        if codes.dtype != self.dtype:
            raise ValueError(
                f"codes of {record.video_id!r} must be {self.storage}, got {codes.dtype}"
            )
        if not record.video_id:
            raise ValueError("a record needs a video_id, got an empty one")
        for name, array, size in (
            ("scale", record.scale_C, self.num_channels),
            ("offset", record.offset_C, self.num_channels),
            ("times", record.times_F, len(codes)),
        ):
            if array.shape != (size,) or array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(
                    f"{name} of {record.video_id!r} must be {size} finite float32, got "
                    f"{array.dtype} of shape {array.shape}; pack features with quantize.pack"
                )


def serialize(record: FrameRecord, schema: Schema) -> list[bytes | np.ndarray]:
    """Bytes of a record in two parts; the second is the codes themselves.

    Args:
        record: fits the schema (ValueError otherwise).
        schema: of its folder.
    """
    schema.check(record)
    values = {
        ID: record.video_id.encode(),
        TIMES: record.times_F.astype("<f4").tobytes(),
        HEAD: bytes(4),
        SCALE: record.scale_C.astype("<f4").tobytes(),
        OFFSET: record.offset_C.astype("<f4").tobytes(),
    }
    codes = np.ascontiguousarray(record.codes_FMC).reshape(-1).view(np.uint8)
    head, starts = _starts(len(values[ID]), len(record.times_F), schema)
    for name in (ID, TIMES):
        head += starts[name] + values[name]
    values[HEAD] = tfrecord.masked_crc32c([head]).to_bytes(4, "little")
    for name in (HEAD, SCALE, OFFSET):
        head += starts[name] + values[name]
    return [head + starts[CODES], codes]


class Layout(NamedTuple):
    """Where the fields of a record lie in its data, which end with the codes.

    Attributes:
        size: bytes of the data.
        spans: (begin, end) of each field's value, by name.
        before_codes: the bytes that stand directly before the codes.
    """

    size: int
    spans: dict[str, tuple[int, int]]
    before_codes: bytes


@functools.lru_cache(maxsize=4096)
def layout(id_size: int, num_frames: int, schema: Schema) -> Layout:
    """The layout of a record whose id has so many bytes; `serialize` writes no other."""
    head, starts = _starts(id_size, num_frames, schema)
    spans, position = {}, len(head)
    for name, size in _sizes(id_size, num_frames, schema).items():
        begin = position + len(starts[name])
        spans[name] = begin, begin + size
        position = begin + size
    return Layout(position, spans, starts[CODES])


def _sizes(id_size, num_frames, schema):
    """Bytes of each field's value, in order."""
    channels = 4 * schema.num_channels
    sizes = (id_size, 4 * num_frames, 4, channels, channels, num_frames * schema.frame_bytes)
    return dict(zip(ORDER, sizes, strict=True))


def _starts(id_size, num_frames, schema):
    """The first bytes of a record, and those before each field's value."""
    sizes = _sizes(id_size, num_frames, schema)
    starts = {name: _entry_start(name, size) for name, size in sizes.items()}
    return _TAG_1 + _varint(sum(sizes.values()) + sum(map(len, starts.values()))), starts


class Head(NamedTuple):
    """What a scan learns of a record: its id and its number of frames F."""

    video_id: str
    num_frames: int


def read_head(payload: np.ndarray) -> Head:
    """Id and number of frames, verified by the head's checksum; touches only the first bytes.

    Args:
        payload: uint8 data of a record.

    Raises:
        ValueError: the head is not as it was written; says what is wrong.
    """
    data = payload.data
    try:
        _, position = _read_varint(data, 1)
        id_from, id_to = _read_entry(data, position, ID)
        times_from, times_to = _read_entry(data, id_to, TIMES)
        crc_from, crc_to = _read_entry(data, times_to, HEAD)
        crc = int.from_bytes(data[crc_from:crc_to], "little")
        if crc != tfrecord.masked_crc32c([payload[:times_to]]):
            raise ValueError("its head does not match its checksum")
        return Head(str(data[id_from:id_to], "utf-8"), (times_to - times_from) // 4)
    except IndexError as error:
        raise ValueError("its head is not that of a record of frames") from error


def read(payload: np.ndarray, schema: Schema) -> FrameRecord:
    """The record in these bytes; its arrays are read-only views of them, perhaps unaligned.

    Args:
        payload: uint8 data of a record, verified by its checksum.
        schema: of its folder.

    Raises:
        ValueError: the bytes are those of another schema.
    """
    data = payload.data
    spans = {}
    _, position = _read_varint(data, 1)
    for name in ORDER:
        spans[name] = _read_entry(data, position, name)
        position = spans[name][1]

    def array(name, dtype):
        begin, end = spans[name]
        return payload[begin:end].view(dtype)

    shape = (-1, schema.num_regions, schema.num_channels)
    record = FrameRecord(
        video_id=str(data[slice(*spans[ID])], "utf-8"),
        codes_FMC=array(CODES, schema.dtype).reshape(shape),
        scale_C=array(SCALE, "<f4"),
        offset_C=array(OFFSET, "<f4"),
        times_F=array(TIMES, "<f4"),
    )
    if len(record.codes_FMC) != len(record.times_F):
        raise ValueError(f"it holds {record.codes_FMC.shape} codes, {len(record.times_F)} times")
    if not len(record.scale_C) == len(record.offset_C) == schema.num_channels:
        raise ValueError(f"it holds scales of {len(record.scale_C)} channels")
    return record


def _varint(number):
    """Protocol buffers' variable-length integer: 7 bits a byte, lowest first."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


@functools.lru_cache(maxsize=4096)
def _entry_start(name, size):
    """Bytes before a value of `size` bytes: Features.feature[name].bytes_list.value[0]."""
    value = _TAG_1 + _varint(size)
    values = _TAG_1 + _varint(len(value) + size) + value
    feature = _TAG_2 + _varint(len(values) + size) + values
    key = _TAG_1 + _varint(len(name)) + name.encode()
    return _TAG_1 + _varint(len(key) + len(feature) + size) + key + feature


def _read_varint(data, position):
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
        shift += 7


def _read_entry(data, position, name):
    """(begin, end) of the value of the map entry at `position`, which must be called `name`."""
    _, position = _read_varint(data, position + 1)
    key_size, position = _read_varint(data, position + 1)
    if data[position : position + key_size] != name.encode():
        raise ValueError(f"it has no {name} where one belongs")
    position += key_size
    for _ in range(3):  # Feature, BytesList, value
        size, position = _read_varint(data, position + 1)
    if position + size > len(data):
        raise ValueError(f"its {name} is longer than the record")
    return position, position + size
