"""Why a hashtag was suggested: where the model looked, and what its score loses where it may not.

Attention says where a model looked for one user, whatever the hashtag. What carried a hashtag is
found by hiding: one region, or one frame, is left out of both attentions, all else stays, and the
score that is lost is what it carried (occlusion, Zeiler and Fergus 2014). The hidden region's
weight goes to the others, as if the model had never seen it.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.errors import UserError
from uhman_jax.layers import score
from uhman_jax.model import UHMAN

_VARIANTS = 256  # of a clip that are scored at once


@dataclasses.dataclass(frozen=True)
class Why:
    """What a model did with one clip for one user; F are the real frames.

    Attributes:
        regions_FM: float32, attention of each frame over its regions, mean over heads; rows sum to
            1.
        frames_F: float32, attention over the frames, mean over heads; sums to 1.
        lost_TFM: float32, score that each of T hashtags loses without a region; negative where it
            gains.
        lost_TF: float32, the same without a whole frame.
    """

    regions_FM: np.ndarray
    frames_F: np.ndarray
    lost_TFM: np.ndarray
    lost_TF: np.ndarray


class Explainer:
    """Compiled once for all clips of a model.

    Raises:
        UserError: the model has no attention to show.
    """

    def __init__(self, model: Any):
        """Compiles nothing yet."""
        if not isinstance(model, UHMAN):
            raise UserError(
                "explanations show attention, which UHMAN has, got a run of "
                f"{type(model).__name__}; use a run with model.name=uhman"
            )
        self._look = jax.jit(functools.partial(_look, model))
        self._hide = jax.jit(functools.partial(_hide, model))

    def __call__(self, variables: Any, video: Any, user: Any, hashtags_TD: Any) -> Why:
        """Explains the scores of some hashtags.

        Args:
            variables: of the model.
            video: VideoInput of one clip (B = 1).
            user: UserInput of one user.
            hashtags_TD: vectors of the hashtags to explain.
        """
        regions_FM, frames_F = map(np.asarray, self._look(variables, video, user))
        real_F = np.asarray(video.mask_BF)[0]
        num_frames, (all_frames, num_regions) = int(real_F.sum()), regions_FM.shape
        eye = np.eye(num_frames * num_regions, all_frames * num_regions, dtype=bool)
        hidden_NFM = eye.reshape(-1, all_frames, num_regions)
        frame_NF = np.eye(num_frames, all_frames, dtype=bool)
        frames_NFM = np.repeat(frame_NF[:, :, None], num_regions, axis=2)
        nothing_NFM = np.zeros((1, all_frames, num_regions), bool)
        hidden_NFM = np.concatenate([nothing_NFM, hidden_NFM, frames_NFM])
        parts = []
        for begin in range(0, len(hidden_NFM), _VARIANTS):
            part = hidden_NFM[begin : begin + _VARIANTS]
            short = _VARIANTS - len(part)
            part = np.concatenate([part, np.zeros((short, *part.shape[1:]), bool)])
            scores_NT = np.asarray(self._hide(variables, video, user, hashtags_TD, part))
            parts.append(scores_NT[: _VARIANTS - short])
        scores_NT = np.concatenate(parts)
        lost_TN = (scores_NT[:1] - scores_NT[1:]).T
        split = num_frames * num_regions
        return Why(
            regions_FM=regions_FM[:num_frames],
            frames_F=frames_F[:num_frames],
            lost_TFM=lost_TN[:, :split].reshape(-1, num_frames, num_regions),
            lost_TF=lost_TN[:, split:],
        )


def _look(model, variables, video, user):
    """(regions_FM, frames_F), means over heads."""
    _, attention = model.apply(variables, video, user, with_attention=True, method="query")
    return jnp.mean(attention.regions_BFHM[0], axis=1), jnp.mean(attention.frames_BHF[0], axis=0)


def _hide(model, variables, video, user, hashtags_TD, hidden_NFM):
    """scores_NT of one clip with each set of regions hidden; a frame without regions is hidden."""

    def one(hidden_FM):
        seen_FM = ~hidden_FM
        mask_BF = video.mask_BF & seen_FM.any(axis=1)[None]
        query_BD = model.apply(
            variables, video._replace(mask_BF=mask_BF), user, seen_BFM=seen_FM[None], method="query"
        )
        return score(query_BD, hashtags_TD)[0]

    return jax.vmap(one)(hidden_NFM)
