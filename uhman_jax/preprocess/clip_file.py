"""Checks the file of a clip, makes its name printable, and defines the result of decoding it.

This module does not import PyAV, so the parent of the decoding processes does not load it.
"""

import dataclasses
import os
import re
import stat

import numpy as np

FRAME_TIMES = 2  # current version of the rule for frame times, see `video_index.read_index`
_PROTECTION = re.compile(rb"sinf\0\0\0.frma", re.DOTALL)  # boxes of an encrypted MP4 track
_ASF = bytes.fromhex("3026b2758e66cf11")  # start of an ASF (WMV) file
_ASF_ENCRYPTION = (  # objects in the header of an encrypted ASF file
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
)
# Surrogates for bytes that are not UTF-8, and characters that would break a line.
_UNPRINTABLE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")
_SEARCHED = 8 << 20  # bytes read at each end of a file; its header is at one of them
_MP4_FIRST = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx")


@dataclasses.dataclass(frozen=True)
class DecodedClip:
    """The frames of one clip, or the reason why there are none.

    Attributes:
        state: "ok", "short", "corrupt", "no_video", "unsupported" or "timeout".
        reason: "" or one sentence; for an "ok" clip, a fault of the file besides its good frames.
        images: uint8 [F, size, size, 3], RGB, upright, stretched to a square.
        times_F: float32, sampling time of each frame in seconds from the first, ascending.
        seconds: display duration of the clip.
        content: hash of the packets of the video stream, in hexadecimal.
        width: width of the upright video in pixels.
        height: height of the upright video in pixels.
    """

    state: str
    reason: str = ""
    images: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 0, 3), np.uint8))
    times_F: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    seconds: float = 0.0
    content: str = ""
    width: int = 0
    height: int = 0

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the float32 arrays for the clip's record, by name."""
        arrays = {name: value for name, value in vars(self).items() if name != "images"}
        return {name: value for name, value in arrays.items() if isinstance(value, np.ndarray)}


class DecodeError(Exception):
    """Decoding a file yields no frame.

    Attributes:
        kind: "short" (a video stream without a frame), "corrupt", "no_video" or "unsupported".
        reason: one sentence.
    """

    def __init__(self, kind: str, reason: str):
        super().__init__(f"{kind}: {reason}")
        self.kind, self.reason = kind, reason


