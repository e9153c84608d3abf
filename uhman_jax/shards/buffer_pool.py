"""Arrays whose memory is used again when nothing refers to them."""

import math
import sys
import threading

import numpy as np

ALIGNMENT = 64  # bytes; what JAX needs to use NumPy memory on a CPU without a copy


def _references(owners, index):
    return sys.getrefcount(owners[index])


_UNUSED = _references([object()], 0)  # what the list and the call themselves count


class Recycler:
    """Makes large arrays without paying for fresh memory each time.

    The first touch of new pages costs as much as reading a batch from the page cache.  Memory is
    used again only when its reference count says that nothing refers to it: no array, no view or
    slice of one, no JAX array made from one without a copy.  Safe to use from several threads.

    Args:
        max_arrays: blocks of memory kept; arrays beyond that are ordinary ones.
    """

    def __init__(self, max_arrays: int = 8):
        """Starts with no memory."""
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
        if unused:  # of another size: that batch shape is gone
            self._owners[unused[0]] = owner
        elif len(self._owners) < self._max_arrays:
            self._owners.append(owner)
        return owner
