"""Decodes a few frames of one video file: 5 per second by timestamp, then a limit, spread evenly.

Two passes over the file. The first reads packets only (`packets`) and finds the time at which each
frame is shown, so the frames to keep are known before decoding, and memory does not grow with the
length of the clip. The second decodes only the groups of pictures that hold such a frame. FFmpeg
can hang or crash on a damaged file: clips of unknown origin go through `pool`.
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
_REST_ENCRYPTED = "the rest is encrypted"


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
    them. Of n > max_frames frames the middles of max_frames equal parts are kept. A clip whose
    decoding fails after some good frames yields those, with a reason. High dynamic range is
    converted by its matrix only, without tone mapping; transparency is dropped.

    Args:
        path: a regular file; any container that FFmpeg reads, save those that open other files.
        frames_per_second: sampling rate.
        max_frames: frames to keep at most, >= 1.
        size: width and height of the images.
        max_megapixels: larger pictures are refused.
        max_megabytes: larger files are refused.
        max_seconds: longer clips are refused.
        frame_times: rule for the times of frames, see `packets.read_index`.

    Raises:
        DecodeError: no frame could be decoded. Its cause, if any, is the library's exception.
    """
    file = os.fspath(path)
    require_regular_file(file, max_megabytes)
    sampling = frames_per_second, max_frames, size
    try:
        clip = _sample(file, sampling, max_megapixels, max_seconds, frame_times)
    except DecodeError as error:
        if error.kind == "unsupported":
            raise
        if is_encrypted(file):
            raise DecodeError("unsupported", ENCRYPTED) from None
        if cut := shortage(file):
            raise DecodeError(error.kind, f"{cut} ({error.reason})") from error.__cause__
        raise
    if clip.reason and _REST_ENCRYPTED not in clip.reason and is_encrypted(file):
        raise DecodeError("unsupported", ENCRYPTED)  # by a scheme that FFmpeg took for clear video
    reasons = [text for text in (clip.reason, shortage(file, decoded=not clip.reason)) if text]
    return dataclasses.replace(clip, reason="; ".join(reasons))


def _sample(
    file: str,
    sampling: tuple[float, int, int],
    max_megapixels: float,
    max_seconds: float,
    frame_times: int,
) -> DecodedClip:
    frames_per_second, max_frames, size = sampling
    index, seconds, note = read_index(file, max_megapixels, max_seconds, frame_times)
    wanted = choose(index, frames_per_second, max_frames)
    attempt = _Decoding(wanted, size)
    attempt.run(file, index, max_megapixels, skip=not index.counted)
    if (attempt.missing or attempt.error) and not index.counted:
        # Damage, or a wrong key-frame mark: decode all, as every player would.
        attempt = _Decoding(wanted, size)
        attempt.run(file, index, max_megapixels, skip=False)
    images = {wanted[key]: image for key, image in attempt.images.items()}
    if not images and attempt.first is not None:
        images = {0.0: attempt.first}
    if not images:
        if attempt.error:
            reason = f"no frame could be decoded: {describe(attempt.error)}"
            raise DecodeError("corrupt", reason) from attempt.error
        raise DecodeError("short", "the video stream holds no frame that can be shown")
    times = sorted(images)
    notes = [text for text in (attempt.note(), note) if text]
    return DecodedClip(
        "ok",
        "; ".join(notes),
        np.stack([images[time] for time in times]),
        np.array(times, np.float32),
        seconds,
        index.content,
        attempt.width,
        attempt.height,
    )


