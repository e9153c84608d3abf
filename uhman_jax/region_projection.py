"""The product of every region with the first kernel: nearly all bytes and operations of a step.

Features are stored as codes of one byte. XLA would write the decoded features, four times as many
bytes, and read them twice. Two implementations avoid this (measured in experiments/speed):

- On one GPU, for a model in bfloat16, two Pallas kernels decode and standardise codes in registers
  before the tensor cores multiply them: one for the product and one for its gradient.
- On one CPU, for wide features, a loop decodes video after video and multiplies it while it is in
  the cache. The gradient decodes it again, so that the batch can be large.

In all other cases the product is an einsum of the standardised features.
"""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental import pallas as pl

from uhman_jax.layers import ChannelStatistics, VideoInput, decoding, standardise

triton: Any = None
with contextlib.suppress(ImportError):  # JAX 0.11 deprecates it; without it `kernels_fit` is False
    from jax.experimental.pallas import triton


class _Tuning(NamedTuple):
    """Maximum size of a kernel's blocks and options of its compiler: the fastest on an H200.

    Attributes:
        rows: regions in a block of codes.
        channels: channels in a block of codes.
        warps: warps of a program.
        stages: blocks in the pipeline of reads, with the block in use.
        pack: number of codes that are converted to floats at once.
    """

    rows: int
    channels: int
    warps: int
    stages: int
    pack: int


_FORWARD = _Tuning(rows=128, channels=128, warps=4, stages=2, pack=2)
_BACKWARD = _Tuning(rows=64, channels=128, warps=4, stages=1, pack=4)
_MAX_COLUMNS = 128  # of a block
_PROGRAMS = 512  # that share the gradient: about four for each multiprocessor
_ROWS_AT_ONCE = 512  # regions that a CPU decodes and multiplies at once; at least one video


def region_product(
    video: VideoInput, statistics: ChannelStatistics, kernel_JC: jax.Array, dtype: Any
) -> jax.Array:
    """Returns hidden_BFMJ: the standardised features of every region times the kernel.

    The result for a padding frame is arbitrary. Only the kernel gets a gradient.

    Args:
        video: VideoInput of a batch.
        statistics: statistics of the decoded features.
        kernel_JC: float32.
        dtype: type of both operands and of the result; sums are float32.
    """
    platform = jax.default_backend()
    by_kernels = kernels_fit(video, kernel_JC, dtype, platform)
    if not by_kernels and not goes_by_video(video, len(kernel_JC), platform):
        regions_BFMC = standardise(video, statistics, dtype)
        return jnp.einsum("bfmc,jc->bfmj", regions_BFMC, kernel_JC.astype(dtype))
    num_videos, num_frames, num_regions, num_channels = video.codes_VFMC.shape
    codes_VNC = video.codes_VFMC.reshape(num_videos, num_frames * num_regions, num_channels)
    way = KERNELS if by_kernels else BY_VIDEO
    decoding_BC = decoding(video, statistics)
    hidden_BNJ = product(video.slot_B, codes_VNC, *decoding_BC, kernel_JC, dtype, way)
    return hidden_BNJ.reshape(len(video.slot_B), num_frames, num_regions, len(kernel_JC))


def goes_by_video(video: VideoInput, hidden_size: int, platform: str) -> bool:
    """Returns whether to loop over videos: bytes with wide features, on one CPU.

    The loop pays only if a region has many more features than its four vectors of the hidden size
    have numbers.
    """
    return (
        platform == "cpu"
        and jax.device_count() == 1
        and video.codes_VFMC.dtype == jnp.uint8
        and video.codes_VFMC.shape[3] > 8 * hidden_size
    )


def kernels_fit(video: VideoInput, kernel_JC: jax.Array, dtype: Any, platform: str) -> bool:
    """Returns whether the GPU kernels apply: bytes, bfloat16, sizes that their blocks divide."""
    codes_VFMC = video.codes_VFMC
    _, num_frames, num_regions, num_channels = codes_VFMC.shape
    return (
        triton is not None
        and platform == "gpu"
        and jax.device_count() == 1  # XLA cannot split a kernel over devices
        and codes_VFMC.dtype == jnp.uint8
        and dtype == jnp.bfloat16
        # For these sizes Pallas (0.10, 0.11) overflows a signed 32-bit integer.
        and not 2**31 < codes_VFMC.size <= 2**32
        and num_frames * num_regions % 64 == 0
        and num_channels % 64 == 0
        and len(kernel_JC) % 16 == 0
    )


