"""Checkpoints of a run: the last two states, each written whole or not at all, by orbax.

Each has the checksums of its files beside them, in `crc32c.json`, and of its arrays within: orbax
does not notice every damage, and meets what it notices with all kinds of errors. In a bucket they
are copies of local ones, see `bucket`.
"""

import contextlib
import functools
import gc
import json
import logging
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import crc32c
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from uhman_jax import storage
from uhman_jax.errors import UserError, disk_trouble
from uhman_jax.run_directory import CHECKPOINTS
from uhman_jax.storage import replacing
from uhman_jax.train import bucket
from uhman_jax.train.bucket import SEAL
from uhman_jax.train.state import State

_KEPT = 2  # checkpoints
_TIMES = "_CHECKPOINT_METADATA"  # orbax writes it once more when all is done


class Checkpoints:
    """The checkpoints of one run directory; a context manager that waits for the last write.

    Of several processes each reads for itself, and what is written is whole: on the host, without
    a trace of how many devices had it.

    All methods raise UserError where the disk is full or may not be written to; the checkpoints
    that were there stay.

    Attributes:
        directory: of the checkpoints.
    """

    def __init__(self, workdir: str | os.PathLike[str], read_only: bool = False):
        self.directory = storage.path(workdir).absolute() / CHECKPOINTS
        self._folder = self.directory  # orbax's
        self._copies = contextlib.ExitStack()
        self._quiet = contextlib.ExitStack()
        self._saving = -1  # step
        process = jax.process_index()
        self._write = process == 0 and not read_only
        processes = ocp.options.MultiprocessingOptions()
        if jax.process_count() > 1:
            processes = ocp.options.MultiprocessingOptions(
                primary_host=process,
                active_processes={process},
                barrier_sync_key_prefix=f"process{process}",
            )
        with self._disk_is_named():
            if storage.is_remote(self.directory):
                with contextlib.ExitStack() as copies:
                    folder = copies.enter_context(tempfile.TemporaryDirectory())
                    self._folder = pathlib.Path(folder)
                    bucket.fetch(self.directory, self._folder)
                    self._copies = copies.pop_all()
            if not read_only:
                self._folder.mkdir(parents=True, exist_ok=True)
        ended = ocp.options.AsyncOptions(post_finalization_callback=self._seal)
        with self._disk_is_named(), _quietly():
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    read_only=read_only,
                    save_interval_steps=0 if read_only else 1,
                    max_to_keep=None if read_only else _KEPT,
                    cleanup_tmp_directories=self._write,
                    async_options=ended,
                    multiprocessing_options=processes,
                    create=jax.process_count() == 1 and not read_only,
                ),
            )

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        _drop_late_callbacks()
        self._quiet.enter_context(_quietly())
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Waits for the last write; its failure does not hide an earlier one."""
        with self._copies, self._quiet:
            try:
                with self._disk_is_named():
                    self._manager.close()
            except Exception:
                if error is None:
                    raise
            if error is not None:
                gc.collect()

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, written or being written; None before the first."""
        return self._manager.latest_step()

    def num_channels(self) -> int | None:
        """C of the newest checkpoint that says what it holds; None where none does."""
        for step in sorted(self._manager.all_steps(), reverse=True):
            with contextlib.suppress(Exception), _quietly():  # orbax raises all kinds on damage
                folder: Any = self.directory / str(step) / "default"
                found: Any = ocp.StandardCheckpointHandler().metadata(folder).tree
                return int(found["state"]["statistics"]["mean_C"].shape[0])
        return None

    def save(self, state: State) -> None:
        """Starts to write a state in the background; a checkpoint of the same step is replaced.

        Of several processes the first writes.
        """
        if not self._write:
            return
        step = int(state.step)
        self.wait()
        # A copy, since the next step donates the state's buffers while they are being written.
        copy = jax.tree.map(lambda leaf: leaf.copy(), state)
        content = {"state": copy, "crc32c": _checksums(copy)}
        self._saving = step
        with self._disk_is_named():
            if step in self._manager.all_steps():  # the other one stays until the write is done
                self._manager.delete(step)
            self._manager.save(step, args=ocp.args.StandardSave(content), force=True)

    def wait(self) -> None:
        """Returns when all started writes are on disk."""
        with self._disk_is_named():
            self._manager.wait_until_finished()

    def restore(self, abstract: State, say: Callable[[str], object] = print) -> State | None:
        """Reads the newest checkpoint that is whole.

        Args:
            abstract: what `abstract_state` returned.
            say: is told of a damaged checkpoint that was passed over.

        Returns:
            The state; None where there is no checkpoint at all.

        Raises:
            UserError: there are checkpoints, but none that can be read.
        """
        self._manager.reload()
        steps = sorted(self._manager.all_steps(), reverse=True)
        reasons = []
        for step in steps:
            try:
                state = self._read(step, abstract)
            except Exception as error:  # orbax raises all kinds on damage, NotImplementedError too
                reason = str(error).strip().splitlines() or [type(error).__name__]
                reasons.append(f"step {step}: {reason[0]}")
                continue
            if reasons:
                say(f"Passed over a damaged checkpoint ({reasons[0]}); used step {step}.")
            return state
        if reasons:
            raise UserError(
                f"{self.directory} must hold a checkpoint that can be read, got damaged ones "
                f"({'; '.join(reasons)}); move the folder away to start over"
            )
        return None

    @contextlib.contextmanager
    def _disk_is_named(self) -> Iterator[None]:
        """Turns what orbax raises when it can't write into a sentence."""
        try:
            yield
        except Exception as error:
            if trouble := disk_trouble(error):
                # What orbax leaves unfinished complains later, until the very end of the process.
                for name in ("absl", "asyncio"):
                    logging.getLogger(name).disabled = True
                raise UserError(
                    f"checkpoints must be written to {self.directory}, got {trouble!r}; mend that, "
                    "and the same command goes on from the last one"
                ) from error
            raise

    def _seal(self) -> None:
        """Adds the checksums to a checkpoint that is all written, just before it gets its name.

        Then uploads it, in orbax's thread, where it belongs to a bucket.
        """
        (folder,) = self._folder.glob(f"{self._saving}.*tmp*")
        text = json.dumps(_file_checksums(folder), indent=1)
        with replacing(folder / SEAL) as file:
            file.write(text.encode())
        if storage.is_remote(self.directory):
            bucket.send(folder, self.directory, self._saving, _KEPT)

    def _read(self, step: int, abstract: State) -> State:
        """Reads one checkpoint; an Exception of any kind where it is damaged."""
        folder = self._folder / str(step)
        if (folder / SEAL).exists():  # else it was lost: the numbers are checked all the same
            sums = json.loads((folder / SEAL).read_bytes())
            found = _file_checksums(folder)
            if differing := sorted(name for name in sums if sums[name] != found.get(name)):
                raise ValueError(f"{differing[0]} is missing or does not match its checksum")
        numbers = jax.ShapeDtypeStruct((len(jax.tree.leaves(abstract)),), jnp.uint32)
        with _quietly():
            content: Any = self._manager.restore(
                step, args=ocp.args.StandardRestore({"state": abstract, "crc32c": numbers})
            )
        if not np.array_equal(_checksums(content["state"]), content["crc32c"]):
            raise ValueError("its numbers do not match their checksums")
        return content["state"]


