"""Serialises a model as functions that run without its code: StableHLO by `jax.export`."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import export

from uhman_jax.kernels.video_input import VideoInput
from uhman_jax.models.layers import UserInput, score

PLATFORMS = ("cpu", "cuda", "tpu")


class Shapes(NamedTuple):
    """Sizes of a batch; shorter clips and histories are padded under a mask."""

    frames: int  # F
    regions: int  # M
    channels: int  # C
    history: int  # R, hashtags
    codes: str  # NumPy's name of the type of codes


def make_programs(
    model: nn.Module, variables: dict[str, Any], shapes: Shapes, top_k: int
) -> dict[str, bytes]:
    """Serialises two functions of a batch of any size; parameters are constants in them.

    Both take codes_BFMC, scale_BC, offset_BC (float32), mask_BF (bool, True for a real frame),
    gender_B, age_B, country_B, history_BR (int32) and history_mask_BR (bool), as `VideoInput` and
    `UserInput` define them. Equal arguments give equal bytes.

    Args:
        model: query tower and hashtag tower.
        variables: "params" and "statistics" of one seed.
        shapes: sizes of the batches.
        top_k: number of hashtags to return, at most T.

    Returns:
        "query": -> query_BD, float32; "recommend": -> (ids_BK int32, scores_BK float32), best
        first; of equal scores, the lower id first.
    """
    hashtags_TD = model.apply({"params": variables["params"]}, method="hashtags")

    def query(codes_BFMC, scale_BC, offset_BC, mask_BF, *user):
        # As floats, so that the model does not use kernels for this machine's GPU.
        codes_BFMC = codes_BFMC.astype(jnp.float32)
        slot_B = jnp.arange(codes_BFMC.shape[0])
        video = VideoInput(codes_BFMC, scale_BC, offset_BC, mask_BF, slot_B)
        return model.apply(variables, video, UserInput(*user), method="query")

    def recommend(*batch):
        scores_BK, ids_BK = jax.lax.top_k(score(query(*batch), hashtags_TD), top_k)
        return ids_BK, scores_BK

    arguments = _arguments(shapes)
    with _no_locations():
        return {
            function.__name__: bytes(
                export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).serialize()
            )
            for function in (query, recommend)
        }


def _arguments(shapes: Shapes) -> list[jax.ShapeDtypeStruct]:
    """Returns shapes and types of a batch of symbolic size."""
    (b,) = export.symbolic_shape("batch")
    f, m, c, r, codes = shapes
    arrays = [((b, f, m, c), np.dtype(codes)), *[((b, c), jnp.float32)] * 2, ((b, f), jnp.bool_)]
    arrays += [*[((b,), jnp.int32)] * 3, ((b, r), jnp.int32), ((b, r), jnp.bool_)]
    return [jax.ShapeDtypeStruct(shape, kind) for shape, kind in arrays]


@contextlib.contextmanager
def _no_locations() -> Iterator[None]:
    """Keeps this machine's paths and line numbers out of the programs."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
