"""Short runs, and what two of them must have in common."""

import contextlib
import json

import jax
import numpy as np
import pytest

from uhman_jax import train
from uhman_jax.train import loop


@contextlib.contextmanager
def one_trace_per_program():
    """Runs of equal settings share their jitted functions; other processes have their own."""

    def shared(make):
        made = {}
        return lambda *args: made.setdefault(str(args), make(*args))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("make_train_step", "multi_step", "make_ranker"):
            patch.setattr(loop, name, shared(getattr(loop, name)))
        yield


def run(config, world, workdir, stop_after=None):
    """Trains; with `stop_after`, stops after this number of checks."""
    view, store, statistics = world
    checks = iter(range(10**6))
    should_stop = (lambda: False) if stop_after is None else (lambda: next(checks) >= stop_after)
    return train.train(
        config, view, store, statistics, workdir, should_stop=should_stop, log=lambda line: None
    )


def assert_same_bytes(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def log_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def without_times(entries):
    return [
        {key: value for key, value in entry.items() if not key.startswith(("seconds", "steps_per"))}
        for entry in entries
    ]
