"""Runs a tool's work as a command: prints its report, or a user's mistake in one sentence."""

import pathlib
from collections.abc import Callable, Iterable, Sequence

from absl import logging

from uhman_jax.runtime.errors import UserError, exit_on_user_error, only_flags


def print_report(argv: Sequence[str], work: Callable[[], Iterable[str]]) -> None:
    """Prints the lines that the work returns; a user's mistake exits with status 2."""
    logging.set_verbosity(logging.WARNING)  # JAX and orbax log much
    with exit_on_user_error():
        only_flags(argv)
        for line in work():
            print(line)


def on_disk(flag: str, given: str) -> pathlib.Path:
    """Returns the path of a flag.

    Raises:
        UserError: it is an address.
    """
    if "://" in given:
        raise UserError(
            f"--{flag} must be a folder or file of a disk, got {given!r}; copy it there"
        )
    return pathlib.Path(given)
