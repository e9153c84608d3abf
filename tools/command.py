"""How a tool ends: its lines on standard output, or what a person can mend in one sentence."""

import sys
from collections.abc import Callable, Iterable

from absl import logging

from uhman_jax.errors import sentence


def tell(work: Callable[[], Iterable[str]]) -> None:
    """Prints what the work says; a person's mistake is one sentence and exit status 2."""
    logging.set_verbosity(logging.WARNING)  # JAX and orbax say much
    try:
        for line in work():
            print(line)
    except Exception as error:
        if not (told := sentence(error)):
            raise
        print(told, file=sys.stderr)
        sys.exit(2)
