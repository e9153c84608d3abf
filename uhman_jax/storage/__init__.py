"""Paths of this machine or of a bucket (gs://BUCKET/NAME); what differs between the two is here.

`path` gives a pathlib.Path, or a `remote.RemotePath` that answers to the same calls. An object of a
bucket appears whole when its upload ends, and can't be appended to, mapped or decoded: for that
there are copies on this machine.
"""

import contextlib
import fcntl
import hashlib
import math
import os
import pathlib
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator

from uhman_jax.errors import UserError

CACHE = "UHMAN_JAX_CACHE"  # environment variable: folder of copies that are kept
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.tmp|\.[0-9a-f]{8}\.tmp\..+")  # of the two below
_NAME_LENGTH = 120  # characters of an object's name in that of its copy


def path(text: str | os.PathLike[str]) -> pathlib.Path:
    """The path that a person gave.

    Returns:
        A pathlib.Path; for gs:// a RemotePath, which has those of its methods that are used here.

    Raises:
        UserError: an address of another kind, or gcsfs is not installed.

    >>> path("data/clips").name
    'clips'
    """
    name = os.fspath(text)
    if is_remote(text):
        from uhman_jax.storage.remote import RemotePath  # a tenth of a second

        return RemotePath.checked(name)  # type: ignore[bad-return]
    if re.match(r"[a-z][a-z0-9+.-]*://", name):
        raise UserError(f"a path must be local or begin with gs://, got {name!r}; copy it there")
    return pathlib.Path(name)


def is_remote(where: str | os.PathLike[str]) -> bool:
    """Whether a path is one of a bucket.

    >>> is_remote("gs://bucket/clips"), is_remote("clips")
    (True, False)
    """
    return os.fspath(where).startswith("gs://")


@contextlib.contextmanager
def replacing(where: str | os.PathLike[str]):
    """Opens a binary file that takes the place of `where` when the block ends well.

    It is written under another name in the same folder, flushed to the disk and renamed: `where` is
    whole or not there at all, also after a crash. A block that raises leaves nothing, one that is
    killed what `remove_leftovers` removes. An object is written to a temporary file and uploaded.
    """
    target = path(where)
    if is_remote(target):
        with making(target) as temporary, open(temporary, "xb") as file:
            yield file
        return
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


@contextlib.contextmanager
def making(where: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A local name for a library that opens files itself; see `replacing`, but for the flush.

    The name ends as `where` does: libraries look at that.
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


def check_folder(folder: str | os.PathLike[str], flag: str) -> None:
    """Checks, before any work, that a folder is there or can be made, and may be written to.

    It leaves nothing behind. Of a bucket it says nothing.

    Args:
        folder: that will be written to.
        flag: that names it, for the message.

    Raises:
        UserError: it can't be.
    """
    if is_remote(folder):
        return
    check_name(folder, flag)
    there, reason = pathlib.Path(os.path.abspath(folder)), ""
    while not reason:
        try:
            mode = os.stat(there).st_mode
        except (FileNotFoundError, NotADirectoryError):
            if there.is_symlink():
                reason = f"{there} is a link to nothing"
            there = there.parent
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
        else:
            try:
                if stat.S_ISDIR(mode):
                    os.rmdir(tempfile.mkdtemp(dir=there))
                else:
                    reason = f"{there} is a file"
            except OSError as error:
                reason = f"{error.strerror} in {there}"
            break
    if reason:
        name = shown(os.fspath(folder))
        raise UserError(
            f"{flag} must be a folder that can be written, got {name}: {shown(reason)}; "
            "name another"
        )


def check_name(path: str | os.PathLike[str], flag: str) -> None:
    """Checks that libraries outside of Python, which take names as UTF-8, will find a path.

    Args:
        path: relative ones start from the working folder.
        flag: that names it, for the message.

    Raises:
        UserError: its bytes are no UTF-8, or the locale's are not.
    """
    if is_remote(path) or (name := os.path.abspath(path)).isascii():
        return
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise UserError(
            f"a locale must be UTF-8 for names like {shown(name)} in {flag}, got {encoding}; set "
            "LC_ALL=C.UTF-8 and leave PYTHONUTF8 out"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{flag} must be a name in UTF-8, got {shown(name)}; rename it") from None


def shown(name: str) -> str:
    r"""A file's name for people: on one line, and with escapes for what is no character.

    >>> print(shown("clip\n\udce9.mp4"))
    clip\n\udce9.mp4
    """
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what killed processes left of `replacing` and `making`; none may be at work there.

    In a bucket there is nothing to look for: objects appear whole.
    """
    if is_remote(folder):
        return
    for left in folder.glob(".*"):
        if _LEFTOVER.fullmatch(left.name):
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def local_copy(where: pathlib.Path) -> Iterator[pathlib.Path]:
    """The file itself, or a copy of an object that is gone after the block.

    The copy keeps the end of the name alone. How large it may be is the caller's to check.

    Raises:
        FileNotFoundError: there is no such object.
    """
    if not is_remote(where):
        yield where
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / f"copy{where.suffix[:20]}"
        where.download(copy)  # type: ignore[missing-attribute]
        yield copy


def cached(where: str | os.PathLike[str]) -> pathlib.Path:
    """The file itself, or a copy of an object that later calls and other processes find again.

    Copies are in $UHMAN_JAX_CACHE, by default ~/.cache/uhman_jax/copies; nothing removes them. The
    name of one has the version of its object in it, so an object that was replaced is copied anew.

    Raises:
        FileNotFoundError: there is no such object.
    """
    target = path(where)
    if not is_remote(target):
        return target
    given = os.environ.get(CACHE)
    folder = pathlib.Path(given) if given else user_cache("copies")
    size, version = target.version()  # type: ignore[missing-attribute]
    key = hashlib.sha256(f"{target}\n{version}".encode()).hexdigest()[:24]
    copy = folder / f"{key}-{target.name[-_NAME_LENGTH:]}"
    if _size(copy) == size:
        return copy
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "ab") as lock:  # several processes of a machine download once
        with contextlib.suppress(OSError):  # a file system without locks: each downloads
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _size(copy) != size:
            with making(copy) as temporary:
                target.download(temporary)  # type: ignore[missing-attribute]
                if _size(temporary) != size:
                    raise UserError(
                        f"{target} must have the {size} bytes that its bucket states, got "
                        f"{_size(temporary)}; do not change it while it is read, and run again"
                    )
    return copy


def sizes(root: pathlib.Path) -> dict[str, int]:
    """Bytes of every object below a remote folder, by relative name, from one listing."""
    return root.sizes()  # type: ignore[missing-attribute]


def files_below(root: pathlib.Path) -> list[pathlib.PurePosixPath]:
    """Relative names of all files below a folder, whatever their kind, in order."""
    if is_remote(root):
        return sorted(map(pathlib.PurePosixPath, sizes(root)))
    paths = sorted(root.rglob("*"))
    return [pathlib.PurePosixPath(p.relative_to(root)) for p in paths if not p.is_dir()]


def user_cache(name: str) -> pathlib.Path:
    """The package's folder of that name in the user's cache; it may not be there yet."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(cache) / "uhman_jax" / name


def _size(file: pathlib.Path) -> float:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return math.nan


def _sync_folder(folder: pathlib.Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
