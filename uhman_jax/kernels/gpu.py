"""The product of regions and kernel on a GPU: Pallas kernels that decode codes in registers.

See `region_projection.Way` for the arguments.
"""

import contextlib
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

triton: Any = None
with contextlib.suppress(ImportError):  # JAX 0.11 deprecates it; without it `kernels_fit` is False
    from jax.experimental.pallas import triton


class _Tuning(NamedTuple):
    """Maximum block sizes and compiler options of a kernel; values are the fastest on an H200.

    Attributes:
        rows: regions in a block of codes.
        channels: channels in a block of codes.
        warps: warps of a program.
        stages: number of blocks in the load pipeline, including the one in use.
        pack: number of codes that are converted to floats at once.
    """

    rows: int
    channels: int
    warps: int
    stages: int
    pack: int


_FORWARD = _Tuning(rows=128, channels=128, warps=4, stages=2, pack=2)
_BACKWARD = _Tuning(rows=64, channels=128, warps=4, stages=1, pack=4)
_MAX_COLUMNS = 128  # maximum columns of a block
_PROGRAMS = 512  # programs that share the gradient: about four per multiprocessor


# The float32 with bits 0x4700_0000 + (x << 8) is 2 ** 15 + x for a byte x. One instruction inserts
# x, which is faster than a conversion. An addition to it rounds by at most 2 ** -9 of a code.
_BIAS = 2.0**15


def _to_floats(pack):
    """Returns assembly that converts `pack` adjacent codes, and constraints of its operands."""
    moves = "".join(f"prmt.b32 ${i}, t, 0x47000000, 0x74{i}4; " for i in range(pack))
    widen = f"mov.b32 t, ${pack};" if pack == 4 else f"cvt.u32.u16 t, ${pack};"
    return f"{{ .reg .b32 t; {widen} {moves}}}", "=r," * pack + ("r" if pack == 4 else "h")


def _decode(codes, factor, biased_shift, pack):
    """Returns the bfloat16 features of a block of codes; pack 0 needs no GPU."""
    if not pack:
        return ((codes.astype(jnp.float32) + _BIAS) * factor + biased_shift).astype(jnp.bfloat16)
    assembly, constraints = _to_floats(pack)
    (biased,) = triton.elementwise_inline_asm(
        assembly,
        args=[codes],
        constraints=constraints,
        pack=pack,
        result_shape_dtypes=[jax.ShapeDtypeStruct(codes.shape, jnp.float32)],
    )
    return (biased * factor + biased_shift).astype(jnp.bfloat16)


def _blocks(shape_VNC, num_columns, tuning):
    """Returns rows, channels and columns of a block: powers of two that divide the sizes."""
    _, num_rows, num_channels = shape_VNC
    sizes = (num_rows, tuning.rows), (num_channels, tuning.channels), (num_columns, _MAX_COLUMNS)
    return tuple(math.gcd(*pair) for pair in sizes)


