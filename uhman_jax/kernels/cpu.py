"""The product of regions and kernel on a CPU, in chunks of videos that fit the cache.

See `region_projection.Way` for the arguments.
"""

import jax
import jax.numpy as jnp

_ROWS_AT_ONCE = 512  # maximum regions per chunk, unless one video has more


def largest_divisor(number: int, most: int) -> int:
    """Returns the largest divisor of `number` up to `most`, at least 1.

    >>> largest_divisor(32, 9), largest_divisor(7, 6)
    (8, 1)
    """
    return next(size for size in range(max(1, min(number, most)), 0, -1) if number % size == 0)


def hidden(slot_B, codes_VNC, factor_BC, shift_BC, kernel_LC):
    """Returns hidden_BNL, in the kernel's dtype."""

    def multiply(videos):
        regions_XNC = _decoded(codes_VNC, videos, kernel_LC.dtype)
        return jnp.einsum("xnc,lc->xnl", regions_XNC, kernel_LC)

    hidden_YXNL = jax.lax.map(multiply, _chunks(codes_VNC.shape[1], slot_B, factor_BC, shift_BC))
    return hidden_YXNL.reshape(len(slot_B), *hidden_YXNL.shape[2:])


def kernel_gradient(slot_B, codes_VNC, factor_BC, shift_BC, down_BNL):
    """Returns gradient_LC, float32, given the gradient of the result of `hidden`."""
    _, num_rows, num_channels = codes_VNC.shape
    num_columns = down_BNL.shape[2]
    *videos, down_YXNL = _chunks(num_rows, slot_B, factor_BC, shift_BC, down_BNL)
    # One transposition before the loop: otherwise XLA's product takes 1.3 times as long.
    down_YLN = jnp.moveaxis(down_YXNL, 3, 1).reshape(len(down_YXNL), num_columns, -1)

    def add(sum_LC, videos_and_down):
        *videos, down_LN = videos_and_down
        regions_NC = _decoded(codes_VNC, videos, down_LN.dtype).reshape(-1, num_channels)
        return sum_LC + jnp.matmul(down_LN, regions_NC, preferred_element_type=jnp.float32), None

    zeros_LC = jnp.zeros((num_columns, num_channels), jnp.float32)
    return jax.lax.scan(add, zeros_LC, (*videos, down_YLN))[0]


def _chunks(num_rows, *arrays):
    """Returns arrays (B, ...) as (Y, X, ...): Y chunks of X videos, see `_ROWS_AT_ONCE`."""
    num_videos = len(arrays[0])
    at_once = largest_divisor(num_videos, _ROWS_AT_ONCE // num_rows)
    shape = num_videos // at_once, at_once
    return tuple(array.reshape(*shape, *array.shape[1:]) for array in arrays)


def _decoded(codes_VNC, videos, dtype):
    """Returns the standardised regions_XNC of a chunk; `videos`: slot_X, factor_XC, shift_XC."""
    slot_X, factor_XC, shift_XC = videos
    return (codes_VNC[slot_X] * factor_XC[:, None, :] + shift_XC[:, None, :]).astype(dtype)
