"""Finds when each packet of a video is shown, even if timestamps restart within the file."""

import array
import dataclasses
import math

import numpy as np

TOO_LONG = "the clip is longer than the limit of {:g} s"
_MAX_RATE = 300  # packets per second of the longest clip, whose timestamps may be garbage
_MIN_PACKETS = 100_000  # that may be read whatever the limit of seconds
_BACK = 0.1  # seconds; a decoding time that goes back further is a restart
_BACK_SHOWN = 2.0  # the same for a display time, if a packet has no decoding time
_UNKNOWN = np.iinfo(np.int64).min  # a missing timestamp


@dataclasses.dataclass(frozen=True)
class Index:
    """The packets of a video stream, in file order.

    Attributes:
        key: int64, timestamp in `time_base`, or the packet's number where the file has none.
        segment: int64, group of pictures: a new one starts at every key frame.
        shown: bool, False for packets that an edit list hides.
        counted: the file has no timestamps; frames are matched by their number.
        time_base: seconds per unit of `key`.
        last_duration: duration of the packet shown last, in units of `key`; 0 = unknown.
        content: hash of all packets, in hexadecimal: equal for copies of one file.
        encrypted: bool, True for encrypted packets.
        moved: `key` differs from the timestamps of the file, because they restart or wrap.
    """

    key: np.ndarray
    segment: np.ndarray
    shown: np.ndarray
    counted: bool
    time_base: float
    last_duration: int
    content: str
    encrypted: np.ndarray
    moved: bool = False

    def starts(self) -> np.ndarray:
        """Returns the distinct keys of the shown frames, in the order in which they are shown."""
        return np.unique(self.key[self.shown])


