"""Sources of batches: `OnDevice` holds all features, `Streamed` reads them ahead from the shards.

Both yield batches in the order of `TrainOrder`. Their results differ at most by rounding.
"""

import functools
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.batch import Batch
from uhman_jax.dataset.view import View
from uhman_jax.input_pipeline import TrainOrder, eval_batches, iterate, padded_rows, train_batches
from uhman_jax.runtime.mesh import Devices
from uhman_jax.shards.store import FrameStore
from uhman_jax.train.device_dataset import DeviceDataset
from uhman_jax.train.state import State
from uhman_jax.train.step import StepMetrics

Step = Callable[[State, Batch], tuple[State, StepMetrics]]
Steps = Callable[[State, DeviceDataset, np.ndarray, int], tuple[State, StepMetrics]]

MOST_STEPS = 256  # maximum number of steps per dispatch
_DISPATCH_SECONDS = 0.25  # target duration of a dispatch; a signal waits for its end


class Streamed:
    """Reads batches in threads while the device computes, and dispatches one step at a time.

    Args:
        step: the jitted step.
        view: labels of the videos.
        store: features of the videos.
        order: view rows of each step's batch.
        start_step: the first step.
        devices: devices that share a batch; None: one device.
        history_parts: see `Join`.
    """

    def __init__(
        self,
        step: Step,
        view: View,
        store: FrameStore,
        order: TrainOrder,
        start_step: int,
        devices: Devices | None = None,
        history_parts: bool = False,
    ):
        self._step, self._view, self._store = step, view, store
        self._to_device, slots = jax.device_put, None
        if devices:
            self._to_device = functools.partial(devices.shard_batch, size=order.batch_size)
            slots = devices.batch_slots(order.batch_size)
        batches = train_batches(view, store, order, slots, history_parts)
        self._batches = iterate(batches, start_step)

    def advance(self, state: State, most: int) -> tuple[State, StepMetrics, int]:
        """Takes one step and ignores `most`; returns the same values as `OnDevice.advance`."""
        state, metrics = self._step(state, self._to_device(next(self._batches)))
        return state, jax.tree.map(lambda leaf: leaf[None], metrics), 1

    def ranked(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Returns batches of the view rows to rank, each row once; the last batch is padded."""
        return iterate(eval_batches(self._view, self._store, rows=rows, batch_size=batch_size))


class OnDevice:
    """Selects batches from videos on the device, and dispatches many steps at a time.

    The first dispatch has one step; the number grows while a dispatch takes less than 0.25 s.

    Args:
        steps: the result of `multi_step`.
        on_device: all videos of the batches.
        order: view rows of each step's batch.
        start_step: the first step.
    """

    def __init__(self, steps: Steps, on_device: DeviceDataset, order: TrainOrder, start_step: int):
        self._steps, self._on_device = steps, on_device
        self._order, self._next = order, start_step
        self._allowed = 1  # maximum number of steps of the next dispatch
        self._counts = 0, 0  # numbers of steps of the last dispatch and the one before
        self._clock: float | None = None

    def advance(self, state: State, most: int) -> tuple[State, StepMetrics, int]:
        """Takes 1 to `most` steps; returns the state, the steps' metrics and their number.

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
        """Yields batches of the view rows to rank, each row once; the last batch is padded."""
        self._clock = None  # an interval with a ranking does not measure a dispatch
        for row_B in padded_rows(rows, batch_size):
            yield self._on_device.batch(row_B)


def multi_step(step: Step) -> Steps:
    """Returns the jitted (state, on_device, rows_NB, count) -> (state, metrics) of `count` steps.

    Rows from index `count` on are ignored, so that one program serves any count.
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
