"""Allocates arrays and reuses their memory when no array refers to it."""

import math
import sys
import threading

import numpy as np

ALIGNMENT = 64  # bytes; with it JAX uses NumPy memory on a CPU without a copy


def _references(owners, index):
    return sys.getrefcount(owners[index])


_UNUSED = _references([object()], 0)  # references of the list and of the call itself


class Recycler:
    """Allocates large arrays from memory that it reuses.

    The first touch of new pages costs as much as reading a batch from the page cache. A block of
    memory is reused only when nothing refers to it: no array, no view or slice of an array, no JAX
    array that shares its memory. Several threads may use one recycler.

    Args:
        max_arrays: maximum number of blocks that are kept; further arrays are ordinary.
    """

    def __init__(self, max_arrays: int = 8):
        self._max_arrays = max_arrays
        self._owners: list[np.ndarray] = []
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Returns an array with arbitrary content, aligned to 64 bytes."""
        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            owner = self._take(num_bytes + ALIGNMENT)
        start = -owner.ctypes.data % ALIGNMENT
        return owner[start : start + num_bytes].view(dtype).reshape(shape)

    def _take(self, size):
        unused = [i for i in range(len(self._owners)) if _references(self._owners, i) == _UNUSED]
        for index in unused:
            if self._owners[index].size == size:
                return self._owners[index]
        owner = np.empty(size, np.uint8)
        if unused:  # replace an unused block of another size
            self._owners[unused[0]] = owner
        elif len(self._owners) < self._max_arrays:
            self._owners.append(owner)
        return owner
