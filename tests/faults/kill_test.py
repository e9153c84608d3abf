"""Real runs get signals at seeded times, and end with the bytes of an undisturbed run.

One time in the default suite, two among the slow tests, twenty in `pytest -m long`.
"""

import signal
import time

import numpy as np
import pytest
from tiny_run import CASES, finish, start


def lines(workdir):
    """Returns the number of lines of the log."""
    log = workdir / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def disturb(command, workdir, number, seconds, how):
    """Starts a run and sends it a signal at a seeded time; returns the process and that time.

    The signal comes at any time, or soon after the first step, a checkpoint, a validation or the
    end of training.
    """
    rng = np.random.default_rng(number)
    count, delay = int(rng.integers(1, 4)), rng.uniform(0, seconds if number % 5 == 0 else 0.4)
    event = (
        lambda: True,
        (workdir / "view.npz").exists,
        (workdir / f"checkpoints/{8 * count}.npz").exists,
        lambda: lines(workdir) > count,
        lambda: lines(workdir) >= 6,
    )[number % 5]
    process = start(command, workdir)
    while process.poll() is None and not event():
        time.sleep(0.005)
    end = time.monotonic() + delay
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(how)
    return process, time.monotonic()


@pytest.mark.parametrize("number", CASES)
def test_a_killed_run_ends_as_if_it_had_not_been(command, undisturbed, tmp_path, number):
    expected, seconds, _ = undisturbed
    process, _ = disturb(command, tmp_path, number, seconds, signal.SIGKILL)
    process.communicate()
    assert finish(command, tmp_path) == expected


@pytest.mark.parametrize("number", CASES[:10])
def test_a_signal_saves_within_ten_seconds(command, undisturbed, tmp_path, number):
    expected, seconds, _ = undisturbed
    process, sent = disturb(command, tmp_path, 100 + number, seconds, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - sent < 10
    # Python has no handler at first; after the end there is nothing to save.
    assert process.returncode in (75, -signal.SIGTERM, 0), errors
    assert "Traceback" not in errors
    assert finish(command, tmp_path) == expected
