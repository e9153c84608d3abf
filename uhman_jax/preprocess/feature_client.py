"""Encodes single clips in a separate process that stays ready for further clips.

It uses the extractor of a features folder. After conversion (see `litert`) the features equal the
folder's up to rounding: about one quantised code in 2,000 differs, by 1.
"""

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from uhman_jax.config import PreprocessConfig, to_dict
from uhman_jax.preprocess.decode_process import environment
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards.record import FrameRecord

COMMAND = (sys.executable, "-m", "uhman_jax.preprocess.feature_worker")


class Encoded(NamedTuple):
    """The result for one clip.

    Attributes:
        index: index of the clip in the request.
        record: features of the clip, without an id; None unless the state is "ok".
        state: one of `ledger.STATES`.
        reason: see `DecodedClip`.
    """

    index: int
    record: FrameRecord | None
    state: str
    reason: str


class _Request:
    """The clips for which one caller of `encode` still waits."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]]):
        self.left = {index: os.path.abspath(path) for index, path in enumerate(paths)}
        self.sent: list[int] = []  # index of each clip of the job that the process works on
        self.answered = False


class OnDemand(contextlib.AbstractContextManager["OnDemand"]):
    """Encodes clips on request; use it as a context manager, or call `close`.

    The process starts with the object and loads the network in the background. Any number of
    iterators of `encode` may be open, in any threads: the process works for one of them at a time,
    and no lock is held while an iterator waits for its consumer.

    Args:
        directory: features folder whose extractor is used.
        config: of the features, with the limits for clips of unknown origin.
        first: clips of the first call of `encode`, if known: the process starts with them.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        config: PreprocessConfig,
        first: Sequence[str | os.PathLike[str]] = (),
    ):
        self._arguments = [*COMMAND, os.fspath(directory), json.dumps(to_dict(config))]
        self._lock = threading.Lock()  # held while one answer is read, never while one is consumed
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._request: _Request | None = None  # the one that the process works on
        self._start()
        self._first = _Request(first)
        if first:
            with contextlib.suppress(BrokenPipeError):  # reading the answer reports it
                self._send(self._first)

    def __exit__(self, *exc: object) -> None:
        """Ends the process."""
        self.close()

    def encode(self, paths: Sequence[str | os.PathLike[str]]) -> Iterator[Encoded]:
        """Yields the result for each clip when it is done.

        With no paths it waits until the network is loaded. The process works for the iterator used
        last: using one interrupts the work for another, which continues when that other is used
        again. An iterator may be abandoned at any point.

        Raises:
            UserError: the extractor cannot be loaded, its process has died, or this is closed.
        """
        request = _Request(paths)
        try:
            while True:
                with self._lock:
                    answer = self._answer(request)
                if answer is None:
                    return
                yield answer
        finally:
            # A finaliser may run this at any point, so it does not wait for the lock: if that is
            # taken, a later request or `close` ends the work.
            if self._request is request and self._lock.acquire(blocking=False):
                try:
                    if self._request is request:
                        self._end()
                finally:
                    self._lock.release()

    def close(self) -> None:
        """Ends the process at once, unless it is converting its network for later processes.

        It waits at most a second for other threads and iterators; they get a UserError.
        """
        self._closed = True  # before the lock: its holder reads this before releasing it
        if not self._lock.acquire(blocking=False):  # another thread waits for an answer
            if process := self._process:
                process.kill()
            if not self._lock.acquire(timeout=1):
                return
        try:
            if self._request is not None:  # its answers will not be read
                self._end()
            elif process := self._process:
                self._process = None
                for pipe in (process.stdin, process.stdout):
                    assert pipe is not None
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
                threading.Thread(target=process.wait, daemon=True).start()  # no zombie
        finally:
            self._lock.release()

    def _answer(self, request: _Request) -> Encoded | None:
        """Returns the next answer to a request; None after the last. The caller holds the lock."""
        if request.answered:
            return None
        try:
            if self._closed:
                raise _closed()
            process = self._working_on(request)
            answer = _receive(process)
            if answer:
                answer = answer._replace(index=request.sent[answer.index])
                del request.left[answer.index]
            # After the last clip, also read the end of the job: nothing is left to interrupt.
            if not answer or (not request.left and not _receive(process)):
                request.answered, self._request = True, None
            if self._closed:
                self._end()
            return answer
        except BaseException as error:  # remaining answers must not reach the next job
            process = self._process
            self._end()
            if self._closed and isinstance(error, Exception):
                raise _closed() from None
            if process and isinstance(error, BrokenPipeError):
                raise _died(process) from None
            raise

    def _working_on(self, request: _Request) -> subprocess.Popen[bytes]:
        """Returns the process, which works on a request's remaining clips."""
        if self._request is self._first and request.left == self._first.left:
            request.sent, self._request = self._first.sent, request
        if self._request is not request:
            if self._request is not None:
                self._end()
            if self._process is None:
                self._start()
            self._send(request)
        assert self._process is not None
        return self._process

    def _send(self, request: _Request) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._request, request.sent = request, list(request.left)
        job = json.dumps({"paths": list(request.left.values())})
        self._process.stdin.write(job.encode() + b"\n")
        self._process.stdin.flush()

    def _start(self) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._arguments, stdin=pipe, stdout=pipe, env=environment()
        )
        if self._closed:
            self._process.kill()

    def _end(self) -> None:
        """Kills the process."""
        self._request = None
        if process := self._process:
            self._process = None
            process.kill()
            with contextlib.suppress(BrokenPipeError), process:  # closes pipes and waits
                pass


def _receive(process: subprocess.Popen[bytes]) -> Encoded | None:
    """Returns the next result that the process sends; None at the end of a job."""
    assert process.stdout is not None
    try:
        message = pickle.load(process.stdout)
    except (EOFError, pickle.UnpicklingError):
        raise _died(process) from None
    if isinstance(message, str):
        raise UserError(message)
    return message


def _died(process: subprocess.Popen[bytes]) -> UserError:
    process.kill()
    return UserError(
        f"the process that encodes clips must not end, it ended with status {process.wait()}; -9 "
        "means that the system lacked memory: close other programs, and try again"
    )


def _closed() -> UserError:
    return UserError("clips can be encoded until the extractor is closed; load the run again")
