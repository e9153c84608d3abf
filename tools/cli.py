"""Runs a tool as a command: prints its report, or a user's mistake in one sentence."""

import pathlib
from collections.abc import Callable, Iterable

from absl import logging

from uhman_jax.runtime.errors import UserError, exit_on_user_error


def print_report(work: Callable[[], Iterable[str]]) -> None:
    """Prints the lines that the work returns; a user's mistake exits with status 2."""
    logging.set_verbosity(logging.WARNING)  # JAX and orbax log a lot
    with exit_on_user_error():
        for line in work():
            print(line)


def on_disk(flag: str, given: str) -> pathlib.Path:
    """Returns the value of a flag as a local path.

    Raises:
        UserError: the value is a URL, such as gs://bucket/run.
    """
    if "://" in given:
        raise UserError(
            f"--{flag} must be a local folder or file, got {given!r}; copy it to a disk"
        )
    return pathlib.Path(given)
