"""How a tool ends: its lines on standard output, or what a person can mend in one sentence."""

from collections.abc import Callable, Iterable

from absl import logging

from uhman_jax.errors import told_in_a_sentence


def tell(work: Callable[[], Iterable[str]]) -> None:
    """Prints what the work says; a person's mistake is one sentence and exit status 2."""
    logging.set_verbosity(logging.WARNING)  # JAX and orbax say much
    with told_in_a_sentence():
        for line in work():
            print(line)
