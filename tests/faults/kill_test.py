"""Real runs are killed at seeded moments, and end with the bytes of an undisturbed one.

Three moments each in the default suite, twenty in `pytest -m long`.
"""

import signal
import time

import numpy as np
import pytest
from tiny_run import CASES, left_by, start


def moment(number, seconds, workdir):
    """A function that says whether the seeded moment has come: after a time, or after an event."""
    rng = np.random.default_rng(number)
    kind = ("any time", "first step", "checkpoint", "validation", "evaluation")[number % 5]
    begin, delay = time.monotonic(), rng.uniform(0, 0.4)
    some, many = rng.integers(1, 4), rng.integers(1, 5)
    events = {
        "first step": lambda: (workdir / "view.npz").exists(),
        "checkpoint": lambda: (workdir / f"checkpoints/{8 * some}.npz").exists(),
        "validation": lambda: len(lines(workdir)) > many,
        "evaluation": lambda: len(lines(workdir)) >= 6,
    }
    if kind == "any time":
        at = begin + rng.uniform(0, seconds)
        return lambda: time.monotonic() > at
    since = []

    def come():
        if not since and events[kind]():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] > delay

    return come


def lines(workdir):
    log = workdir / "metrics.jsonl"
    return log.read_text().splitlines() if log.exists() else []


def disturb(command, workdir, number, seconds, how):
    """Starts a run and sends it a signal at its moment; the process, and when it was sent."""
    process, come = start(command, workdir), moment(number, seconds, workdir)
    while process.poll() is None and not come():
        time.sleep(0.005)
    process.send_signal(how)
    return process, time.monotonic()


@pytest.mark.parametrize("number", CASES)
def test_a_killed_run_ends_as_if_it_had_not_been(command, undisturbed, tmp_path, number):
    expected, seconds, _ = undisturbed
    process, _ = disturb(command, tmp_path, number, seconds, signal.SIGKILL)
    process.communicate()
    again = start(command, tmp_path)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert left_by(tmp_path) == expected


@pytest.mark.parametrize("number", CASES[:10])
def test_a_signal_saves_within_ten_seconds(command, undisturbed, tmp_path, number):
    expected, seconds, _ = undisturbed
    process, sent = disturb(command, tmp_path, 100 + number, seconds, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - sent < 10
    # Before Python hears of signals at all it dies of them; after the end there is nothing to save.
    assert process.returncode in (75, -signal.SIGTERM, 0), errors
    assert "Traceback" not in errors
    again = start(command, tmp_path)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert left_by(tmp_path) == expected
