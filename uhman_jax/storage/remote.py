"""Objects of a bucket, by the calls of a pathlib.Path.

etils takes gs:// apart; fsspec finds the client: gcsfs, or what a test has registered. etils' own
calls are not used: they would go through TensorFlow where it is installed, and take an object that
can't be reached for one that is not there.
"""

import contextlib
import errno
import fnmatch
import io
import os
import pathlib
import posixpath
import stat
import types
from collections.abc import Iterator
from typing import Any

import fsspec
from etils.epath.gpath import PosixGPath

from uhman_jax.errors import UserError, disk_trouble


class RemotePath(PosixGPath):
    """gs://BUCKET/NAME. Folders are beginnings of names: they come and go with what is in them."""

    @classmethod
    def checked(cls, name: str) -> "RemotePath":
        """The path of that name.

        Raises:
            UserError: it names no bucket, or gcsfs is not installed.
        """
        found = cls(name)
        if len(found.parts) < 3:
            raise UserError(f"gs:// must name a bucket, got {name!r}; write gs://BUCKET/FOLDER")
        try:
            fsspec.get_filesystem_class("gs")
        except ImportError as error:
            raise UserError(
                f"{name} needs gcsfs, which is not installed; pip install -e '.[gcs]'"
            ) from error
        return found

    @property
    def key(self) -> str:
        """BUCKET/NAME."""
        return "/".join(self.parts[2:])

    def exists(self) -> bool:
        """Whether there is such an object or folder."""
        return self._info() is not None

    def is_dir(self) -> bool:
        """Whether an object's name begins with this one and a slash."""
        info = self._info()
        return info is not None and info["type"] == "directory"

    def is_file(self) -> bool:
        """Whether there is such an object."""
        info = self._info()
        return info is not None and info["type"] == "file"

    def is_symlink(self) -> bool:
        """False: buckets have no links."""
        return False

    def absolute(self) -> "RemotePath":
        """Itself."""
        return self

    def stat(self) -> Any:
        """Has `st_size` and `st_mode`."""
        info = self._must()
        kind = stat.S_IFREG if info["type"] == "file" else stat.S_IFDIR
        return types.SimpleNamespace(st_size=info["size"], st_mode=kind | 0o644)

    def version(self) -> tuple[int, str]:
        """Bytes of the object, and words that change when it is replaced."""
        info = self._must()
        marks = ("generation", "md5Hash", "created", "mtime", "size")
        return info["size"], " ".join(str(info.get(mark)) for mark in marks)

    def read_bytes(self) -> bytes:
        """Its content."""
        with _told(self):
            return _client().cat_file(str(self))

    def read_text(self, encoding: str | None = "utf-8") -> str:
        """Its content, in UTF-8."""
        return self.read_bytes().decode(encoding or "utf-8")

    def open(self, mode: str = "r", **unused: Any) -> Any:
        """Opens its content, in memory, for reading bytes."""
        if mode != "rb":
            raise ValueError(f"an object is opened with rb, got {mode!r}; use storage.replacing")
        return io.BytesIO(self.read_bytes())

    def download(self, file: pathlib.Path) -> None:
        """Copies it to a file of this machine."""
        with _told(self):
            _client().get_file(str(self), str(file))

    def upload(self, file: pathlib.Path) -> None:
        """Replaces it by a file of this machine, in one go."""
        try:
            with _told(self):
                _client().put_file(str(file), str(self))
        except FileNotFoundError as error:
            raise UserError(
                f"{self} must be in a bucket that exists, got none called {self.parts[2]!r}; "
                "make it, or correct the path"
            ) from error

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder is there with the first object in it."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes it."""
        try:
            with _told(self):
                _client().rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def replace(self, target: "RemotePath") -> "RemotePath":  # type: ignore[bad-override]
        """Copies it to another name, then removes it."""
        with _told(self):
            _client().cp_file(str(self), str(target))
        self.unlink()
        return target

    def iterdir(self) -> Iterator["RemotePath"]:
        """What is in the folder, in order of name; nothing where there is no folder."""
        try:
            with _told(self):
                found = _client().ls(str(self), detail=False)
        except FileNotFoundError:
            return
        names = {name.strip("/").removeprefix(f"{self.key}/") for name in found}
        yield from (self / name for name in sorted(names) if "/" not in name and name != self.key)

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """What is in the folder and fits a pattern of names."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def sizes(self) -> dict[str, int]:
        """Bytes of every object below, by relative name."""
        with _told(self):
            found = _client().find(str(self), detail=True)
        return {
            posixpath.relpath(name.lstrip("/"), self.key): info["size"]
            for name, info in found.items()
            if not name.endswith("/")  # an empty object that stands for a folder
        }

    def _info(self) -> dict[str, Any] | None:
        try:
            return self._must()
        except FileNotFoundError:
            return None

    def _must(self) -> dict[str, Any]:
        with _told(self):
            return _client().info(str(self))


def _client() -> Any:
    """The file system; without kept listings, since other processes write too."""
    return fsspec.filesystem("gs", use_listings_cache=False)


@contextlib.contextmanager
def _told(path: RemotePath) -> Iterator[None]:
    """Gives the errors of a client the form that those of local files have, or a sentence.

    Raises:
        FileNotFoundError: there is no such object or bucket.
        PermissionError: the credentials do not allow it.
        UserError: whatever else keeps it from being reached.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except Exception as error:  # clients raise all kinds: of HTTP, of credentials, of sockets
        if isinstance(error, OSError) and error.errno and disk_trouble(error):
            raise  # of the copy on this machine
        words = next(iter(str(error).splitlines()), "") or type(error).__name__
        if isinstance(error, PermissionError) or words.startswith("Forbidden"):
            reason = os.strerror(errno.EACCES)
            raise PermissionError(errno.EACCES, reason, str(path)) from error
        raise UserError(
            f"{path} must be within reach, got {words!r}; look at the bucket's name, the network "
            "and `gcloud auth application-default login`, and run again"
        ) from error
