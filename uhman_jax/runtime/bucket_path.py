"""Paths in a bucket with the methods of a pathlib.Path: universal_pathlib over fsspec.

The client is fsspec's for "gs": gcsfs, or the client that a test registers.
"""

import errno
import fnmatch
import io
import os
import pathlib
import posixpath
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
from upath.implementations.cloud import GCSPath

from uhman_jax.runtime.errors import UserError, storage_error


class BucketPath(GCSPath):
    """A path gs://BUCKET/NAME. A folder is a prefix of names: it exists while an object is in it.

    The methods override methods of universal_pathlib that treat an unreachable object as missing,
    that read "*" and "[" in names as patterns, or that create buckets.
    """

    __slots__ = ()

    def __new__(cls, *args: Any, **options: Any) -> "BucketPath":
        """Prevents UPath from choosing the class by the address."""
        return object.__new__(cls)

    @classmethod
    def checked(cls, name: str) -> "BucketPath":
        """Returns the path of an address.

        Raises:
            UserError: the address has no bucket, or gcsfs is not installed.
        """
        bucket, _, key = name.removeprefix("gs://").lstrip("/").partition("/")
        if not bucket:
            raise UserError(f"gs:// must name a bucket, got {name!r}; write gs://BUCKET/FOLDER")
        try:
            fsspec.get_filesystem_class("gs")
        except ImportError as error:
            raise UserError(
                f"{name} needs gcsfs, which is not installed; pip install -e '.[gcs]'"
            ) from error
        return cls(f"gs://{bucket}") / key

    def __fspath__(self) -> str:
        """Returns the address, for messages; the built-in open() cannot read it."""
        return str(self)

    def __truediv__(self, key: Any) -> "BucketPath":
        """Joins without "." and empty parts, as pathlib does."""
        parts = [part for part in os.fspath(key).split("/") if part not in ("", ".")]
        return super().__truediv__("/".join(parts))

    @property
    def fs(self) -> Any:
        """The client, see `_Client` for its errors."""
        return _Client(self)

    def exists(self, **_: Any) -> bool:
        """Returns whether the object or folder exists."""
        return bool(self._kind())

    def is_dir(self, **_: Any) -> bool:
        """Returns whether the folder exists."""
        return self._kind() == "directory"

    def is_file(self, **_: Any) -> bool:
        """Returns whether the object exists."""
        return self._kind() == "file"

    def _kind(self) -> str:
        try:
            return self.fs.info(self.path)["type"]
        except FileNotFoundError:
            return ""

    def version(self) -> tuple[int, str]:
        """Returns the size of the object, and a text that changes when it is replaced."""
        info = self.fs.info(self.path)
        marks = ("generation", "md5Hash", "created", "mtime", "size")
        return info["size"], " ".join(str(info.get(mark)) for mark in marks)

    def read_bytes(self) -> bytes:
        """Returns the content."""
        return self.fs.cat_file(self.path)

    def read_text(self, encoding: str | None = "utf-8", *_: Any, **__: Any) -> str:
        """Returns the content, in UTF-8 by default."""
        return self.read_bytes().decode(encoding or "utf-8")

    def open(self, mode: str = "r", *_: Any, **__: Any) -> Any:
        """Opens the content in memory to read bytes."""
        if mode != "rb":
            raise ValueError(f"mode must be rb, got {mode!r}; write with storage.atomic_write")
        return io.BytesIO(self.read_bytes())

    def download(self, file: pathlib.Path) -> None:
        """Copies the object to a file of this machine."""
        self.fs.get_file(self.path, str(file))

    def upload(self, file: pathlib.Path) -> None:
        """Replaces the object with a file of this machine, atomically."""
        try:
            self.fs.put_file(str(file), self.path)
        except FileNotFoundError as error:
            raise UserError(
                f"{self} must be in a bucket that exists, got no bucket "
                f"{self.path.partition('/')[0]!r}; create it, or correct the path"
            ) from error

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Has no effect: a folder appears with its first object."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the object."""
        try:
            self.fs.rm_file(self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def replace(self, target: "BucketPath") -> "BucketPath":  # type: ignore[bad-override]
        """Copies the object to another name, then removes it."""
        self.fs.cp_file(self.path, target.path)
        self.unlink()
        return target

    def iterdir(self) -> Iterator["BucketPath"]:
        """Yields the content of the folder by name; nothing if it does not exist."""
        try:
            found = self.fs.ls(self.path, detail=False)
        except FileNotFoundError:
            return
        names = {posixpath.relpath(name.strip("/"), self.path) for name in found}
        yield from (self / name for name in sorted(names) if name != ".")

    def glob(self, pattern: str, **_: Any) -> Iterator["BucketPath"]:
        """Yields the paths in the folder whose names match a pattern."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def sizes(self) -> dict[str, int]:
        """Returns the size of each object in the folder, by relative name."""
        found = self.fs.find(self.path, detail=True)
        return {
            posixpath.relpath(name.strip("/"), self.path): info["size"]
            for name, info in found.items()
            if not name.endswith("/")  # an empty object that stands for a folder
        }


class _Client:
    """The client of a bucket; raises the errors of local files, and UserError for other failures.

    It caches no listings, because other processes write too.
    """

    def __init__(self, where: BucketPath):
        self._where = where

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(fsspec.filesystem("gs", use_listings_cache=False), name)

        def call(*arguments: Any, **options: Any) -> Any:
            where = str(self._where)
            try:
                return method(*arguments, **options)
            except FileNotFoundError as error:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), where) from error
            except Exception as error:  # errors of HTTP, of credentials, of sockets
                if isinstance(error, OSError) and error.errno and storage_error(error):
                    raise  # the disk of this machine
                text = next(iter(str(error).splitlines()), "") or type(error).__name__
                if isinstance(error, PermissionError) or text.startswith("Forbidden"):
                    reason = os.strerror(errno.EACCES)
                    raise PermissionError(errno.EACCES, reason, where) from error
                raise UserError(
                    f"{where} must be reachable, got {text!r}; check the bucket's name, the "
                    "network and `gcloud auth application-default login`, and run again"
                ) from error

        return call
