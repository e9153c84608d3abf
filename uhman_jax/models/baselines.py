"""The paper's baselines (section 3.2): BL, UA and 3WM, as two-tower models like UHMAN.

All three represent a clip by one vector x, the mean of its region features, and map it to V x. They
differ in the use of the user: BL ignores the user, UA adds the user's vector, 3WM scales every
dimension of V x by it. The hashtag tower and the user vector u are the same as in UHMAN, so that
systems differ only in their query towers.

The original papers apply V to raw activations, whose means are far from 0. Here x is standardised,
so V has a bias, which replaces V times those means. Without it BL and 3WM could not prefer a
hashtag that is popular for all clips.
"""

import flax.linen as nn
import jax.numpy as jnp

from uhman_jax.models.layers import Attention, GatedFusion, TwoTowers, mean_codes, mean_features


def condensed(video):
    """Returns each video as one frame of one region that has the same `mean_features`.

    BL, UA and 3WM use only this mean, so it can be stored in place of the regions. Its codes are
    float32.

    >>> from uhman_jax.kernels.video_input import VideoInput
    >>> codes, mask = jnp.array([[[[10], [30]], [[99], [99]]]]), jnp.array([[True, False]])
    >>> video = VideoInput.plain(codes, jnp.array([[0.5]]), jnp.array([[1.0]]), mask)
    >>> condensed(video).codes_BFMC.tolist(), condensed(video).mask_BF.tolist()
    ([[[[20.0]]]], [[True]])
    """
    mean_BC, count_B1 = mean_codes(video)
    codes_BFMC = mean_BC[:, None, None, :]
    return video.with_codes(codes_BFMC)._replace(mask_BF=count_B1 > 0)


class _Baseline(TwoTowers):
    """The common part of BL, UA and 3WM."""

    pool_features = staticmethod(condensed)

    @nn.compact
    def query(self, video, user, *, deterministic=True, with_attention=False):
        """Returns query_BD, float32.

        Args:
            video: VideoInput; a video without a real frame counts as the average clip.
            user: UserInput.
            deterministic: False applies dropout, with the rng "dropout".
            with_attention: also returns the attention, which is uniform and has one head.

        Returns:
            query_BD, or (query_BD, Attention).
        """
        x_BC = mean_features(video, self._statistics(video))
        video_BD = nn.Dense(self.embedding_size, dtype=self.dtype, name="video_out")(x_BC)  # V x
        user = self._shown(user, deterministic)
        query_BD = self._finish(self._combine(video_BD, user, deterministic), deterministic)
        return (query_BD, _uniform_attention(video)) if with_attention else query_BD

    def _combine(self, video_BD, user, deterministic):
        raise NotImplementedError

    def _offset(self, user, deterministic):
        """Returns S u, (B, D)."""
        out = nn.Dense(self.embedding_size, use_bias=False, dtype=self.dtype, name="user_out")
        return out(self._user(user, deterministic))


class Bilinear(_Baseline):
    """BL: score = (V x) . (W t). It ignores the user.

    V is linear, from C to d. With UHMAN's two-layer region network instead of V, the model would be
    UHMAN without users, not the paper's baseline.
    """

    def _combine(self, video_BD, user, deterministic):
        return video_BD


class UserAdditive(_Baseline):
    """UA (Denton et al. 2015): score = (V x + S u) . (W t).

    A user changes the score of a hashtag by the same number for all clips.
    """

    def _combine(self, video_BD, user, deterministic):
        return video_BD + self._offset(user, deterministic)


class ThreeWay(_Baseline):
    """3WM (Denton et al. 2015): score = ((V x) * (1 + S u)) . (W t), elementwise.

    The gate of the original paper is S u without the 1. It starts near 0, which would scale down
    all scores and gradients, and an unknown user would get no useful ranking. With the 1 the model
    starts as BL and learns how users deviate from it.
    """

    def _combine(self, video_BD, user, deterministic):
        return video_BD * (1 + self._offset(user, deterministic))


class GatedMean(TwoTowers):
    """UHMAN with `gated` and without attended content: the mean feature is the whole content."""

    pool_features = staticmethod(condensed)

    @nn.compact
    def query(self, video, user, *, deterministic=True, with_attention=False):
        """Returns query_BD, or (query_BD, Attention), as the other baselines do."""
        mean_BC = mean_features(video, self._statistics(video))
        sizes = self._user_sizes, self.embedding_size, self.dropout, self.dtype
        fuse = GatedFusion(*sizes, name="fusion")
        user = self._shown(user, deterministic)
        query_BD = self._scaled(fuse(user, mean_BC, deterministic=deterministic))
        return (query_BD, _uniform_attention(video)) if with_attention else query_BD


def _uniform_attention(video):
    """Returns uniform Attention over regions and real frames; all 0 without a real frame."""
    num_regions = video.codes_VFMC.shape[2]
    mask_BF = video.mask_BF.astype(jnp.float32)
    regions_BFM = jnp.repeat(mask_BF[:, :, None] / num_regions, num_regions, axis=2)
    frames_BF = mask_BF / jnp.maximum(jnp.sum(mask_BF, axis=1, keepdims=True), 1)
    return Attention(regions_BFM[:, :, None, :], frames_BF[:, None, :])


# Classes by value of `config.ModelName`; a further system needs an entry here and a member there.
BASELINES = {"bl": Bilinear, "ua": UserAdditive, "3wm": ThreeWay, "mean": GatedMean}
