"""Where the models look: against the truth of a simulated world, and for the report's examples."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from uhman_jax.dataset.truth import Truth
from uhman_jax.dataset.view import View
from uhman_jax.input_pipeline import Batch
from uhman_jax.microbatch import in_pieces
from uhman_jax.shards.store import FrameStore


def make_observer(model: nn.Module) -> Callable[..., Any]:
    """The jitted (params, statistics, batch) -> (regions_SBFM, frames_SBF), means over heads."""

    def look(variables: Any, batch: Batch) -> Any:
        found: Any = model.apply(
            variables, batch.video, batch.user, with_attention=True, method="query"
        )
        regions_BFHM, frames_BHF = found[1]
        return jnp.mean(regions_BFHM, axis=2), jnp.mean(frames_BHF, axis=1)

    def all_seeds(params, statistics, batch):
        num_seeds = len(jax.tree.leaves(params)[0])

        def one_seed(params):
            variables = {"params": params, "statistics": statistics}
            one_look = functools.partial(look, variables)
            return in_pieces(one_look, batch, model.hidden_size, num_seeds)

        return jax.vmap(one_seed)(params)

    return jax.jit(all_seeds)


def attention_facts(
    observer: Callable[..., Any],
    params: Any,
    statistics: Any,
    batches: Iterable[Batch],
    view: View,
    store: FrameStore,
    truth: Truth,
) -> dict[str, list[float]]:
    """How much attention falls on planted objects, a list over seeds each.

    Returns:
        `object_mass`: share of a frame's region attention on regions that hold an object, over
        the frames that show one, averaged per clip and then over clips. `tagged_mass`: the same
        for the object that the user tagged. `tagged_frame_mass`: share of frame attention on the
        frames that show that object. `top_frame_tagged`: share of clips whose most attended frame
        shows it. `top_region_tagged`: share of clips where it is in the most attended of all
        regions, by frame weight times region weight. Where several are the most attended, each
        counts an equal part. `top_frame_object` and `top_region_object`: the same for any planted
        object. `..._chance`: what uniform attention would give. Clips to which a fact
        does not apply are left out; a fact without any clip is absent.
    """
    position = dict(zip(store.video_ids, range(len(store)), strict=True))
    per_clip: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        regions_SBFM, frames_SBF = observer(params, statistics, batch)
        regions_SBFM, frames_SBF = np.asarray(regions_SBFM), np.asarray(frames_SBF)
        for b in np.flatnonzero(batch.mask_B):
            video_id = view.video_ids[batch.row_B[b]]
            times_F = np.asarray(store[position[video_id]].times_F)
            masks_FOM, objects = truth.region_masks(video_id, times_F, store.num_regions)
            regions_SFM, frames_SF = regions_SBFM[:, b, : len(times_F)], frames_SBF[:, b]
            any_FM = np.any(masks_FOM, axis=1)
            facts = _region_facts("object", regions_SFM, any_FM)
            facts |= _top_facts("object", frames_SF[:, : len(times_F)], regions_SFM, any_FM)
            tagged = truth.tagged.get(video_id)
            if tagged is not None and tagged in list(objects):
                mask_FM = masks_FOM[:, list(objects).index(tagged)]
                facts |= _region_facts("tagged", regions_SFM, mask_FM)
                facts |= _frame_facts(frames_SF[:, : len(times_F)], np.any(mask_FM, axis=1))
                facts |= _top_facts("tagged", frames_SF[:, : len(times_F)], regions_SFM, mask_FM)
            for name, value_S in facts.items():
                per_clip.setdefault(name, []).append(value_S)
    return {name: np.mean(values, axis=0).tolist() for name, values in per_clip.items()}


def _region_facts(kind: str, regions_SFM: np.ndarray, mask_FM: np.ndarray) -> dict[str, np.ndarray]:
    """Mass and chance over the frames that show something; empty where none does."""
    shown_F = mask_FM.any(axis=1)
    if not shown_F.any():
        return {}
    mass_SF = (regions_SFM * mask_FM[None]).sum(axis=2)[:, shown_F]
    chance = np.full(len(regions_SFM), mask_FM[shown_F].mean())
    return {f"{kind}_mass": mass_SF.mean(axis=1), f"{kind}_chance": chance}


def _frame_facts(frames_SF: np.ndarray, shown_F: np.ndarray) -> dict[str, np.ndarray]:
    if not shown_F.any():
        return {}
    mass_S = frames_SF[:, shown_F].sum(axis=1)
    return {
        "tagged_frame_mass": mass_S,
        "tagged_frame_chance": np.full(len(frames_SF), shown_F.mean()),
    }


def _top_facts(
    kind: str, frames_SF: np.ndarray, regions_SFM: np.ndarray, mask_FM: np.ndarray
) -> dict[str, np.ndarray]:
    """Whether the most attended frame shows the object and the most attended region holds it.

    Uniform attention gives the chance in every clip, since all frames or regions tie.
    """
    shown_F = np.asarray(mask_FM.any(axis=1))
    if not shown_F.any():
        return {}
    joint_SX = (frames_SF[:, :, None] * regions_SFM).reshape(len(frames_SF), -1)
    num_seeds = len(frames_SF)
    return {
        f"top_region_{kind}": _share_of_top(joint_SX, mask_FM.ravel()),
        f"top_region_{kind}_chance": np.full(num_seeds, mask_FM.mean()),
        f"top_frame_{kind}": _share_of_top(frames_SF, shown_F),
        f"top_frame_{kind}_chance": np.full(num_seeds, shown_F.mean()),
    }


def _share_of_top(weight_SX: np.ndarray, mask_X: np.ndarray) -> np.ndarray:
    """Share of the largest weights that lie in the mask, per seed.

    Weights closer to the largest than float32 can tell (a part in a million) count as equal to it.

    >>> _share_of_top(np.array([[0.2, 0.4, 0.4], [0.6, 0.3, 0.1]]), np.array([True, True, False]))
    array([0.5, 1. ])
    """
    top_SX = weight_SX >= weight_SX.max(axis=1, keepdims=True) * (1 - 1e-6)
    return (top_SX & mask_X[None]).sum(axis=1) / top_SX.sum(axis=1)


def examples(
    observer: Callable[..., Any],
    params: Any,
    statistics: Any,
    batches: Iterable[Batch],
    view: View,
    store: FrameStore,
) -> dict[str, np.ndarray]:
    """Attention of the first seed's model over a few clips, as `examples.npz` holds it.

    Returns:
        `video_ids` (E,), `times_EF` seconds, `frame_mask_EF`, `regions_EFM` and `frames_EF`, where
        E stands for the clips.
    """
    first = jax.tree.map(lambda leaf: leaf[:1], params)
    position = dict(zip(store.video_ids, range(len(store)), strict=True))
    columns: dict[str, list[Any]] = {
        name: [] for name in ("video_ids", "times_EF", "frame_mask_EF", "regions_EFM", "frames_EF")
    }
    for batch in batches:
        regions_SBFM, frames_SBF = observer(first, statistics, batch)
        regions_BFM, frames_BF = np.asarray(regions_SBFM)[0], np.asarray(frames_SBF)[0]
        for b in np.flatnonzero(batch.mask_B):
            video_id = view.video_ids[batch.row_B[b]]
            times_F = np.zeros(frames_BF.shape[1], np.float32)
            real = store[position[video_id]].times_F
            times_F[: len(real)] = real
            values = (video_id, times_F, batch.video.mask_BF[b], regions_BFM[b], frames_BF[b])
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return {name: np.array(values) for name, values in columns.items()}
