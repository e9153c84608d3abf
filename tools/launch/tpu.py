"""A run on a TPU VM or a slice of several, from its making to its end.

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
import sys
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


def where() -> list[str]:
    """Flags that every command has."""
    project = [f"--project={_PROJECT.value}"] if _PROJECT.value else []
    return [f"--zone={_ZONE.value}", *project]


def tpus(group: str, verb: str, *words: str) -> str:
    """A gcloud command."""
    return script.command("gcloud", "compute", "tpus", group, verb, *words, *where())


def ssh(line: str, worker: str = "all") -> str:
    """A command on workers."""
    return tpus("tpu-vm", "ssh", _NAME.value, f"--worker={worker}", f"--command={line}")


def spot() -> list[str]:
    """The flag, where it is asked for."""
    return ["--spot"] if _SPOT.value else []


def create(_: list[str]) -> list[str]:
    """A TPU VM, at once."""
    kind = [f"--accelerator-type={_TYPE.value}", f"--version={_VERSION.value}"]
    return [tpus("tpu-vm", "create", _NAME.value, *kind, *spot())]


def queue(_: list[str]) -> list[str]:
    """Asks for one and waits until it is there."""
    kind = [f"--accelerator-type={_TYPE.value}", f"--runtime-version={_VERSION.value}"]
    name = _NAME.value
    look = tpus("queued-resources", "describe", name, "--format=value(state.state)")
    return [
        tpus("queued-resources", "create", name, f"--node-id={name}", *kind, *spot()),
        f'until [ "$({look})" = ACTIVE ]; do\n  sleep 30\ndone',
    ]


def install(_: list[str]) -> list[str]:
    """This checkout's last commit and its environment, on all workers."""
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
    return [
        script.command(
            "git",
            "archive",
            "--format=tar.gz",
            f"--prefix={FOLDER}/",
            f"--output={archive}",
            "HEAD",
        ),
        tpus("tpu-vm", "scp", archive, f"{_NAME.value}:", "--worker=all"),
        script.command("rm", archive),
        ssh(" && ".join(steps)),
    ]


def run(arguments: list[str]) -> list[str]:
    """Starts the run on all workers; comes back at once."""
    words = [".venv/bin/python", "-m", "uhman_jax.main", *arguments, "--coordinator=auto"]
    python = shlex.join(words)
    start = f"cd {FOLDER} && nohup {python} > {LOG} 2>&1 < /dev/null &"
    return [ssh(f"{_MOUNT.value} || exit; {start}" if _MOUNT.value else start)]


def follow(_: list[str]) -> list[str]:
    """Shows worker 0's output, as it comes."""
    return [ssh(f"tail -n +1 -F {FOLDER}/{LOG}", worker="0")]


def stop(_: list[str]) -> list[str]:
    """Lets all workers save and end."""
    return [ssh("pkill -TERM -f '[u]hman_jax.main'")]


def resume(arguments: list[str]) -> list[str]:
    """Another TPU VM in the place of a preempted one, and the run on it."""
    gone = tpus("queued-resources", "delete", _NAME.value, "--force", "--quiet")
    return [f"{gone} || true", *queue([]), *install([]), *run(arguments)]


def delete(_: list[str]) -> list[str]:
    """Gives all back."""
    return [
        f"{tpus('queued-resources', 'delete', _NAME.value, '--force', '--quiet')} || "
        f"{tpus('tpu-vm', 'delete', _NAME.value, '--quiet')}"
    ]


VERBS: dict[str, Callable[[list[str]], list[str]]] = {
    verb.__name__: verb for verb in (create, queue, install, run, follow, stop, resume, delete)
}


def main(argv: list[str]) -> None:
    """Does what a verb says."""
    if len(argv) < 2 or argv[1] not in VERBS:
        given = argv[1] if len(argv) > 1 else "none"
        sys.exit(f"say what to do, one of {', '.join(VERBS)}, got {given}; see --help")
    if not _ZONE.value:
        sys.exit("--zone must name where the TPU is, got none; write e.g. --zone=us-central2-b")
    sys.exit(script.launch(VERBS[argv[1]](argv[2:]), _DRY_RUN.value))


if __name__ == "__main__":
    run_app(main)
