"""Handles standard streams that are closed, have no reader, are full or accept only ASCII.

If the reader ends, as `| head` does, the program ends when it writes its next line, without a
message and with the status that a shell shows for SIGPIPE. The signal stays ignored, as is usual in
Python: otherwise a decoder that dies would end the program.
"""

import contextlib
import errno
import io
import os
import re
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

READER_GONE = 141  # exit status: 128 + SIGPIPE
WRONG = 2  # exit status of a user error
STDOUT, STDERR = 1, 2
GONE = select.POLLERR | select.POLLHUP  # events of a file descriptor that has lost its reader


class OutputError(OSError):
    """Standard output or standard error can't be written."""


class _Output(io.FileIO):
    """File descriptor of a standard stream; its failures are OutputErrors."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from None


def prepare() -> None:
    """Makes the three standard streams usable.

    A closed stream becomes the null device: otherwise the next opened file gets its number, and
    receives the output. A character that the encoding of a stream lacks is written as an escape.
    Each line is flushed.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)
    for name, number in (("stdout", STDOUT), ("stderr", STDERR)):
        encoding = getattr(getattr(sys, name), "encoding", "utf-8")
        binary = io.BufferedWriter(_Output(number, "w", closefd=False))
        text = io.TextIOWrapper(binary, encoding, "backslashreplace", line_buffering=True)
        setattr(sys, name, text)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Prepares the streams for a command line, and ends the process if they fail.

    The status is `READER_GONE` if the output has no reader, and 2, with one sentence, if the output
    cannot be written.
    """
    prepare()
    try:
        try:
            _check_arguments(sys.argv)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except OutputError as error:  # flushing at the end of the interpreter would fail again
        if error.errno == errno.EPIPE:
            os._exit(READER_GONE)
        with contextlib.suppress(OSError):
            print(
                f"error: the output must be writable, got {error.strerror!r}; write it elsewhere",
                file=sys.stderr,
                flush=True,
            )
        os._exit(WRONG)


def _check_arguments(argv: Sequence[str]) -> None:
    """Ends the process if the locale cannot read the command line.

    Python keeps undecodable bytes as surrogates, so the name of an existing file works.
    """
    encoding = sys.getfilesystemencoding()
    for text in argv:
        value = text.partition("=")[2] or text
        undecoded = any("\udc80" <= character <= "\udcff" for character in value)
        if encoding != "utf-8" and undecoded and not os.path.exists(value):
            print(
                f"error: the locale must be UTF-8 to read {value!r}, got {encoding}; set "
                "LC_ALL=C.UTF-8 and leave PYTHONUTF8 out",
                file=sys.stderr,
            )
            sys.exit(WRONG)


def run_app(
    main: Callable[[list[str]], Any],
    known_only: Callable[[list[str]], bool] = lambda argv: False,
    positional: bool = False,
) -> None:
    """Runs `absl.app.run` with guarded streams; for the last line of a `__main__`.

    A wrong flag is reported in one sentence with status 2; --help exits with status 0.

    Args:
        main: takes the program's name and the arguments that are not flags.
        known_only: returns whether a command line leaves unknown flags to `main`.
        positional: whether arguments that are not flags are allowed.
    """
    from absl import app, flags

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(argv, known_only=known_only(argv))
            if len(rest) > 1 and not positional:
                raise flags.Error(f"settings are given as --flag=value, got {rest[1]!r}")
            return rest
        except flags.Error as error:
            text = str(error).rstrip(".")
            if missing := re.match(r"flag (--\w+)=None: .* must have a value", text):
                text = f"{missing[1]} must be given, got none"
            print(f"error: {text}; see --help", file=sys.stderr)
            sys.exit(WRONG)
        except SystemExit:  # with 1, after --help
            sys.exit(0)

    with guarded():
        app.run(main, flags_parser=parse)


def is_utf8() -> bool:
    """Returns whether standard output can encode every character."""
    return sys.stdout.encoding.lower().replace("-", "") == "utf8"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discards output to file descriptor 2, where the C++ code of TensorFlow and LiteRT logs."""
    sys.stderr.flush()
    saved, null = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, STDERR)
        yield
    finally:
        os.dup2(saved, STDERR)
        os.close(saved)
        os.close(null)
