"""Decodes a few frames of one video file: 5 per second, thinned evenly to a maximum number.

There are two passes over the file. The first only reads packets (`video_index`) and finds the time
at which each frame is shown, so the frames to keep are known before decoding, and memory does not
grow with the length of the clip. The second decodes only the groups of pictures that hold such a
frame. FFmpeg can hang or crash on a damaged file: clips of unknown origin go through `decode_pool`.
"""

import contextlib
import dataclasses
import math
import os

import av.sidedata.sidedata
import numpy as np

from uhman_jax.backbone import INCEPTION_V3
from uhman_jax.preprocess.clip_file import (
    FRAME_TIMES,
    DecodedClip,
    DecodeError,
    is_encrypted,
    require_regular_file,
    shortage,
)
from uhman_jax.preprocess.video_index import (
    ENCRYPTED,
    LIBRARY_ERRORS,
    Index,
    choose,
    describe,
    needed_segments,
    open_stream,
    read_index,
)

_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


def sample_frames(
    path: str | os.PathLike,
    frames_per_second: float = 5.0,
    max_frames: int = 16,
    size: int = INCEPTION_V3.image_size,
    max_megapixels: float = 64.0,
    max_megabytes: float = math.inf,
    max_seconds: float = math.inf,
    frame_times: int = FRAME_TIMES,
) -> DecodedClip:
    """Returns the frames shown at times 0, 1/fps, 2/fps, ..., thinned evenly to `max_frames`.

    A frame shown over several sampling times (a still, a slow clip) counts once, at the first of
    them. More than `max_frames` frames are divided into `max_frames` equal parts, and the middle
    frame of each part is kept. If decoding fails after some good frames, the clip has these frames
    and a reason. High-dynamic-range colours are converted only by their matrix, without tone
    mapping; transparency is dropped.

    Args:
        path: a regular file in any container that FFmpeg reads without opening other files.
        frames_per_second: sampling rate.
        max_frames: maximum number of frames, >= 1.
        size: width and height of the images.
        max_megapixels: larger pictures are refused.
        max_megabytes: larger files are refused.
        max_seconds: longer clips are refused.
        frame_times: version of the rule for frame times, see `video_index.read_index`.

    Raises:
        DecodeError: no frame could be decoded.
    """
    file = os.fspath(path)
    require_regular_file(file, max_megabytes)
    try:
        index, seconds, note = read_index(file, max_megapixels, max_seconds, frame_times)
        chosen = choose(index, frames_per_second, max_frames)
        clip = _decode_chosen(file, index, chosen, size, max_megapixels)
    except DecodeError as error:
        if error.kind == "unsupported":
            raise
        if is_encrypted(file):
            raise DecodeError("unsupported", ENCRYPTED) from None
        if cut := shortage(file):
            raise DecodeError(error.kind, f"{cut} ({error.reason})") from None
        raise
    faults = [text for text in (clip.reason, note) if text]
    if faults and not index.encrypted.any() and is_encrypted(file):
        raise DecodeError("unsupported", ENCRYPTED)  # FFmpeg decoded it as if not encrypted
    faults += filter(None, [shortage(file, decoded=not faults)])
    reason = "; ".join(faults)
    return dataclasses.replace(clip, reason=reason, seconds=seconds, content=index.content)


def _decode_chosen(
    file: str, index: Index, chosen: dict[int, float], size: int, max_megapixels: float
) -> DecodedClip:
    # If the file is damaged or its key-frame flags are wrong, decode all of it, as players do.
    for skip in (False,) if index.counted else (True, False):
        decoding = _Decoding(chosen, size)
        decoding.run(file, index, max_megapixels, skip=skip)
        if not (decoding.missing or decoding.error):
            break
    images = {chosen[key]: image for key, image in decoding.images.items()}
    if not images and decoding.first is not None:
        images = {0.0: decoding.first}
    if not images:
        if decoding.error:
            reason = f"no frame could be decoded: {describe(decoding.error)}"
            raise DecodeError("corrupt", reason) from decoding.error
        raise DecodeError("short", "the video stream holds no frame that can be shown")
    times = sorted(images)
    return DecodedClip(
        "ok",
        decoding.note(),
        np.stack([images[time] for time in times]),
        np.array(times, np.float32),
        width=decoding.width,
        height=decoding.height,
    )


