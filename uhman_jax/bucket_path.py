"""Paths in a bucket with the methods of a pathlib.Path: universal_pathlib over fsspec.

fsspec finds the client: gcsfs, or the one that a test has registered.
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

from uhman_jax.errors import UserError, storage_error


class BucketPath(GCSPath):
    """gs://BUCKET/NAME. Folders are prefixes of names: they exist while an object is in them.

    The methods below replace those of universal_pathlib that take an object that cannot be reached
    for one that does not exist, that read "*" and "[" in names as patterns, or that make buckets.
    """

    __slots__ = ()

    def __new__(cls, *args: Any, **options: Any) -> "BucketPath":
        """Keeps UPath from choosing the class by the address."""
        return object.__new__(cls)

    @classmethod
    def checked(cls, name: str) -> "BucketPath":
        """Returns the path of an address.

        Raises:
            UserError: it names no bucket, or gcsfs is not installed.
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
        """Joins as pathlib does: without "." and empty parts."""
        parts = [part for part in os.fspath(key).split("/") if part not in ("", ".")]
        return super().__truediv__("/".join(parts))

    @property
    def fs(self) -> Any:
        """The client, which reports errors as `_Client` says."""
        return _Client(self)

    def exists(self, **_: Any) -> bool:
        """Returns whether there is such an object or folder."""
        return bool(self._kind())

    def is_dir(self, **_: Any) -> bool:
        """Returns whether the name of an object begins with this one and a slash."""
        return self._kind() == "directory"

    def is_file(self, **_: Any) -> bool:
        """Returns whether there is such an object."""
        return self._kind() == "file"

    def _kind(self) -> str:
        try:
            return self.fs.info(self.path)["type"]
        except FileNotFoundError:
            return ""

    def version(self) -> tuple[int, str]:
        """Returns the bytes of the object, and a text that changes when it is replaced."""
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
        """Opens the content, in memory, to read bytes."""
        if mode != "rb":
            raise ValueError(f"an object is opened with rb, got {mode!r}; use storage.atomic_write")
        return io.BytesIO(self.read_bytes())

    def download(self, file: pathlib.Path) -> None:
        """Copies the object to a file of this machine."""
        self.fs.get_file(self.path, str(file))

    def upload(self, file: pathlib.Path) -> None:
        """Replaces the object by a file of this machine, at once."""
        try:
            self.fs.put_file(str(file), self.path)
        except FileNotFoundError as error:
            raise UserError(
                f"{self} must be in a bucket that exists, got none called "
                f"{self.path.partition('/')[0]!r}; make it, or correct the path"
            ) from error

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder appears with its first object."""

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
        """Yields the content of the folder, by name; nothing if there is no folder."""
        try:
            found = self.fs.ls(self.path, detail=False)
        except FileNotFoundError:
            return
        names = {posixpath.relpath(name.strip("/"), self.path) for name in found}
        yield from (self / name for name in sorted(names) if name != ".")

    def glob(self, pattern: str, **_: Any) -> Iterator["BucketPath"]:
        """Yields the content of the folder whose name matches a pattern."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def sizes(self) -> dict[str, int]:
        """Returns the bytes of every object in the folder, by relative name."""
        found = self.fs.find(self.path, detail=True)
        return {
            posixpath.relpath(name.strip("/"), self.path): info["size"]
            for name, info in found.items()
            if not name.endswith("/")  # an empty object that stands for a folder
        }


class _Client:
    """The client of a bucket with the errors of local files; any other is a UserError.

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
                words = next(iter(str(error).splitlines()), "") or type(error).__name__
                if isinstance(error, PermissionError) or words.startswith("Forbidden"):
                    reason = os.strerror(errno.EACCES)
                    raise PermissionError(errno.EACCES, reason, where) from error
                raise UserError(
                    f"{where} must be within reach, got {words!r}; look at the bucket's name, the "
                    "network and `gcloud auth application-default login`, and run again"
                ) from error

        return call
