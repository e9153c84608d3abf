"""The product of region features and the first matrix (kernel): nearly all the cost of a step.

Features are stored as codes of one byte. XLA would write the decoded features, four times as many
bytes, and read them twice. Two implementations avoid this (measured in experiments/speed):

- On one GPU, for a model in bfloat16, two Pallas kernels, for the product and its gradient, decode
  and standardise codes in registers before the tensor cores multiply them.
- On one CPU, for wide features, a loop decodes a few videos at a time and multiplies them while
  they are in the cache. The gradient decodes them again, so that the batch can be large.

In all other cases the product is an einsum of the standardised features.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from uhman_jax.kernels import cpu, gpu
from uhman_jax.kernels.video_input import ChannelStatistics, VideoInput, decoding, standardise


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
    """Returns whether to loop over videos: for uint8 codes of wide features, on one CPU.

    The loop is faster only if C is far above 4 K, the number of activations of a region.
    """
    return (
        platform == "cpu"
        and jax.device_count() == 1
        and video.codes_VFMC.dtype == jnp.uint8
        and video.codes_VFMC.shape[3] > 8 * hidden_size
    )


def kernels_fit(video: VideoInput, kernel_JC: jax.Array, dtype: Any, platform: str) -> bool:
    """Returns whether the GPU kernels apply: uint8, bfloat16, and multiples of block sizes."""
    codes_VFMC = video.codes_VFMC
    _, num_frames, num_regions, num_channels = codes_VFMC.shape
    return (
        gpu.triton is not None
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


class Way(NamedTuple):
    """An implementation of the product.

    Axes: N region of a video (F * M), L column of the kernel (J, or S * J for S seeds).

    Attributes:
        hidden: (slot_B, codes_VNC, factor_BC, shift_BC, kernel_LC) -> hidden_BNL.
        kernel_gradient: (slot_B, codes_VNC, factor_BC, shift_BC, down_BNL) -> gradient_LC, float32;
            down_BNL is the gradient of hidden_BNL.
    """

    hidden: Callable[..., jax.Array]
    kernel_gradient: Callable[..., jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def product(slot_B, codes_VNC, factor_BC, shift_BC, kernel_JC, dtype, way):
    """Returns hidden_BNJ: `codes * factor + shift`, rounded to `dtype`, times the kernel.

    Args:
        slot_B: int32, index of each video's codes.
        codes_VNC: uint8.
        factor_BC: float32.
        shift_BC: float32.
        kernel_JC: float32, cast to `dtype`.
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
    """Returns a function of a `Way` whose `vmap` over seeds is one call with all their columns."""

    @custom_vmap
    def one(*video_and_operand):
        return function(*video_and_operand)

    @one.def_vmap
    def several(num_seeds, in_batched, *video_and_operand):
        *video, operand = video_and_operand
        if any(in_batched[:-1]):  # each seed drops different regions
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


BY_VIDEO = Way(cpu.hidden, cpu.kernel_gradient)
KERNELS = Way(gpu.hidden, gpu.kernel_gradient)
INTERPRETED = Way(  # the same kernels in Pallas's interpreter, on any machine
    functools.partial(gpu.hidden, interpret=True),
    functools.partial(gpu.kernel_gradient, interpret=True),
)