def largest_divisor(number: int, most: int) -> int:
    """Returns the largest divisor of a number that is at most `most`, or 1.

    >>> largest_divisor(32, 9), largest_divisor(7, 6)
    (8, 1)
    """
    return next(size for size in range(max(1, min(number, most)), 0, -1) if number % size == 0)


class Way(NamedTuple):
    """An implementation of the product.

    Attributes:
        hidden: (slot_B, codes_VNC, factor_BC, shift_BC, kernel_LC) -> hidden_BNL.
        kernel_gradient: (slot_B, codes_VNC, factor_BC, shift_BC, down_BNL) -> gradient_LC, float32;
            down_BNL is the gradient of hidden_BNL.
    """

    hidden: Callable[..., jax.Array]
    kernel_gradient: Callable[..., jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def product(slot_B, codes_VNC, factor_BC, shift_BC, kernel_JC, dtype, way):
    """Returns hidden_BNJ, `dtype`: `codes * factor + shift`, rounded to it, times the kernel.

    Args:
        slot_B: int32, index of each video's codes.
        codes_VNC: uint8.
        factor_BC: float32.
        shift_BC: float32.
        kernel_JC: float32, taken as `dtype`.
        dtype: type of both operands and of the result; sums are float32.
        way: the implementation.
    """
    return _mapped(way.hidden, True)(
        slot_B, codes_VNC, factor_BC, shift_BC, kernel_JC.astype(dtype)
    )


def _product_forward(slot_B, codes_VNC, factor_BC, shift_BC, kernel_JC, dtype, way):
    hidden_BNJ = product(slot_B, codes_VNC, factor_BC, shift_BC, kernel_JC, dtype, way)
    return hidden_BNJ, (slot_B, codes_VNC, factor_BC, shift_BC)


def _product_backward(_, way, video, down_BNJ):
    return None, None, None, None, _mapped(way.kernel_gradient, False)(*video, down_BNJ)


product.defvjp(_product_forward, _product_backward)


@functools.cache
def _mapped(function, forward):
    """Returns a function of a `Way` that a population calls once, with the columns of all seeds."""

    @custom_vmap
    def one(*video_and_operand):
        return function(*video_and_operand)

    @one.def_vmap
    def several(num_seeds, in_batched, *video_and_operand):
        *video, operand = video_and_operand
        if any(in_batched[:-1]):  # every seed drops other regions
            per_seed = [
                part if batched else jnp.broadcast_to(part, (num_seeds, *part.shape))
                for part, batched in zip(video_and_operand, in_batched, strict=True)
            ]
            return jax.lax.map(lambda parts: one(*parts), per_seed), True
        if forward:
            kernel_LC = operand.reshape(-1, operand.shape[2])
            hidden_BNL = one(*video, kernel_LC)
            hidden_BNSJ = hidden_BNL.reshape(*hidden_BNL.shape[:2], num_seeds, -1)
            return jnp.moveaxis(hidden_BNSJ, 2, 0), True
        down_BNL = jnp.moveaxis(operand, 0, 2).reshape(*operand.shape[1:3], -1)
        gradient_LC = one(*video, down_BNL)
        return gradient_LC.reshape(num_seeds, -1, gradient_LC.shape[1]), True

    return one


def _hidden_by_video(slot_B, codes_VNC, factor_BC, shift_BC, kernel_LC):
    """Returns hidden_BNL, in the kernel's dtype."""

    def some(videos):
        regions_XNC = _decoded(codes_VNC, videos, kernel_LC.dtype)
        return jnp.einsum("xnc,lc->xnl", regions_XNC, kernel_LC)

    hidden_YXNL = jax.lax.map(some, _chunks(codes_VNC.shape[1], slot_B, factor_BC, shift_BC))
    return hidden_YXNL.reshape(len(slot_B), *hidden_YXNL.shape[2:])


def _kernel_gradient_by_video(slot_B, codes_VNC, factor_BC, shift_BC, down_BNL):
    """Returns gradient_LC, float32, from the gradient of the result of `_hidden_by_video`."""
    _, num_rows, num_channels = codes_VNC.shape
    num_columns = down_BNL.shape[2]
    *videos, down_YXNL = _chunks(num_rows, slot_B, factor_BC, shift_BC, down_BNL)
    # Transposed once, before the loop: without that XLA's product takes 1.3 times as long.
    down_YLN = jnp.moveaxis(down_YXNL, 3, 1).reshape(len(down_YXNL), num_columns, -1)

    def add(sum_LC, videos_and_down):
        *videos, down_LN = videos_and_down
        regions_NC = _decoded(codes_VNC, videos, down_LN.dtype).reshape(-1, num_channels)
        return sum_LC + jnp.matmul(down_LN, regions_NC, preferred_element_type=jnp.float32), None

    zeros_LC = jnp.zeros((num_columns, num_channels), jnp.float32)
    return jax.lax.scan(add, zeros_LC, (*videos, down_YLN))[0]


def _chunks(num_rows, *arrays):
    """Returns arrays (B, ...) as (Y, X, ...): chunks of videos with about _ROWS_AT_ONCE rows."""
    num_videos = len(arrays[0])
    at_once = largest_divisor(num_videos, _ROWS_AT_ONCE // num_rows)
    shape = num_videos // at_once, at_once
    return tuple(array.reshape(*shape, *array.shape[1:]) for array in arrays)


def _decoded(codes_VNC, videos, dtype):
    """Returns regions_XNC, standardised, of a chunk of videos: slot_X, factor_XC, shift_XC."""
    slot_X, factor_XC, shift_XC = videos
    return (codes_VNC[slot_X] * factor_XC[:, None, :] + shift_XC[:, None, :]).astype(dtype)


BY_VIDEO = Way(_hidden_by_video, _kernel_gradient_by_video)


# The float32 with bits 0x4700_0000 + (x << 8) is 2 ** 15 + x for a byte x. To put x there takes one
# instruction, which is faster than a conversion. An addition to it loses at most 2 ** -9 of a code.
_BIAS = 2.0**15


def _to_floats(pack):
    """Returns the assembly that converts `pack` neighbouring codes, and constraints of operands."""
    moves = "".join(f"prmt.b32 ${i}, t, 0x47000000, 0x74{i}4; " for i in range(pack))
    widen = f"mov.b32 t, ${pack};" if pack == 4 else f"cvt.u32.u16 t, ${pack};"
    return f"{{ .reg .b32 t; {widen} {moves}}}", "=r," * pack + ("r" if pack == 4 else "h")


def _decode(codes, factor, biased_shift, pack):
    """Returns the bfloat16 features of a block of codes; pack 0 runs on any machine."""
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


def _hidden(slot_B, codes_VNC, factor_BC, shift_BC, kernel_LC, interpret=False):
    """Returns hidden_BNL, bfloat16, for a kernel in bfloat16.

    One program handles a block of rows of one video, all channels, and a block of columns.
    """
    num_columns, (_, num_rows, num_channels) = len(kernel_LC), codes_VNC.shape
    rows, channels, columns = _blocks(codes_VNC.shape, num_columns, _FORWARD)

    def kernel(slot_ref, codes_ref, factor_ref, shift_ref, kernel_ref, hidden_ref):
        slot = slot_ref[pl.program_id(0)]
        some_rows = pl.ds(pl.program_id(1) * rows, rows)

        def add(block, sum_NL):
            some = pl.ds(block * channels, channels)
            regions_NC = _decode(
                codes_ref[slot, some_rows, some],
                factor_ref[some][None, :],
                shift_ref[some][None, :],
                0 if interpret else _FORWARD.pack,
            )
            return sum_NL + triton.dot(regions_NC, kernel_ref[:, some].T)

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


def _kernel_gradient(slot_B, codes_VNC, factor_BC, shift_BC, down_BNL, interpret=False):
    """Returns gradient_LC, float32, from the gradient of the result of `_hidden`.

    One program handles a block of channels of some videos, all their rows, and a block of columns.
    The gradients of the programs are summed at the end.
    """
    num_videos, (_, num_rows, num_channels) = len(slot_B), codes_VNC.shape
    num_columns = down_BNL.shape[2]
    rows, channels, columns = _blocks(codes_VNC.shape, num_columns, _BACKWARD)
    parts = math.gcd(num_videos, max(1, _PROGRAMS * channels // num_channels))
    videos = num_videos // parts

    def kernel(slot_ref, codes_ref, factor_ref, shift_ref, down_ref, gradient_ref):
        first = pl.program_id(1) * videos
        some = pl.ds(pl.program_id(0) * channels, channels)

        def add_video(video, sum_CL):
            slot = slot_ref[first + video]
            factor_C1, shift_C1 = factor_ref[video][:, None], shift_ref[video][:, None]

            def add(block, sum_CL):
                some_rows = pl.ds(block * rows, rows)
                codes_CN = codes_ref[slot, some_rows, some].T
                regions_CN = _decode(
                    codes_CN, factor_C1, shift_C1, 0 if interpret else _BACKWARD.pack
                )
                return sum_CL + triton.dot(regions_CN, down_ref[video, some_rows, :])

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


KERNELS = Way(_hidden, _kernel_gradient)
INTERPRETED = Way(  # the same kernels in Pallas's interpreter, on any machine
    functools.partial(_hidden, interpret=True), functools.partial(_kernel_gradient, interpret=True)
)
