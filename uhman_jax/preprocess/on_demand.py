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
from uhman_jax.preprocess.pool import environment
from uhman_jax.shards.example import FrameRecord

COMMAND = (sys.executable, "-m", "uhman_jax.preprocess.server")


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


class OnDemand:
    """Encodes clips whenever asked; use it as a context manager, or call `close`.

    The process starts with the object, and loads the network while others do something else.

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
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: dict[str, list[str]] | None = None  # what the process works on unheard
        process = self._start()
        if first:
            self._asked = _job(first)
            with contextlib.suppress(BrokenPipeError):  # `encode` tells
                _send(process, self._asked)

    def __enter__(self) -> "OnDemand":
        """Itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Lets the process end."""
        self.close()

    def encode(self, paths: Sequence[str | os.PathLike[str]]) -> Iterator[Encoded]:
        """Yields what became of each clip, as they are done; one caller at a time.

        Without a path it waits until the network is loaded.

        Raises:
            UserError: the extractor can't be loaded, or its process has died.
        """
        job = _job(paths)
        with self._turn:
            asked, self._asked = self._asked, None
            if asked not in (None, job):
                self._end()
            process = self._process or self._start()
            finished = False
            try:
                if asked != job:
                    _send(process, job)
                while not (header := self._header(process)).get("done"):
                    yield self._encoded(process, header)
                finished = True
            except BrokenPipeError:
                raise self._died(process) from None
            finally:
                if not finished:  # what is left of the answers must not meet the next question
                    self._end()

    def close(self) -> None:
        """Lets the process end: at once, unless it is keeping its network for the next one."""
        with self._turn:
            if self._asked is not None:  # nobody will hear the answers
                self._end()
            elif process := self._process:
                self._process = None
                for pipe in (process.stdin, process.stdout):
                    assert pipe is not None
                    pipe.close()
                threading.Thread(target=process.wait, daemon=True).start()  # no zombie

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        return self._process

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            with contextlib.suppress(BrokenPipeError), self._process:  # closes pipes and waits
                pass
            self._process = None

    def _header(self, process: subprocess.Popen[bytes]) -> dict:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._died(process)
        header = json.loads(line)
        if told := header.get("error"):
            raise UserError(told)
        return header

    def _encoded(self, process: subprocess.Popen[bytes], header: dict) -> Encoded:
        assert process.stdout is not None
        arrays = {}
        for name, (kind, shape) in zip(
            FrameRecord._fields[1:], header.get("arrays", ()), strict=False
        ):
            dtype = np.dtype(getattr(ml_dtypes, kind, kind))
            data = process.stdout.read(int(np.prod(shape)) * dtype.itemsize)
            try:
                arrays[name] = np.frombuffer(data, dtype).reshape(shape)
            except ValueError:
                raise self._died(process) from None
        index = header["index"]
        record = FrameRecord(str(index), **arrays) if arrays else None
        return Encoded(index, record, header["state"], header["reason"])

    def _died(self, process: subprocess.Popen[bytes]) -> UserError:
        process.kill()
        return UserError(
            "clips are encoded in a process of its own, which ended with status "
            f"{process.wait()}; -9 means that the system took its memory: close other programs, "
            "and try again"
        )


def _job(paths: Sequence[str | os.PathLike[str]]) -> dict[str, list[str]]:
    return {"paths": [os.path.abspath(path) for path in paths]}


def _send(process: subprocess.Popen[bytes], job: dict[str, list[str]]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()
