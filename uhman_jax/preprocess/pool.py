"""Decodes many clips ahead of the network, in child processes with a time limit for each clip.

A child that hangs or dies is replaced, and the clip it had is given a state and a reason. Results
come in the order of the jobs; at most so many wait that memory stays bounded.
"""

import dataclasses
import json
import math
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import uhman_jax
from uhman_jax import storage
from uhman_jax.errors import UserError
from uhman_jax.preprocess.clip_file import DecodeError, require_size

COMMAND = (sys.executable, "-m", "uhman_jax.preprocess.child")
NICE = 5  # the network's threads go first: decoding fills the gaps and is ahead anyway
# NumPy's OpenBLAS takes 40 MB of address space for every core, and decoders multiply no matrices.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_START_LIMIT = 300.0  # seconds for a child's imports, on the busiest machine
_MAX_WAITING_FRAMES = 1024  # images that wait for the network, about 270 MB


@dataclasses.dataclass(frozen=True)
class Clip:
    """What became of one clip.

    Attributes:
        state: "ok", "short", "corrupt", "no_video", "unsupported" or "timeout".
        reason: "" or one sentence; of an "ok" clip, what went wrong after the first good frame.
        images: uint8 [F, size, size, 3]; F = 0 unless "ok".
        times_F: float32 seconds.
        seconds: how long the clip is; 0 unless "ok".
        content: hash of the video stream; "" unless "ok".
    """

    state: str
    reason: str
    images: np.ndarray
    times_F: np.ndarray
    seconds: float
    content: str = ""


def environment() -> dict[str, str]:
    """Of a child process that is to find this package, wherever it was found itself."""
    package = str(Path(uhman_jax.__file__).parents[1])
    search = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(search)}


class DecoderPool:
    """Iterates over the decoded clips of `paths`, in order; use it as a context manager.

    Args:
        paths: files, absolute or relative to the working folder, or objects (gs://), of which a
            copy is decoded; a Clip is passed through.
        options: of `decode.sample_frames`, the same for every clip; `max_frames` and `size` are
            required.
        num_decoders: child processes.
        timeout: seconds of wall time for one clip.
        memory_bytes: address space of a child; 0: no limit.
        command: of the child, before its arguments.
    """

    def __init__(
        self,
        paths: Sequence[str | Clip],
        options: dict,
        *,
        num_decoders: int,
        timeout: float,
        memory_bytes: int = 0,
        command: Sequence[str] = COMMAND,
    ):
        self._paths = paths
        self._options = options
        self._timeout = timeout
        self._window = max(num_decoders, min(4 * num_decoders, self._fitting_clips()))
        self._done: dict[int, Clip | BaseException] = {}
        self._next = self._taken = 0
        self.busy_seconds = 0.0  # of decoding, added up over the children
        self._closed = False
        self._changed = threading.Condition()
        frame_bytes = options["size"] ** 2 * 3
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(_Child(command, options["max_frames"] * frame_bytes, memory_bytes),),
                daemon=True,
            )
            for _ in range(min(num_decoders, len(paths)))
        ]
        for thread in self._threads:
            thread.start()

    def _fitting_clips(self) -> int:
        return _MAX_WAITING_FRAMES // self._options["max_frames"]

    def __enter__(self) -> "DecoderPool":
        """Itself."""
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

    def __iter__(self) -> Iterator[Clip]:
        """Takes the clips in the order of `paths`; waits for one that is not there yet."""
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
        """Clips that wait to be taken."""
        return len(self._done)

    def _claim(self) -> int | None:
        """Index of the next clip once there is room for it; None when nothing is left."""
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

    def _work(self, child: "_Child") -> None:
        try:
            while (index := self._claim()) is not None:
                clip: Clip | BaseException
                path, begin = self._paths[index], time.monotonic()
                try:
                    if isinstance(path, Clip):
                        clip = path
                    else:
                        clip = self._decode(child, path)
                except BaseException as error:  # to the thread that waits for this clip
                    clip = error
                with self._changed:
                    self.busy_seconds += time.monotonic() - begin
                    self._done[index] = clip
                    self._changed.notify_all()
        finally:
            child.close()

    def _decode(self, child: "_Child", path: str) -> Clip:
        """What becomes of a file; an object that is too large is not copied."""
        options = self._options
        try:
            if storage.is_remote(path):
                size = storage.path(path).stat().st_size
                require_size(size, options.get("max_megabytes", math.inf))
            with storage.local_copy(storage.path(path)) as file:
                return child.decode(str(file), options, self._timeout, lambda: self._closed)
        except DecodeError as error:
            return failed(error.kind, error.reason)
        except FileNotFoundError as error:  # of an object; the child tells of files
            return failed("corrupt", f"the file cannot be read: {error.strerror}")


