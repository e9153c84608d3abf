"""Measures where the models look: against a known truth, and for the examples of the report."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from uhman_jax.dataset.truth import Truth
from uhman_jax.dataset.view import View
from uhman_jax.input_pipeline import Batch
from uhman_jax.microbatch import map_microbatches
from uhman_jax.shards.store import FrameStore


def make_observer(model: nn.Module) -> Callable[..., Any]:
    """Returns the jitted (params, statistics, batch) -> (regions_SBFM, frames_SBF), head means."""
    platform = jax.default_backend()

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
            return map_microbatches(one_look, batch, model.hidden_size, num_seeds, platform)

        return jax.vmap(one_seed)(params)

    return jax.jit(all_seeds)


def _clips(
    observer: Callable[..., Any],
    params: Any,
    statistics: Any,
    batches: Iterable[Batch],
    view: View,
    store: FrameStore,
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields id, times_F of the real frames, regions_SFM and frames_SF of each clip."""
    for batch in batches:
        regions_SBFM, frames_SBF = map(np.asarray, observer(params, statistics, batch))
        for b in np.flatnonzero(batch.mask_B):
            video_id = view.video_ids[batch.row_B[b]]
            times_F = np.asarray(store[store.rows([video_id])[0]].times_F)
            yield video_id, times_F, regions_SBFM[:, b], frames_SBF[:, b]


def attention_facts(
    observer: Callable[..., Any],
    params: Any,
    statistics: Any,
    batches: Iterable[Batch],
    view: View,
    store: FrameStore,
    truth: Truth,
) -> dict[str, list[float]]:
    """Measures how much attention falls on planted objects.

    Returns:
        A list over seeds for each of:

        - `object_mass`: fraction of a frame's region attention on regions that hold an object, over
          the frames that show one, averaged per clip and then over clips.
        - `tagged_mass`: the same for the object that the user tagged.
        - `tagged_frame_mass`: fraction of frame attention on the frames that show that object.
        - `top_frame_tagged`: fraction of clips whose most attended frame shows that object.
        - `top_region_tagged`: fraction of clips where that object is in the most attended of all
          regions, by frame weight times region weight. Of several equal ones each counts a part.
        - `top_frame_object`, `top_region_object`: the same for any planted object.
        - `..._chance`: the value of uniform attention.

        Clips to which a fact does not apply are left out; a fact without any clip is absent.
    """
    per_clip: dict[str, list[np.ndarray]] = {}
    clips = _clips(observer, params, statistics, batches, view, store)
    for video_id, times_F, regions_SFM, frames_SF in clips:
        regions_SFM, frames_SF = regions_SFM[:, : len(times_F)], frames_SF[:, : len(times_F)]
        mask_FOM = truth.region_masks(video_id, times_F, store.num_regions)
        masks = {"object": np.any(mask_FOM, axis=1)}
        if video_id in truth.tagged:
            masks["tagged"] = mask_FOM[:, truth.tagged[video_id]]
        for kind, mask_FM in masks.items():
            if mask_FM.any():
                for name, value_S in _facts(kind, frames_SF, regions_SFM, mask_FM).items():
                    per_clip.setdefault(name, []).append(value_S)
    return {name: np.mean(values, axis=0).tolist() for name, values in per_clip.items()}


def _facts(
    kind: str, frames_SF: np.ndarray, regions_SFM: np.ndarray, mask_FM: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the facts about an object, or several, in a clip that shows it.

    Uniform attention gets the chance in every clip, since all frames or regions tie.
    """
    shown_F = np.asarray(mask_FM.any(axis=1))
    mass_SF = (regions_SFM * mask_FM[None]).sum(axis=2)[:, shown_F]
    joint_SX = (frames_SF[:, :, None] * regions_SFM).reshape(len(frames_SF), -1)
    facts = {
        f"{kind}_mass": (mass_SF.mean(axis=1), mask_FM[shown_F].mean()),
        f"top_region_{kind}": (_share_of_top(joint_SX, mask_FM.ravel()), mask_FM.mean()),
        f"top_frame_{kind}": (_share_of_top(frames_SF, shown_F), shown_F.mean()),
    }
    if kind == "tagged":
        facts["tagged_frame_mass"] = frames_SF[:, shown_F].sum(axis=1), shown_F.mean()
    values = {}
    for name, (value_S, chance) in facts.items():
        values[name] = value_S
        values[f"{name.removesuffix('_mass')}_chance"] = np.full(len(frames_SF), chance)
    return values


def _share_of_top(weight_SX: np.ndarray, mask_X: np.ndarray) -> np.ndarray:
    """Returns the fraction of the largest weights that lie in the mask, per seed.

    Weights within a part in a million of the largest, which float32 cannot resolve, count as equal.

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
    """Returns the attention of the first seed's model over a few clips, for `examples.npz`.

    Returns:
        `video_ids` (E,), `times_EF` in seconds, `frame_mask_EF`, `regions_EFM` and `frames_EF`,
        where E are the clips.
    """
    first = jax.tree.map(lambda leaf: leaf[:1], params)
    clips = list(_clips(observer, first, statistics, batches, view, store))
    lengths_E1 = np.array([len(times_F) for _, times_F, _, _ in clips])[:, None]
    frames_EF = np.array([frames_SF[0] for *_, frames_SF in clips])
    mask_EF = np.arange(frames_EF.shape[1]) < lengths_E1
    times_EF = np.zeros(mask_EF.shape, np.float32)
    times_EF[mask_EF] = np.concatenate([times_F for _, times_F, _, _ in clips])
    return {
        "video_ids": np.array([video_id for video_id, *_ in clips]),
        "times_EF": times_EF,
        "frame_mask_EF": mask_EF,
        "regions_EFM": np.array([regions_SFM[0] for _, _, regions_SFM, _ in clips]),
        "frames_EF": frames_EF,
    }
