"""The checkpoints of a run: its last two states, each one file that is written whole or not at all.

`checkpoints/STEP.npz` is a NumPy archive of the state's arrays by name, followed by the SHA-256 of
its bytes. The arrays are whole, also if several devices share them. Folders `checkpoints/STEP`,
which earlier versions wrote with orbax, can still be read.
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

    All processes read, only the first one writes. A write to a full or read-only storage raises
    UserError and leaves the existing checkpoints.

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
        """Waits for the last write; its failure does not hide an earlier one."""
        self._executor.shutdown()
        if error is None:
            self.wait()

    @property
    def latest_step(self) -> int | None:
        """The step of the newest written checkpoint; None before the first."""
        paths = self._paths()
        return int(paths[-1].stem) if paths else None

    def save(self, state: State) -> None:
        """Starts to write a state in the background; a checkpoint of the same step is replaced."""
        if self._is_writer:
            self.wait()
            # A copy, since the next step donates the buffers of the state.
            copy = jax.tree.map(lambda leaf: leaf.copy(), state)
            self._writing = self._executor.submit(self._write, copy)

    def wait(self) -> None:
        """Returns when all started writes are on disk."""
        if self._writing:
            with self._named_errors():
                self._writing.result()

    def restore(self, abstract: State, log: Callable[[str], object] = print) -> State | None:
        """Reads the newest checkpoint that is whole.

        Args:
            abstract: a state of the same structure, of any shapes.
            log: receives a line about a damaged checkpoint that is skipped.

        Returns:
            The state; None if there is no checkpoint.

        Raises:
            UserError: no checkpoint can be read although there are some.
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
                log(f"Passed over a damaged checkpoint ({reasons[0]}); used step {path.stem}.")
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
        """Turns an error of the storage into a UserError that names the checkpoints."""
        try:
            yield
        except Exception as error:
            if trouble := storage_error(error):
                raise UserError(
                    f"checkpoints must be written to {self.directory}, got {trouble!r}; correct "
                    "that, and the same command continues from the last one"
                ) from error
            raise


def restore(config: Config, view: View, workdir: str | os.PathLike[str]) -> State | None:
    """Returns the state in a run directory's newest whole checkpoint; None if there is none.

    Changes nothing in the directory: a run may be training in it.

    Raises:
        UserError: no checkpoint can be read although there are some.
    """
    if not (storage.path(workdir) / CHECKPOINTS).is_dir():
        return None
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return checkpoints.restore(abstract_state(build_model(config.model, view), config, 1))


def _by_name(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree, by names such as params/hashtag_TK."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _read(path: pathlib.Path, abstract: State) -> State:
    """Reads one checkpoint; damage raises exceptions of all kinds."""
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
    import orbax.checkpoint as ocp  # takes 0.3 s

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
    """Removes a checkpoint of either layout."""
    if path.suffix:
        path.unlink()
    elif storage.is_remote(path):
        for name in storage.sizes(path):
            (path / name).unlink()
    else:
        shutil.rmtree(path)
