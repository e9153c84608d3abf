"""The scripts of the launchers, checked as text and run with stand-ins for the engines."""

import doctest
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from tools.launch import script

ROOT = pathlib.Path(__file__).parents[1]
SHELLCHECK = pathlib.Path(sys.executable).with_name("shellcheck")
TPU = ["tpu", "--name=u1", "--zone=us-central2-b"]
SLURM = ["slurm", "--partition=gpu", "--account=lab"]
RUN = ["--", "--config=configs/natural.py", "--config.data.root=/data/my clips", "--mesh=4x2"]


def launch(engine, verb, *arguments, **environment):
    module, *flags = engine
    command = [sys.executable, "-m", f"tools.launch.{module}", verb, *flags, *arguments]
    environment = os.environ | environment
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def dry(engine, verb, *arguments):
    ended = launch(engine, verb, "--dry_run", *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


CASES = [
    *((TPU, verb, []) for verb in ("create", "install", "follow", "stop", "delete")),
    (TPU, "queue", ["--spot", "--project=p"]),
    (TPU, "run", ["--mount=gcsfuse my-bucket data", *RUN]),
    (TPU, "resume", RUN),
    (SLURM, "encode", ["--parts=4", "--", "--root=/data/my clips", "--weights=random"]),
    (SLURM, "train", ["--nodes=2", "--gpus=4", *RUN]),
]


@pytest.mark.parametrize(("engine", "verb", "arguments"), CASES, ids=lambda value: str(value)[:12])
def test_a_shell_finds_nothing_wrong(engine, verb, arguments):
    text = dry(engine, verb, *arguments)
    inner = re.findall(r"<<'EOF'\n(.*?)\nEOF", text, re.DOTALL)
    inner += [word.split("=", 1)[1] for word in words(text) if word.startswith("--command=")]
    command = [SHELLCHECK, "--shell=bash", "-"]
    for each in [text, *inner]:
        checked = subprocess.run(command, input=each, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


def test_the_examples_of_its_words_hold():
    failed, attempted = doctest.testmod(script)
    assert attempted and not failed


def words(text):
    """All words of a script's commands, unquoted."""
    return shlex.split(text.replace("\\\n", " "), comments=True)


def test_tpu_commands_are_those_that_one_would_type():
    created = words(dry(TPU, "create", "--type=v4-32"))
    assert created[3:10] == "gcloud compute tpus tpu-vm create u1 --accelerator-type=v4-32".split()
    assert created[10:] == ["--version=tpu-ubuntu2204-base", "--zone=us-central2-b"]
    ran = words(dry(TPU, "run", "--mount=gcsfuse b data", *RUN))
    assert ran[2:9] == "pipefail gcloud compute tpus tpu-vm ssh u1".split()
    (command,) = [word for word in ran if word.startswith("--command=")]
    assert command == (
        "--command=gcsfuse b data || exit; cd uhman_jax && nohup .venv/bin/python -m "
        "uhman_jax.main --config=configs/natural.py '--config.data.root=/data/my clips' "
        "--mesh=4x2 --coordinator=auto > run.log 2>&1 < /dev/null &"
    )
    assert "--worker=all" in ran and "--zone=us-central2-b" in ran


def stand_in(folder, name, body):
    """Writes a program that records its arguments."""
    (folder / name).write_text(f'#!/bin/bash\necho {name} "$@" >> {folder}/calls\n{body}\n')
    (folder / name).chmod(0o700)


@pytest.fixture
def engines(tmp_path):
    """A folder of stand-ins, first on the path."""
    stand_in(tmp_path, "gcloud", 'case "$*" in *describe*) echo ACTIVE;; esac')
    stand_in(tmp_path, "sbatch", f"cat >> {tmp_path}/jobs; wc -l < {tmp_path}/calls")
    return tmp_path, {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_resuming_on_a_tpu_goes_through_all_steps(engines):
    folder, environment = engines
    ended = launch(TPU, "resume", *RUN, **environment)
    assert ended.returncode == 0, ended.stderr
    calls = [tuple(line.split()[3:5]) for line in (folder / "calls").read_text().splitlines()]
    requests = [("queued-resources", verb) for verb in ("delete", "create", "describe")]
    assert calls == requests + [("tpu-vm", verb) for verb in ("scp", "ssh", "ssh")]
    assert not list(ROOT.glob("u1*")), "the archive is removed"


def test_a_request_for_a_tpu_is_waited_for_and_may_fail(engines):
    """The first two questions fail, as with a request that is not visible yet."""
    folder, environment = engines
    stand_in(folder, "sleep", "")
    for state, status in (("ACTIVE", 0), ("FAILED", 1)):
        (folder / "asked").unlink(missing_ok=True)
        answer = f"echo >> {folder}/asked; [ $(wc -l < {folder}/asked) -gt 2 ] && echo {state}"
        stand_in(folder, "gcloud", f'case "$*" in *describe*) {answer};; esac')
        ended = launch(TPU, "queue", **environment)
        assert (ended.returncode, "the request is FAILED" in ended.stderr) == (status, status == 1)
        assert (folder / "asked").read_text().count("\n") == 3


def test_encoding_on_slurm_is_three_jobs_that_wait_for_each_other(engines, tmp_path):
    folder, environment = engines
    arguments = ["--parts=4", f"--logs={tmp_path / 'logs'}", f"--python={sys.executable}"]
    ended = launch(SLURM, "encode", *arguments, "--", "--root=/data/my clips", **environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "weights 1, parts 2, end 3\n"
    weights, part, end = (folder / "calls").read_text().splitlines()
    assert "--dependency" not in weights
    assert "--array=1-4 --dependency=afterok:1" in part
    assert end.endswith("--dependency=afterok:2")
    jobs = (folder / "jobs").read_text().replace("\\\n", "")
    ran = re.findall(r"-m uhman_jax.preprocess(.*)", jobs)
    assert [shlex.split(line) for line in ran] == [
        ["--root=/data/my clips", "--part=0/4"],
        ["--root=/data/my clips", "--part=$SLURM_ARRAY_TASK_ID/4"],
        ["--root=/data/my clips"],
    ]


def test_a_job_that_was_stopped_queues_itself_again(engines, tmp_path):
    folder, environment = engines
    arguments = [f"--logs={tmp_path / 'logs'}", f"--python={sys.executable}"]
    assert launch(SLURM, "train", *arguments, *RUN, **environment).returncode == 0
    for status, requeued in ((75, True), (0, False), (2, False)):
        stand_in(folder, "srun", f"exit {status}")
        stand_in(folder, "scontrol", "")
        (folder / "calls").unlink()
        within = os.environ | environment | {"SLURM_JOB_ID": "7"}
        assert subprocess.run(["bash", folder / "jobs"], env=within).returncode == status
        calls = (folder / "calls").read_text().splitlines()
        assert calls[0].startswith("srun") and calls[0].endswith("--coordinator=auto")
        assert ("scontrol requeue 7" in calls) == requeued


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tpu", "go"], "the verb must be one of create, queue"),
        (["tpu", "run"], "--zone must name the TPU's zone"),
        (["slurm", "eat"], "the verb must be one of encode, train, got eat"),
        (["slurm", "train", "--python=/nowhere"], "--python must exist, got /nowhere"),
    ],
)
def test_mistakes_are_said_in_a_sentence(arguments, said):
    ended = launch(arguments[:1], *arguments[1:])
    assert ended.returncode and said in ended.stderr and "Traceback" not in ended.stderr
