"""Features of single clips, made by a process of its own that stays ready for the next.

The extractor is the one that made a features folder, so the features are the same bytes as there.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import ml_dtypes
import numpy as np

from uhman_jax.config import PreprocessConfig, to_dict
from uhman_jax.errors import UserError
from uhman_jax.preprocess.decode_process import environment
from uhman_jax.shards.record import FrameRecord

COMMAND = (sys.executable, "-m", "uhman_jax.preprocess.feature_worker")


class Encoded(NamedTuple):
    """What became of a clip.

    Attributes:
        index: its place among those asked for.
        record: its features; None where it has none.
        state: "ok", or the ledger's word for what is wrong.
        reason: "" or a sentence; of an "ok" clip, what went wrong after the first good frame.
    """

    index: int
    record: FrameRecord | None
    state: str
    reason: str


class _Question:
    """The clips that one caller of `encode` still waits for.

    Attributes:
        left: absolute paths by their index among those asked for.
        sent: index of each clip of the job that the process works on.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]):
        self.left = {index: os.path.abspath(path) for index, path in enumerate(paths)}
        self.sent: list[int] = []
        self.answered = False


class OnDemand:
    """Encodes clips whenever asked; use it as a context manager, or call `close`.

    The process starts with the object, and loads the network while others do something else. Any
    number of iterators of `encode` may be open, in any threads: the process works for one of them,
    and no lock is held while an iterator waits for its consumer.

    Args:
        directory: of the features whose extractor is used.
        config: how those were made, and the limits for strangers' clips.
        first: clips that `encode` will be called with first, if that is known: work on them starts
            with the process.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        config: PreprocessConfig,
        first: Sequence[str | os.PathLike[str]] = (),
    ):
        """Starts the process."""
        self._arguments = [*COMMAND, os.fspath(directory), json.dumps(to_dict(config))]
        self._lock = threading.Lock()  # held while one answer is read, never while one is consumed
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._question: _Question | None = None  # the one that the process works on
        self._start()
        self._first = _Question(first)
        if first:
            with contextlib.suppress(BrokenPipeError):  # reading the answer reports it
                self._send(self._first)

    def __enter__(self) -> "OnDemand":
        """Itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Ends the process."""
        self.close()

    def encode(self, paths: Sequence[str | os.PathLike[str]]) -> Iterator[Encoded]:
        """Yields what became of each clip, as they are done.

        Without a path it waits until the network is loaded. A call that comes while another
        iterator is half consumed interrupts that one's work; when that one is continued, its
        remaining clips are encoded from then on. An iterator may be abandoned at any point.

        Raises:
            UserError: the extractor can't be loaded, its process has died, or this is closed.
        """
        question = _Question(paths)
        try:
            while True:
                with self._lock:
                    answer = self._answer(question)
                if answer is None:
                    return
                yield answer
        finally:
            self._abandon(question)

    def close(self) -> None:
        """Ends the process at once, unless it is keeping its network for the next one.

        It returns at once too, whatever other threads or iterators do; they get a UserError.
        """
        self._closed = True  # before the lock: its holder looks at this before it releases it
        if not self._lock.acquire(blocking=False):  # somebody waits for an answer: there is none
            if process := self._process:
                process.kill()
            if not self._lock.acquire(timeout=1):
                return
        try:
            if self._question is not None:  # nobody will read the answers
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

    def _answer(self, question: _Question) -> Encoded | None:
        """The next answer to a question; None after the last. Called with the lock."""
        if question.answered:
            return None
        try:
            if self._closed:
                raise _closed()
            process = self._working_on(question)
            header, answer = _header(process), None
            if not header.get("done"):
                answer = _encoded(process, header, question.sent[header["index"]])
                del question.left[answer.index]
                if not question.left:  # so that nobody has to interrupt work that is finished
                    header = _header(process)
            if header.get("done"):
                question.answered, self._question = True, None
            if self._closed:
                self._end()
            return answer
        except BaseException as error:  # what is left of the answers must not meet the next job
            process = self._process
            self._end()
            if self._closed and isinstance(error, Exception):
                raise _closed() from None
            if process and isinstance(error, BrokenPipeError):
                raise _died(process) from None
            raise

    def _working_on(self, question: _Question) -> subprocess.Popen[bytes]:
        """The process, after it was given a question's remaining clips."""
        if self._question is self._first and question.left == self._first.left:
            question.sent, self._question = self._first.sent, question
        if self._question is not question:
            if self._question is not None:
                self._end()
            if self._process is None:
                self._start()
            self._send(question)
        assert self._process is not None
        return self._process

    def _send(self, question: _Question) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._question, question.sent = question, list(question.left)
        job = json.dumps({"paths": list(question.left.values())})
        self._process.stdin.write(job.encode() + b"\n")
        self._process.stdin.flush()

    def _abandon(self, question: _Question) -> None:
        """Ends the work on a question that nobody waits for any more.

        A finaliser may call it anywhere, so it waits for no lock: where that is taken, a later
        question or `close` ends the work.
        """
        if self._question is question and self._lock.acquire(blocking=False):
            try:
                if self._question is question:
                    self._end()
            finally:
                self._lock.release()

    def _start(self) -> None:
        self._process = process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        if self._closed:
            process.kill()

    def _end(self) -> None:
        """Kills the process."""
        self._question = None
        if process := self._process:
            self._process = None
            process.kill()
            with contextlib.suppress(BrokenPipeError), process:  # closes pipes and waits
                pass


def _header(process: subprocess.Popen[bytes]) -> dict:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        raise _died(process)
    header = json.loads(line)
    if told := header.get("error"):
        raise UserError(told)
    return header


def _encoded(process: subprocess.Popen[bytes], header: dict, index: int) -> Encoded:
    assert process.stdout is not None
    arrays = {}
    for name, (kind, shape) in header.get("arrays", {}).items():
        dtype = np.dtype(getattr(ml_dtypes, kind, kind))
        data = process.stdout.read(int(np.prod(shape)) * dtype.itemsize)
        try:
            arrays[name] = np.frombuffer(data, dtype).reshape(shape)
        except ValueError:
            raise _died(process) from None
    record = FrameRecord(str(index), **arrays) if arrays else None
    return Encoded(index, record, header["state"], header["reason"])


def _died(process: subprocess.Popen[bytes]) -> UserError:
    process.kill()
    return UserError(
        "clips are encoded in a process of its own, which ended with status "
        f"{process.wait()}; -9 means that the system took its memory: close other programs, "
        "and try again"
    )


def _closed() -> UserError:
    return UserError("clips can be encoded until the extractor is closed; load the run again")
