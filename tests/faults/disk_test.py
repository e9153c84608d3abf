"""Disks that are full or read-only: one sentence, nothing is lost, and the run continues later.

Each test makes file systems of its own in a user namespace, which not every machine allows.
"""

import subprocess
import sys

import clips
import numpy as np
import pytest
import small_network
from tiny_run import CASES, left_by

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
try:
    _PROBE = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode
except FileNotFoundError:
    _PROBE = 1
pytestmark = pytest.mark.skipif(_PROBE != 0, reason="this machine gives no user namespace to mount")
TWICE = """
mount -t tmpfs -o size="$1" tmpfs "$2"
folder="$2" results="$3" again="$4"; shift 4
"$@" > /dev/null 2> "$results/first.err"; echo $? > "$results/first.status"
mount -o remount,"$again" "$folder"
"$@" > /dev/null 2> "$results/second.err"; echo $? > "$results/second.status"
cp -r "$folder" "$results/left"
"""


def run_twice(tmp_path, size, again, command):
    """Runs a command that writes to tmp_path / "disk"; and again, after the disk is remounted.

    Args:
        tmp_path: gets a copy of the final disk as "left".
        size: of the disk at first.
        again: options of the second mount.
        command: arguments.

    Returns:
        Status and errors of both runs.
    """
    (tmp_path / "disk").mkdir()
    arguments = [size, tmp_path / "disk", tmp_path, again, *command]
    script = [*UNSHARE, "sh", "-c", TWICE, "sh", *map(str, arguments)]
    subprocess.run(script, check=True, timeout=600)
    return [
        (int((tmp_path / f"{name}.status").read_text()), (tmp_path / f"{name}.err").read_text())
        for name in ("first", "second")
    ]


@pytest.mark.parametrize("number", CASES)
def test_a_run_on_a_full_disk_ends_in_a_sentence_and_goes_on_with_more(
    command, undisturbed, tmp_path, number
):
    expected, _, needed = undisturbed
    # Every part of a run reaches the end of the disk in some case.
    size = int(needed * (number % 3 + np.random.default_rng(number).uniform()) / 3)
    command = [*command, f"--workdir={tmp_path / 'disk'}"]
    first, second = run_twice(tmp_path, size, "size=1g", command)
    assert first[0] == 2, first
    assert "No space left on device" in first[1] and "Traceback" not in first[1]
    assert second[0] == 0, second
    assert left_by(tmp_path / "left") == expected


@pytest.mark.parametrize("kilobytes", [pytest.param(4, marks=pytest.mark.slow), 12, 28])
def test_features_that_do_not_fit_the_disk_end_in_a_sentence_and_go_on_with_more(
    tmp_path, kilobytes
):
    clips.write_noise(tmp_path / "clips", 6 * [3])
    script = [sys.executable, small_network.__file__, "preprocess", tmp_path / "clips"]
    first, second = run_twice(tmp_path, f"{kilobytes}k", "size=1g", [*script, tmp_path / "disk"])
    assert first[0] == 2 and "No space left on device" in first[1], first
    assert "Traceback" not in first[1]
    assert second[0] == 0, second
    subprocess.run([*script, tmp_path / "whole"], check=True)
    assert clips.contents(tmp_path / "left") == clips.contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_that_is_done_needs_no_disk_to_write_to(command, undisturbed, tmp_path):
    command = [*command, f"--workdir={tmp_path / 'disk'}"]
    first, second = run_twice(tmp_path, "1g", "ro", command)
    assert first[0] == 0, first
    assert "Traceback" not in second[1]
    assert left_by(tmp_path / "left") == undisturbed[0]
