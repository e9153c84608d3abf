"""Checkpoints of a run: the last two states, each written whole or not at all, by orbax."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from uhman_jax.errors import UserError
from uhman_jax.train.state import State

# What orbax raises on a folder that is cut, mixed up or not a checkpoint (tried by damaging files).
_DAMAGE = (ValueError, KeyError, TypeError, OSError, json.JSONDecodeError)


class Checkpoints:
    """The checkpoints of one run directory; a context manager that waits for the last write."""

    def __init__(self, workdir: str | os.PathLike[str]):
        self.directory = pathlib.Path(workdir).absolute() / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True),
        )

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Waits for the last write."""
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, written or being written; None before the first."""
        return self._manager.latest_step()

    def save(self, state: State) -> None:
        """Starts to write a state in the background; a checkpoint of the same step is replaced."""
        step = int(state.step)
        self._manager.wait_until_finished()
        if step in self._manager.all_steps():  # the older of the two stays until the write is done
            self._manager.delete(step)
        # A copy, since the next step donates the state's buffers while they are being written.
        copy = jax.tree.map(jnp.copy, state)
        self._manager.save(step, args=ocp.args.StandardSave(copy), force=True)

    def wait(self) -> None:
        """Returns when all started writes are on disk."""
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
                state: Any = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
            except _DAMAGE as error:
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
