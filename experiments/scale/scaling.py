"""Times a training step on 1 to 8 virtual devices that share the cores of one machine.

    python -m experiments.scale.scaling

Writes scaling.json, scaling.png and .svg beside this file; takes minutes on an idle machine.
Virtual devices add no cores. Without overhead, the time of a fixed batch (strong scaling) would be
constant, and the time of a batch that grows with the devices (weak scaling) proportional to them.
The distance above these lines is the overhead of sharding.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

from absl import flags
from matplotlib.figure import Figure

from experiments.paper.drawing import save
from tools.bench.table import machine
from uhman_jax.models.build import build_model
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.runtime.streams import run_app

_MEASURE = flags.DEFINE_integer(
    "measure", 0, "Number of devices to time in this process; 0: time all and draw."
)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Processes for each number of devices.")
_STEPS = flags.DEFINE_integer("steps", 10, "Timed steps in a process.")

FOLDER = pathlib.Path(__file__).parent
COUNTS = (1, 2, 4, 8)
STRONG, WEAK = 64, 16  # videos over all devices, and per device
SIZES = {"num_frames": 8, "num_channels": 2048, "num_hashtags": 669}


def measure(count: int, steps: int) -> dict[str, float]:
    """Returns the median milliseconds of a step on `count` devices, for both kinds of scaling."""
    import jax

    from tools.bench import synthetic
    from uhman_jax import train
    from uhman_jax.kernels import region_projection
    from uhman_jax.runtime.mesh import Devices

    projection: Any = region_projection
    projection.goes_by_video = lambda *_: False  # project whole batches on one device too
    view: Any = synthetic.view_sizes(SIZES["num_hashtags"])
    devices, found = Devices(SIZES["num_hashtags"], (count, 1)), {}
    for name, batch_size in (("strong", STRONG), ("weak", WEAK * count)):
        config = synthetic.config_of(hidden_size=32, batch_size=batch_size)
        config.train.microbatch_size = batch_size
        model = build_model(config.model, view)
        state: Any = train.init_state(model, config, synthetic.statistics(SIZES["num_channels"]))
        shardings = devices.state_shardings(state)
        state = devices.shard_state(jax.tree.map(jax.device_get, state))
        batch = devices.shard_batch(
            synthetic.make_batch(batch_size=batch_size, **SIZES), batch_size
        )
        step: Any = train.make_train_step(model, config, 1000, (shardings, devices.replicated()))
        times = []
        for _ in range(2 + steps):
            begin = time.perf_counter()
            state, _ = jax.block_until_ready(step(state, batch))
            times.append(1e3 * (time.perf_counter() - begin))
        found[name] = statistics.median(times[2:])
    return found


def measure_all(rounds: int, steps: int) -> dict[str, Any]:
    """Times every number of devices `rounds` times, each in its own process."""
    found: dict[str, dict[str, list[float]]] = {
        kind: {str(count): [] for count in COUNTS} for kind in ("strong", "weak")
    }
    order = [count for _ in range(rounds) for count in COUNTS]
    for count in progress_bar(order, desc="devices", unit="process"):
        command = [sys.executable, "-m", "experiments.scale.scaling", f"--measure={count}"]
        command += [f"--steps={steps}"]
        output = subprocess.check_output(command, cwd=FOLDER.parents[1], text=True)
        for kind, value in json.loads(output).items():
            found[kind][str(count)].append(value)
    return {"machine": machine(("jax",)), "unit": "ms", **found}


def draw(found: dict[str, Any]) -> None:
    """Draws both curves, and dotted lines without overhead."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    titles = {"strong": f"strong scaling: {STRONG} videos in all"}
    titles["weak"] = f"weak scaling: {WEAK} videos for each device"
    for axis, (kind, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        times = [statistics.median(found[kind][str(count)]) for count in COUNTS]
        free = [times[0] * (count if kind == "weak" else 1) for count in COUNTS]
        axis.plot(COUNTS, times, marker="o", label="measured")
        axis.plot(COUNTS, free, linestyle=":", color="gray", label="if sharing were free")
        axis.set(xlabel="virtual devices", ylabel="ms per step", title=title)
        axis.set_ylim(0, 1.08 * max(times))
        axis.set_xticks(COUNTS)
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(f"{found['machine']['cores']} cores, whatever the number of devices", size=9)
    save(figure, FOLDER, "scaling")


def main(_: list[str]) -> None:
    """Prints the times for one number of devices, or writes all files."""
    if count := _MEASURE.value:
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
        print(json.dumps(measure(count, _STEPS.value)))
        return
    found = measure_all(_ROUNDS.value, _STEPS.value)
    (FOLDER / "scaling.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    draw(found)


if __name__ == "__main__":
    run_app(main)
