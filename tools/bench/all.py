"""Runs all benchmarks, one after the other, and writes one JSON file for each.

    python -m tools.bench.all [--folder=DIR] [--only=train_step,warp]

The machine should be idle otherwise.
"""

import pathlib
import subprocess
import sys

from absl import flags

from uhman_jax.runtime.errors import UserError, exit_on_user_error
from uhman_jax.runtime.streams import run_app

_FOLDER = flags.DEFINE_string("folder", "runs/bench", "Folder of the JSON files.")
_ONLY = flags.DEFINE_list("only", [], "Names of the benchmarks to run; empty: all.")

ROOT = pathlib.Path(__file__).parents[2]

_LARGE = "--num_hashtags=1000000 --nopeers"
BENCHMARKS = {  # module and flags
    "train_step": "train_step --num_seeds=8",
    "train_step_sampled": "train_step --estimator=sampled --nopeers",
    "train_step_million_hashtags": f"train_step --estimator=sampled {_LARGE}",
    "warp": "warp",
    "ranking": "ranking",
    "ranking_million_hashtags": f"ranking {_LARGE} --rounds=3",
    "epoch": "epoch",
    "reading": "reading",
    "encoding": "encoding",
    "start_up": "start_up",
}


def main(_: list[str]) -> None:
    """Runs the benchmarks; exits with status 1 if one failed."""
    folder = pathlib.Path(_FOLDER.value)
    with exit_on_user_error():
        if unknown := set(_ONLY.value) - set(BENCHMARKS):
            raise UserError(
                f"--only must name some of {', '.join(BENCHMARKS)}, got {', '.join(unknown)}"
            )
        folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in _ONLY.value or BENCHMARKS:
        command = [sys.executable, "-m", *f"tools.bench.{BENCHMARKS[name]}".split()]
        command.append(f"--json={(folder / name).resolve()}.json")
        if subprocess.run(command, cwd=ROOT).returncode:
            failed.append(name)
        print(flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    run_app(main)
