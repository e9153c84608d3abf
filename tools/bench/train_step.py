"""Compares the milliseconds of a training step with a floor and with PyTorch.

    python -m tools.bench.train_step [--batch_size=64] [--num_frames=8] [--json=FILE]

The floor is the unavoidable work. On a CPU, which is bound by arithmetic: the product of all
regions with the first kernel and the gradient of that kernel, one video after the other. On an
accelerator, which is bound by memory: a copy of the codes, which reads and writes them once. An
accelerator runs ten steps without waiting between them, as in training; a CPU waits after each
step. PyTorch (an extra, `pip install torch`) computes the same equations in the same precision,
eager and compiled, from the stored codes and from features decoded beforehand. Its rows are left
out if it is not installed.

With --estimator=sampled the loss draws four negatives per positive, and its cost should not depend
on --num_hashtags.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from tools.bench import synthetic, table
from uhman_jax.config import Estimator
from uhman_jax.models.build import build_model
from uhman_jax.runtime.streams import run_app
from uhman_jax.train.state import init_state
from uhman_jax.train.step import make_train_step

_BATCH = flags.DEFINE_integer("batch_size", 64, "Videos per step.")
_FRAMES = flags.DEFINE_integer("num_frames", 8, "Frames per video.")
_CHANNELS = flags.DEFINE_integer("num_channels", 2048, "Channels of a region.")
_HIDDEN = flags.DEFINE_integer("hidden_size", 32, "Widths K = d.")
_HASHTAGS = flags.DEFINE_integer("num_hashtags", 669, "Size of the vocabulary, T.")
_SEEDS = flags.DEFINE_integer("num_seeds", 1, "Models trained at once (seeds).")
_ESTIMATOR = flags.DEFINE_enum("estimator", "exact", ["exact", "sampled"], "WARP loss.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Measurements per contestant.")
_PEERS = flags.DEFINE_bool("peers", True, "Run PyTorch too, if it is installed.")
_JSON = flags.DEFINE_string("json", "", "File to write the figures to.")


def floor(codes_BFMC: jax.Array, kernel_JC: jax.Array) -> jax.Array:
    """Computes the two products; the result of the first replaces its gradient in the second.

    On an accelerator: copies the codes, changed so that XLA cannot skip the copy.
    """
    if jax.default_backend() != "cpu":
        words = jax.lax.bitcast_convert_type(codes_BFMC.reshape(-1, 4), jnp.uint32)
        return words ^ jnp.uint32(1)

    def one(codes):  # the codes of a video
        regions_NC = codes.reshape(-1, codes.shape[-1]).astype(jnp.float32)
        hidden_NJ = jnp.einsum("nc,jc->nj", regions_NC, kernel_JC)
        return jnp.einsum("nj,nc->jc", hidden_NJ, regions_NC)

    total_JC, _ = jax.lax.scan(
        lambda sum_JC, codes_FMC: (sum_JC + one(codes_FMC), None),
        jnp.zeros_like(kernel_JC),
        codes_BFMC,
    )
    return total_JC


def ours(batch: Any, num_seeds: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns a step of the trainer, with its batch on the device, and a function that waits."""
    sizes = {"hidden_size": _HIDDEN.value, "batch_size": _BATCH.value}
    config = synthetic.config_of(num_seeds=num_seeds, **sizes)
    config.loss.estimator = Estimator(_ESTIMATOR.value)
    model = build_model(config.model, synthetic.view_sizes(_HASHTAGS.value))
    state = init_state(model, config, synthetic.statistics(_CHANNELS.value))
    train_step = make_train_step(model, config, 1000)
    on_device = jax.device_put(batch)

    def step():
        nonlocal state
        state, _ = train_step(state, on_device)

    return step, lambda: jax.block_until_ready(state)


def main(_: list[str]) -> None:
    """Prints the table."""
    sizes = {"num_frames": _FRAMES.value, "num_channels": _CHANNELS.value}
    sizes |= {"num_hashtags": _HASHTAGS.value, "batch_size": _BATCH.value}
    batch = synthetic.make_batch(**sizes)
    rng = np.random.default_rng(0)
    kernel_JC = jnp.asarray(rng.normal(size=(_HIDDEN.value, _CHANNELS.value)), jnp.float32)
    codes_BFMC = jax.device_put(batch.video.codes_BFMC)
    compiled_floor = jax.jit(floor)
    result = compiled_floor(codes_BFMC, kernel_JC)

    def run_floor():
        nonlocal result
        result = compiled_floor(codes_BFMC, kernel_JC)

    repeats = 1 if jax.default_backend() == "cpu" else 10
    contestants = {
        "ours": table.milliseconds(*ours(batch, 1), repeats),
        "floor": table.milliseconds(run_floor, lambda: jax.block_until_ready(result), repeats),
    }
    ratios = [("ours", "floor")]
    versions: tuple[str, ...] = ("jax", "jaxlib", "flax", "optax")
    if _SEEDS.value > 1:
        name = f"{_SEEDS.value} seeds at once"
        contestants[name] = table.milliseconds(*ours(batch, _SEEDS.value), repeats)
        ratios.append((name, "ours"))
    if _PEERS.value and table.installed("torch"):
        from tools.bench import torch_peer

        for name, step in torch_peer.steps(batch, _HIDDEN.value, _HASHTAGS.value).items():
            contestants[name] = table.milliseconds(step, torch_peer.finish, repeats)
            ratios.append((name, "ours"))
        versions += ("torch",)
    facts = {"batch": _BATCH.value, "frames": _FRAMES.value, "channels": _CHANNELS.value}
    facts |= {"K = d": _HIDDEN.value, "T": _HASHTAGS.value, "estimator": _ESTIMATOR.value}
    facts |= {"device": jax.devices()[0].device_kind} | table.machine(versions)
    table.compare("Training step", "ms", contestants, _ROUNDS.value, ratios, facts, _JSON.value)


if __name__ == "__main__":
    run_app(main)