class _Child:
    """One decoding process and the memory it shares with us; used by one thread."""

    def __init__(self, command: Sequence[str], num_bytes: int, memory_bytes: int):
        self._command = command
        self._num_bytes = num_bytes
        self._memory_bytes = memory_bytes
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("frames")
        else:
            with tempfile.TemporaryFile() as file:
                self._descriptor = os.dup(file.fileno())
        os.ftruncate(self._descriptor, num_bytes)
        self._shared = np.frombuffer(mmap.mmap(self._descriptor, num_bytes), np.uint8)
        self._process: subprocess.Popen | None = None
        self._cause = ""

    def decode(self, path: str, options: dict, timeout: float, cancelled) -> Clip:
        """What the process makes of a file; a process that hangs or dies is given up.

        A clip is blamed for a crash only if it crashes a fresh process: damage that an earlier clip
        did may show late.
        """
        fresh = self._process is None
        clip = self._decode(path, options, timeout, cancelled)
        if clip is None and not fresh:
            clip = self._decode(path, options, timeout, cancelled)
        return clip or failed("corrupt", f"the decoder died ({self._cause})")

    def _decode(self, path: str, options: dict, timeout: float, cancelled) -> Clip | None:
        process = self._process or self._start(cancelled)
        assert process.stdin is not None and process.stdout is not None
        job = {"path": str(path), "options": options, "timeout": timeout}
        try:
            os.write(process.stdin.fileno(), json.dumps(job).encode() + b"\n")
        except BrokenPipeError:
            pass  # it died: reading its answer says how
        line = _read_line(process.stdout, time.monotonic() + timeout, cancelled)
        if line is None:
            self.stop()
            return failed("timeout", f"decoding took longer than {timeout:g} s")
        if not line.endswith(b"\n"):
            self._cause = _cause(process.wait())
            self.stop()
            return None
        answer = json.loads(line)
        if answer["state"] != "ok":
            return failed(answer["state"], answer["reason"])
        shape = tuple(answer["shape"])
        images = self._shared[: int(np.prod(shape))].reshape(shape).copy()
        times_F = np.array(answer["times"], np.float32)
        return Clip("ok", answer["reason"], images, times_F, answer["seconds"], answer["content"])

    def stop(self) -> None:
        """Ends the process, if there is one."""
        if self._process is None:
            return
        with self._process:  # closes the pipes and waits
            self._process.kill()
        self._process = None

    def close(self) -> None:
        """Ends the process and gives the memory back."""
        self.stop()
        os.close(self._descriptor)

    def _start(self, cancelled) -> subprocess.Popen:
        arguments = (self._descriptor, self._num_bytes, self._memory_bytes, NICE)
        self._process = subprocess.Popen(
            [*self._command, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            pass_fds=(self._descriptor,),
            env=environment() | _ONE_THREAD,
        )
        line = _read_line(self._process.stdout, time.monotonic() + _START_LIMIT, cancelled)
        if line != b"{}\n" and not cancelled():
            self.stop()
            limit = f"{self._memory_bytes / 2**30:g} GiB (0: no limit)"
            raise UserError(
                f"a decoding process must start within decoder_memory, {limit}, it did not; raise "
                f"that, or see what this says: {' '.join(self._command)}"
            )
        return self._process


def _read_line(pipe, deadline: float, cancelled) -> bytes | None:
    """A line; what there is of it where the pipe ends early; None after the deadline."""
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or cancelled():
            return None
        if select.select([pipe], [], [], min(left, 0.2))[0]:
            part = os.read(pipe.fileno(), 1 << 16)
            if not part:
                break
            line += part
    return line


def failed(state: str, reason: str) -> Clip:
    """A clip without frames."""
    return Clip(state, reason, np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, np.float32), 0.0)


def _cause(status: int) -> str:
    try:
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"
    except ValueError:
        return f"signal {-status}"
