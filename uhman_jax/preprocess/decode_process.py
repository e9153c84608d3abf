"""Starts one decoding process, sends it jobs, and reports why it ended."""

import contextlib
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import uhman_jax
from uhman_jax.preprocess.clip_file import DecodedClip
from uhman_jax.runtime.errors import UserError

COMMAND = (sys.executable, "-m", "uhman_jax.preprocess.decode_worker")
# NumPy's OpenBLAS reserves 40 MB of address space per core, and decoders multiply no matrices.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_START_LIMIT = 300.0  # seconds for a child's imports on a very busy machine
_NO_MEMORY = ("MemoryError", "Cannot allocate memory", "failed to map segment")


class LibraryFault(UserError):
    """A decoding process fails its self-test: the video library is at fault, not a clip."""


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment() -> dict[str, str]:
    """Returns the environment for a child process that imports this package."""
    package = str(Path(uhman_jax.__file__).parents[1])
    search = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(search)}


class Worker:
    """One decoding process and the memory shared with it; for use by one thread at a time.

    The process starts with the first job. Waiting for an answer ends when `cancelled` returns True.
    """

    def __init__(
        self,
        command: Sequence[str],
        num_bytes: int,
        memory_bytes: int,
        timeout: float,
        cancelled: Callable[[], bool],
    ):
        with _unnamed_file() as file:
            self._descriptor = os.dup(file.fileno())
        os.ftruncate(self._descriptor, num_bytes)
        self._shared = np.frombuffer(mmap.mmap(self._descriptor, num_bytes), np.uint8)
        self._command = command
        self._num_bytes, self._memory_bytes = num_bytes, memory_bytes
        self._timeout, self._cancelled = timeout, cancelled
        self._process: subprocess.Popen | None = None
        self._cause = ""

    def decode(self, path: str, options: dict) -> DecodedClip:
        """Decodes a file; replaces a process that hangs or dies.

        A crash counts against a clip only in a new process: in an old one an earlier clip may have
        caused it.

        Raises:
            UserError: the process does not start, or fails its self-test (LibraryFault).
        """
        fresh = self._process is None
        clip = self._decode(path, options)
        if clip is None and not fresh:
            clip = self._decode(path, options)
        return clip or DecodedClip("corrupt", f"the decoder died ({self._cause})")

    def _decode(self, path: str, options: dict) -> DecodedClip | None:
        """Returns the answer to a job; None if the process died."""
        process = self._process or self._start()
        assert process.stdin is not None
        job = {"path": path, "options": options, "timeout": self._timeout}
        with contextlib.suppress(BrokenPipeError):  # it died; the code below finds the cause
            os.write(process.stdin.fileno(), json.dumps(job).encode() + b"\n")
        line = self._read_line(process, self._timeout)
        if line is None:
            self._stop()
            return DecodedClip("timeout", f"decoding took longer than {self._timeout:g} s")
        if not line.endswith(b"\n"):
            self._cause = _cause(process.wait())
            self._stop()
            return None
        answer = json.loads(line)
        if answer["state"] == "ok":
            shape = tuple(answer.pop("images"))
            answer |= {k: np.array(v, np.float32) for k, v in answer.items() if isinstance(v, list)}
            answer["images"] = self._shared[: int(np.prod(shape))].reshape(shape).copy()
        return DecodedClip(**answer)

    def close(self) -> None:
        """Ends the process and releases the memory."""
        self._stop()
        os.close(self._descriptor)

    def _stop(self) -> None:
        if self._process is None:
            return
        with self._process:  # closes the pipes and waits
            self._process.kill()
        self._process = None

    def _start(self) -> subprocess.Popen:
        arguments = self._descriptor, self._num_bytes, self._memory_bytes
        with _unnamed_file() as errors:
            self._process = subprocess.Popen(
                [*self._command, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                pass_fds=(self._descriptor,),
                env=environment() | _ONE_THREAD,
            )
            line = self._read_line(self._process, _START_LIMIT)
            if line != b"{}\n" and not self._cancelled():
                self._stop()
                errors.seek(0)
                raise self._not_started(line or b"", errors.read().decode(errors="replace"))
        return self._process

    def _not_started(self, answer: bytes, errors: str) -> UserError:
        if answer.endswith(b"\n"):
            return LibraryFault(json.loads(answer)["fault"])
        lines = errors.strip().splitlines()
        command = " ".join(self._command)
        if lines and not any(text in lines[-1] for text in _NO_MEMORY):
            return UserError(
                f"a decoding process must start, it ended with {lines[-1].strip()!r}; repair the "
                f"installation, or see the output of: {command}"
            )
        limit = f"{self._memory_bytes / 2**30:g} GiB (0: no limit)"
        return UserError(
            f"a decoding process must start within decoder_memory, {limit}, it did not; raise "
            f"it, or see the output of: {command}"
        )

    def _read_line(self, process: subprocess.Popen, timeout: float) -> bytes | None:
        """Returns a line, or its beginning if the process ends; None if timed out or cancelled."""
        assert process.stdout is not None
        line, deadline = b"", time.monotonic() + timeout
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or self._cancelled():
                return None
            if select.select([process.stdout], [], [], min(left, 0.2))[0]:
                part = os.read(process.stdout.fileno(), 1 << 16)
                if not part:
                    break
                line += part
        return line


def _unnamed_file():
    """Returns a file without a name, in memory where the system allows it."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("decoder"), "w+b")
    return tempfile.TemporaryFile()


def _cause(status: int) -> str:
    names = {-number: number.name for number in signal.Signals}
    return names.get(status, f"exit status {status}")