def _file_checksums(folder: pathlib.Path) -> dict[str, int]:
    """CRC32C of every file of a checkpoint but the one that holds these and orbax's times."""
    return {
        path.relative_to(folder).as_posix(): crc32c.crc32c(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (SEAL, _TIMES)
    }


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps orbax from printing pages about damage and full disks: others say it in a sentence.

    It logs them, and unfinished tasks complain when they are collected: after a failure that is
    done here.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    hook = sys.unraisablehook
    sys.unraisablehook = lambda unused: None
    try:
        yield
    except BaseException:
        gc.collect()
        raise
    finally:
        sys.unraisablehook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@functools.cache
def _drop_late_callbacks() -> None:
    """Drops one message of orbax's C++ code, from now on.

    After a failed write the others call back, for as long as the process lives, into a loop that is
    closed, and print that through the hook for uncaught exceptions.
    """
    hook = sys.excepthook

    def others(kind, error, trace) -> None:
        if str(error) != "Event loop is closed":
            hook(kind, error, trace)

    sys.excepthook = others


def _checksums(state: State) -> np.ndarray:
    """CRC32C of every leaf's bytes, uint32."""
    leaves = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(state)]
    return np.array(
        [crc32c.crc32c(leaf.reshape(-1).view(np.uint8).data) for leaf in leaves], np.uint32
    )
