"""Region features as uint8 codes: an exact encode/decode pair with a known error.

A clip is stored as `value = code * scale + offset`, with one scale and one offset per channel.
The pair is unbiased. (YouTube-8M's decoder is off by half a step: the encoder rounds to the nearest
code, and the decoder assumes that it rounds down.)
"""

from typing import NamedTuple

import ml_dtypes
import numpy as np

DTYPES = {
    "uint8": np.dtype(np.uint8),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
}
NUM_STEPS = 255  # between the smallest code, 0, and the largest


class Quantized(NamedTuple):
    """Features of one clip as stored.

    Attributes:
        codes_FMC: uint8, or the values themselves (bfloat16, float32).
        scale_C: float32 step of each channel, finite and >= 0; 0 for a constant channel.
        offset_C: float32 value of code 0, finite.
    """

    codes_FMC: np.ndarray
    scale_C: np.ndarray
    offset_C: np.ndarray


def encode(features_FMC: np.ndarray) -> Quantized:
    """Quantises one clip to 256 levels between each channel's minimum and maximum.

    With q = encode(x): `encode(decode(q)).codes_FMC` equals `q.codes_FMC`, and every value moves
    by at most scale / 2 plus float32 rounding (2 ** -23 of the channel's largest magnitude). A
    constant channel is exact: code 0, scale 0, its value as offset. A channel whose levels would be
    subnormal (its whole range is below 3.1e-36) is stored as constant, at the middle of its range.

    >>> q = encode(np.float32([[[0, 7]], [[255, 7]], [[100.4, 7]]]))
    >>> q.codes_FMC[:, 0, 0].tolist(), q.scale_C.tolist(), q.offset_C.tolist()
    ([0, 255, 100], [1.0, 0.0], [0.0, 7.0])

    Args:
        features_FMC: float32 with F >= 1 and M >= 1.

    Raises:
        ValueError: a value is NaN or infinite, or there is no value.
    """
    features_FMC = np.asarray(features_FMC, np.float32)
    _check(features_FMC)
    # Step and quotient in float64: the range itself can exceed float32.
    low_C = features_FMC.min(axis=(0, 1)).astype(np.float64)
    high_C = features_FMC.max(axis=(0, 1)).astype(np.float64)
    step_C = (high_C - low_C) / NUM_STEPS
    constant_C = step_C < np.finfo(np.float32).tiny
    scale_C = np.where(constant_C, 0, step_C).astype(np.float32)
    offset_C = np.where(constant_C, low_C / 2 + high_C / 2, low_C).astype(np.float32)
    inverse_C = np.divide(1.0, scale_C, out=np.zeros_like(low_C), where=scale_C > 0)
    codes_FMC = np.empty(features_FMC.shape, np.uint8)
    for frame_MC, codes_MC in zip(features_FMC, codes_FMC, strict=True):  # small temporaries
        steps_MC = (frame_MC - low_C) * inverse_C
        codes_MC[:] = np.rint(np.clip(steps_MC, 0, NUM_STEPS))  # the scale may be rounded down
    return Quantized(codes_FMC, scale_C, offset_C)


def decode(quantized: Quantized) -> np.ndarray:
    """Returns the values of one clip, features_FMC in float32: code * scale + offset.

    >>> decode(Quantized(np.uint8([[[3]]]), np.float32([0.5]), np.float32([-1]))).tolist()
    [[[0.5]]]
    """
    codes_FMC, scale_C, offset_C = quantized
    # In float64, so that the largest code of a channel that spans all of float32 does not overflow.
    values_FMC = codes_FMC.astype(np.float64) * scale_C + offset_C
    limit = np.finfo(np.float32).max
    return np.clip(values_FMC, -limit, limit).astype(np.float32)


def pack(features_FMC: np.ndarray, storage: str) -> Quantized:
    """Returns one clip in its stored form: quantised, or the values with scale 1 and offset 0.

    Args:
        features_FMC: float32 with F >= 1 and M >= 1.
        storage: "uint8", "bfloat16" or "float32".

    Raises:
        ValueError: a value is NaN or infinite, or becomes so in bfloat16.
    """
    if storage == "uint8":
        return encode(features_FMC)
    features_FMC = np.asarray(features_FMC, np.float32)
    _check(features_FMC)
    codes_FMC = features_FMC.astype(DTYPES[storage])
    _check(codes_FMC)
    ones_C = np.ones(codes_FMC.shape[2], np.float32)
    return Quantized(codes_FMC, ones_C, np.zeros_like(ones_C))


def _check(features_FMC):
    if features_FMC.ndim != 3 or features_FMC.size == 0:
        raise ValueError(
            "features must be (frames, regions, channels) with one value or more, got shape "
            f"{features_FMC.shape}; drop clips without a frame before encoding"
        )
    if not np.isfinite(features_FMC).all():
        bad_FMC = ~np.isfinite(features_FMC)
        first = tuple(int(i) for i in np.argwhere(bad_FMC)[0])
        raise ValueError(
            f"features must be finite, got {features_FMC[first]} at (frame, region, channel) "
            f"{first} and {int(bad_FMC.sum())} such values in all; check the weights and the frames"
        )
