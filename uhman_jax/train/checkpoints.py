"""Checkpoints of a run: its last two states, each in one file that is written atomically.

`checkpoints/STEP.npz` is a NumPy archive of the state's arrays by name, followed by the SHA-256 of
its bytes. Arrays that are sharded over devices are stored whole. Folders `checkpoints/STEP`, which
earlier versions wrote with orbax, can still be read.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import crc32c
import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.config import Config
from uhman_jax.dataset.view import View
from uhman_jax.models.build import build_model
from uhman_jax.run_directory import CHECKPOINTS
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError, storage_error
from uhman_jax.train.state import State, abstract_state

_KEPT = 2  # checkpoints
_DIGEST_SIZE = hashlib.sha256().digest_size


class Checkpoints:
    """The checkpoints of one run directory; a context manager that waits for the last write.

    All processes read; only the first one writes. If the storage is full or read-only, a write
    raises UserError, and the existing checkpoints stay.

    Attributes:
        directory: folder of the checkpoints.
        seconds: duration of the last write; 0 before the first.
    """

    def __init__(self, workdir: str | os.PathLike[str], read_only: bool = False):
        self.directory = storage.path(workdir).absolute() / CHECKPOINTS
        self.seconds = 0.0
        self._is_writer = jax.process_index() == 0 and not read_only
        self._executor = futures.ThreadPoolExecutor(1, "checkpoints")
        self._writing: futures.Future[None] | None = None
        if not read_only:
            with self._named_errors():
                self.directory.mkdir(parents=True, exist_ok=True)
                if self._is_writer:
                    storage.remove_leftovers(self.directory)

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Waits for the last write; raises its error unless another exception is on its way."""
        self._executor.shutdown()
        if error is None:
            self.wait()

    @property
    def latest_step(self) -> int | None:
        """The step of the newest written checkpoint; None before the first."""
        paths = self._paths()
        return int(paths[-1].stem) if paths else None

    def save(self, state: State) -> None:
        """Writes a state in the background; replaces a checkpoint of the same step."""
        if self._is_writer:
            self.wait()
            # A copy, since the next step donates the buffers of the state.
            copy = jax.tree.map(lambda leaf: leaf.copy(), state)
            self._writing = self._executor.submit(self._write, copy)

    def wait(self) -> None:
        """Waits until the last write is on disk; raises its error."""
        if self._writing:
            with self._named_errors():
                self._writing.result()

    def restore(self, abstract: State, log: Callable[[str], object] = print) -> State | None:
        """Reads the newest undamaged checkpoint.

        Args:
            abstract: a state with the same tree structure; its shapes may differ.
            log: receives a line about a damaged checkpoint that is skipped.

        Returns:
            The state; None if there is no checkpoint.

        Raises:
            UserError: all checkpoints are damaged, or the storage cannot be read.
        """
        reasons = []
        for path in reversed(self._paths()):
            try:
                state = _read(path, abstract)
            except UserError:  # e.g. the bucket cannot be reached
                raise
            except Exception as error:  # see `_read`
                reason = str(error).strip().splitlines() or [type(error).__name__]
                reasons.append(f"step {path.stem}: {reason[0]}")
                continue
            if reasons:
                log(f"Skipped a damaged checkpoint ({reasons[0]}); used step {path.stem}.")
            return state
        if reasons:
            raise UserError(
                f"{self.directory} must hold a checkpoint that can be read, got damaged ones "
                f"({'; '.join(reasons)}); move the folder away to start over"
            )
        return None

    def _paths(self) -> list[pathlib.Path]:
        """Returns the checkpoints, oldest first."""
        paths = [path for path in self.directory.iterdir() if path.suffix in (".npz", "")]
        numbered = [path for path in paths if path.stem.isdigit()]
        return sorted(numbered, key=lambda path: (int(path.stem), path.suffix))

    def _write(self, state: State) -> None:
        """Writes a checkpoint, then removes all but the newest two."""
        begin = time.monotonic()
        archive = io.BytesIO()
        np.savez(archive, **jax.tree.map(np.asarray, _by_name(state)))
        content = archive.getbuffer()
        with storage.atomic_write(self.directory / f"{int(state.step)}.npz") as file:
            file.write(content)
            file.write(hashlib.sha256(content).digest())
        for path in self._paths()[:-_KEPT]:
            _remove(path)
        self.seconds = time.monotonic() - begin

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turns a storage error into a UserError that names the folder of the checkpoints."""
        try:
            yield
        except Exception as error:
            if trouble := storage_error(error):
                raise UserError(
                    f"checkpoints must be written to {self.directory}, got {trouble!r}; fix "
                    "that and repeat the command, which resumes from the last one"
                ) from error
            raise


def restore(config: Config, view: View, workdir: str | os.PathLike[str]) -> State | None:
    """Returns the state of a run directory's newest undamaged checkpoint; None if there is none.

    Writes nothing to the directory, so a run may train in it at the same time.

    Raises:
        UserError: all checkpoints are damaged, or the storage cannot be read.
    """
    if not (storage.path(workdir) / CHECKPOINTS).is_dir():
        return None
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return checkpoints.restore(abstract_state(build_model(config.model, view), config, 1))


def _by_name(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by path, e.g. params/hashtag_TK."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _read(path: pathlib.Path, abstract: State) -> State:
    """Reads one checkpoint; a damaged one may raise any exception."""
    names = list(_by_name(abstract))
    leaves = _read_archive(path, names) if path.suffix else _read_orbax(path, names)
    return jax.tree.unflatten(jax.tree.structure(abstract), map(jnp.array, leaves))


def _read_archive(path: pathlib.Path, names: list[str]) -> list[np.ndarray]:
    content = path.read_bytes()
    data = memoryview(content)
    if hashlib.sha256(data[:-_DIGEST_SIZE]).digest() != data[-_DIGEST_SIZE:]:
        raise ValueError(f"{path.name} does not match its checksum")
    with np.load(io.BytesIO(content)) as arrays:
        return [arrays[name] for name in names]


def _read_orbax(folder: pathlib.Path, names: list[str]) -> list[np.ndarray]:
    """Reads a checkpoint of an earlier version, which lists the CRC32C of its files."""
    import orbax.checkpoint as ocp  # here because it takes 0.3 s

    with tempfile.TemporaryDirectory() as copy:
        if storage.is_remote(folder):
            for name in storage.sizes(folder):
                (pathlib.Path(copy) / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).download(pathlib.Path(copy) / name)  # type: ignore[missing-attribute]
            folder = pathlib.Path(copy)
        for name, checksum in json.loads((folder / "crc32c.json").read_bytes()).items():
            if crc32c.crc32c((folder / name).read_bytes()) != checksum:
                raise ValueError(f"{name} does not match its checksum")
        handler: Any = ocp.PyTreeCheckpointHandler()
        tree = handler.metadata(folder / "default").tree
        as_numpy = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        restore = ocp.args.PyTreeRestore(restore_args=as_numpy)
        content = _by_name(handler.restore(folder / "default", args=restore)["state"])
    return [content[name] for name in names]


def _remove(path: pathlib.Path) -> None:
    """Removes a checkpoint, a file or a folder of orbax."""
    if path.suffix:
        path.unlink()
    elif storage.is_remote(path):
        for name in storage.sizes(path):
            (path / name).unlink()
    else:
        shutil.rmtree(path)
