"""Disks that are full or may not be written to: one sentence, nothing lost, and then it goes on.

Each test makes file systems of its own in a user namespace, which not every machine allows.
"""

import subprocess
import sys

import clips
import numpy as np
import pytest
import small_network
from tiny_run import CASES, ROOT, environment, left_by

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
try:
    _PROBE = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode
except FileNotFoundError:
    _PROBE = 1
pytestmark = pytest.mark.skipif(_PROBE != 0, reason="this machine gives no user namespace to mount")
TWICE = """
mount -t tmpfs -o size="$1" tmpfs "$2"
folder="$2" results="$3" again="$4"; shift 4
"$@" > "$results/first.out" 2> "$results/first.err"; echo $? > "$results/first.status"
mount -o remount,"$again" "$folder"
"$@" > "$results/second.out" 2> "$results/second.err"; echo $? > "$results/second.status"
cp -r "$folder" "$results/left"
"""


def run_twice(tmp_path, size, again, command):
    """Runs a command that writes to tmp_path / "disk", of so many bytes; and again, remounted.

    Returns what was said, twice (status, output, errors); what is left is in tmp_path / "left".
    """
    (tmp_path / "disk").mkdir()
    arguments = [str(size), tmp_path / "disk", tmp_path, again, *command]
    script = [*UNSHARE, "sh", "-c", TWICE, "sh", *map(str, arguments)]
    subprocess.run(script, cwd=ROOT, env=environment(), check=True, timeout=600)
    said = []
    for name in ("first", "second"):
        status = int((tmp_path / f"{name}.status").read_text())
        said.append((status, *((tmp_path / f"{name}.{end}").read_text() for end in ("out", "err"))))
    return said


def fraction(number):
    """Of the space that is needed: every part of a run meets the end of the disk in some test."""
    return (number % 3 + np.random.default_rng(number).uniform()) / 3


@pytest.mark.parametrize("number", CASES)
def test_a_run_on_a_full_disk_ends_in_a_sentence_and_goes_on_with_more(
    command, undisturbed, tmp_path, number
):
    expected, _, needed = undisturbed
    size = int(needed * fraction(number))
    command = [*command, f"--workdir={tmp_path / 'disk'}"]
    first, second = run_twice(tmp_path, size, "size=1g", command)
    assert first[0] == 2, first
    assert "No space left on device" in first[2] and "Traceback" not in first[2]
    assert second[0] == 0, second
    assert left_by(tmp_path / "left") == expected


@pytest.mark.parametrize("kilobytes", [pytest.param(4, marks=pytest.mark.slow), 12, 28])
def test_features_that_do_not_fit_the_disk_end_in_a_sentence_and_go_on_with_more(
    tmp_path, kilobytes
):
    clips.write_noise(tmp_path / "clips", 6 * [3])
    script = [sys.executable, small_network.__file__, "preprocess", tmp_path / "clips"]
    first, second = run_twice(tmp_path, f"{kilobytes}k", "size=1g", [*script, tmp_path / "disk"])
    assert first[0] == 2 and "No space left on device" in first[2], first
    assert "Traceback" not in first[2]
    assert second[0] == 0, second
    subprocess.run([*script, tmp_path / "whole"], cwd=ROOT, env=environment(), check=True)
    assert clips.contents(tmp_path / "left") == clips.contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_that_is_done_needs_no_disk_to_write_to(command, undisturbed, tmp_path):
    command = [*command, f"--workdir={tmp_path / 'disk'}"]
    first, second = run_twice(tmp_path, "1g", "ro", command)
    assert first[0] == 0, first
    assert "Traceback" not in second[2]
    assert left_by(tmp_path / "left") == undisturbed[0]
