"""Defines the errors that command lines report in one sentence."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence

from uhman_jax.runtime.streams import OutputError

# Failures of the disk that a user can fix.
_DISK = tuple(
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM ENOTDIR EISDIR EEXIST ENAMETOOLONG".split()
)
# Packages of this project, whose failing import is a defect.
_OURS = ("uhman_jax", "configs", "experiments", "tools")


class UserError(ValueError):
    """An error that a user can fix: the message has the rule, the value and the remedy.

    The command lines print only the message and exit with status 2. Other exceptions are defects of
    this package and keep their traceback.
    """


class DivergedError(UserError):
    """A loss or its gradient is not finite because of the settings."""


def storage_error(error: BaseException | None) -> str:
    """Returns the disk failure that an error or one of its causes reports, else "".

    Libraries wrap the system's errors, or keep only their text.

    >>> storage_error(ValueError("RESOURCE_EXHAUSTED: writing x: No space left on device"))
    'No space left on device'
    >>> storage_error(OSError(errno.ENOENT, "No such file")), storage_error(ValueError("of size 3"))
    ('', '')
    """
    while error is not None:
        for number in _DISK:
            text = os.strerror(number)
            if isinstance(error, OSError) and error.errno == number or text in str(error):
                return text
        error = error.__cause__ or error.__context__
    return ""


def user_message(error: Exception) -> str:
    """Returns the message for an error that a user can fix; "" for a defect.

    >>> user_message(UserError("fix this"))
    'fix this'
    >>> user_message(OSError(errno.EROFS, "no", "shard"))
    "a file 'shard' can't be written or read: Read-only file system"
    >>> user_message(MemoryError("Unable to allocate 1 TiB")).split(";")[0]
    "the settings must fit the memory, got 'Unable to allocate 1 TiB'"
    >>> user_message(ImportError("libx264.so: no such file", name="av._core")).split(";")[0]
    "the installed av must be importable, got 'libx264.so: no such file'"
    >>> user_message(ImportError("no name 'x'", name="uhman_jax.run"))  # our own defect
    ''
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        text = (str(error).splitlines() or ["out of memory"])[0]
        return (
            f"the settings must fit the memory, got {text!r}; lower train.batch_size, "
            "train.num_seeds, evaluate.batch_size or the sizes of the model"
        )
    if isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0]
        if package in ("", *_OURS):
            return ""
        return (
            f"the installed {package} must be importable, got {str(error)!r}; install uhman_jax "
            "again with the versions of .ci/constraints.txt"
        )
    if isinstance(error, OutputError):
        return ""  # `streams.guarded` reports it
    if isinstance(error, OSError) and (reason := storage_error(error)):
        name = f" {error.filename!r}" if error.filename else ""
        return f"a file{name} can't be written or read: {reason}"
    return ""


def count_of(number: int, noun: str) -> str:
    """Returns a number with its noun, for a message.

    >>> count_of(1, "clip"), count_of(1200, "clip")
    ('1 clip', '1200 clips')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def only_flags(argv: Sequence[str]) -> None:
    """Raises UserError if a command line has arguments that are not flags."""
    if len(argv) > 1:
        raise UserError(f"settings are given as --flag=value, got {argv[1]!r}; see --help")


@contextlib.contextmanager
def exit_on_user_error(prefix: str = "") -> Iterator[None]:
    """Reports an error that a user can fix in one sentence, and exits with status 2."""
    try:
        yield
    except Exception as error:
        if not (message := user_message(error)):
            raise
        print(f"{prefix}{message}", file=sys.stderr)
        sys.exit(2)
