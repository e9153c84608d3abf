"""How far is a training step from the floor, and from PyTorch? Milliseconds per step.

    python -m tools.bench.train_step [--batch_size=64] [--num_frames=8] [--json=FILE]

The floor is what cannot be avoided. On a CPU: the product of all regions with the first kernel,
and the gradient of that kernel, which is another one, one video after the other. On an accelerator,
where these are bound by memory: reading the codes twice, as fast as a copy of them reads and
writes. There ten steps follow upon each other, as in training; a CPU waits for each. PyTorch (an
extra, `pip install torch`) runs the same equations in the same precision, as it comes and compiled,
from the same stored codes and from features that were decoded beforehand. Without PyTorch its rows
are left out.

With --estimator=sampled the loss draws four negatives per positive, and its cost must not depend on
--num_hashtags.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from tools.bench import synthetic, table
from uhman_jax.config import Estimator
from uhman_jax.streams import run_app
from uhman_jax.train.state import build_model, init_state
from uhman_jax.train.step import make_train_step

_BATCH = flags.DEFINE_integer("batch_size", 64, "Videos per step.")
_FRAMES = flags.DEFINE_integer("num_frames", 8, "Frames per video.")
_CHANNELS = flags.DEFINE_integer("num_channels", 2048, "Channels of a region.")
_HIDDEN = flags.DEFINE_integer("hidden_size", 32, "K = d.")
_HASHTAGS = flags.DEFINE_integer("num_hashtags", 669, "T.")
_SEEDS = flags.DEFINE_integer("num_seeds", 1, "Models trained at once.")
_ESTIMATOR = flags.DEFINE_enum("estimator", "exact", ["exact", "sampled"], "Of WARP.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Rounds.")
_PEERS = flags.DEFINE_bool("peers", True, "Run PyTorch too, where it is installed.")
_JSON = flags.DEFINE_string("json", "", "File to write the figures to.")


def floor(codes_BFMC: jax.Array, kernel_JC: jax.Array) -> jax.Array:
    """The two products alone, with the first one's result in the place of its gradient.

    On an accelerator: a copy of the codes, changed so that it is one.
    """
    if jax.default_backend() != "cpu":
        words = jax.lax.bitcast_convert_type(codes_BFMC.reshape(-1, 4), jnp.uint32)
        return words ^ jnp.uint32(1)

    def one(codes):  # of a video
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
    """A step of the trainer, batch on the device; and what waits for its end."""
    config = synthetic.config_of(
        hidden_size=_HIDDEN.value, batch_size=_BATCH.value, num_seeds=num_seeds
    )
    config.loss.estimator = Estimator(_ESTIMATOR.value)
    model = build_model(config.model, synthetic.view_sizes(_HASHTAGS.value))  # type: ignore[arg-type]
    state = init_state(model, config, synthetic.statistics(_CHANNELS.value))
    train_step = make_train_step(model, config, 1000)
    on_device = jax.device_put(batch)

    def step():
        nonlocal state
        state, _ = train_step(state, on_device)

    return step, lambda: jax.block_until_ready(state)


def main(_: list[str]) -> None:
    """Prints the table."""
    batch = synthetic.make_batch(
        batch_size=_BATCH.value,
        num_frames=_FRAMES.value,
        num_channels=_CHANNELS.value,
        num_hashtags=_HASHTAGS.value,
    )
    rng = np.random.default_rng(0)
    kernel_JC = jnp.asarray(rng.normal(size=(_HIDDEN.value, _CHANNELS.value)), jnp.float32)
    codes_BFMC = jax.device_put(batch.video.codes_BFMC)
    compiled_floor = jax.jit(floor)
    result = compiled_floor(codes_BFMC, kernel_JC)

    def least():
        nonlocal result
        result = compiled_floor(codes_BFMC, kernel_JC)

    repeats = 1 if jax.default_backend() == "cpu" else 10
    contestants = {
        "ours": table.milliseconds(*ours(batch, 1), repeats),
        "floor": table.milliseconds(least, lambda: jax.block_until_ready(result), repeats),
    }
    ratios = [("ours", "floor")]
    versions: tuple[str, ...] = ("jax", "jaxlib", "flax", "optax")
    if _SEEDS.value > 1:
        name = f"{_SEEDS.value} seeds at once"
        contestants[name] = table.milliseconds(*ours(batch, _SEEDS.value), repeats)
        ratios.append((name, "ours"))
    if _PEERS.value:
        try:
            from tools.bench import torch_peer
        except ImportError:
            print("PyTorch is not installed: its rows are left out")
        else:
            for name, step in torch_peer.steps(batch, _HIDDEN.value, _HASHTAGS.value).items():
                contestants[name] = table.milliseconds(step, torch_peer.finish, repeats)
                ratios.append((name, "ours"))
            versions += ("torch",)
    figures = table.interleave(contestants, _ROUNDS.value)
    table.report(
        "Training step",
        "ms",
        figures,
        {f"{one} / {other}": table.ratio(figures, one, other) for one, other in ratios},
        {
            "batch": _BATCH.value,
            "frames": _FRAMES.value,
            "channels": _CHANNELS.value,
            "K = d": _HIDDEN.value,
            "T": _HASHTAGS.value,
            "estimator": _ESTIMATOR.value,
            "device": jax.devices()[0].device_kind,
        }
        | table.machine(versions),
        _JSON.value,
    )


if __name__ == "__main__":
    run_app(main)