def require_regular_file(path: str, max_megabytes: float) -> None:
    """Raises DecodeError unless this is a regular file that is neither empty nor too large."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = f"the file cannot be read: {getattr(error, 'strerror', error)}"
        raise DecodeError("corrupt", reason) from None
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError("corrupt", "not a regular file")
    require_size(status.st_size, max_megabytes)


def require_size(num_bytes: int, max_megabytes: float) -> None:
    """Raises DecodeError if a file is empty or too large."""
    if not num_bytes:
        raise DecodeError("corrupt", "the file is empty")
    if num_bytes > max_megabytes * 1e6:
        size = f"{num_bytes / 1e6:.1f} MB"
        raise DecodeError("unsupported", f"{size} exceed the limit of {max_megabytes:g} MB")


def printable(name: str) -> str:
    r"""Returns a file's name, or a unique spelling of a name that cannot be printed.

    Ids in shards contain it, so two names never share a spelling; `storage.escape_name` is only for
    messages and may map two names to one text. A spelling begins with "./", as no listed path does.
    Bytes that are not UTF-8 and control characters become escapes like \xe9, and backslashes are
    doubled.

    >>> print(printable("caf\udce9.mp4"), printable("clip.mp4"))
    ./caf\xe9.mp4 clip.mp4
    """
    if not _UNPRINTABLE.search(name):
        return name

    def spelled(match: re.Match) -> str:
        raw = "\udc80" <= match[0] <= "\udcff"
        data = match[0].encode("utf-8", "surrogateescape" if raw else "surrogatepass")
        return "".join(f"\\x{byte:02x}" for byte in data)

    return "./" + _UNPRINTABLE.sub(spelled, name.replace("\\", "\\\\"))


def is_encrypted(path: str) -> bool:
    """Returns whether an MP4, WMV or MPEG-TS container marks its content as encrypted.

    It reads both ends of the file; `video_index` recognises encrypted Matroska files.
    """
    with open(path, "rb") as file:
        head = file.read(_SEARCHED)
        file.seek(max(len(head), os.fstat(file.fileno()).st_size - _SEARCHED))
        tail = file.read(_SEARCHED)
    if head.startswith(_ASF):
        return any(mark in head for mark in _ASF_ENCRYPTION)
    if head[4:8] in _MP4_FIRST:
        return any(_PROTECTION.search(part) for part in (head, tail))
    return _is_scrambled(head)


def _is_scrambled(head: bytes) -> bool:
    """Returns whether most payload packets of a transport stream are marked as scrambled."""
    for begin, step in ((0, 188), (4, 192), (0, 204)):
        packets = [head[i : i + 4] for i in range(begin, len(head) - 3, step)]
        if len(packets) < 4 or sum(p[0] != 0x47 for p in packets) > len(packets) // 50:
            continue
        payload = [p for p in packets if p[3] & 0x10 and (p[1] & 0x1F) << 8 | p[2] != 0x1FFF]
        return sum(p[3] >= 0x80 for p in payload) > len(payload) // 2
    return False


def shortage(path: str, *, decoded: bool = False) -> str:
    """Returns a sentence if a file's header announces more bytes than the file holds, else "".

    It reads the lengths of MP4 boxes, RIFF (AVI) chunks and the Matroska segment.

    Args:
        path: the file.
        decoded: whether all frames were decoded without a fault. An MP4 file then passes: it lists
            the offset of every frame, so the missing bytes hold no frame.
    """
    size, announced = os.stat(path).st_size, 0
    with open(path, "rb") as file:
        head = file.read(64)
        if head[4:8] in _MP4_FIRST:
            announced = 0 if decoded else _end_of_chunks(file, size, _mp4_box)
        elif head.startswith(b"RIFF"):
            announced = _end_of_chunks(file, size, _riff_chunk)
        elif head.startswith(b"\x1a\x45\xdf\xa3"):
            announced = _matroska_end(head)
    if announced <= size:
        return ""
    return f"the file is cut short: it announces {announced:,} bytes and holds {size:,}"


def _end_of_chunks(file, size: int, length_of) -> int:
    """Returns the end of the last chunk; `length_of(header)` is 0 for a chunk without a length."""
    begin = 0
    while begin + 8 <= size:
        file.seek(begin)
        length = length_of(file.read(16))
        if not length:
            break
        begin += length
    return begin


def _mp4_box(header: bytes) -> int:
    length = int.from_bytes(header[:4], "big")
    if length == 1:
        length = int.from_bytes(header[8:], "big")
    return length if length >= 8 and re.fullmatch(rb"[\w ]{4}", header[4:8]) else 0


def _riff_chunk(header: bytes) -> int:
    length = int.from_bytes(header[4:8], "little")
    # The length of a recording that was interrupted is 0 or all ones.
    return 8 + length if header[:4] == b"RIFF" and length not in (0, 0xFFFFFFFF) else 0


def _matroska_end(head: bytes) -> int:
    """Returns the end of the segment; 0 if it is unknown."""
    length, width = _matroska_number(head, 4)
    begin = 4 + width + length
    if head[begin : begin + 4] != b"\x18\x53\x80\x67":
        return 0
    length, width = _matroska_number(head, begin + 4)
    return begin + 4 + width + length if length != (1 << 7 * width) - 1 else 0


def _matroska_number(data: bytes, begin: int) -> tuple[int, int]:
    """Returns a number of variable width, and its width in bytes."""
    width = 9 - data[begin].bit_length() if begin < len(data) and data[begin] else 8
    value = int.from_bytes(data[begin : begin + width], "big")
    return value & (1 << 7 * width) - 1, width
