"""Standard streams of a command line: closed ones, a reader that goes away, a full device, ASCII.

`| head` ends a program when it writes the next line, without a word and with the status that a
shell shows for SIGPIPE. Python ignores that signal, and so it stays: else a decoder that dies would
end the program too.
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

READER_GONE = 141  # exit status: 128 + SIGPIPE, as of any program at the head of a pipeline
WRONG = 2  # exit status
STDOUT, STDERR = 1, 2
GONE = select.POLLERR | select.POLLHUP  # events of a file descriptor that has lost its reader


class OutputError(OSError):
    """Standard output or standard error can't be written."""


class _Output(io.FileIO):
    """File descriptor of a standard stream, whose failures raise an error of their own."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from None


def prepare() -> None:
    """Makes the three standard streams usable, whatever they are.

    A closed one becomes the null device: else the next file that is opened would take its number,
    and get what is printed. A character that a stream's encoding lacks is written as an escape.
    Lines are written as they come.
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
    """Around all of a command line: prepares the streams and reports what happens to them.

    Ends the process where nobody reads its output any more (status `READER_GONE`) or its output
    can't be written (one sentence, status 2).
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
    """Ends the process where the locale can't read the command line; a file is found all the same.

    Python keeps the bytes that it can't decode as surrogates.
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
    main: Callable[[list[str]], Any], known_only: Callable[[list[str]], bool] = lambda argv: False
) -> None:
    """`absl.app.run` with the streams guarded; for the last line of a `__main__`.

    A wrong flag is one sentence and status 2, as any mistake; --help has status 0.

    Args:
        main: takes the program's name and what is no flag.
        known_only: whether flags that are unknown are left to `main`, of a command line.
    """
    from absl import app, flags

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv, known_only=known_only(argv))
        except flags.Error as error:
            text = str(error).rstrip(".")
            if missing := re.match(r"flag (--\w+)=None: .* must have a value", text):
                text = f"{missing[1]} must be given, got none"
            print(f"error: {text}; see --help", file=sys.stderr)
            sys.exit(WRONG)
        except SystemExit:  # --help and its kind, with 1
            sys.exit(0)

    with guarded():
        app.run(main, flags_parser=parse)


def is_utf8() -> bool:
    """Whether standard output takes every character.

    What is no character, the surrogate of a byte of a file's name, is written as an escape of JSON
    even then: `prepare` sees to that.
    """
    return sys.stdout.encoding.lower().replace("-", "") == "utf8"