class _Decoding:
    """One pass of decoding that collects the chosen frames as images.

    Attributes:
        images: key -> uint8 [size, size, 3].
        first: image of the first decoded frame, used if no chosen frame is decoded.
        width: width of the upright video; 0 before the first frame.
        height: height of the upright video.
        error: first error of the library, or None.
    """

    def __init__(self, chosen: dict[int, float], size: int):
        self.chosen = chosen
        self.size = size
        self.images: dict[int, np.ndarray] = {}
        self.first: np.ndarray | None = None
        self.width = self.height = 0
        self.error: Exception | None = None
        self._count = 0
        self._encrypted = False

    @property
    def missing(self) -> int:
        """Number of chosen frames that are not decoded yet."""
        return len(self.chosen) - len(self.images)

    def run(self, path: str, index: Index, max_megapixels: float, *, skip: bool) -> None:
        """Decodes until no chosen frame is missing; `skip`: only groups of pictures they need."""
        needed = needed_segments(index, self.chosen) if skip else None
        container, stream = open_stream(path, max_megapixels)
        context, previous = stream.codec_context, None
        columns = index.key.tolist(), index.segment.tolist(), index.encrypted.tolist()
        with container:
            packets = (packet for packet in container.demux(stream) if packet.size)
            try:
                for packet, key, segment, encrypted in zip(packets, *columns, strict=False):
                    if not self.missing:
                        break
                    if index.moved:
                        packet.pts = key
                    self._encrypted |= encrypted
                    if encrypted or (needed is not None and segment not in needed):
                        continue
                    if needed is not None:
                        if previous is not None and segment > previous + 1:
                            self._decode(context, None, index.counted)
                            context.flush_buffers()
                        # Skip frames that no other frame refers to, except chosen ones.
                        context.skip_frame = "DEFAULT" if key in self.chosen else "NONREF"
                    self._decode(context, packet, index.counted)
                    previous = segment
            except LIBRARY_ERRORS as error:
                self.error = self.error or error
            if self.missing:
                self._decode(context, None, index.counted)

    def note(self) -> str:
        why = describe(self.error) if self.error else ""
        if not self.missing:
            return f"some packets could not be decoded: {why}" if why else ""
        if self._encrypted:
            why = "the rest is encrypted"
        why = why or "frames that the container announces are missing"
        until = max((self.chosen[key] for key in self.images), default=0.0)
        if min(time for key, time in self.chosen.items() if key not in self.images) > until:
            return f"decoded up to {until:.1f} s: {why}"
        return f"decoded {len(self.images)} of {len(self.chosen)} sampled frames: {why}"

    def _decode(self, context, packet, counted: bool) -> None:
        try:
            frames = context.decode(packet)
        except LIBRARY_ERRORS as error:
            # A bad packet does not end the clip: frames after the next key frame may be good.
            self.error = self.error or error
            return
        for frame in frames:
            key = self._count if counted else frame.pts
            self._count += 1
            if key in self.chosen and key not in self.images:
                self.images[key] = self._convert(frame)
            elif not self.images and self.first is None:
                self.first = self._convert(frame)

    def _convert(self, frame) -> np.ndarray:
        """Returns the frame as RGB, scaled to a square, then turned upright."""
        shrinks = min(frame.width, frame.height) >= self.size
        # If a file names no colour matrix, assume BT.709 from 720 lines up, else BT.601.
        assume_bt709 = min(frame.width, frame.height) >= 720 and frame.colorspace == _UNSPECIFIED
        image = frame.reformat(
            width=self.size,
            height=self.size,
            format="rgb24",
            src_colorspace="ITU709" if assume_bt709 else None,
            interpolation="AREA" if shrinks else "BILINEAR",
            threads=1,
        ).to_ndarray()
        matrix = _display_matrix(frame)
        sides = frame.width, frame.height
        self.width, self.height = sides if matrix[0, 0] else sides[::-1]
        return np.ascontiguousarray(upright(image, matrix))


def _display_matrix(frame) -> np.ndarray:
    """Returns signs [2, 2] of the frame's display matrix; the identity if absent or invalid."""
    with contextlib.suppress(KeyError):
        data = bytes(frame.side_data["DISPLAYMATRIX"])
        if len(data) >= 36:
            signs = np.sign(np.frombuffer(data[:36], np.int32).reshape(3, 3)[:2, :2])
            # Rotations by 90 degrees and mirrors have one entry per row and column; ignore others.
            if (np.abs(signs).sum(0) == 1).all() and (np.abs(signs).sum(1) == 1).all():
                return signs
    return np.eye(2, dtype=np.int32)


def _unknown(kind: type, value: object) -> object:
    if not isinstance(value, int):
        return None
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member


# PyAV before version 19 raises an error if a frame has side data of a kind that it does not name,
# such as EXIF. The display matrix, and with it the frame, would be lost.
if "_missing_" not in vars(av.sidedata.sidedata.Type):
    av.sidedata.sidedata.Type._missing_ = classmethod(_unknown)  # type: ignore[bad-assignment]


def upright(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Rotates and mirrors a square image by its display matrix.

    Args:
        image: [size, size, ...].
        matrix: [[a, b], [c, d]] of -1, 0, 1: the pixel (x, y) is shown at (a x + c y, b x + d y),
            with y downwards (FFmpeg's AV_FRAME_DATA_DISPLAYMATRIX).

    >>> upright(np.array([[1, 2], [3, 4]]), np.array([[0, 1], [-1, 0]])).tolist()  # clockwise
    [[3, 1], [4, 2]]
    """
    if matrix[0, 0] == 0:  # x and y are swapped
        image = image.swapaxes(0, 1)
        flip_x, flip_y = matrix[1, 0] < 0, matrix[0, 1] < 0
    else:
        flip_x, flip_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
