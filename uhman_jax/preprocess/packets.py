"""The packets of a video file: opening it safely, when each frame is shown, which to keep."""

import dataclasses
import hashlib
import os
import stat

import av
import numpy as np

# PyAV raises more than its own errors on damaged files: UnicodeDecodeError (a ValueError) on bad
# metadata, AttributeError on a missing header box, EOFError, plain OSError.
LIBRARY_ERRORS = (av.FFmpegError, OSError, AttributeError, EOFError, ValueError, OverflowError)

# Demuxers that open other files, addresses or devices, or that draw text as if it were a film.
_DENIED_FORMATS = frozenset(
    "adf aptx bin concat concatf dash fbdev ffmetadata hls idf image2 image2pipe imf kmsgrab lavfi "
    "oss alsa rawvideo rtp rtsp sap sdp smoothstreaming tty v4l2 video4linux2 vapoursynth avisynth "
    "vobsub webm_dash_manifest webm_chunk x11grab xbin".split()
)
_FORMATS = ",".join(sorted(av.formats_available - _DENIED_FORMATS))
_EPSILON = 1e-6  # of a sampling interval: timestamps are rounded to the container's time base


class DecodeError(Exception):
    """A file that yields no frame.

    Attributes:
        kind: "short" (a video stream without one frame), "corrupt", "no_video" or "unsupported".
        reason: one sentence.
    """

    def __init__(self, kind: str, reason: str):
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Index:
    """The packets of a video stream, in file order.

    Attributes:
        key: int64, timestamp in `time_base`, or the packet's number where the file has none.
        segment: int64, group of pictures: a new one starts at every key frame.
        shown: bool, False for packets that an edit list hides.
        counted: the file has no timestamps; frames are matched by their number.
        time_base: seconds per unit of `key`.
        last_duration: of the packet shown last, in units of `key`; 0 = unknown.
        content: hash of all packets, in hexadecimal: equal for copies of one file.
    """

    key: np.ndarray
    segment: np.ndarray
    shown: np.ndarray
    counted: bool
    time_base: float
    last_duration: int
    content: str

    def starts(self) -> np.ndarray:
        """Distinct keys of the shown frames, in the order in which they are shown."""
        return np.unique(self.key[self.shown])


def require_regular_file(path: str, max_megabytes: float) -> None:
    """Raises DecodeError unless there is a regular file with something in it, and not too much."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise DecodeError(
            "corrupt", f"the file cannot be read: {getattr(error, 'strerror', error)}"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError("corrupt", "not a regular file")
    require_size(status.st_size, max_megabytes)


def require_size(num_bytes: int, max_megabytes: float) -> None:
    """Raises DecodeError where a file is empty or too large."""
    if not num_bytes:
        raise DecodeError("corrupt", "the file is empty")
    if num_bytes > max_megabytes * 1e6:
        size = f"{num_bytes / 1e6:.1f} MB"
        raise DecodeError("unsupported", f"{size} exceed the limit of {max_megabytes:g} MB")


def open_stream(path: str, max_megapixels: float):
    """Opens a file and its best video stream, single-threaded: (container, stream).

    Only the file itself is read: other protocols, and formats that open further files, are off.

    Raises:
        DecodeError: there is no video that can be decoded.
    """
    try:
        container = av.open(
            "file:" + path,  # or a name such as "concat:x" would be taken for a protocol
            options={"protocol_whitelist": "file", "format_whitelist": _FORMATS},
            metadata_errors="ignore",
        )
    except LIBRARY_ERRORS as error:
        reason = describe(error)
        if "whitelist" in reason:
            reason = "playlists and other formats that open further files are not read"
            raise DecodeError("unsupported", reason) from None
        raise DecodeError("corrupt", f"the container cannot be opened: {reason}") from None
    try:
        return container, _select_stream(container, max_megapixels)
    except DecodeError:
        container.close()
        raise
    except LIBRARY_ERRORS as error:
        container.close()
        raise DecodeError("corrupt", f"the header cannot be read: {describe(error)}") from None


def _select_stream(container, max_megapixels: float):
    covers = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & covers]
    if not streams:
        held = sorted({s.type for s in container.streams}) or ["nothing"]
        raise DecodeError("no_video", f"no video stream; the file holds {', '.join(held)}")
    best = container.streams.best("video")
    stream = best if any(best is not None and s.index == best.index for s in streams) else None
    stream = stream or streams[0]
    context = stream.codec_context
    if context is None:
        raise DecodeError("unsupported", "this FFmpeg has no decoder for the video's codec")
    if context.width * context.height > max_megapixels * 1e6:
        raise DecodeError(
            "unsupported",
            f"pictures of {context.width}x{context.height} pixels exceed the limit of"
            f" {max_megapixels:g} megapixels",
        )
    # For pictures that grow within the stream; the codec counts its padding too.
    context.options = {"max_pixels": str(int(max_megapixels * 2e6) + (1 << 20))}
    context.thread_count = 1  # parallel over clips, and memory that can be foretold
    stream.thread_type = "NONE"
    return stream


def describe(error: Exception) -> str:
    """One line about an error of the library, without the path of the file."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    log = getattr(error, "log", None)  # (level, component, message)
    if log and isinstance(log[-1], str) and log[-1].strip():
        text += f" ({log[-1].strip()})"
    return " ".join(text.split())


