"""Real runs are killed at seeded moments, and end with the bytes of an undisturbed one.

Three moments each in the default suite, twenty in `pytest -m long`.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_world

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
import sys
sys.path.insert(0, {tests!r})
import tiny_world
def get_config():
    config = tiny_world.make_config({root!r}, num_epochs=12, num_seeds=2, checkpoint_every=5)
    config.model.dropout = 0.1
    return config
"""
MOMENTS = [pytest.param(n, marks=[pytest.mark.long] if n > 2 else []) for n in range(20)]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """What runs the tiny world, but for its --workdir."""
    folder = tmp_path_factory.mktemp("faults")
    root = tiny_world.write_dataset(folder / "data")
    (folder / "tiny.py").write_text(CONFIG.format(tests=str(ROOT / "tests"), root=str(root)))
    return [sys.executable, "-m", "uhman_jax.main", f"--config={folder / 'tiny.py'}"]


def start(command, workdir):
    return subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory):
    """(what a whole run leaves, the seconds that it takes once its programs are compiled)."""
    for _ in range(2):
        workdir = tmp_path_factory.mktemp("whole")
        begin = time.monotonic()
        process = start(command, workdir)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return left_by(workdir), time.monotonic() - begin


def left_by(workdir):
    """All that a run is judged by: its figures, predictions and last parameters, without times."""
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "steps_per_second")
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    return {
        "log": [{key: entry[key] for key in entry if key not in times} for entry in log],
        "metrics": json.loads((workdir / "metrics.json").read_text()),
        "predictions": (workdir / "predictions.parquet").read_bytes(),
        "examples": dict(np.load(workdir / "examples.npz")).keys(),
        "step": newest.name,
    }


def moment(number, seconds, workdir):
    """A function that says whether the seeded moment has come: after a time, or after an event."""
    rng = np.random.default_rng(number)
    kind = ("any time", "first step", "checkpoint", "validation", "evaluation")[number % 5]
    begin, delay = time.monotonic(), rng.uniform(0, 0.4)
    some, many = rng.integers(1, 4), rng.integers(1, 8)
    events = {
        "first step": lambda: (workdir / "view.npz").exists(),
        "checkpoint": lambda: len(list(workdir.glob("checkpoints/*"))) > some,
        "validation": lambda: len(lines(workdir)) > many,
        "evaluation": lambda: len(lines(workdir)) >= 12,
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


@pytest.mark.parametrize("number", MOMENTS)
def test_a_killed_run_ends_as_if_it_had_not_been(command, undisturbed, tmp_path, number):
    expected, seconds = undisturbed
    process, _ = disturb(command, tmp_path, number, seconds, signal.SIGKILL)
    process.communicate()
    again = start(command, tmp_path)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert left_by(tmp_path) == expected


@pytest.mark.parametrize("number", MOMENTS[:10])
def test_a_signal_saves_within_ten_seconds(command, undisturbed, tmp_path, number):
    expected, seconds = undisturbed
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
