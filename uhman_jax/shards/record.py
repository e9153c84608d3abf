"""The bytes of one record: a tf.train.Example of named arrays, which TFDS reads too.

Each feature is one bytes value. Their order is fixed: video_id, times, head_crc32c, scale, offset,
codes. `head_crc32c` covers all bytes before it, so ids and numbers of frames can be verified
without reading the codes.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from uhman_jax.shards import quantize, tfrecord

ID, TIMES, HEAD = "video_id", "times", "head_crc32c"


class FrameRecord(NamedTuple):
    """Region features of one video: its id and the arrays of `Schema.fields`.

    Attributes:
        video_id: not empty.
        codes_FMC: uint8, bfloat16 or float32; F >= 1. A value is `code * scale + offset`.
        scale_C: float32; ones unless the codes are uint8.
        offset_C: float32; zeros unless the codes are uint8.
        times_F: float32 seconds from the start of the clip.
    """

    video_id: str
    codes_FMC: np.ndarray
    scale_C: np.ndarray
    offset_C: np.ndarray
    times_F: np.ndarray


class Field(NamedTuple):
    """An array of a record; None in `shape` stands for the number of frames."""

    name: str  # of the feature in the tf.train.Example
    dtype: np.dtype
    shape: tuple[int | None, ...]
    doc: str  # for TFDS

    def shape_of(self, num_frames: int) -> tuple[int, ...]:
        """Returns the shape in a record of `num_frames` frames."""
        return tuple(num_frames if size is None else size for size in self.shape)


@dataclasses.dataclass(frozen=True)
class Schema:
    """Types and sizes that all records of a folder of shards have in common.

    Attributes:
        num_channels: C.
        storage: "uint8", "bfloat16" or "float32".
        num_regions: M.
    """

    num_channels: int
    storage: str = "uint8"
    num_regions: int = 64

    @property
    def dtype(self) -> np.dtype:
        """Returns the type of the codes."""
        return quantize.DTYPES[self.storage]

    @property
    def frame_bytes(self) -> int:
        """Returns the bytes of the codes of one frame."""
        return self.num_regions * self.num_channels * self.dtype.itemsize

    @functools.cached_property
    def fields(self) -> dict[str, Field]:
        """Returns the arrays by attribute of `FrameRecord`, in file order.

        Times are first, codes last. To add an input of a clip, add an entry between them, and an
        attribute of this name to `FrameRecord`, `DecodedClip` and (with the axis B) `VideoInput`.
        """
        float32, channels = np.dtype("<f4"), (self.num_channels,)
        regions = (None, self.num_regions, self.num_channels)
        return {
            "times_F": Field(TIMES, float32, (None,), "Seconds from the start of the clip."),
            "scale_C": Field("scale", float32, channels, "value = code * scale + offset"),
            "offset_C": Field("offset", float32, channels, "value = code * scale + offset"),
            "codes_FMC": Field("codes", self.dtype, regions, "Region features."),
        }

    @functools.cached_property
    def clip_fields(self) -> dict[str, Field]:
        """Returns the fields of `fields` that have one value per clip, not per frame."""
        return {name: field for name, field in self.fields.items() if None not in field.shape}

    def check(self, record: FrameRecord) -> None:
        """Raises ValueError unless the record fits."""
        if not record.video_id:
            raise ValueError("a record needs a video_id, got an empty one")
        num_frames = max(len(record.times_F), 1)
        for attribute, field in self.fields.items():
            array, shape = getattr(record, attribute), field.shape_of(num_frames)
            finite = array.dtype != np.float32 or np.isfinite(array).all()
            if array.shape != shape or array.dtype != field.dtype or not finite:
                raise ValueError(
                    f"{field.name} of {record.video_id!r} must be finite {field.dtype} of shape "
                    f"{shape}, got {array.dtype} of shape {array.shape}; use quantize.pack"
                )


def serialize(record: FrameRecord, schema: Schema) -> bytearray:
    """Returns the bytes of a record, the same in every process.

    Raises:
        ValueError: the record does not fit the schema.
    """
    from tensorflow_datasets.proto import tf_feature_pb2  # takes 0.2 s; training does not need it

    def message(name: str, value: bytes) -> bytes:
        features = tf_feature_pb2.Features()  # type: ignore[missing-attribute]
        features.feature[name].bytes_list.value.append(value)
        return features.SerializeToString(deterministic=True)

    schema.check(record)
    fields = schema.fields.items()
    times, *arrays = (message(f.name, getattr(record, key).tobytes()) for key, f in fields)
    # Joining messages of one feature each gives a message of all features in this order; protobuf
    # would sort them by name. A nested message is encoded like bytes.
    features = [message(ID, record.video_id.encode()), times, message(HEAD, bytes(4)), *arrays]
    example = tf_feature_pb2.BytesList(value=[b"".join(features)])  # type: ignore[missing-attribute]
    data = bytearray(example.SerializeToString())
    payload = np.frombuffer(data, np.uint8)
    spans = _spans(payload)
    payload[spans[HEAD]] = _head_checksum(payload, spans)
    return data


def locate(payload: np.ndarray, schema: Schema) -> tuple[str, int, tuple[int, ...]]:
    """Returns id, number of frames and the position of each array of `Schema.fields` in a record.

    It reads no array, and verifies only the head.

    Raises:
        ValueError: the head is damaged, or the record does not fit the schema.
    """
    try:
        spans = _spans(payload)
        if not np.array_equal(payload[spans[HEAD]], _head_checksum(payload, spans)):
            raise ValueError("its head does not match its checksum")
        video_id = str(payload[spans[ID]].data, "utf-8")
        found = {attribute: spans[field.name] for attribute, field in schema.fields.items()}
    except (IndexError, KeyError) as error:
        raise ValueError("it is not a record of frames") from error
    num_frames = len(payload[spans[TIMES]]) // 4
    begins = tuple(span.start for span in found.values())
    fits = found == array_spans(schema, num_frames, begins)
    if not num_frames or not fits or found["codes_FMC"].stop != len(payload):
        raise ValueError(f"it does not fit {schema}")
    return video_id, num_frames, begins


@functools.lru_cache(maxsize=4096)
def array_spans(schema: Schema, num_frames: int, begins: tuple[int, ...]) -> dict[str, slice]:
    """Returns the positions of the arrays of a record, by attribute; see `locate`."""
    spans = {}
    for begin, (attribute, field) in zip(begins, schema.fields.items(), strict=True):
        size = math.prod(field.shape_of(num_frames)) * field.dtype.itemsize
        spans[attribute] = slice(begin, begin + size)
    return spans


def _head_checksum(payload: np.ndarray, spans: dict[str, slice]) -> np.ndarray:
    crc = tfrecord.masked_crc32c([payload[: spans[TIMES].stop]])
    return np.frombuffer(crc.to_bytes(4, "little"), np.uint8)


def _spans(payload: np.ndarray) -> dict[str, slice]:
    """Returns the positions of the features' values; protobuf's parser would copy the values."""
    data, spans = payload.data, {}
    (features,) = _lengths(data, slice(0, len(data)))
    for entry in _lengths(data, features):
        key, value = _lengths(data, entry)
        (values,) = _lengths(data, value)  # of Feature.bytes_list
        (spans[str(data[key], "utf-8")],) = _lengths(data, values)
    return spans


def _lengths(data: memoryview, message: slice) -> Iterator[slice]:
    """Yields the position of each field of a message: each has a tag, a length and bytes."""
    begin = message.start
    while begin < message.stop:
        size = 0
        for shift in range(0, 63, 7):  # 7 bits in each byte, the lowest first
            begin += 1
            size |= (data[begin] & 127) << shift
            if data[begin] < 128:
                break
        yield slice(begin + 1, begin + 1 + size)
        begin += 1 + size
