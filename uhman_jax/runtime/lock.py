"""Locks a folder for one process; a second process gets an error that names the first.

The lock is the operating system's: it ends with its process, even after kill -9. The text in the
lock file is only for error messages.
"""

import contextlib
import datetime
import errno
import os
import pathlib
import socket
from collections.abc import Iterator

import filelock

from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError

LOCK_FILE = ".lock"
_NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def hold(folder: str | os.PathLike[str], remedy: str, name: str = LOCK_FILE) -> Iterator[None]:
    """Locks a folder while the block runs; creates the folder.

    A bucket or a file system without locks is not locked.

    Args:
        folder: locked by a file in it.
        remedy: advice for the user of the second process, for the message.
        name: name of that file; locks with different names do not exclude each other.

    Raises:
        UserError: another process has the lock; the message has its number, host and time.
    """
    if storage.is_remote(folder):
        yield
        return
    path = pathlib.Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, timeout=0, mode=0o644, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        holder = ""
        with contextlib.suppress(OSError):
            holder = path.read_text("utf-8", "replace").strip()
        raise UserError(
            f"one process at a time may work in {folder}, {holder or 'another one'} does; {remedy}"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {now}\n", "utf-8")
        yield
    finally:
        path.write_text("")
        lock.release()
