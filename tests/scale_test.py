"""Tests of the plan of a run and of the communication of a compiled step."""

import doctest
import json
import pathlib
import subprocess
import sys

import pytest

from experiments.scale import __main__ as scale
from experiments.scale import communication

ROOT = pathlib.Path(__file__).parents[1]


def printed(module, *arguments):
    """Runs a program of the study and returns the JSON that it prints."""
    command = [sys.executable, "-m", f"experiments.scale.{module}", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_the_examples_hold():
    failed, attempted = doctest.testmod(communication)
    assert attempted and not failed


def test_a_plan_grows_with_its_clips():
    lines = scale.plan(core_hour=0.04, gpu_hour=4.0).splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:5] for line in lines[2:]}
    assert [cell.strip() for cell in rows["features on disk"]] == ["21 GB", "2.1 TB", "210 TB"]
    hours = [float(cell.replace(",", "")) for cell in rows["encoding, core-hours"]]
    assert abs(hours[2] - 100 * hours[1]) < 100 and hours[1] > 90 * hours[0]


@pytest.mark.slow
def test_a_step_on_sharded_batches_sends_the_gradients():
    small = ["--num_hashtags=50", "--batch_size=8", "--num_frames=1", "--num_channels=16"]
    found = {m: printed("communication", *small, f"--mesh={m}") for m in ("2x1", "4x1")}
    parameters = found["2x1"]["state"] / 2  # the other half are the best parameters so far
    assert found["2x1"]["state"] == found["4x1"]["state"], "nothing is sharded along data"
    for mesh, share in (("2x1", 1 / 2), ("4x1", 3 / 4)):
        assert 0.9 < found[mesh]["sent"] / (2 * share * parameters) < 1.5


@pytest.mark.slow
def test_a_step_is_timed_on_virtual_devices():
    found = printed("scaling", "--measure=2", "--steps=1")
    assert found.keys() == {"strong", "weak"} and min(found.values()) > 0