class _Decoding:
    """One pass of decoding that collects the wanted frames as images.

    Attributes:
        images: key -> uint8 [size, size, 3].
        first: image of the first frame that could be decoded, for clips without a wanted one.
        width: of the upright video; 0 before the first frame.
        height: of the upright video.
        error: the first one.
    """

    def __init__(self, wanted: dict[int, float], size: int):
        self.wanted = wanted
        self.size = size
        self.images: dict[int, np.ndarray] = {}
        self.first: np.ndarray | None = None
        self.width = self.height = 0
        self.error: Exception | None = None
        self._count = 0
        self._encrypted = False

    @property
    def missing(self) -> int:
        """Number of wanted frames not yet decoded."""
        return len(self.wanted) - len(self.images)

    def run(self, path: str, index: Index, max_megapixels: float, *, skip: bool) -> None:
        """Decodes until no wanted frame is missing; with `skip` only the groups that hold one."""
        needed = needed_segments(index, self.wanted) if skip else None
        container, stream = open_stream(path, max_megapixels)
        context = stream.codec_context
        number, previous = 0, None
        with container:
            try:
                for packet in container.demux(stream):
                    if not packet.size:
                        continue
                    if number == len(index.key) or not self.missing:
                        break
                    segment, key = int(index.segment[number]), int(index.key[number])
                    if index.moved:
                        packet.pts = key
                    if index.encrypted is not None and index.encrypted[number]:
                        self._encrypted = True
                        number += 1
                        continue
                    number += 1
                    if needed is not None and segment not in needed:
                        continue
                    if needed is not None and previous is not None and segment > previous + 1:
                        self._decode(context, None, index.counted)
                        context.flush_buffers()
                    if needed is not None:  # frames that no other refers to need not be decoded
                        context.skip_frame = "DEFAULT" if key in self.wanted else "NONREF"
                    self._decode(context, packet, index.counted)
                    previous = segment
            except LIBRARY_ERRORS as error:
                self.error = self.error or error
            if self.missing:
                self._decode(context, None, index.counted)

    def note(self) -> str:
        """Returns the fault in a sentence, or ""."""
        why = describe(self.error) if self.error else ""
        if not self.missing:
            return f"some packets could not be decoded: {why}" if why else ""
        if self._encrypted:
            why = _REST_ENCRYPTED
        why = why or "frames that the container announces are missing"
        until = max((self.wanted[key] for key in self.images), default=0.0)
        lost = [time for key, time in self.wanted.items() if key not in self.images]
        if min(lost) > until:
            return f"decoded up to {until:.1f} s: {why}"
        return f"decoded {len(self.images)} of {len(self.wanted)} sampled frames: {why}"

    def _decode(self, context, packet, counted: bool) -> None:
        try:
            frames = context.decode(packet)
        except LIBRARY_ERRORS as error:
            # One bad packet does not end a clip: frames after the next key frame may be whole.
            self.error = self.error or error
            return
        for frame in frames:
            key = self._count if counted else frame.pts
            self._count += 1
            wanted = key in self.wanted and key not in self.images
            if not wanted and (self.images or self.first is not None):
                continue
            image = self._convert(frame)
            if wanted:
                self.images[key] = image
            else:
                self.first = image

    def _convert(self, frame) -> np.ndarray:
        """Returns the frame as RGB, scaled to a square, then turned upright."""
        shrinks = min(frame.width, frame.height) >= self.size
        # Files that do not say mean BT.709 from 720 lines up, as players take it; else BT.601.
        high = min(frame.width, frame.height) >= 720 and frame.colorspace == _UNSPECIFIED
        image = frame.reformat(
            width=self.size,
            height=self.size,
            format="rgb24",
            src_colorspace="ITU709" if high else None,
            interpolation="AREA" if shrinks else "BILINEAR",
            threads=1,
        ).to_ndarray()
        matrix = _display_matrix(frame)
        self.width, self.height = frame.width, frame.height
        if matrix[0, 0] == 0:
            self.width, self.height = self.height, self.width
        return np.ascontiguousarray(upright(image, matrix))


def _display_matrix(frame) -> np.ndarray:
    """Returns signs [2, 2] of the frame's display matrix; the identity if absent or invalid."""
    with contextlib.suppress(KeyError):
        data = bytes(frame.side_data["DISPLAYMATRIX"])
        if len(data) >= 36:
            signs = np.sign(np.frombuffer(data[:36], np.int32).reshape(3, 3)[:2, :2])
            # A quarter turn or a mirror has one entry in each row and column; all else is ignored.
            if (np.abs(signs).sum(0) == 1).all() and (np.abs(signs).sum(1) == 1).all():
                return signs
    return np.eye(2, dtype=np.int32)


def _unnamed(kind: type, value: object) -> object:
    """Returns a new member of an enumeration for a value without a name."""
    if not isinstance(value, int):
        return None
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member


# Before version 19 PyAV raises on the side data of a frame if one is of a kind without a name, such
# as EXIF: such a frame would have no display matrix, and no image.
if "_missing_" not in vars(av.sidedata.sidedata.Type):
    av.sidedata.sidedata.Type._missing_ = classmethod(_unnamed)  # type: ignore[bad-assignment]


def upright(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns a square image turned and mirrored by its display matrix.

    Args:
        image: [size, size, ...].
        matrix: [[a, b], [c, d]] of -1, 0, 1: the pixel (x, y) is shown at (a x + c y, b x + d y),
            y downwards (FFmpeg's AV_FRAME_DATA_DISPLAYMATRIX).

    >>> upright(np.array([[1, 2], [3, 4]]), np.array([[0, 1], [-1, 0]])).tolist()  # clockwise
    [[3, 1], [4, 2]]
    """
    if matrix[0, 0] == 0:  # x and y are swapped
        image = image.swapaxes(0, 1)
        flip_x, flip_y = matrix[1, 0] < 0, matrix[0, 1] < 0
    else:
        flip_x, flip_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
