"""Opens a video file safely, reads when each frame is shown, and chooses the frames to keep."""

import fractions
import hashlib
import os
from typing import Any

import av
import numpy as np

from uhman_jax.preprocess.clip_file import FRAME_TIMES, DecodeError
from uhman_jax.preprocess.packet_times import TOO_LONG, Index, PacketTimes

# PyAV raises more than its own errors on damaged files: UnicodeDecodeError (a ValueError) on bad
# metadata, AttributeError on a missing header box, EOFError, plain OSError.
LIBRARY_ERRORS = (av.FFmpegError, OSError, AttributeError, EOFError, ValueError, OverflowError)

# Demuxers that open other files, addresses or devices, or that draw text as video.
_DENIED_FORMATS = frozenset(
    "adf aptx bin concat concatf dash fbdev ffmetadata hls idf image2 image2pipe imf kmsgrab lavfi "
    "oss alsa rawvideo rtp rtsp sap sdp smoothstreaming tty v4l2 video4linux2 vapoursynth avisynth "
    "vobsub webm_dash_manifest webm_chunk x11grab xbin".split()
)
_FORMATS = ",".join(sorted(av.formats_available - _DENIED_FORMATS))
# PyAV 19 always ignores these errors and has no option for it.
_METADATA: dict[str, Any] = (
    {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
)
_EPSILON = 1e-6  # of a sampling interval: timestamps are rounded to the container's time base
ENCRYPTED = "the video is encrypted; without its key no frame can be decoded"
# Gap in seconds that separates two pieces, for formats whose files may be joined (True) and others
# (False), in which one picture may be shown for long.
_GAPS = {True: 10.0, False: 3600.0}
_MPEG_CLOCK = fractions.Fraction(1, 90_000)  # time base of timestamps with 33 bits


def open_stream(path: str, max_megapixels: float):
    """Returns (container, stream) of a file and its best video stream, single-threaded.

    Only the file itself is read: other protocols, and formats that open further files, are denied.
    FFmpeg gets a file descriptor, because a name could be taken for a protocol or a pattern, may
    not be UTF-8, and its suffix would influence the format.

    Raises:
        DecodeError: there is no video that can be decoded.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise DecodeError("corrupt", f"the file cannot be read: {error.strerror}") from None
    options = {"protocol_whitelist": "fd", "format_whitelist": _FORMATS, "fd": str(descriptor)}
    try:
        container = av.open("fd:", options=options, **_METADATA)
    except LIBRARY_ERRORS as error:
        reason = describe(error)
        if "whitelist" in reason:
            reason = "playlists and other formats that open further files are not read"
            raise DecodeError("unsupported", reason) from None
        raise DecodeError("corrupt", f"the container cannot be opened: {reason}") from error
    finally:
        os.close(descriptor)  # FFmpeg has a duplicate
    try:
        return container, _select_stream(container, max_megapixels)
    except DecodeError:
        container.close()
        raise
    except LIBRARY_ERRORS as error:
        container.close()
        raise DecodeError("corrupt", f"the header cannot be read: {describe(error)}") from error


def _select_stream(container, max_megapixels: float):
    covers = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & covers]
    if not streams:
        found = sorted({s.type for s in container.streams}) or ["nothing"]
        raise DecodeError("no_video", f"no video stream; the file holds {', '.join(found)}")
    best = container.streams.best("video")
    stream = next((s for s in streams if best is not None and s.index == best.index), streams[0])
    context = stream.codec_context
    if context is None:
        raise DecodeError("unsupported", "this FFmpeg has no decoder for the video's codec")
    if "enc_key_id" in stream.metadata:  # of Matroska
        raise DecodeError("unsupported", ENCRYPTED)
    if context.width * context.height > max_megapixels * 1e6:
        raise DecodeError(
            "unsupported",
            f"pictures of {context.width}x{context.height} pixels exceed the limit of"
            f" {max_megapixels:g} megapixels",
        )
    # Pictures may grow within the stream; the codec's limit includes padding.
    context.options = {"max_pixels": str(int(max_megapixels * 2e6) + (1 << 20))}
    context.thread_count = 1  # clips are decoded in parallel, and memory is predictable
    stream.thread_type = "NONE"
    return stream


def describe(error: Exception) -> str:
    """Returns one line about an error of the library, without the path of the file."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    log = getattr(error, "log", None)  # (level, component, message)
    if log and isinstance(log[-1], str) and log[-1].strip():
        text += f" ({log[-1].strip()})"
    return " ".join(text.split())


def read_index(
    path: str, max_megapixels: float, max_seconds: float, frame_times: int = FRAME_TIMES
) -> tuple[Index, float, str]:
    """Reads all packets without decoding; returns (index, seconds shown, note).

    Args:
        path: the file.
        max_megapixels: larger pictures are refused.
        max_seconds: longer clips, and clips with too many packets for that time, are refused.
        frame_times: version of the rule for frame times. 1: the timestamps of the file. 2: where
            they restart or jump, later frames follow earlier ones; and if packet durations in the
            header are too long, the last frame is shown as long as the others.

    Raises:
        DecodeError: the clip has no frame, or is too long; reading stops at the limit.
    """
    container, stream = open_stream(path, max_megapixels)
    note, latest = "", 0.0
    content = hashlib.blake2b(digest_size=16)
    with container:
        joins = bool(container.format.flags & av.format.Flags.ts_discont.value)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        time_base = float(stream.time_base or 0)
        stream_seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
        # Duration of the file by its header; where pieces are joined, FFmpeg only estimates it.
        file_seconds = 0.0 if stream_seconds or joins else (container.duration or 0) / av.time_base
        gap_seconds = _GAPS[joins] if frame_times > 1 else 0.0
        packets = PacketTimes(
            time_base, gap_seconds, wraps=joins and stream.time_base == _MPEG_CLOCK
        )
        number = stream.index
        try:
            for packet in container.demux(*(container.streams if file_seconds else (stream,))):
                if not packet.size:
                    continue
                if file_seconds and packet.pts is not None:
                    end = packet.pts + (packet.duration or 0)
                    latest = max(latest, float(end * packet.time_base))
                if packet.stream_index != number:
                    continue
                content.update(memoryview(packet))
                packets.add(packet)
                if reason := packets.too_long(max_seconds):
                    raise DecodeError("unsupported", reason)
        except LIBRARY_ERRORS as error:
            note = f"reading stopped early: {describe(error)}"
    if not len(packets):
        if note:
            raise DecodeError("corrupt", f"no frame could be read: {note}")
        raise DecodeError("short", "the video stream holds no frame")
    if all(packets.encrypted):
        raise DecodeError("unsupported", ENCRYPTED)
    index = packets.index(rate, content.hexdigest(), frame_times)
    starts = index.starts()
    seconds = float(starts[-1] - starts[0] + _last_duration(index)) * index.time_base
    if seconds > max_seconds:
        raise DecodeError("unsupported", TOO_LONG.format(max_seconds))
    # Durations in headers count from the first frame, or from 0 if that is earlier.
    end = max(seconds, latest, float(starts[-1] + _last_duration(index)) * index.time_base)
    notes = [note or _missing_end(index, stream_seconds or file_seconds, end)]
    if index.moved and (times := len(packets.pieces) - 1):
        notes.append(
            f"timestamps start again {'once' if times == 1 else f'{times} times'}; later frames "
            "are shown after earlier ones"
        )
    return index, seconds, "; ".join(filter(None, notes))


def _missing_end(index: Index, promised: float, end: float) -> str:
    """Returns a note if the header promises more seconds than the file has, else ""."""
    if promised <= 1.1 * end + 0.5 or index.counted or index.moved:
        return ""
    return f"the header promises {promised:.1f} s, the file ends at {end:.1f} s"


def _last_duration(index: Index) -> float:
    """Returns how long the last frame is shown, in units of the key; if unknown, the median gap."""
    gaps = np.diff(index.starts())
    return index.last_duration or (float(np.median(gaps)) if len(gaps) else 0.0)


def choose(index: Index, frames_per_second: float, max_frames: int) -> dict[int, float]:
    """Returns the keys of the frames to keep, and for each its sampling time in seconds."""
    starts = index.starts()
    unit = index.time_base * frames_per_second  # sampling intervals per unit of the key
    begin = (starts - starts[0]).astype(np.float64) * unit
    end = np.append(begin[1:], begin[-1] + _last_duration(index) * unit)
    # The first sampling time at or after the frame appears (+ 0.0: never -0.0).
    sample = np.ceil(begin - _EPSILON) + 0.0
    hit = sample < end - _EPSILON
    hit[0] = True
    (rows,) = np.nonzero(hit)
    if (count := len(rows)) > max_frames:
        rows = rows[(2 * np.arange(max_frames) + 1) * count // (2 * max_frames)]
    return {int(starts[row]): float(sample[row] / frames_per_second) for row in rows}


def needed_segments(index: Index, chosen: dict[int, float]) -> frozenset[int]:
    """Returns the groups of pictures that must be decoded for the chosen frames.

    A frame shown before the key frame of its (open) group also refers to the previous group.
    """
    rows = np.isin(index.key, np.array(list(chosen), np.int64))
    segments, first = np.unique(index.segment, return_index=True)
    begin = index.key[first][np.searchsorted(segments, index.segment)]
    leading = rows & (index.key < begin)
    return frozenset(map(int, index.segment[rows])) | {int(s) - 1 for s in index.segment[leading]}
