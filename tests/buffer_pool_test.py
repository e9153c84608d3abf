import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhman_jax.shards.buffer_pool import Recycler

SHAPE, DTYPE = (3, 5, 100_003), np.dtype(np.uint8)


def address(array):
    return array.ctypes.data


def test_memory_comes_back_when_nothing_holds_it():
    recycler = Recycler()
    array = recycler.empty(SHAPE, DTYPE)
    assert array.shape == SHAPE and array.dtype == DTYPE and array.flags.c_contiguous
    first = address(array)
    assert first % 64 == 0
    assert address(recycler.empty(SHAPE, DTYPE)) != first  # still held
    del array
    assert address(recycler.empty(SHAPE, DTYPE)) == first


@pytest.mark.parametrize(
    "hold",
    [
        lambda array: array[1:],
        lambda array: array.reshape(-1).view(np.int8)[7:],
        lambda array: memoryview(array),
        lambda array: {"batch": [array]},
    ],
)
def test_a_view_keeps_the_memory(hold):
    recycler = Recycler()
    array = recycler.empty(SHAPE, DTYPE)
    first = address(array)
    held = hold(array)
    del array
    assert address(recycler.empty(SHAPE, DTYPE)) != first
    del held
    assert first in {address(a) for a in [recycler.empty(SHAPE, DTYPE) for _ in range(3)]}


@pytest.mark.parametrize("make", [jnp.asarray, jax.device_put, jax.jit(lambda x: x)])
def test_jax_arrays_keep_their_values(make):
    """JAX on a CPU uses aligned NumPy memory in place."""
    recycler = Recycler(max_arrays=2)
    held = []
    for value in range(20):
        array = recycler.empty(SHAPE, DTYPE)
        array[:] = value
        held.append(make(array))
        del array
        if value % 3 == 0:  # some memory comes back now and then
            held[value // 2] = None
    for value, array in enumerate(held):
        if array is not None:
            assert (np.asarray(array) == value).all()


def test_computations_still_running_keep_the_memory():
    recycler = Recycler(max_arrays=1)
    slow = jax.jit(lambda x: jnp.sum(jnp.sort(x.reshape(-1)).astype(jnp.float32)))
    results = []
    for value in range(8):
        array = recycler.empty((200_000,), DTYPE)
        array[:] = value
        results.append(slow(array))  # returns before it is done
        del array
    np.testing.assert_array_equal(np.asarray(results), 200_000.0 * np.arange(8))


def test_at_most_max_arrays_are_kept():
    recycler = Recycler(max_arrays=2)
    arrays = [recycler.empty(SHAPE, DTYPE) for _ in range(5)]
    assert len(recycler._owners) == 2 and len({address(array) for array in arrays}) == 5
    assert recycler.empty((0, 3), DTYPE).shape == (0, 3)


def test_another_shape_replaces_unused_memory():
    recycler, shape, dtype = Recycler(max_arrays=1), (7,), np.dtype(np.float32)
    recycler.empty(SHAPE, DTYPE)
    other = recycler.empty(shape, dtype)
    assert other.shape == shape and len(recycler._owners) == 1
    first = address(other)
    del other
    assert address(recycler.empty(shape, dtype)) == first
