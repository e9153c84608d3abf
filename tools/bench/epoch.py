"""Measures the seconds of an epoch of the paper's corpus, features on the device or streamed.

    python -m tools.bench.epoch [--num_videos=8233] [--num_frames=16] [--json=FILE]

Runs the trainer's own steps on generated features. "on the device" draws the order of the videos
within the measured time and takes several steps per dispatch; "streamed" reads batches from memory
and takes one step per dispatch. On a CPU the device's memory is the host's. A corpus that does not
fit is truncated; the seconds are always for a whole epoch.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from tools.bench import synthetic, table
from uhman_jax.input_pipeline import TrainOrder
from uhman_jax.models.build import build_model
from uhman_jax.runtime.streams import run_app
from uhman_jax.train.batch_source import MOST_STEPS, multi_step
from uhman_jax.train.device_dataset import DeviceDataset, device_memory
from uhman_jax.train.state import init_state
from uhman_jax.train.step import make_train_step

_VIDEOS = flags.DEFINE_integer("num_videos", 8233, "Videos of an epoch.")
_FRAMES = flags.DEFINE_integer("num_frames", 16, "Frames per video.")
_CHANNELS = flags.DEFINE_integer("num_channels", 2048, "Channels of a region.")
_BATCH = flags.DEFINE_integer("batch_size", 64, "Videos per step.")
_HIDDEN = flags.DEFINE_integer("hidden_size", 32, "Widths K = d.")
_HASHTAGS = flags.DEFINE_integer("num_hashtags", 669, "Size of the vocabulary, T.")
_STEPS = flags.DEFINE_integer("num_steps", 32, "Steps per round, at most an epoch.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Measurements per contestant.")
_JSON = flags.DEFINE_string("json", "", "File to write the figures to.")


def corpus(num_videos: int) -> DeviceDataset:
    """Returns videos on the device, which repeat the codes of 64 videos."""
    small = synthetic.make_batch(
        batch_size=num_videos, num_frames=1, num_channels=1, num_hashtags=_HASHTAGS.value
    )
    shape = (64, _FRAMES.value, synthetic.NUM_REGIONS, _CHANNELS.value)
    codes = jnp.asarray(np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8))
    codes_VFMC = jax.jit(lambda codes: codes[jnp.arange(num_videos) % len(codes)])(codes)
    video = small.video._replace(
        codes_VFMC=codes_VFMC,
        scale_BC=np.full((num_videos, _CHANNELS.value), 0.01, np.float32),
        offset_BC=np.zeros((num_videos, _CHANNELS.value), np.float32),
        mask_BF=np.ones((num_videos, _FRAMES.value), bool),
    )
    videos = jax.device_put(small._replace(video=video))
    return DeviceDataset(videos, jnp.arange(num_videos, dtype=jnp.int32))


def main(_: list[str]) -> None:
    """Prints the table."""
    size, steps_per_epoch = _BATCH.value, -(-_VIDEOS.value // _BATCH.value)
    clip_bytes = _FRAMES.value * synthetic.NUM_REGIONS * _CHANNELS.value
    share = 0.1 if jax.default_backend() == "cpu" else 0.4  # other processes use the host's memory
    kept = max(size, min(_VIDEOS.value, int(share * device_memory()) // clip_bytes))
    num_steps = min(_STEPS.value, steps_per_epoch, MOST_STEPS)
    config = synthetic.config_of(hidden_size=_HIDDEN.value, batch_size=size)
    model = build_model(config.model, synthetic.view_sizes(_HASHTAGS.value))
    step = make_train_step(model, config, 1000)
    statistics = synthetic.statistics(_CHANNELS.value)
    on_device, steps = corpus(kept), multi_step(step)
    sizes = {"num_frames": _FRAMES.value, "num_channels": _CHANNELS.value}
    sizes |= {"num_hashtags": _HASHTAGS.value, "batch_size": size}
    host = [synthetic.make_batch(seed=seed, **sizes) for seed in range(2)]
    epoch = 0

    def contestant(advance: Callable[[Any], Any]) -> Callable[[], float]:
        state = init_state(model, config, statistics)

        def measure() -> float:
            nonlocal state
            begin = time.perf_counter()
            state = jax.block_until_ready(advance(state))
            return (time.perf_counter() - begin) / num_steps * steps_per_epoch

        measure()
        return measure

    def on_device_steps(state: Any) -> Any:
        nonlocal epoch
        order, epoch = TrainOrder(np.arange(kept), size, seed=epoch), epoch + 1
        rows_NB = np.zeros((MOST_STEPS, size), np.int32)
        rows_NB[:num_steps] = np.stack([order[index] for index in range(num_steps)])
        return steps(state, on_device, rows_NB, num_steps)[0]

    def streamed(state: Any) -> Any:
        for index in range(num_steps):
            state, _ = step(state, jax.device_put(host[index % 2]))
        return state

    contestants = {"on the device": contestant(on_device_steps), "streamed": contestant(streamed)}
    facts = {"videos": _VIDEOS.value, "kept": kept, "frames": _FRAMES.value, "batch": size}
    facts |= {"channels": _CHANNELS.value, "K = d": _HIDDEN.value, "steps measured": num_steps}
    facts |= {"device": jax.devices()[0].device_kind} | table.machine(("jax", "jaxlib"))
    ratios = [("streamed", "on the device")]
    table.compare("An epoch", "s", contestants, _ROUNDS.value, ratios, facts, _JSON.value)


if __name__ == "__main__":
    run_app(main)
