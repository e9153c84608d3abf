"""Places arrays on a `data` x `model` mesh of devices.

The devices along `data` share the videos of a batch. The devices along `model` share the rows of
the hashtag tables (parameters whose names end in `_TK` or `_T`, and their optimiser state). All
other arrays are replicated. XLA derives the communication. Tables are padded with zeros to the
same number of rows per device; padding is never scored.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA, MODEL = "data", "model"


def is_table(path: Any) -> bool:
    """Returns whether the leaf at a path of a tree has a row for every hashtag."""
    return str(getattr(path[-1], "key", "")).endswith(("_TK", "_T"))


class Devices:
    """All devices of all processes, as a mesh.

    Args:
        num_hashtags: T.
        shape: devices along `data` and `model`, as checked by `Cluster.initialize`.

    Attributes:
        mesh: `data` x `model`.
        num_hashtags: T.
        num_rows: rows of a sharded table: T and padding.
    """

    def __init__(self, num_hashtags: int, shape: tuple[int, int]):
        self.mesh: Mesh = jax.make_mesh(shape, (DATA, MODEL), axis_types=(AxisType.Auto,) * 2)
        self.num_hashtags = num_hashtags
        self.num_rows = -(-num_hashtags // shape[1]) * shape[1]

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes."""
        return jax.process_index() == 0

    def all_max(self, *values: float) -> list[float]:
        """Returns the maximum of each value over all processes; all processes must call it."""
        all_values = multihost_utils.process_allgather(np.array(values, np.float32))
        return np.max(np.reshape(all_values, (-1, len(values))), axis=0).tolist()

    def agreed(self, should_stop: Callable[[], bool]) -> Callable[[], bool]:
        """Returns a stop check on which all processes agree.

        The all-reduce waits for the device, so it runs at most every 0.25 s (or every 16 calls).
        """
        if jax.process_count() == 1:
            return should_stop
        interval = calls = 0
        clock = time.monotonic()

        def check() -> bool:
            nonlocal interval, calls, clock
            calls += 1
            if calls <= interval:
                return False
            seconds = (time.monotonic() - clock) / calls
            should_all_stop, slowest = self.all_max(should_stop(), seconds)
            interval, calls, clock = min(int(0.25 / max(slowest, 1e-6)), 16), 0, time.monotonic()
            return bool(should_all_stop)

        return check

    def replicated(self) -> NamedSharding:
        """Returns the sharding of a replicated array."""
        return NamedSharding(self.mesh, PartitionSpec())

    def row_sharded(self) -> NamedSharding:
        """Returns the sharding of tables (S, rows, ...): rows along `model`."""
        return NamedSharding(self.mesh, PartitionSpec(None, MODEL))

    def batch_sharded(self) -> NamedSharding:
        """Returns the sharding of a batch: the first axis along `data`."""
        return NamedSharding(self.mesh, PartitionSpec(DATA))

    def state_shardings(self, tree: Any) -> Any:
        """Returns the shardings of the leaves of a state."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: self.row_sharded() if is_table(path) else self.replicated(), tree
        )

    def shard_state(self, tree: Any) -> Any:
        """Pads the tables (T rows) of a state and moves the state to the devices."""

        def fill(path: Any, leaf: Any) -> Any:
            if not is_table(path):
                return leaf
            padding = self.num_rows - self.num_hashtags
            return np.pad(leaf, [(0, 0), (0, padding), (0, 0)][: leaf.ndim])

        filled = jax.tree_util.tree_map_with_path(fill, tree)
        return jax.device_put(filled, self.state_shardings(filled))

    def gather_state(self, tree: Any) -> Any:
        """Copies a state to the host of every process; its tables have T rows again."""

        def whole(path: Any, leaf: Any) -> np.ndarray:
            array = _to_host(leaf)
            return array[:, : self.num_hashtags] if is_table(path) else array

        return jax.tree_util.tree_map_with_path(whole, tree)

    def batch_slots(self, size: int) -> np.ndarray:
        """Returns the indices of the examples of a batch on this process, ascending."""
        slices = self.batch_sharded().addressable_devices_indices_map((size,)).values()
        return np.unique(np.concatenate([np.arange(size)[index] for index in slices]))

    def shard_batch(self, batch: Any, size: int) -> Any:
        """Shards a batch of `size` examples along `data`.

        Args:
            batch: arrays of all examples, or only of the examples of this process
                (`batch_slots`).
            size: B, over all processes.
        """
        slots = self.batch_slots(size)

        def shard(part: Any) -> jax.Array:
            def read(index: Any) -> np.ndarray:
                start, stop, _ = index[0].indices(size)
                if len(part) < size:
                    start, stop = np.searchsorted(slots, (start, stop))
                return np.asarray(part)[start:stop]

            shape = (size, *np.shape(part)[1:])
            return jax.make_array_from_callback(shape, self.batch_sharded(), read)

        return jax.tree.map(shard, batch)


def _to_host(leaf: Any) -> np.ndarray:
    """Copies an array of any sharding to the host of every process."""
    if getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated:
        return np.asarray(leaf)
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
