"""Measures the seconds of `--help`, and from the command to the first training step.

    python -m tools.bench.start_up [--json=FILE]

A tiny dataset is simulated beforehand. Cold: JAX's persistent cache is empty. Warm: it holds the
programs of the previous start. The floor is a Python process that imports JAX, Flax, Optax and
Orbax.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from absl import flags

from tools.bench import table
from uhman_jax.runtime.streams import run_app

_ROUNDS = flags.DEFINE_integer("rounds", 5, "Measurements per contestant.")
_JSON = flags.DEFINE_string("json", "", "File to write the figures to.")

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "--config=configs/paper_features.py",
    "--config.simulator.num_videos=600",
    "--config.simulator.num_users=300",
    "--config.train.num_epochs=1",
)


def first_step(folder: Path, cold: bool) -> Callable[[], float]:
    """Returns a contestant: the seconds until the first step of a run in a new directory."""
    workdir, cache = folder / "run", folder / "xla"
    command = [sys.executable, "-m", "uhman_jax.main", *SETTINGS, f"--workdir={workdir}"]
    command.append(f"--config.data.simulated_dir={folder / 'data'}")
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}

    def measure() -> float:
        for old in (workdir, cache) if cold else (workdir,):
            shutil.rmtree(old, ignore_errors=True)
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        seen = b""
        assert process.stderr is not None
        while piece := os.read(process.stderr.fileno(), 4096):
            seen += piece
            if re.search(rb"Training:.*?\| +[1-9][0-9]*/", seen):
                elapsed = time.perf_counter() - begin
                process.terminate()
                process.communicate()
                return elapsed
        sys.exit(f"the run took no step:\n{seen.decode(errors='replace')}")

    return measure


def seconds(*arguments: str) -> Callable[[], float]:
    """Returns a contestant: the seconds of a Python process with these arguments."""

    def measure() -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - begin

    return measure


def main(_: list[str]) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first_step(folder, cold=False)()  # simulates the data and fills the cache
        contestants = {
            "--help": seconds("-m", "uhman_jax.main", "--help"),
            "first step, cold": first_step(folder, cold=True),
            "first step, warm": first_step(folder, cold=False),
            "imports alone": seconds("-c", "import jax, flax, optax, orbax.checkpoint"),
        }
        ratios = [("first step, warm", "imports alone", "imports")]
        facts = table.machine(("jax", "flax", "orbax-checkpoint"))
        table.compare("Start-up", "s", contestants, _ROUNDS.value, ratios, facts, _JSON.value)


if __name__ == "__main__":
    run_app(main)
