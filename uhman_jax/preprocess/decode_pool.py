"""Decodes many clips ahead of the network, in child processes with a time limit for each clip.

A child that hangs or dies is replaced, and its clip gets a state and a reason. Results come in the
order of the jobs; a bounded number of them waits in memory.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from uhman_jax import storage
from uhman_jax.preprocess.clip_file import DecodedClip, DecodeError, require_size
from uhman_jax.preprocess.decode_process import COMMAND, Worker

_MAX_WAITING_FRAMES = 1024  # images that wait for the network, about 270 MB
_SAME_IN_A_ROW = 20  # clips with one unexpected exception, after which our own clip decides


class DecoderPool:
    """Iterates over the decoded clips of `paths`, in order; use it as a context manager.

    Args:
        paths: of the clips.
        options: of `decode.sample_frames`, the same for every clip; `max_frames` and `size` are
            required.
        num_decoders: child processes.
        timeout: seconds of wall time for one clip.
        memory_bytes: address space of a child; 0: no limit.
        locate: returns the file of a path, or an object (gs://), which is copied and decoded; it
            raises DecodeError where the path is not allowed.
        command: of the child, before its arguments.
    """

    def __init__(
        self,
        paths: Sequence[str],
        options: dict,
        *,
        num_decoders: int,
        timeout: float,
        memory_bytes: int = 0,
        locate: Callable[[str], str] = str,
        command: Sequence[str] = COMMAND,
    ):
        self._paths = paths
        self._options = options
        self._timeout = timeout
        self._locate = locate
        fitting = _MAX_WAITING_FRAMES // options["max_frames"]
        self._window = max(num_decoders, min(4 * num_decoders, fitting))
        self._done: dict[int, DecodedClip | BaseException] = {}
        self._next = self._taken = 0
        self.busy_seconds = 0.0  # of decoding, summed over the children
        self._closed = False
        self._same: list[str] = []  # type, text and line of the latest unexpected exception
        self._num_same = 0
        self._changed = threading.Condition()
        frame_bytes = options["size"] ** 2 * 3
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(Worker(command, options["max_frames"] * frame_bytes, memory_bytes),),
                daemon=True,
            )
            for _ in range(min(num_decoders, len(paths)))
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "DecoderPool":
        """Returns itself."""
        return self

    def __exit__(self, *exc):
        """Ends the children."""
        self.close()

    def close(self) -> None:
        """Ends the children; clips not yet taken are lost."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __iter__(self) -> Iterator[DecodedClip]:
        """Yields the clips in the order of `paths`; waits for one that is not decoded yet."""
        while self._taken < len(self._paths):
            with self._changed:
                self._changed.wait_for(lambda: self._taken in self._done)
                clip = self._done.pop(self._taken)
                self._taken += 1
                self._changed.notify_all()
            if isinstance(clip, BaseException):
                raise clip
            yield clip

    def ready(self) -> int:
        """Returns the number of decoded clips that wait to be taken."""
        return len(self._done)

    def _claim(self) -> int | None:
        """Waits for room in the window; returns the index of the next clip, None after the last."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or self._next == len(self._paths)
                    or self._next < self._taken + self._window
                )
            )
            if self._closed or self._next == len(self._paths):
                return None
            self._next += 1
            return self._next - 1

    def _work(self, child: Worker) -> None:
        try:
            while (index := self._claim()) is not None:
                clip: DecodedClip | BaseException
                begin = time.monotonic()
                try:
                    clip = self._decode(child, self._paths[index])
                except BaseException as error:  # raised again by `__iter__`
                    clip = error
                with self._changed:
                    self.busy_seconds += time.monotonic() - begin
                    self._done[index] = clip
                    self._changed.notify_all()
        finally:
            child.close()

    def _decode(self, child: Worker, path: str) -> DecodedClip:
        """Decodes a file; an object that is too large is not copied."""
        options = self._options
        try:
            path = self._locate(path)
            if storage.is_remote(path):
                size = storage.path(path).stat().st_size
                require_size(size, options.get("max_megabytes", math.inf))
            with storage.temporary_copy(storage.path(path)) as file:
                clip = child.decode(str(file), options, self._timeout, lambda: self._closed)
            if self._recurs(child.unexpected):
                child.check(self._timeout, lambda: self._closed)
            return clip
        except DecodeError as error:
            return DecodedClip(error.kind, error.reason)
        except FileNotFoundError as error:  # of an object; the child reports files
            return DecodedClip("corrupt", f"the file cannot be read: {error.strerror}")

    def _recurs(self, unexpected: list[str]) -> bool:
        """Returns whether many clips in a row end with one exception; then the count restarts."""
        with self._changed:
            same = unexpected[:1] == self._same[:1] and any(
                a == b for a, b in zip(unexpected[1:], self._same[1:], strict=False)
            )
            self._num_same = (self._num_same if same else 0) + bool(unexpected)
            self._same = unexpected
            if self._num_same < _SAME_IN_A_ROW:
                return False
            self._num_same = 0
            return True
