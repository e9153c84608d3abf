"""Attention of trained models: measured on planted objects, and as examples for the report."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from uhman_jax.batch import Batch, map_microbatches
from uhman_jax.dataset.view import View
from uhman_jax.shards.store import FrameStore


class ClipAttention(NamedTuple):
    """Attention of every seed's model over the real frames of one clip, averaged over heads.

    Attributes:
        video_id: id of the clip.
        times_F: times of the frames in seconds.
        regions_SFM: weights of the regions, which sum to 1 in each frame.
        frames_SF: weights of the frames, which sum to 1.
    """

    video_id: str
    times_F: np.ndarray
    regions_SFM: np.ndarray
    frames_SF: np.ndarray


def make_observer(model: nn.Module) -> Callable[..., Any]:
    """Returns the jitted (params, statistics, batch) -> head means (regions_SBFM, frames_SBF)."""
    platform = jax.default_backend()

    def all_seeds(params, statistics, batch):
        num_seeds = len(jax.tree.leaves(params)[0])

        def one_seed(params):
            def look(batch: Batch) -> Any:
                variables = {"params": params, "statistics": statistics}
                found: Any = model.apply(
                    variables, batch.video, batch.user, with_attention=True, method="query"
                )
                regions_BFHM, frames_BHF = found[1]
                return jnp.mean(regions_BFHM, axis=2), jnp.mean(frames_BHF, axis=1)

            return map_microbatches(look, batch, model.hidden_size, num_seeds, platform)

        return jax.vmap(one_seed)(params)

    return jax.jit(all_seeds)


def observe(
    observer: Callable[[Batch], Any], batches: Iterable[Batch], view: View, store: FrameStore
) -> Iterator[ClipAttention]:
    """Yields the attention on each clip of the batches.

    Args:
        observer: batch -> (regions_SBFM, frames_SBF), see `make_observer`.
        batches: padded and masked, each clip once.
        view: labels of the clips.
        store: features of the clips.
    """
    for batch in batches:
        regions_SBFM, frames_SBF = map(np.asarray, observer(batch))
        for b in np.flatnonzero(batch.mask_B):
            video_id = view.video_ids[batch.row_B[b]]
            times_F = np.asarray(store[store.rows([video_id])[0]].times_F)
            real = slice(len(times_F))
            yield ClipAttention(video_id, times_F, regions_SBFM[:, b, real], frames_SBF[:, b, real])


class Planted(Protocol):
    """Where the objects of clips are, and which one the user tagged; `Truth` is one."""

    @property
    def tagged(self) -> Mapping[str, int]:
        """The index of the tagged object by video."""
        ...

    def region_masks(self, video_id: str, times_F: np.ndarray, num_regions: int) -> np.ndarray:
        """Returns mask_FOM, bool: which regions show which object; see `Truth.region_masks`."""
        ...


def attention_facts(clips: Iterable[ClipAttention], truth: Planted) -> dict[str, list[float]]:
    """Measures how much attention falls on planted objects.

    Returns:
        A list over seeds for each of:

        - `object_mass`: fraction of a frame's region attention that falls on objects, averaged over
          the frames with an object, then over clips.
        - `tagged_mass`: the same for the object that the user tagged.
        - `tagged_frame_mass`: fraction of frame attention on the frames that show that object.
        - `top_frame_tagged`: fraction of clips whose most attended frame shows that object.
        - `top_region_tagged`: fraction of clips where that object is in the most attended of all
          regions, by frame weight times region weight. Tied maxima share the count equally.
        - `top_frame_object`, `top_region_object`: the same for any planted object.
        - `..._chance`: the same value for uniform attention.

        A value excludes the clips to which it does not apply; without any clip it is absent.
    """
    per_clip: dict[str, list[np.ndarray]] = {}
    for clip in clips:
        mask_FOM = truth.region_masks(clip.video_id, clip.times_F, clip.regions_SFM.shape[-1])
        masks = {"object": np.any(mask_FOM, axis=1)}
        if clip.video_id in truth.tagged:
            masks["tagged"] = mask_FOM[:, truth.tagged[clip.video_id]]
        for kind, mask_FM in masks.items():
            facts = _facts(kind, clip, mask_FM) if mask_FM.any() else {}
            for name, value_S in facts.items():
                per_clip.setdefault(name, []).append(value_S)
    return {name: np.mean(values, axis=0).tolist() for name, values in per_clip.items()}


def _facts(kind: str, clip: ClipAttention, mask_FM: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the values of one clip for the masked regions, per seed, and their chance values.

    Uniform attention has the chance value in every clip, because all its weights are equal.
    """
    frames_SF, regions_SFM = clip.frames_SF, clip.regions_SFM
    shown_F = np.asarray(mask_FM.any(axis=1))
    mass_SF = (regions_SFM * mask_FM[None]).sum(axis=2)[:, shown_F]
    joint_SX = (frames_SF[:, :, None] * regions_SFM).reshape(len(frames_SF), -1)
    facts = {
        f"{kind}_mass": (mass_SF.mean(axis=1), mask_FM[shown_F].mean()),
        f"top_region_{kind}": (_top_share(joint_SX, mask_FM.ravel()), mask_FM.mean()),
        f"top_frame_{kind}": (_top_share(frames_SF, shown_F), shown_F.mean()),
    }
    if kind == "tagged":
        facts["tagged_frame_mass"] = frames_SF[:, shown_F].sum(axis=1), shown_F.mean()
    values = {}
    for name, (value_S, chance) in facts.items():
        values[name] = value_S
        values[f"{name.removesuffix('_mass')}_chance"] = np.full(len(frames_SF), chance)
    return values


def _top_share(weight_SX: np.ndarray, mask_X: np.ndarray) -> np.ndarray:
    """Returns the fraction of the largest weights that lie in the mask, per seed.

    Weights within a millionth of the largest count as equal, because float32 does not resolve them.

    >>> _top_share(np.array([[0.2, 0.4, 0.4], [0.6, 0.3, 0.1]]), np.array([True, True, False]))
    array([0.5, 1. ])
    """
    top_SX = weight_SX >= weight_SX.max(axis=1, keepdims=True) * (1 - 1e-6)
    return (top_SX & mask_X[None]).sum(axis=1) / top_SX.sum(axis=1)


def examples(clips: Iterable[ClipAttention], num_frames: int) -> dict[str, np.ndarray]:
    """Returns the attention of the first seed's model over a few clips, for `examples.npz`.

    Args:
        clips: one or more.
        num_frames: number of frames to pad the arrays to.

    Returns:
        `video_ids` (E,), `times_EF` in seconds, `frame_mask_EF`, `regions_EFM` and `frames_EF`,
        where E is the axis of clips. Values of padding frames are 0.
    """
    clips = list(clips)

    def padded(values: list[np.ndarray]) -> np.ndarray:
        array = np.zeros((len(values), num_frames, *values[0].shape[1:]), np.float32)
        for padded_F, value_F in zip(array, values, strict=True):
            padded_F[: len(value_F)] = value_F
        return array

    return {
        "video_ids": np.array([clip.video_id for clip in clips]),
        "times_EF": padded([clip.times_F for clip in clips]),
        "frame_mask_EF": padded([np.ones(len(clip.times_F)) for clip in clips]).astype(bool),
        "regions_EFM": padded([clip.regions_SFM[0] for clip in clips]),
        "frames_EF": padded([clip.frames_SF[0] for clip in clips]),
    }
