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

from uhman_jax.models.layers import Attention, TwoTowers, UserSum, unit_length


def mean_features(video, statistics, seen_BFM=None):
    """Returns x_BC, float32: the mean of the standardised features over regions and real frames.

    Decoding and standardising are linear, so they are applied to the mean of the codes. The content
    of a padding frame, and of a region that `seen_BFM` hides, has no effect. A video without a real
    frame gives zeros, the features of the average clip. The example is
    ((10 + 30) / 2 * 0.5 + 1 - 2) / 4.

    >>> from uhman_jax.kernels.video_input import ChannelStatistics, VideoInput
    >>> codes, mask = jnp.array([[[[10], [30]], [[99], [99]]]]), jnp.array([[True, False]])
    >>> video = VideoInput.plain(codes, jnp.array([[0.5]]), jnp.array([[1.0]]), mask)
    >>> mean_features(video, ChannelStatistics(jnp.array([2.0]), jnp.array([4.0]))).tolist()
    [[2.25]]
    """
    mean_BC, count_B1 = _mean_codes(video, seen_BFM)
    features_BC = mean_BC * video.scale_BC + video.offset_BC
    x_BC = (features_BC - statistics.mean_C[None, :]) / statistics.std_C[None, :]
    return jnp.where(count_B1 > 0, x_BC, 0.0)


def _mean_codes(video, seen_BFM=None):
    """Returns mean_BC of the codes of real frames, and the number of their regions."""
    # Two sums, because one sum over both axes takes seven times as long on a CPU.
    codes_BFMC = video.codes_BFMC.astype(jnp.float32)
    codes_BFMC = codes_BFMC if seen_BFM is None else codes_BFMC * seen_BFM[..., None]
    frames_BFC = jnp.sum(codes_BFMC, axis=2)
    sum_BC = jnp.sum(jnp.where(video.mask_BF[:, :, None], frames_BFC, 0.0), axis=1)
    seen_BF = video.codes_VFMC.shape[2] if seen_BFM is None else jnp.sum(seen_BFM, axis=2)
    count_B1 = jnp.sum(video.mask_BF * seen_BF, axis=1, keepdims=True)
    return sum_BC / jnp.maximum(count_B1, 1), count_B1


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
    mean_BC, count_B1 = _mean_codes(video)
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
    """Mean feature x, gated by the user: score = (W relu(V x * (1 + g) + s) + L x + l) . (W_T t).

    The gate g and the shifts s and l are a `UserSum` each, so the user enters linearly; the product
    with the content is that of 3WM. L x + l alone is a logistic regression of low rank. x is scaled
    to length 2, because the mean of a clip is small against a region. It is for the logistic loss,
    AdamW and `history_sampling`; see `direct_path`. Not in the paper.
    """

    pool_features = staticmethod(condensed)

    @nn.compact
    def query(self, video, user, *, deterministic=True, with_attention=False, seen_BFM=None):
        """Returns query_BD, or (query_BD, Attention), as the other baselines do.

        `seen_BFM` False hides a region from the mean; None hides none.
        """
        user = self._shown(user, deterministic)
        drop = nn.Dropout(self.dropout, deterministic=deterministic)
        mean_BC = mean_features(video, self._statistics(video), seen_BFM)
        x_BC = drop(2 * unit_length(mean_BC))
        content_BK = nn.Dense(self.hidden_size, dtype=self.dtype, name="video")(x_BC)
        gate = UserSum(*self._user_sizes, scale=0.25, name="gate")
        shift = UserSum(*self._user_sizes, scale=1.0, name="shift")
        gate_BK, shift_BK = (part(user, deterministic=deterministic) for part in (gate, shift))
        hidden_BK = drop(nn.relu(content_BK * (1 + gate_BK) + shift_BK))
        out, linear = (
            nn.Dense(self.embedding_size, use_bias=False, name=name)
            for name in ("query_out", "linear")
        )
        sizes = *self._user_sizes[:4], self.embedding_size, self.history_dropout
        user_BD = UserSum(*sizes, scale=0.1, name="user")(user, deterministic=deterministic)
        query_BD = out(hidden_BK) + linear(x_BC) + user_BD
        query_BD = self._finish(query_BD, deterministic)
        return (query_BD, _uniform_attention(video)) if with_attention else query_BD


def _uniform_attention(video):
    """Returns uniform Attention over regions and real frames; all 0 without a real frame."""
    num_regions = video.codes_VFMC.shape[2]
    mask_BF = video.mask_BF.astype(jnp.float32)
    regions_BFM = jnp.repeat(mask_BF[:, :, None] / num_regions, num_regions, axis=2)
    frames_BF = mask_BF / jnp.maximum(jnp.sum(mask_BF, axis=1, keepdims=True), 1)
    return Attention(regions_BFM[:, :, None, :], frames_BF[:, None, :])


# Classes by value of `config.ModelName`; a further system needs an entry here and a member there.
BASELINES = {"bl": Bilinear, "ua": UserAdditive, "3wm": ThreeWay, "gated_mean": GatedMean}
