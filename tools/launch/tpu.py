"""Runs on a TPU VM or a slice of several.

    python -m tools.launch.tpu queue --name=uhman --zone=us-central2-b --type=v4-32 [--dry_run]
    python -m tools.launch.tpu install --name=uhman --zone=us-central2-b
    python -m tools.launch.tpu run --name=uhman --zone=us-central2-b -- --config=configs/natural.py

Verbs: create (at once), queue (wait for one), install (this checkout's last commit, on all
workers), run (the same command on all workers, in the background), follow (worker 0's output), stop
(save and end), resume (after a preemption: queue, install and run again), delete. What follows `--`
goes to `uhman_jax.main`. Workers need dataset and --workdir on storage that all see: name the
command that mounts it with --mount, e.g. --mount='gcsfuse my-bucket data'.
"""

import shlex
from collections.abc import Callable

from absl import flags

from tools.launch import script
from uhman_jax.streams import run_app

_NAME = flags.DEFINE_string("name", "uhman", "Of the TPU VM and of its queued resource.")
_ZONE = flags.DEFINE_string("zone", "", "E.g. us-central2-b.")
_PROJECT = flags.DEFINE_string("project", "", "Empty: gcloud's own.")
_TYPE = flags.DEFINE_string("type", "v4-8", "Accelerator type.")
_VERSION = flags.DEFINE_string("version", "tpu-ubuntu2204-base", "Runtime version.")
_SPOT = flags.DEFINE_bool("spot", False, "Cheaper, and may be preempted.")
_MOUNT = flags.DEFINE_string("mount", "", "Command that mounts shared storage, in the home folder.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the script and do nothing.")

FOLDER, LOG = "uhman_jax", "run.log"


def tpus(group: str, verb: str, *words: str) -> str:
    """Returns a gcloud command."""
    project = [f"--project={_PROJECT.value}"] if _PROJECT.value else []
    return script.command(
        "gcloud", "compute", "tpus", group, verb, *words, f"--zone={_ZONE.value}", *project
    )


def ssh(line: str, worker: str = "all") -> str:
    """Returns a command on workers."""
    return tpus("tpu-vm", "ssh", _NAME.value, f"--worker={worker}", f"--command={line}")


def kind(version: str) -> list[str]:
    """Returns the flags of the machine; `version` is the name of the one for its runtime."""
    spot = ["--spot"] if _SPOT.value else []
    return [f"--accelerator-type={_TYPE.value}", f"--{version}={_VERSION.value}", *spot]


def create(_: list[str]) -> list[str]:
    """Makes a TPU VM at once."""
    return [tpus("tpu-vm", "create", _NAME.value, *kind("version"))]


def queue(_: list[str]) -> list[str]:
    """Requests a TPU VM and waits until it is there."""
    name = _NAME.value
    look = tpus("queued-resources", "describe", name, "--format=value(state.state)")
    made = tpus("queued-resources", "create", name, f"--node-id={name}", *kind("runtime-version"))
    return [made, f'until [ "$({look})" = ACTIVE ]; do\n  sleep 30\ndone']


def install(_: list[str]) -> list[str]:
    """Installs this checkout's last commit and its environment on all workers."""
    archive = f"{_NAME.value}.tar.gz"
    uv, python = ".local/bin/uv", f"{FOLDER}/.venv/bin/python"
    steps = [
        f"rm -rf {FOLDER}",
        f"tar -xzf {archive}",
        "python3 -m pip install --quiet --user uv",
        f"{uv} venv --quiet --python=3.12 {FOLDER}/.venv",
        f"{uv} pip install --quiet --python={python} --constraint={FOLDER}/.ci/constraints.txt "
        f"--editable='{FOLDER}[tpu]'",
    ]
    git = ["git", "archive", "--format=tar.gz", f"--prefix={FOLDER}/", f"--output={archive}"]
    return [
        script.command(*git, "HEAD"),
        tpus("tpu-vm", "scp", archive, f"{_NAME.value}:", "--worker=all"),
        script.command("rm", archive),
        ssh(" && ".join(steps)),
    ]


def run(arguments: list[str]) -> list[str]:
    """Starts the run on all workers and returns at once."""
    words = [".venv/bin/python", "-m", "uhman_jax.main", *arguments, "--coordinator=auto"]
    start = f"cd {FOLDER} && nohup {shlex.join(words)} > {LOG} 2>&1 < /dev/null &"
    return [ssh(f"{_MOUNT.value} || exit; {start}" if _MOUNT.value else start)]


def follow(_: list[str]) -> list[str]:
    """Shows worker 0's output, as it comes."""
    return [ssh(f"tail -n +1 -F {FOLDER}/{LOG}", worker="0")]


def stop(_: list[str]) -> list[str]:
    """Lets all workers save and end."""
    return [ssh("pkill -TERM -f '[u]hman_jax.main'")]


def removal(group: str, *flags: str) -> str:
    """Returns the command that removes a TPU VM or its request."""
    return tpus(group, "delete", _NAME.value, *flags, "--quiet")


def resume(arguments: list[str]) -> list[str]:
    """Makes another TPU VM after a preemption, and continues the run on it."""
    gone = removal("queued-resources", "--force")
    return [f"{gone} || true", *queue([]), *install([]), *run(arguments)]


def delete(_: list[str]) -> list[str]:
    """Gives everything back."""
    return [f"{removal('queued-resources', '--force')} || {removal('tpu-vm')}"]


VERBS: dict[str, Callable[[list[str]], list[str]]] = {
    verb.__name__: verb for verb in (create, queue, install, run, follow, stop, resume, delete)
}


def main(argv: list[str]) -> None:
    """Runs a verb."""
    mistake = "--zone must name where the TPU is, got none; write e.g. --zone=us-central2-b"
    script.run_verb(VERBS, argv, "" if _ZONE.value else mistake, _DRY_RUN.value)


if __name__ == "__main__":
    run_app(main)