class PacketTimes:
    """Collects the times and flags of a stream's packets while it is read, 27 bytes for each.

    A piece is a run of packets within which timestamps do not restart.

    Args:
        time_base: seconds per unit of a timestamp.
        gap_seconds: longer gaps separate two pieces; 0: all packets are one piece.
        wraps: timestamps have 33 bits and wrap, as in MPEG streams.

    Attributes:
        encrypted: 1 for an encrypted packet.
        pieces: index of the first packet of each piece; the first is 0.
    """

    def __init__(self, time_base: float, gap_seconds: float, *, wraps: bool = False):
        self._time_base = time_base
        self._gap = gap_seconds
        self._wraps = wraps and gap_seconds > 0
        self._unwrapped = False
        self._pts, self._dts, self._durations = (array.array("q") for _ in range(3))
        self._key_frames, self._shown, self.encrypted = bytearray(), bytearray(), bytearray()
        self.pieces = [0]
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._span = 0.0  # display time of the pieces before this one
        self._low, self._high = math.inf, -math.inf  # first and last display time of this one

    def __len__(self) -> int:
        """Returns the number of packets."""
        return len(self._pts)

    def add(self, packet) -> None:
        """Adds a packet."""
        pts, dts, shown = packet.pts, packet.dts, not packet.is_discard
        if self._wraps:
            pts = self._unwrap(pts, self._last_pts)
            dts = self._unwrap(dts, self._last_dts)
        if self._gap and self._restarts(pts, dts):
            self.pieces.append(len(self))
            self._span += max(0, self._high - self._low)
            self._low, self._high = math.inf, -math.inf
            self._last_dts = None
        self._last_pts = self._last_pts if pts is None else pts
        self._last_dts = self._last_dts if dts is None else dts
        if shown and pts is not None:
            self._low, self._high = min(self._low, pts), max(self._high, pts)
        self._pts.append(_UNKNOWN if pts is None else pts)
        self._dts.append((self._last_pts if self._last_dts is None else self._last_dts) or 0)
        self._durations.append(packet.duration or 0)
        self._key_frames.append(packet.is_keyframe)
        self._shown.append(shown)
        self.encrypted.append(packet.has_sidedata("encryption_info"))

    def _unwrap(self, time: int | None, last: int | None) -> int | None:
        """Returns a timestamp plus the multiple of 2**33 that brings it closest to the last one."""
        if time is None or last is None or abs(last - time) <= 1 << 32:
            return time
        self._unwrapped = True
        return time + ((last - time + (1 << 32)) >> 33 << 33)

    def _restarts(self, pts: int | None, dts: int | None) -> bool:
        """Returns whether the times of a packet do not continue the earlier times.

        Display times go back and forth by a few frames. Decoding times do not, but after a jump
        FFmpeg guesses some of them.
        """
        step = _step(self._last_pts, pts) * self._time_base
        if abs(step) > self._gap or (dts is None and step < -_BACK_SHOWN):
            return True
        return _step(self._last_dts, dts) * self._time_base < -_BACK

    def too_long(self, max_seconds: float) -> str:
        """Returns the reason if the packets so far are too many or too long, else ""."""
        span = (self._span + max(0, self._high - self._low)) * self._time_base
        if span > max_seconds:
            return TOO_LONG.format(max_seconds)
        most = max(max_seconds * _MAX_RATE, _MIN_PACKETS)
        return f"the clip has more than {most:.0f} pictures" if len(self) > most else ""

    def index(self, rate: float, content: str, frame_times: int) -> Index:
        """Returns the index of all packets.

        Args:
            rate: frames per second, for files without timestamps.
            content: see `Index`.
            frame_times: see `video_index.read_index`.
        """
        keys, durations = np.array(self._pts), np.array(self._durations)
        shown = np.array(self._shown, bool) | (not any(self._shown))
        time_base, pieces = self._time_base, self.pieces
        counted = time_base <= 0 or bool((keys[shown] == _UNKNOWN).any())
        if counted:
            keys, durations, time_base = np.arange(len(keys)), np.ones_like(keys), 1 / rate
            pieces = [0]
        keys[keys == _UNKNOWN] = 0
        if len(pieces) > 1:
            gap = _median_step(self._dts, pieces) or max(1, round(1 / (rate * time_base)))
            keys = _join(keys, shown, pieces, gap)
        last = int(np.argmax(np.where(shown, keys, _UNKNOWN)))
        last_duration = max(0, int(durations[last]))
        span = int(keys[shown].max() - keys[shown].min())
        if frame_times > 1 and span and durations[shown].sum() - durations[last] > 2 * span:
            last_duration = 0  # the rate in the header is wrong
        segment = np.cumsum(np.array(self._key_frames, np.int64))
        encrypted = np.array(self.encrypted, bool)
        moved = len(pieces) > 1 or (self._unwrapped and not counted)
        return Index(
            keys, segment, shown, counted, time_base, last_duration, content, encrypted, moved
        )


def _step(before: int | None, after: int | None) -> int:
    return 0 if before is None or after is None else after - before


def _median_step(times: array.array, pieces: list[int]) -> int:
    """Returns the median of the steps forward within pieces; 0 if there is none."""
    steps = np.delete(np.diff(times), np.array(pieces[1:]) - 1)
    steps = steps[steps > 0]
    return int(np.median(steps)) if len(steps) else 0


def _join(keys: np.ndarray, shown: np.ndarray, pieces: list[int], gap: int) -> np.ndarray:
    """Moves the times of each piece so that it begins one gap after the last frame before it."""
    low = np.minimum.reduceat(np.where(shown, keys, np.iinfo(np.int64).max), pieces)
    high = np.maximum.reduceat(np.where(shown, keys, _UNKNOWN), pieces)
    has_frames = low <= high
    low = np.where(has_frames, low, keys[pieces])
    lengths = np.where(has_frames, high - low + gap, 0)
    begin = low[0] + np.concatenate([[0], np.cumsum(lengths[:-1])])
    counts = np.diff([*pieces, len(keys)])
    return keys + np.repeat(begin - low, counts)
