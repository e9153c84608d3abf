"""Stand-ins for a store of buckets: one in memory, one in a folder that several processes share."""

import os
import pathlib
import secrets
import shutil

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

FOLDER = "BUCKETS_FOLDER"  # environment variable: where the buckets of FolderBuckets are


class MemoryBuckets(MemoryFileSystem):
    """Buckets of one process; objects are written in one go, and folders are names alone."""

    protocol = ("gs", "gcs")
    store: dict = {}
    pseudo_dirs = [""]
    buckets = {"bucket"}
    calls: list = []  # (method, path)
    trouble: dict = {}  # method -> error

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + str(path).removeprefix("gs://").strip("/")

    def _begin(self, method, path):
        path = self._strip_protocol(path)
        self.calls.append((method, path[1:]))
        if method in self.trouble:
            raise self.trouble[method]
        return path

    def info(self, path, **options):
        return super().info(self._begin("info", path), **options)

    def cat_file(self, path, **options):
        return super().cat_file(self._begin("cat_file", path), **options)

    def get_file(self, rpath, lpath, **options):
        pathlib.Path(lpath).write_bytes(super().cat_file(self._begin("get_file", rpath)))

    def rm_file(self, path):
        self._rm(self._begin("rm_file", path))

    def put_file(self, lpath, rpath, **options):
        path = self._begin("put_file", rpath)
        if path.split("/")[1] not in self.buckets:
            raise FileNotFoundError(path)
        self.pipe_file(path, pathlib.Path(lpath).read_bytes())

    @classmethod
    def start(cls):
        """Empties the buckets."""
        cls.store.clear()
        cls.trouble.clear()
        cls.calls.clear()

    @classmethod
    def paths(cls, method):
        """Paths of the calls of a method since the start."""
        return [path for name, path in cls.calls if name == method]

    @classmethod
    def upload(cls, folder, name):
        """Copies a local folder to gs://bucket/NAME."""
        for path in pathlib.Path(folder).rglob("*"):
            if path.is_file():
                key = f"/bucket/{name}/{path.relative_to(folder).as_posix()}"
                cls().pipe_file(key, path.read_bytes())
        return f"gs://bucket/{name}"

    @classmethod
    def contents(cls, name):
        """Bytes of every object below gs://bucket/NAME, by relative name."""
        begin = f"/bucket/{name}/"
        return {
            key.removeprefix(begin): file.getvalue()
            for key, file in sorted(cls.store.items())
            if key.startswith(begin)
        }


class FolderBuckets(LocalFileSystem):
    """gs://BUCKET/NAME is a file of $BUCKETS_FOLDER."""

    protocol = ("gs", "gcs")

    @classmethod
    def _strip_protocol(cls, path):
        path = os.fspath(path)
        if path.startswith("gs://"):
            path = f"{os.environ[FOLDER]}/{path.removeprefix('gs://')}"
        return path.rstrip("/")

    def _name(self, path):
        return path.removeprefix(os.environ[FOLDER])

    def info(self, path, **options):
        found = super().info(self._strip_protocol(path))
        return found | {"name": self._name(found["name"])}

    def ls(self, path, detail=False, **options):
        return [self._name(name) for name in super().ls(self._strip_protocol(path), detail=False)]

    def find(self, path, detail=False, **options):
        folder = pathlib.Path(self._strip_protocol(path))
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {self._name(str(path)): {"size": path.stat().st_size} for path in files}

    def put_file(self, lpath, rpath, **options):
        target = pathlib.Path(self._strip_protocol(rpath))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = pathlib.Path(os.environ[FOLDER]) / secrets.token_hex(8)
        shutil.copyfile(lpath, partial)
        os.replace(partial, target)  # in one go

    def rm_file(self, path):
        target = pathlib.Path(self._strip_protocol(path))
        target.unlink()
        while not any(target.parent.iterdir()):  # a folder is gone with its last object
            target = target.parent
            target.rmdir()


def register(kind):
    """Makes gs:// mean the buckets of a class, in this process."""
    for protocol in kind.protocol:
        fsspec.register_implementation(protocol, kind, clobber=True)


def unregister():
    """Makes gs:// mean what is installed."""
    for protocol in MemoryBuckets.protocol:
        _registry.pop(protocol, None)
