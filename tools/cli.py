"""How a tool ends: its lines on standard output, or what a person can mend in one sentence."""

import pathlib
from collections.abc import Callable, Iterable, Sequence

from absl import logging

from uhman_jax.errors import UserError, exit_on_user_error, only_flags


def tell(argv: Sequence[str], work: Callable[[], Iterable[str]]) -> None:
    """Prints what the work says; a person's mistake is one sentence and exit status 2."""
    logging.set_verbosity(logging.WARNING)  # JAX and orbax say much
    with exit_on_user_error():
        only_flags(argv)
        for line in work():
            print(line)


def on_disk(flag: str, given: str) -> pathlib.Path:
    """The path of a flag.

    Raises:
        UserError: it is an address.
    """
    if "://" in given:
        raise UserError(
            f"--{flag} must be a folder or file of a disk, got {given!r}; copy it there"
        )
    return pathlib.Path(given)
