"""Inputs of models: three videos and who posts them, with masked places of every kind."""

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.layers import UserInput, VideoInput

B, F, M, C, R, T = 3, 5, 7, 11, 13, 23
GENDERS, AGES, COUNTRIES = 29, 31, 37


def make_inputs(seed=0, dtype=np.uint8, num_regions=M):
    """5, 2 and 1 real frames; 13, 4 and no history hashtags; masked places are not at the end."""
    rng = np.random.default_rng(seed)
    codes_BFMC = rng.integers(0, 256, (B, F, num_regions, C)).astype(dtype)
    mask_BF = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0]], bool)
    history_mask_BR = np.arange(R)[None, :] % 4 == np.array([[0], [1], [9]])
    history_mask_BR[0] = True
    video = VideoInput.plain(
        codes_BFMC,
        rng.uniform(0.005, 0.02, (B, C)).astype(np.float32),
        rng.normal(size=(B, C)).astype(np.float32),
        mask_BF,
    )
    user = UserInput(
        np.array([0, 4, GENDERS - 1], np.int32),
        np.array([AGES - 1, 0, 7], np.int32),
        np.array([3, COUNTRIES - 1, 0], np.int32),
        np.stack([rng.permutation(T)[:R] for _ in range(B)]).astype(np.int32),
        history_mask_BR,
    )
    return jax.tree.map(jnp.asarray, (video, user))
