"""A whole run of the tiny world in a process of its own, and what it is judged by."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tiny_world

ROOT = pathlib.Path(__file__).parents[2]
_MARKS = {0: pytest.mark.slow, 1: pytest.mark.slow, 2: ()}  # the others are long
CASES = [pytest.param(n, marks=_MARKS.get(n, pytest.mark.long)) for n in range(20)]


def make_command(folder):
    """Writes the tiny world into a folder; what runs it, but for its --workdir."""
    root = tiny_world.write_dataset(folder / "data")
    path = tiny_world.write_config(folder / "tiny.py", root, num_epochs=6, checkpoint_every=8)
    return [sys.executable, "-m", "uhman_jax.main", f"--config={path}"]


def environment():
    return os.environ | {"JAX_PLATFORMS": "cpu"}


def start(command, workdir):
    return subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def left_by(workdir):
    """All that a run is judged by, without times: files, figures, predictions, its last state."""
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "steps_per_second")
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.stem))
    return {
        "files": sorted(path.name for path in workdir.iterdir()),
        "log": [{key: entry[key] for key in entry if key not in times} for entry in log],
        "metrics": json.loads((workdir / "metrics.json").read_text()),
        "predictions": (workdir / "predictions.parquet").read_bytes(),
        "examples": {
            name: part.tobytes() for name, part in np.load(workdir / "examples.npz").items()
        },
        "step": newest.name,
        "state": {name: leaf.tobytes() for name, leaf in np.load(newest).items()},
    }
