"""Trains UHMAN with other initial attention weights: which of them keep attention uniform?

    python -m experiments.recipe.starts --worlds=3

Trains the recipe `plus` on *selection* datasets. Queries or values get the usual initial scale
instead of twice that scale, or values and outputs are random instead of isometries. Prints
validation P@10, the attention on tagged objects, and the epoch in which a model first has twice the
P@10 of popularity (-1: none).
Every run is a directory under `runs/starts/`, so a stopped study continues.
"""

import pathlib
import sys
from unittest import mock

import numpy as np
from absl import flags
from flax import linen as nn

from configs import plus
from experiments.paper.workers import Interrupted, Workers, num_workers
from uhman_jax.models import uhman
from uhman_jax.models.layers import orthogonal
from uhman_jax.run import run
from uhman_jax.run_directory import read_log, read_run
from uhman_jax.runtime import signals
from uhman_jax.runtime.errors import exit_on_user_error
from uhman_jax.runtime.streams import run_app

_WORLDS = flags.DEFINE_integer("worlds", 3, "Number of datasets, from seed 0 on.", lower_bound=1)
_DATA = flags.DEFINE_string("simulated_dir", "data", "Folder of simulated datasets.")
_RUNS = flags.DEFINE_string("runs", "runs/starts", "Folder of run directories.")
# Initial scales of queries and of values, and whether values and outputs are isometries.
STARTS = {
    "as it is": (2.0, 2.0, True),
    "queries at the usual scale": (1.0, 2.0, True),
    "values at the usual scale": (2.0, 1.0, True),
    "random values and outputs": (2.0, 2.0, False),
    "all as usual": (1.0, 1.0, False),
}
COLUMNS = ("tagged_frame_mass", "top_frame_tagged", "tagged_mass", "top_region_tagged")


def _normal(scale: float, inputs: tuple[int, ...] = (0,), outputs: tuple[int, ...] = (1, 2)):
    draw = nn.initializers.variance_scaling
    return draw(scale**2, "fan_in", "truncated_normal", in_axis=inputs, out_axis=outputs)


def attention_of(queries: float, values: float, isometries: bool) -> type[nn.Module]:
    """Returns MultiHead with other initial weights."""

    class Other(uhman.MultiHead):
        def setup(self):
            width, num_heads = self.hidden_size, self.num_heads
            heads = (width, num_heads, width // num_heads)
            self.query_KHW = self.param("query_KHW", _normal(queries), heads)
            self.key_KHW = self.param("key_KHW", _normal(1.0), heads)
            value = orthogonal(values) if isometries else _normal(values)
            output = orthogonal(num_inputs=2) if isometries else _normal(1.0, (0, 1), (2,))
            self.value_KHW = self.param("value_KHW", value, heads)
            self.output_HWK = self.param("output_HWK", output, (*heads[1:], width))

    return Other


def run_start(name: str, world_seed: int, data: str, runs: str) -> dict[str, float]:
    """Trains one model and returns its best validation P@10 and its attention on the test clips."""
    config = plus.get_config()
    config.name, config.data.simulated_dir = "start", data
    config.simulator.seed, config.train.num_seeds = world_seed, 1
    workdir = pathlib.Path(runs) / name.replace(" ", "-") / str(world_seed)
    with mock.patch.object(uhman, "MultiHead", attention_of(*STARTS[name])):
        if not run(config, workdir, log=lambda line: None, report=False):
            raise Interrupted
    validation = [entry["validation/P@10"][0] for entry in read_log(workdir)]
    scores = read_run(workdir).scores
    found = {column: scores["attention", column].mean for column in COLUMNS}
    doubled = [value > 2 * scores["popularity", "P@10"].mean for value in validation]
    epoch = 1 + doubled.index(True) if any(doubled) else -1
    return found | {"P@10": max(validation), "epoch": epoch}


def main(_: list[str]) -> None:
    """Trains the missing models and prints a Markdown table; a mistake exits with status 2."""
    with exit_on_user_error():
        seeds = range(_WORLDS.value)
        tasks = [(name, seed, _DATA.value, _RUNS.value) for seed in seeds for name in STARTS]
        try:
            with Workers(num_workers()) as workers:
                found = dict(workers.run(run_start, tasks, unit="run"))  # by index of the task
        except Interrupted:
            print(signals.MESSAGE, file=sys.stderr)
            sys.exit(signals.STOPPED)
    columns = ("P@10", *COLUMNS)
    print(f"| start | validation {' | '.join(columns)} | epoch that doubles popularity |")
    print("|---" * (2 + len(columns)) + "|")
    for name in STARTS:
        results = [found[index] for index, task in enumerate(tasks) if task[0] == name]
        means = [f"{np.mean([one[column] for one in results]):.3f}" for column in columns]
        epochs = ", ".join(str(one["epoch"]) for one in results)
        print(f"| {name} | {' | '.join(means)} | {epochs} |")


if __name__ == "__main__":
    run_app(main)
