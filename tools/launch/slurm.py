"""Encodes clips and trains on a SLURM cluster.

    python -m tools.launch.slurm encode --parts=16 [--dry_run] -- --root=/data/clips
    python -m tools.launch.slurm train --nodes=2 --gpus=8 [--dry_run] -- --config=configs/natural.py

`encode` submits three jobs that wait for each other: the first writes the weights, the tasks of an
array each write a part of the shards, and the last merges their ledgers. `train` starts a process
for every GPU; a minute before its time limit, and when it is preempted, the job saves its state and
requeues itself with the same command. Arguments after `--` go to `uhman_jax.preprocess` or
`uhman_jax.main`. Nodes need the checkout, its environment and the data under the same paths.
"""

import os
import pathlib

from absl import flags

from tools.launch import script
from uhman_jax.runtime.streams import run_app

_NAME = flags.DEFINE_string("name", "uhman", "Name of the jobs.")
_PARTITION = flags.DEFINE_string("partition", "", "Partition of the cluster; empty: the default.")
_ACCOUNT = flags.DEFINE_string("account", "", "Account to charge; empty: your default.")
_TIME = flags.DEFINE_string("time", "04:00:00", "Time limit of a job, HH:MM:SS.")
_CPUS = flags.DEFINE_integer("cpus", 8, "Cores per process.", lower_bound=1)
_MEMORY = flags.DEFINE_string("memory", "32G", "Memory per process.")
_PARTS = flags.DEFINE_integer("parts", 16, "`encode`: tasks that share the shards.", lower_bound=1)
_NODES = flags.DEFINE_integer("nodes", 1, "`train`: machines.", lower_bound=1)
_GPUS = flags.DEFINE_integer("gpus", 1, "`train`: GPUs of each machine.", lower_bound=1)
_LOGS = flags.DEFINE_string("logs", "logs", "Folder of the jobs' output.")
_PYTHON = flags.DEFINE_string(
    "python", ".venv/bin/python", "Interpreter, relative to the checkout."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the script.")

ROOT = pathlib.Path(__file__).resolve().parents[2]
REQUEUED = """status=0
{command} || status=$?
if [ "$status" = 75 ]; then  # a signal stopped the run; its state is saved
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def sbatch(name: str, body: str, *options: str) -> str:
    """Returns the command that submits a job with the script `body` and prints its id."""
    given = [
        f"--job-name={_NAME.value}-{name}",
        f"--time={_TIME.value}",
        f"--cpus-per-task={_CPUS.value}",
        f"--output={_LOGS.value}/%x-{'%A-%a' if name == 'part' else '%j'}.log",
        *([f"--partition={_PARTITION.value}"] if _PARTITION.value else []),
        *([f"--account={_ACCOUNT.value}"] if _ACCOUNT.value else []),
    ]
    text = f"{script.HEAD}{script.command('cd', str(ROOT))}\n{body}"
    words = ["sbatch", "--parsable", *given, *options]
    return script.command(*words, redirect=script.here_document(text))


def encode(arguments: list[str]) -> list[str]:
    """Returns the script that submits the three jobs of `encode`."""
    python = [_PYTHON.value, "-m", "uhman_jax.preprocess", *arguments]
    memory, parts = f"--mem={_MEMORY.value}", _PARTS.value
    part = script.command(*python) + f' --part="$SLURM_ARRAY_TASK_ID/{parts}"\n'
    weights = sbatch("weights", script.command(*python, f"--part=0/{parts}"), memory)
    array = sbatch("part", part, memory, f"--array=1-{parts}", "--dependency=afterok:WEIGHTS")
    end = sbatch("end", script.command(*python), memory, "--dependency=afterok:PARTS")
    return [
        script.command("mkdir", "-p", _LOGS.value),
        f"weights=$({weights}\n)",
        f"parts=$({array}\n)".replace("afterok:WEIGHTS", 'afterok:"$weights"'),
        f"end=$({end}\n)".replace("afterok:PARTS", 'afterok:"$parts"'),
        'echo "weights $weights, parts $parts, end $end"',
    ]


def train(arguments: list[str]) -> list[str]:
    """Returns the script that submits one job of several processes."""
    python = [_PYTHON.value, "-m", "uhman_jax.main", *arguments, "--coordinator=auto"]
    job = sbatch(
        "train",
        REQUEUED.format(command=script.command("srun", *python)),
        f"--nodes={_NODES.value}",
        f"--ntasks-per-node={_GPUS.value}",
        f"--gpus-per-node={_GPUS.value}",
        f"--mem-per-gpu={_MEMORY.value}",
        "--requeue",
        "--open-mode=append",
        "--signal=TERM@60",
    )
    return [script.command("mkdir", "-p", _LOGS.value), f"job=$({job}\n)", 'echo "train $job"']


def scripts(arguments: list[str]) -> dict[str, list[str]]:
    """Returns the commands of each verb."""
    return {"encode": encode(arguments), "train": train(arguments)}


def main(argv: list[str]) -> None:
    """Runs the script of a verb."""
    missing = not _DRY_RUN.value and not (ROOT / _PYTHON.value).exists()
    mistake = f"--python must exist, got {_PYTHON.value}; install first (README)"
    os.chdir(ROOT)
    script.run_verb(scripts, argv, mistake if missing else "", _DRY_RUN.value)


if __name__ == "__main__":
    run_app(main, positional=True)
