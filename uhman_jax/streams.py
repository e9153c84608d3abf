"""Standard streams of a command line: closed ones, a reader that goes away, a full device, ASCII.

`| head` ends a program at the next line that it writes, without a message and with the status that
a shell shows for SIGPIPE. The signal itself stays ignored, as is usual in Python: otherwise a
decoder that dies would end the program too.
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
    """File descriptor of a standard stream; its failures are OutputErrors."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from None


def prepare() -> None:
    """Makes the three standard streams usable.

    A closed one becomes the null device: otherwise the next file that is opened gets its number,
    and the output. A character that a stream's encoding lacks is written as an escape. Lines are
    written at once.
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
    """Prepares the streams for a command line, and ends it if they fail.

    The status is `READER_GONE` if the reader of the output is gone, and 2, with one sentence, if
    the output cannot be written.
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

    Python keeps bytes that it cannot decode as surrogates, so the name of a file still works.
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
    """Runs `absl.app.run` with guarded streams; for the last line of a `__main__`.

    A wrong flag is one sentence and status 2, as any mistake; --help has status 0.

    Args:
        main: takes the program's name and the arguments that are not flags.
        known_only: of a command line, whether unknown flags are left to `main`.
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
        except SystemExit:  # with 1, after --help
            sys.exit(0)

    with guarded():
        app.run(main, flags_parser=parse)


def is_utf8() -> bool:
    """Returns whether standard output takes every character.

    `prepare` also escapes the surrogates of odd bytes in the names of files, for JSON.
    """
    return sys.stdout.encoding.lower().replace("-", "") == "utf8"
