"""Features made on Apache Beam: the bytes of the local run, also if a worker is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import clips
import pytest
import small_network
from clips import contents
from small_network import encode as run

from uhman_jax.runtime.errors import UserError

pytest.importorskip("apache_beam", reason="needs the extra [beam]")
from uhman_jax.preprocess import beam  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven clips and a text: four shards of two."""
    root = tmp_path_factory.mktemp("clips")
    clips.write_noise(root, (1, 2, 3, 1, 2, 3, 1))
    (root / "8.mp4").write_text("no video")
    return root


def direct(*options):
    return beam.options_of(["--runner=DirectRunner", *options])


@pytest.fixture(scope="module")
def local(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("local")
    run(folder, output)
    return contents(output)


@pytest.fixture(autouse=True)
def workers_find_the_tests(monkeypatch):
    tests = ROOT / "tests"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [ROOT, tests, tests / "fixtures"])))


def test_two_processes_make_the_bytes_of_one(folder, local, tmp_path):
    summary = run(folder, tmp_path, beam=direct("--direct_num_workers=2"))
    assert contents(tmp_path) == local
    assert summary.counts["ok"] == 7 and summary.counts["corrupt"] + summary.counts["no_video"] == 1
    assert summary.frames == 1 + 2 + 3 + 1 + 2 + 3 + 1


def test_only_missing_shards_are_made_and_counted(folder, local, tmp_path, monkeypatch):
    """In this process, whose metrics can be read."""
    counted, make = {}, beam.make
    monkeypatch.setattr(beam, "make", lambda *a: counted.update(make(*a)) or counted)
    run(folder, tmp_path)
    assert run(folder, tmp_path, beam=direct()).reused == 8 and not counted
    (shard,) = tmp_path.glob("*.tfrecord-00002-of-*")
    shard.unlink()
    run(folder, tmp_path, beam=direct("--direct_running_mode=in_memory"))
    assert contents(tmp_path) == local
    assert counted["clips_ok"] == 2 and counted["frames"] == 2 + 3
    assert sum(counted[name] for name in counted if name.startswith("clips_")) == 2


def descendants(process, word):
    """Processes that another one has started, directly or not, with a word in their command."""
    listed = subprocess.run(["ps", "-eww", "-o", "pid,ppid,args"], capture_output=True, text=True)
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()[1:]]
    family = {process}
    for _ in rows:  # children may be listed before their parents
        family |= {int(pid) for pid, parent, _ in rows if int(parent) in family}
    return [int(pid) for pid, _, words in rows if int(pid) in family and word in words]


@pytest.mark.slow
def test_a_killed_worker_costs_only_its_shards(folder, local, tmp_path):
    command = [sys.executable, small_network.__file__, "preprocess", folder, tmp_path]
    command += ["--runner=DirectRunner", "--direct_num_workers=2"]
    slow = os.environ | {"SMALL_NETWORK_SECONDS": "1.5"}
    process = subprocess.Popen(command, env=slow, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("ledger/*.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(descendants(process.pid, "sdk_worker_main")[-1], signal.SIGKILL)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2, errors
    assert "got 'a worker is lost'; finished shards stay" in errors
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert contents(tmp_path) == local


@pytest.fixture
def job_service(tmp_path):
    """Address of a job service as Flink, Spark and Prism have one; this one is Beam's in Python."""
    port = tmp_path / "port"
    command = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main"]
    command += ["--port=0", f"--port_file={port}", f"--staging_dir={tmp_path / 'staging'}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not (port.exists() and port.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        yield f"localhost:{port.read_text()}"
        process.terminate()


@pytest.mark.slow
def test_a_job_service_makes_the_same_bytes(folder, local, tmp_path, job_service):
    command = [sys.executable, small_network.__file__, "preprocess", folder]
    command += [tmp_path / "out", "--runner=PortableRunner", f"--job_endpoint={job_service}"]
    done = subprocess.run([*command, "--environment_type=LOOPBACK"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == local


def test_an_unknown_runner_is_reported_in_a_sentence():
    with pytest.raises(UserError, match="--runner must be one that Beam has: .*NoSuchRunner"):
        beam.options_of(["--runner=NoSuchRunner"])


def test_the_command_line_hands_the_rest_to_beam(tmp_path):
    command = [sys.executable, "-m", "uhman_jax.preprocess", f"--root={tmp_path}"]
    command += ["--runner=DirectRunner", "--direct_num_workers=many", "--weights=random"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "Beam must know its options" in result.stderr
    assert "Traceback" not in result.stderr
