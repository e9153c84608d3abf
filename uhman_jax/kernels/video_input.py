"""The stored region features of a batch and their decoding."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class VideoInput(NamedTuple):
    """The region features of a batch of videos, as stored.

    A feature is `code * scale + offset`, with a scale and an offset per video and channel. Video b
    has the codes `codes_VFMC[slot_B[b]]`, so a batch can refer to a larger array without a copy.

    If V = B, `slot_B` is 0, 1, ..., B - 1: the codes are in the order of the batch. Both sizes are
    static, so a compiled program reads the codes of such a batch without a gather.

    Attributes:
        codes_VFMC: uint8, bfloat16 or float32; values of a padding frame have no effect.
        scale_BC: float32.
        offset_BC: float32.
        mask_BF: bool, True for a real frame.
        slot_B: int32, index of each video's codes.
    """

    codes_VFMC: jax.Array | np.ndarray
    scale_BC: jax.Array | np.ndarray
    offset_BC: jax.Array | np.ndarray
    mask_BF: jax.Array | np.ndarray
    slot_B: jax.Array | np.ndarray

    @classmethod
    def plain(cls, codes_BFMC, scale_BC, offset_BC, mask_BF):
        """Returns the input of videos whose codes are in the order of the batch."""
        slot_B = np.arange(len(codes_BFMC), dtype=np.int32)
        return cls(codes_BFMC, scale_BC, offset_BC, mask_BF, slot_B)

    def with_codes(self, codes_BFMC):
        """Returns the videos with new codes, which are in the order of the batch."""
        slot_B = np.arange(len(codes_BFMC), dtype=np.int32)
        return self._replace(codes_VFMC=codes_BFMC, slot_B=slot_B)

    @property
    def codes_BFMC(self):
        """Returns the codes in the order of the batch; a copy unless V = B."""
        in_order = self.codes_VFMC.shape[0] == self.slot_B.shape[0]
        return self.codes_VFMC if in_order else self.codes_VFMC[self.slot_B]


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation of the decoded features over the training split.

    Attributes:
        mean_C: float32.
        std_C: float32, above 0.
    """

    mean_C: jax.Array | np.ndarray
    std_C: jax.Array | np.ndarray


def decoding(video, statistics):
    """Returns (factor_BC, shift_BC), float32: a standardised feature is `code * factor + shift`."""
    mean_1C, std_1C = statistics.mean_C[None, :], statistics.std_C[None, :]
    return video.scale_BC / std_1C, (video.offset_BC - mean_1C) / std_1C


def standardise(video, statistics, dtype=jnp.float32):
    """Returns regions_BFMC: the stored features, decoded and standardised per channel.

    `(code * scale + offset - mean) / std` is one multiplication and one addition per feature, in
    float32. A padding frame gives zeros. The example is (10 / 2 + 1 - 2) / 4.

    >>> codes, mask = jnp.array([[[[10]], [[9]]]]), jnp.array([[True, False]])
    >>> video = VideoInput.plain(codes, jnp.array([[0.5]]), jnp.array([[1.0]]), mask)
    >>> statistics = ChannelStatistics(jnp.array([2.0]), jnp.array([4.0]))
    >>> standardise(video, statistics).ravel().tolist()
    [1.0, 0.0]
    """
    factor_BC, shift_BC = decoding(video, statistics)
    regions_BFMC = video.codes_BFMC.astype(jnp.float32) * factor_BC[:, None, None, :]
    regions_BFMC += shift_BC[:, None, None, :]
    return jnp.where(video.mask_BF[:, :, None, None], regions_BFMC, 0.0).astype(dtype)
