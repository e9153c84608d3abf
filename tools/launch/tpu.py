"""Manages a TPU VM, or a slice of several, and trains on it.

    python -m tools.launch.tpu queue --name=uhman --zone=us-central2-b --type=v4-32 [--dry_run]
    python -m tools.launch.tpu install --name=uhman --zone=us-central2-b
    python -m tools.launch.tpu run --name=uhman --zone=us-central2-b -- --config=configs/natural.py

Verbs: create (at once), queue (wait for a VM), install (this checkout's last commit, on all
workers), run (one command on all workers, in the background), follow (show worker 0's output), stop
(save and end), resume (after a preemption: queue, install and run again), delete. Arguments after
`--` go to `uhman_jax.main`. Dataset and --workdir must be on storage that all workers see: --mount
is the command that mounts it, e.g. --mount='gcsfuse my-bucket data'.
"""

import shlex

from absl import flags

from tools.launch import script
from uhman_jax.runtime.streams import run_app

_NAME = flags.DEFINE_string("name", "uhman", "Name of the TPU VM and its queued resource.")
_ZONE = flags.DEFINE_string("zone", "", "Zone, e.g. us-central2-b.")
_PROJECT = flags.DEFINE_string("project", "", "Project; empty: gcloud's default.")
_TYPE = flags.DEFINE_string("type", "v4-8", "Accelerator type.")
_VERSION = flags.DEFINE_string("version", "tpu-ubuntu2204-base", "Runtime version.")
_SPOT = flags.DEFINE_bool("spot", False, "Use a cheaper VM that may be preempted.")
_MOUNT = flags.DEFINE_string("mount", "", "Command that mounts shared storage, in the home folder.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the script.")

FOLDER, LOG = "uhman_jax", "run.log"

# Polls a queued resource; a request that fails or is suspended would never become active.
WAIT = """until state=$({state}) && [ "$state" = ACTIVE ]; do
  case "$state" in
    FAILED | SUSPENDED)
      echo "the request is $state; see its reason with gcloud, delete it and queue again" >&2
      exit 1
      ;;
  esac
  sleep 30
done"""


def tpus(group: str, verb: str, *words: str) -> str:
    """Returns a gcloud command."""
    project = [f"--project={_PROJECT.value}"] if _PROJECT.value else []
    return script.command(
        "gcloud", "compute", "tpus", group, verb, *words, f"--zone={_ZONE.value}", *project
    )


def ssh(line: str, worker: str = "all") -> str:
    """Returns the command that runs a shell command on workers."""
    return tpus("tpu-vm", "ssh", _NAME.value, f"--worker={worker}", f"--command={line}")


def kind(version: str) -> list[str]:
    """Returns the flags for type and runtime; `version` is the name of the runtime's flag."""
    spot = ["--spot"] if _SPOT.value else []
    return [f"--accelerator-type={_TYPE.value}", f"--{version}={_VERSION.value}", *spot]


def scripts(arguments: list[str]) -> dict[str, list[str]]:
    """Returns the commands of each verb."""
    name, archive, python = _NAME.value, f"{_NAME.value}.tar.gz", f"{FOLDER}/.venv/bin/python"
    state = tpus("queued-resources", "describe", name, "--format=value(state.state)")
    request = ["queued-resources", "create", name, f"--node-id={name}", *kind("runtime-version")]
    queue = [tpus(*request), WAIT.format(state=state)]
    uv = ".local/bin/uv"
    unpack = [
        f"rm -rf {FOLDER}",
        f"tar -xzf {archive}",
        "python3 -m pip install --quiet --user uv",
        f"{uv} venv --quiet --python=3.12 {FOLDER}/.venv",
        f"{uv} pip install --quiet --python={python} --constraint={FOLDER}/.ci/constraints.txt "
        f"--editable='{FOLDER}[tpu]'",
    ]
    git = ["git", "archive", "--format=tar.gz", f"--prefix={FOLDER}/", f"--output={archive}"]
    install = [
        script.command(*git, "HEAD"),
        tpus("tpu-vm", "scp", archive, f"{name}:", "--worker=all"),
        script.command("rm", archive),
        ssh(" && ".join(unpack)),
    ]
    words = [".venv/bin/python", "-m", "uhman_jax.main", *arguments, "--coordinator=auto"]
    start = f"cd {FOLDER} && nohup {shlex.join(words)} > {LOG} 2>&1 < /dev/null &"
    run = [ssh(f"{_MOUNT.value} || exit; {start}" if _MOUNT.value else start)]
    delete = tpus("queued-resources", "delete", name, "--force", "--quiet")
    return {
        "create": [tpus("tpu-vm", "create", name, *kind("version"))],
        "queue": queue,
        "install": install,
        "run": run,
        "follow": [ssh(f"tail -n +1 -F {FOLDER}/{LOG}", worker="0")],
        "stop": [ssh("pkill -TERM -f '[u]hman_jax.main'")],
        "resume": [f"{delete} || true", *queue, *install, *run],
        "delete": [f"{delete} || {tpus('tpu-vm', 'delete', name, '--quiet')}"],
    }


def main(argv: list[str]) -> None:
    """Runs a verb."""
    mistake = "--zone must name the TPU's zone, got none; write e.g. --zone=us-central2-b"
    script.run_verb(scripts, argv, "" if _ZONE.value else mistake, _DRY_RUN.value)


if __name__ == "__main__":
    run_app(main, positional=True)