def hidden(slot_B, codes_VNC, factor_BC, shift_BC, kernel_LC, interpret=False):
    """Returns hidden_BNL, bfloat16, for a kernel in bfloat16.

    One program handles a block of rows of one video, all channels and a block of columns.
    """
    num_columns, (_, num_rows, num_channels) = len(kernel_LC), codes_VNC.shape
    rows, channels, columns = _blocks(codes_VNC.shape, num_columns, _FORWARD)

    def kernel(slot_ref, codes_ref, factor_ref, shift_ref, kernel_ref, hidden_ref):
        slot = slot_ref[pl.program_id(0)]
        row_range = pl.ds(pl.program_id(1) * rows, rows)

        def add(block, sum_NL):
            channel_range = pl.ds(block * channels, channels)
            regions_NC = _decode(
                codes_ref[slot, row_range, channel_range],
                factor_ref[channel_range][None, :],
                shift_ref[channel_range][None, :],
                0 if interpret else _FORWARD.pack,
            )
            return sum_NL + triton.dot(regions_NC, kernel_ref[:, channel_range].T)

        zeros_NL = jnp.zeros((rows, columns), jnp.float32)
        sum_NL = jax.lax.fori_loop(0, num_channels // channels, add, zeros_NL)
        hidden_ref[...] = sum_NL.astype(jnp.bfloat16)

    return pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((len(slot_B), num_rows, num_columns), jnp.bfloat16),
        grid=(len(slot_B), num_rows // rows, num_columns // columns),
        in_specs=[
            pl.BlockSpec(slot_B.shape, lambda b, n, l: (0,)),
            pl.BlockSpec(codes_VNC.shape, lambda b, n, l: (0, 0, 0)),
            pl.BlockSpec((None, num_channels), lambda b, n, l: (b, 0)),
            pl.BlockSpec((None, num_channels), lambda b, n, l: (b, 0)),
            pl.BlockSpec((columns, num_channels), lambda b, n, l: (l, 0)),
        ],
        out_specs=pl.BlockSpec((None, rows, columns), lambda b, n, l: (b, n, l)),
        compiler_params=triton.CompilerParams(num_warps=_FORWARD.warps, num_stages=_FORWARD.stages),
        interpret=interpret,
        name="region_product",
    )(slot_B, codes_VNC, factor_BC, shift_BC - _BIAS * factor_BC, kernel_LC)


def kernel_gradient(slot_B, codes_VNC, factor_BC, shift_BC, down_BNL, interpret=False):
    """Returns gradient_LC, float32, given the gradient of the result of `hidden`.

    One program handles a block of channels, a group of videos with all rows and a block of columns.
    The gradients of the groups are summed at the end.
    """
    num_videos, (_, num_rows, num_channels) = len(slot_B), codes_VNC.shape
    num_columns = down_BNL.shape[2]
    rows, channels, columns = _blocks(codes_VNC.shape, num_columns, _BACKWARD)
    parts = math.gcd(num_videos, max(1, _PROGRAMS * channels // num_channels))
    videos = num_videos // parts

    def kernel(slot_ref, codes_ref, factor_ref, shift_ref, down_ref, gradient_ref):
        first = pl.program_id(1) * videos
        channel_range = pl.ds(pl.program_id(0) * channels, channels)

        def add_video(video, sum_CL):
            slot = slot_ref[first + video]
            factor_C1, shift_C1 = factor_ref[video][:, None], shift_ref[video][:, None]

            def add(block, sum_CL):
                row_range = pl.ds(block * rows, rows)
                codes_CN = codes_ref[slot, row_range, channel_range].T
                regions_CN = _decode(
                    codes_CN, factor_C1, shift_C1, 0 if interpret else _BACKWARD.pack
                )
                return sum_CL + triton.dot(regions_CN, down_ref[video, row_range, :])

            return jax.lax.fori_loop(0, num_rows // rows, add, sum_CL)

        zeros_CL = jnp.zeros((channels, columns), jnp.float32)
        gradient_ref[...] = jax.lax.fori_loop(0, videos, add_video, zeros_CL)

    parts_XCL = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((parts, num_channels, num_columns), jnp.float32),
        grid=(num_channels // channels, parts, num_columns // columns),
        in_specs=[
            pl.BlockSpec(slot_B.shape, lambda c, x, l: (0,)),
            pl.BlockSpec(codes_VNC.shape, lambda c, x, l: (0, 0, 0)),
            pl.BlockSpec((videos, channels), lambda c, x, l: (x, c)),
            pl.BlockSpec((videos, channels), lambda c, x, l: (x, c)),
            pl.BlockSpec((videos, num_rows, columns), lambda c, x, l: (x, 0, l)),
        ],
        out_specs=pl.BlockSpec((None, channels, columns), lambda c, x, l: (x, c, l)),
        compiler_params=triton.CompilerParams(
            num_warps=_BACKWARD.warps, num_stages=_BACKWARD.stages
        ),
        interpret=interpret,
        name="region_product_gradient",
    )(slot_B, codes_VNC, factor_BC, shift_BC - _BIAS * factor_BC, down_BNL)
    return jnp.sum(parts_XCL, axis=0).T
