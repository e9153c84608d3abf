"""Sources of a run's batches: features on the device, or features read ahead from the shards.

Both use the batches of `TrainOrder` in its order. Results differ by rounding at most.
"""

import functools
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.dataset.view import View
from uhman_jax.input_pipeline import (
    Batch,
    TrainOrder,
    eval_batches,
    iterate,
    padded_rows,
    train_batches,
)
from uhman_jax.runtime.mesh import Devices
from uhman_jax.shards.store import FrameStore
from uhman_jax.train.device_dataset import DeviceDataset
from uhman_jax.train.state import State
from uhman_jax.train.step import StepMetrics

Step = Callable[[State, Batch], tuple[State, StepMetrics]]
Steps = Callable[[State, DeviceDataset, np.ndarray, int], tuple[State, StepMetrics]]

MOST_STEPS = 256  # maximum number of steps per dispatch
_DISPATCH_SECONDS = 0.25  # maximum time of a dispatch: a signal waits for its end


class Streamed:
    """Batches that threads read ahead while the device computes; one step per dispatch.

    Args:
        step: the jitted step.
        view: labels of the videos.
        store: features of the videos.
        order: rows of the view by step.
        start_step: the first step.
        devices: devices that share a batch; None: one device.
    """

    def __init__(
        self,
        step: Step,
        view: View,
        store: FrameStore,
        order: TrainOrder,
        start_step: int,
        devices: Devices | None = None,
    ):
        """Starts reading."""
        self._step, self._view, self._store = step, view, store
        self._to_device, slots = jax.device_put, None
        if devices:
            self._to_device = functools.partial(devices.shard_batch, size=order.batch_size)
            slots = devices.batch_slots(order.batch_size)
        self._batches = iterate(train_batches(view, store, order, slots), start_step)

    def advance(self, state: State, most: int) -> tuple[State, StepMetrics, int]:
        """Takes one step, whatever `most` is; returns as `OnDevice.advance` does."""
        state, metrics = self._step(state, self._to_device(next(self._batches)))
        return state, jax.tree.map(lambda leaf: leaf[None], metrics), 1

    def ranked(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Returns batches of view rows, each row once, the last one padded."""
        return iterate(eval_batches(self._view, self._store, rows=rows, batch_size=batch_size))


class OnDevice:
    """Batches of videos that are on the device; many steps per dispatch.

    The first dispatch has one step; the number grows while a dispatch takes less than 0.25 s.

    Args:
        steps: the result of `multi_step`.
        on_device: holds all these videos.
        order: rows of the view by step.
        start_step: the first step.
    """

    def __init__(self, steps: Steps, on_device: DeviceDataset, order: TrainOrder, start_step: int):
        """Keeps the order of the batches."""
        self._steps, self._on_device = steps, on_device
        self._order, self._next = order, start_step
        self._allowed, self._counts = 1, (0, 0)  # steps of the last dispatch and the one before
        self._clock: float | None = None

    def advance(self, state: State, most: int) -> tuple[State, StepMetrics, int]:
        """Takes 1 to `most` steps; returns the state, their metrics and their number.

        The metrics have a leading axis of steps; entries beyond that number are undefined.
        """
        count = min(most, self._allow())
        rows_NB = np.zeros((MOST_STEPS, self._order.batch_size), np.int32)
        steps = range(self._next, self._next + count)
        rows_NB[:count] = np.stack([self._order[step] for step in steps])
        state, metrics = self._steps(state, self._on_device, rows_NB, count)
        self._next += count
        self._counts = count, self._counts[0]
        return state, metrics, count

    def _allow(self) -> int:
        """Returns how many steps take about `_DISPATCH_SECONDS`, at most twice as many as before.

        Metrics are read one dispatch late, so the time between two calls measures the dispatch
        before last.
        """
        now, before = time.monotonic(), self._clock
        self._clock = now
        if before is not None and self._counts[1]:
            fitting = int(_DISPATCH_SECONDS * self._counts[1] / max(now - before, 1e-6))
            self._allowed = max(1, min(fitting, 2 * self._allowed, MOST_STEPS))
        return self._allowed

    def ranked(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Yields batches of view rows, each row once, the last one padded."""
        self._clock = None  # the time of a ranking is no time of steps
        for row_B in padded_rows(rows, batch_size):
            yield self._on_device.batch(row_B)


def multi_step(step: Step) -> Steps:
    """Returns the jitted (state, features, rows_NB, count) -> state after `count` steps, metrics.

    Rows and metrics from index `count` on are ignored, so that one program takes any number.
    """

    def steps(state: State, on_device: DeviceDataset, rows_NB: jax.Array, count: jax.Array):
        def one(index, carry):
            state, metrics = carry
            state, new = step(state, on_device.batch(rows_NB[index]))
            return state, jax.tree.map(lambda all_N, one: all_N.at[index].set(one), metrics, new)

        shape = (len(rows_NB), *state.rate_scale_S.shape)
        metrics = StepMetrics(*(jnp.zeros(shape) for _ in StepMetrics._fields))
        return jax.lax.fori_loop(0, count, one, (state, metrics))

    return jax.jit(steps, donate_argnums=0)
