"""Opens paths on a disk or in a bucket (gs://BUCKET/NAME), and writes files atomically.

`path` returns a pathlib.Path or a `BucketPath`, which has the same methods. A file in a
bucket is called an object; it appears when its upload ends. Appending, memory mapping and decoding
need a copy on this machine.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import secrets
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from typing import Any

from uhman_jax.runtime.errors import UserError

CACHE = "UHMAN_JAX_CACHE"  # environment variable: folder of `cached_copy`
# Names of temporary files of earlier versions of `atomic_write`, and of `atomic_path`.
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.tmp|\.[0-9a-f]{8}\.tmp\..+")
_NAME_LENGTH = 120  # characters of an object's name that are kept in the name of its copy


def path(text: str | os.PathLike[str]) -> pathlib.Path:
    """Returns a pathlib.Path for a local path, or a BucketPath for gs://.

    Raises:
        UserError: the address is of another kind or names no bucket, or gcsfs is missing.

    >>> path("data/clips").name
    'clips'
    """
    name = os.fspath(text)
    if not re.match(r"[a-z][a-z0-9+.-]*://", name):
        return pathlib.Path(name)
    if is_remote(name):
        from uhman_jax.runtime.bucket_path import BucketPath  # takes 0.1 s

        return BucketPath.checked(name)  # type: ignore[bad-return]
    raise UserError(f"a path must be local or begin with gs://, got {name!r}; copy it there")


def is_remote(where: str | os.PathLike[str]) -> bool:
    """Returns whether a path is in a bucket.

    >>> is_remote("gs://bucket/clips"), is_remote("clips")
    (True, False)
    """
    return os.fspath(where).startswith("gs://")


@contextlib.contextmanager
def atomic_write(where: str | os.PathLike[str]) -> Iterator[Any]:
    """Opens a binary file that replaces `where` when the block ends without an error.

    It is written as by `atomic_path` and flushed to the disk: after a crash `where` has its old or
    its new content.
    """
    with atomic_path(where) as temporary, open(temporary, "xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    if not is_remote(where):
        folder = os.open(os.path.dirname(os.path.abspath(where)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def atomic_path(where: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a name for a library to write a file to; the file replaces `where` after the block.

    The name has the same folder and suffix. A block that raises leaves no file; `remove_leftovers`
    removes the file of a killed process. An object is written to a temporary folder and uploaded.
    """
    target = path(where)
    if is_remote(target):
        with tempfile.TemporaryDirectory() as folder:
            temporary = pathlib.Path(folder) / target.name
            yield temporary
            target.upload(temporary)  # type: ignore[missing-attribute]
        return
    temporary = target.with_name(f".{secrets.token_hex(4)}.tmp.{target.name}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes the temporary files of killed processes; no process may write to the folder.

    A bucket has no temporary files.
    """
    for file in () if is_remote(folder) else folder.glob(".*"):
        if _LEFTOVER.fullmatch(file.name):
            file.unlink(missing_ok=True)


def check_folder(folder: str | os.PathLike[str], flag: str) -> None:
    """Checks that files can be written to a folder on a disk, which may not exist yet.

    Args:
        folder: not checked if it is in a bucket.
        flag: its name in the message.

    Raises:
        UserError: the folder cannot be used.
    """
    if is_remote(folder):
        return
    check_name(folder, flag)
    existing = pathlib.Path(os.path.abspath(folder))
    try:
        while not _exists(existing):
            existing = existing.parent
        os.rmdir(tempfile.mkdtemp(dir=existing))
    except (OSError, ValueError) as error:
        reason = f"{getattr(error, 'strerror', None) or error}: {existing}"
        raise UserError(
            f"{flag} must be a folder that can be written, got {escape_name(os.fspath(folder))}: "
            f"{escape_name(reason)}; name another"
        ) from None


def _exists(where: pathlib.Path) -> bool:
    """Returns whether a file, folder or link exists; raises OSError if it cannot be checked."""
    try:
        return bool(os.lstat(where))
    except (FileNotFoundError, NotADirectoryError):
        return False


def check_name(path: str | os.PathLike[str], flag: str) -> None:
    """Checks that libraries that need names in UTF-8 can open a path.

    Args:
        path: absolute, or relative to the working folder.
        flag: its name in the message.

    Raises:
        UserError: the path or the locale is not UTF-8.
    """
    if is_remote(path) or (name := os.path.abspath(path)).isascii():
        return
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise UserError(
            f"the locale must be UTF-8 for the name {escape_name(name)} in {flag}, got {encoding}; "
            "set LC_ALL=C.UTF-8 and leave PYTHONUTF8 out"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{flag} must be a name in UTF-8, got {escape_name(name)}; rename it"
        ) from None


def escape_name(text: str) -> str:
    r"""Returns a text on one line, with escapes for control characters and undecodable bytes.

    >>> print(escape_name("clip\n\udce9.mp4"))
    clip\n\udce9.mp4
    """
    if text.isprintable():
        return text
    escaped = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, line separators
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in escaped else c for c in text)


@contextlib.contextmanager
def temporary_copy(where: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the file, or during the block a copy of an object, with the same suffix.

    The caller checks the size.

    Raises:
        FileNotFoundError: the object does not exist.
    """
    if not is_remote(where):
        yield where
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / f"copy{where.suffix[:20]}"
        where.download(copy)  # type: ignore[missing-attribute]
        yield copy


def cached_copy(where: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the file, or a copy of an object that later calls and processes reuse.

    Copies are in $UHMAN_JAX_CACHE, by default ~/.cache/uhman_jax/copies, and are never removed. The
    name of a copy depends on the object's version, so a replaced object is copied again.

    Raises:
        FileNotFoundError: the object does not exist.
    """
    target = path(where)
    if not is_remote(target):
        return target
    folder = pathlib.Path(os.environ.get(CACHE) or user_cache("copies"))
    size, version = target.version()  # type: ignore[missing-attribute]
    key = hashlib.sha256(f"{target}\n{version}".encode()).hexdigest()[:24]
    copy = folder / f"{key}-{target.name[-_NAME_LENGTH:]}"
    if _size(copy) == size:
        return copy
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "ab") as lock:  # the processes of a machine download once
        with contextlib.suppress(OSError):  # a file system without locks: each process downloads
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _size(copy) != size:
            with atomic_path(copy) as temporary:
                target.download(temporary)  # type: ignore[missing-attribute]
                if (got := _size(temporary)) != size:
                    raise UserError(
                        f"{target} must have the {size} bytes that its bucket states, got {got}; "
                        "do not change it while it is read, and run again"
                    )
    return copy


def _size(file: pathlib.Path) -> int:
    return file.stat().st_size if file.exists() else -1


def sizes(root: pathlib.Path) -> dict[str, int]:
    """Returns the size of each object in a remote folder, by relative name, from one listing."""
    return root.sizes()  # type: ignore[missing-attribute]


def files_below(root: pathlib.Path) -> list[pathlib.PurePosixPath]:
    """Returns the relative names of all files in a folder and its subfolders, in order."""
    if is_remote(root):
        return sorted(map(pathlib.PurePosixPath, sizes(root)))
    paths = sorted(root.rglob("*"))
    return [pathlib.PurePosixPath(p.relative_to(root)) for p in paths if not p.is_dir()]


def user_cache(name: str) -> pathlib.Path:
    """Returns a folder of this package in the user's cache; it may not exist."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(cache) / "uhman_jax" / name