def read_index(path: str, max_megapixels: float, max_seconds: float) -> tuple[Index, float, str]:
    """Reads all packets without decoding; returns (index, seconds shown, note).

    Raises:
        DecodeError: no frame, or a clip that is too long; it is not read further than that.
    """
    container, stream = open_stream(path, max_megapixels)
    packets, note = [], ""  # (key, duration, key frame, shown)
    content = hashlib.blake2b(digest_size=16)
    with container:
        declared = float(stream.duration * stream.time_base) if stream.duration else 0.0
        if not declared and len(container.streams) == 1:
            declared = (container.duration or 0) / av.time_base
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        time_base = float(stream.time_base or 0)
        try:
            for packet in container.demux(stream):
                if packet.size:
                    content.update(memoryview(packet))
                    shown = not packet.is_discard
                    packets.append((packet.pts, packet.duration, packet.is_keyframe, shown))
                    if len(packets) > max_seconds * rate:  # timestamps may be garbage
                        raise DecodeError(
                            "unsupported", f"the clip is longer than the limit of {max_seconds:g} s"
                        )
        except LIBRARY_ERRORS as error:
            note = f"reading stopped early: {describe(error)}"
    if not packets:
        if note:
            raise DecodeError("corrupt", f"no frame could be read: {note}")
        raise DecodeError("short", "the video stream holds no frame")
    index = _build_index(packets, time_base, rate, content.hexdigest())
    starts = index.starts()
    seconds = float(starts[-1] - starts[0] + _last_duration(index)) * index.time_base
    if declared > 1.1 * seconds + 0.5 and not index.counted:
        note = note or f"the header promises {declared:.1f} s, the file ends at {seconds:.1f} s"
    return index, seconds, note


def _build_index(packets: list[tuple], time_base: float, rate: float, content: str) -> Index:
    keys, durations, key_frames, shown = zip(*packets, strict=True)
    shown = np.array(shown) | (not any(shown))
    counted = time_base <= 0 or any(k is None for k, s in zip(keys, shown, strict=True) if s)
    if counted:
        keys, durations, time_base = range(len(keys)), (1,) * len(keys), 1 / rate
    key = np.array([0 if k is None else k for k in keys], np.int64)
    segment = np.cumsum(np.array(key_frames, np.int64))
    last = int(np.argmax(np.where(shown, key, np.iinfo(np.int64).min)))
    last_duration = max(0, durations[last] or 0)
    return Index(key, segment, shown, counted, time_base, last_duration, content)


def _last_duration(index: Index) -> float:
    """How long the last frame is shown, in units of the key; the usual gap where unknown."""
    starts = index.starts()
    if index.last_duration:
        return index.last_duration
    return float(np.median(np.diff(starts))) if len(starts) > 1 else 0.0


def choose(index: Index, frames_per_second: float, max_frames: int) -> dict[int, float]:
    """Keys of the frames to keep -> the time in seconds at which each is sampled."""
    starts = index.starts()
    unit = index.time_base * frames_per_second  # sampling intervals per unit of the key
    begin = (starts - starts[0]).astype(np.float64) * unit
    end = np.append(begin[1:], begin[-1] + _last_duration(index) * unit)
    # The first sampling time at or after the frame appears (+ 0.0: never -0.0).
    sample = np.ceil(begin - _EPSILON) + 0.0
    hit = sample < end - _EPSILON
    hit[0] = True
    (rows,) = np.nonzero(hit)
    count = len(rows)
    if count > max_frames:
        rows = rows[(2 * np.arange(max_frames) + 1) * count // (2 * max_frames)]
    return {int(starts[row]): float(sample[row] / frames_per_second) for row in rows}


def needed_segments(index: Index, wanted: dict[int, float]) -> frozenset[int]:
    """Groups of pictures that must be decoded to have the wanted frames.

    A frame shown before the key frame of its group (open group) also refers to the group before.
    """
    rows = np.isin(index.key, np.array(list(wanted), np.int64))
    segments, first = np.unique(index.segment, return_index=True)
    begin = index.key[first][np.searchsorted(segments, index.segment)]
    leading = rows & (index.key < begin)
    return frozenset(map(int, index.segment[rows])) | {int(s) - 1 for s in index.segment[leading]}
