"""One process at a time in a folder: who holds it is told, and a dead holder's claim is gone.

The lock is the operating system's (flock), which ends with the process that has it, also after
kill -9; what the file says is for people alone.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from uhman_jax import storage
from uhman_jax.errors import UserError

LOCK_FILE = ".lock"
_NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def hold(folder: str | os.PathLike[str], remedy: str, name: str = LOCK_FILE) -> Iterator[None]:
    """Keeps other processes out of a folder while the block runs; makes the folder.

    On a file system without locks it does nothing, and in a bucket, which has none.

    Args:
        folder: what is held, by a file in it.
        remedy: how a person who comes second can go on, for the message.
        name: of that file; those who hold others don't keep each other out.

    Raises:
        UserError: another process has it; names host, process and since when.
    """
    if storage.is_remote(folder):
        yield
        return
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    number = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"one process at a time may work in {folder}, {_holder(path)} does; {remedy}"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
        facts = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        os.ftruncate(number, 0)
        os.pwrite(number, (json.dumps(facts) + "\n").encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(number, 0)
    finally:
        os.close(number)  # which gives the lock up


def _holder(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        facts = json.loads(path.read_text("utf-8"))
        return f"process {facts['process']} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another one"
