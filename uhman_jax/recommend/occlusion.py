"""Explains suggested hashtags by the model's attention and by occlusion.

Attention shows where the model looks for one user; it does not depend on the hashtag. Occlusion
(Zeiler and Fergus 2014) hides one region or one frame from the attention over regions and frames,
and from the mean of a direct path; the decrease of a hashtag's score is its contribution. The other
parts share its attention.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.models.layers import score
from uhman_jax.models.uhman import UHMAN
from uhman_jax.runtime.errors import UserError

_VARIANTS = 256  # occlusions per batch


@dataclasses.dataclass(frozen=True)
class Why:
    """An explanation for one clip (F real frames) and one user; all values are float32."""

    regions_FM: np.ndarray  # attention over regions, mean over heads; rows sum to 1
    frames_F: np.ndarray  # attention over frames, mean over heads; sums to 1
    lost_TFM: np.ndarray  # decrease of T hashtags' scores if the region is hidden
    lost_TF: np.ndarray  # the same for the frame


class Explainer:
    """Explains the scores of a model; is compiled once for all clips.

    Raises:
        UserError: the model has no attention.
    """

    def __init__(self, model: Any):
        network = getattr(model, "network", model)  # of `TwoPaths`
        if not isinstance(network, UHMAN):
            raise UserError(
                "explanations need a model with attention, UHMAN, got "
                f"{type(network).__name__}; use a run with model.name=uhman"
            )
        self._look = jax.jit(functools.partial(_look, model))
        self._hide = jax.jit(functools.partial(_hide, model))

    def __call__(self, variables: Any, video: Any, user: Any, hashtags_TD: Any) -> Why:
        """Explains the scores of hashtags.

        Args:
            variables: parameters and constants of the model.
            video: VideoInput of one clip (B = 1).
            user: UserInput of one user (B = 1).
            hashtags_TD: embeddings of the hashtags to explain.
        """
        regions_FM, frames_F = map(np.asarray, self._look(variables, video, user))
        real_F = np.asarray(video.mask_BF)[0]
        num_frames, (all_frames, num_regions) = int(real_F.sum()), regions_FM.shape
        size = num_frames * num_regions
        region_NFM = np.eye(size, all_frames * num_regions, dtype=bool)
        region_NFM = region_NFM.reshape(-1, all_frames, num_regions)
        frame_NFM = np.eye(num_frames, all_frames, dtype=bool)[:, :, None].repeat(num_regions, 2)
        # First nothing is hidden, then each region, then each frame; padded to whole batches.
        hidden_NFM = np.concatenate([np.zeros_like(frame_NFM[:1]), region_NFM, frame_NFM])
        padding = -len(hidden_NFM) % _VARIANTS
        padded_NFM = np.pad(hidden_NFM, ((0, padding), (0, 0), (0, 0)))
        parts = [
            self._hide(variables, video, user, hashtags_TD, part_NFM)
            for part_NFM in np.split(padded_NFM, len(padded_NFM) // _VARIANTS)
        ]
        scores_NT = np.concatenate(parts)[: len(hidden_NFM)]
        lost_TN = (scores_NT[:1] - scores_NT[1:]).T
        return Why(
            regions_FM=regions_FM[:num_frames],
            frames_F=frames_F[:num_frames],
            lost_TFM=lost_TN[:, :size].reshape(-1, num_frames, num_regions),
            lost_TF=lost_TN[:, size:],
        )


def _look(model, variables, video, user):
    """Returns regions_FM and frames_F, means over heads."""
    _, attention = model.apply(variables, video, user, with_attention=True, method="query")
    return jnp.mean(attention.regions_BFHM[0], axis=1), jnp.mean(attention.frames_BHF[0], axis=0)


def _hide(model, variables, video, user, hashtags_TD, hidden_NFM):
    """Returns scores_NT of one clip with each of N sets of regions hidden."""

    def one(hidden_FM):
        seen_FM = ~hidden_FM
        mask_BF = video.mask_BF & seen_FM.any(axis=1)[None]
        query_BD = model.apply(
            variables, video._replace(mask_BF=mask_BF), user, seen_BFM=seen_FM[None], method="query"
        )
        return score(query_BD, hashtags_TD)[0]

    return jax.vmap(one)(hidden_NFM)
