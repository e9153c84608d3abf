"""Why attention stayed even in the prototype: UHMAN with other starts of its attention.

    python -m experiments.recipe.starts --worlds=3

Trains the recipe `plus` on selection worlds, with the initial scale of queries and of values as
usual instead of twice as large, and with random values and outputs instead of isometries; prints
validation P@10, where attention looks, and the epoch in which a model first has twice the P@10 of
popularity (-1: none). Every run is a directory under `runs/starts/`, so that a
stopped study goes on where it was.
"""

import pathlib
import sys
from unittest import mock

import numpy as np
from absl import flags
from flax import linen as nn

from configs import plus
from experiments.paper.workers import Interrupted, Workers, num_workers
from uhman_jax import model, stop
from uhman_jax.errors import only_flags, told_in_a_sentence
from uhman_jax.layers import orthogonal
from uhman_jax.progress import progress_bar
from uhman_jax.run import run
from uhman_jax.run_directory import read_log, read_run
from uhman_jax.streams import run_app

_WORLDS = flags.DEFINE_integer("worlds", 3, "World seeds, from 0 on.", lower_bound=1)
_DATA = flags.DEFINE_string("simulated_dir", "data", "Where simulated datasets are kept.")
_RUNS = flags.DEFINE_string("runs", "runs/starts", "Where run directories are kept.")
# Scale of queries and of values at the start, and whether values and outputs are isometries.
STARTS = {
    "as it is": (2.0, 2.0, True),
    "queries at the usual scale": (1.0, 2.0, True),
    "values at the usual scale": (2.0, 1.0, True),
    "random values and outputs": (2.0, 2.0, False),
    "all as usual": (1.0, 1.0, False),
}
COLUMNS = ("tagged_frame_mass", "top_frame_tagged", "tagged_mass", "top_region_tagged")


def attention_of(queries: float, values: float, isometries: bool) -> type[nn.Module]:
    """MultiHead with another start."""

    class Other(model.MultiHead):
        def setup(self):
            width, num_heads = self.hidden_size, self.num_heads
            heads = (width, num_heads, width // num_heads)

            def normal(scale, into=True):
                inputs, outputs = (0, (1, 2)) if into else ((0, 1), 2)
                draw = nn.initializers.variance_scaling
                return draw(
                    scale**2, "fan_in", "truncated_normal", in_axis=inputs, out_axis=outputs
                )

            self.query_KHW = self.param("query_KHW", normal(queries), heads)
            self.key_KHW = self.param("key_KHW", normal(1.0), heads)
            value = orthogonal(values) if isometries else normal(values)
            output = orthogonal(num_inputs=2) if isometries else normal(1.0, into=False)
            self.value_KHW = self.param("value_KHW", value, heads)
            self.output_HWK = self.param("output_HWK", output, (*heads[1:], width))

    return Other


def run_start(name: str, world_seed: int, data: str, runs: str) -> dict[str, float]:
    """Trains one model; its best validation P@10 and its attention on the test clips."""
    config = plus.get_config()
    config.name, config.data.simulated_dir = "start", data
    config.simulator.seed, config.train.num_seeds = world_seed, 1
    workdir = pathlib.Path(runs) / name.replace(" ", "-") / str(world_seed)
    with mock.patch.object(model, "MultiHead", attention_of(*STARTS[name])):
        if not run(config, workdir, say=lambda line: None, report=False):
            raise Interrupted
    validation = [entry["validation/P@10"][0] for entry in read_log(workdir)]
    scores = read_run(workdir).scores
    found = {column: scores["attention", column].mean for column in COLUMNS}
    doubled = [value > 2 * scores["popularity", "P@10"].mean for value in validation]
    epoch = 1 + doubled.index(True) if any(doubled) else -1
    return found | {"P@10": max(validation), "epoch": epoch}


def main(argv: list[str]) -> None:
    """Prints a Markdown table; a mistake is one sentence and status 2."""
    with told_in_a_sentence():
        only_flags(argv)
        compare()


def compare() -> None:
    """Runs what is missing and prints what came out."""
    tasks = [
        (name, seed, _DATA.value, _RUNS.value) for seed in range(_WORLDS.value) for name in STARTS
    ]
    found: dict[int, dict[str, float]] = {}  # by the place of the task: they end in any order
    try:
        with Workers(num_workers()) as workers, progress_bar(total=len(tasks), unit="run") as bar:
            for index, result in workers.run(run_start, tasks):
                found[index] = result
                bar.update()
    except Interrupted:
        print(stop.MESSAGE, file=sys.stderr)
        sys.exit(stop.STOPPED)
    print(
        "| start | validation P@10 | " + " | ".join(COLUMNS) + " | epoch that doubles popularity |"
    )
    print("|---" * (3 + len(COLUMNS)) + "|")
    for name in STARTS:
        results = [found[index] for index, task in enumerate(tasks) if task[0] == name]
        means = [np.mean([one[column] for one in results]) for column in ("P@10", *COLUMNS)]
        epochs = ", ".join(str(one["epoch"]) for one in results)
        print(f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + f" | {epochs} |")


if __name__ == "__main__":
    run_app(main)
