"""A stand-in for a store of buckets: gs://BUCKET/NAME is a file of a folder."""

import os
import pathlib
import secrets
import shutil

import fsspec
from fsspec.registry import _registry

FOLDER = "BUCKETS_FOLDER"  # environment variable: where the buckets are, also of other processes


class Buckets(fsspec.AbstractFileSystem):
    """Objects appear whole; folders are prefixes of names; writing makes no bucket."""

    protocol = ("gs", "gcs")
    calls: list = []  # (method, path)
    trouble: dict = {}  # method -> error

    @classmethod
    def _strip_protocol(cls, path):
        return os.fspath(path).removeprefix("gs://").strip("/")

    def _file(self, method, path):
        self.calls.append((method, self._strip_protocol(path)))
        if method in self.trouble:
            raise self.trouble[method]
        file = self.file(self._strip_protocol(path), bucket="")
        if method not in ("put_file", "find") and not file.exists():
            raise FileNotFoundError(path)
        return file

    def info(self, path, **options):
        file = self._file("info", path)
        kind, status = "directory" if file.is_dir() else "file", file.stat()
        version = f"{status.st_ino} {status.st_mtime_ns}"
        return {"name": path, "size": status.st_size, "type": kind, "generation": version}

    def ls(self, path, detail=False, **options):
        return [f"{path}/{file.name}" for file in self._file("ls", path).iterdir()]

    def find(self, path, detail=False, **options):
        files = {name: file for name, file in files_of(self._file("find", path))}
        return {f"{path}/{name}": {"size": file.stat().st_size} for name, file in files.items()}

    def cat_file(self, path, **options):
        return self._file("cat_file", path).read_bytes()

    def get_file(self, rpath, lpath, **options):
        shutil.copyfile(self._file("get_file", rpath), lpath)

    def put_file(self, lpath, rpath, **options):
        target = self._file("put_file", rpath)
        if not self.file("", bucket=rpath.split("/")[0]).is_dir():
            raise FileNotFoundError(rpath)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file(f".{secrets.token_hex(8)}", bucket="")
        shutil.copyfile(lpath, partial)
        os.replace(partial, target)  # at once

    def cp_file(self, path1, path2, **options):
        self.put_file(self._file("cp_file", path1), path2)

    def rm_file(self, path):
        target = self._file("rm_file", path)
        target.unlink()
        while "/" in (path := self._parent(path)) and not any(self._file("ls", path).iterdir()):
            self._file("ls", path).rmdir()  # a folder is gone with its last object

    @staticmethod
    def file(name, bucket="bucket"):
        """The file behind gs://bucket/NAME."""
        return pathlib.Path(os.environ[FOLDER]) / bucket / name

    @classmethod
    def paths(cls, method):
        """Paths of the calls of a method since the start."""
        return [path for name, path in cls.calls if name == method]

    @classmethod
    def upload(cls, folder, name):
        """Copies a local folder to gs://bucket/NAME."""
        shutil.copytree(folder, cls.file(name))
        return f"gs://bucket/{name}"

    @classmethod
    def contents(cls, name):
        """Bytes of every object below gs://bucket/NAME, by relative name."""
        return {name: file.read_bytes() for name, file in files_of(cls.file(name))}


def files_of(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path) for path in paths]


def register(folder):
    """Makes gs:// mean the buckets of a folder, in this process."""
    os.environ[FOLDER] = str(folder)
    (folder / "bucket").mkdir(parents=True, exist_ok=True)
    Buckets.calls.clear()
    Buckets.trouble.clear()
    for protocol in Buckets.protocol:
        fsspec.register_implementation(protocol, Buckets, clobber=True)


def unregister():
    """Makes gs:// mean the client that is installed."""
    for protocol in Buckets.protocol:
        _registry.pop(protocol, None)
