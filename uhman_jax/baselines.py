"""The systems that the paper compares with (section 3.2): BL, UA and 3WM, as towers like UHMAN's.

All three know a clip by one vector x, the mean of its region features, and differ in what they do
with the user: BL ignores them, UA adds them, 3WM lets them scale every dimension of the clip's
vector. The hashtag tower and the user vector u are UHMAN's, so that a comparison is of the query
towers alone.

The parents apply V to raw network activations, whose means are far from 0. Here x is standardised,
so V has the bias that V times those means would be; without it BL and 3WM could not prefer a
hashtag that is popular everywhere.
"""

import flax.linen as nn
import jax.numpy as jnp

from uhman_jax.layers import Attention, TwoTowers, gathered


def mean_features(video, mean_C, std_C):
    """Returns x_BC, float32: the mean of the standardised features over regions and real frames.

    Decoding and standardising are linear, so they are applied once to the mean of the codes. What a
    padding frame holds changes nothing; a video without a real frame gives zeros, which are the
    features of the average clip. The example is ((10 + 30) / 2 * 0.5 + 1 - 2) / 4.

    >>> from uhman_jax.layers import VideoInput
    >>> video = VideoInput(jnp.array([[[[10], [30]], [[99], [99]]]]), jnp.array([[0.5]]),
    ...                    jnp.array([[1.0]]), jnp.array([[True, False]]))
    >>> mean_features(video, jnp.array([2.0]), jnp.array([4.0])).tolist()
    [[2.25]]
    """
    mean_BC, count_B1 = _mean_codes(video)
    x_BC = (mean_BC * video.scale_BC + video.offset_BC - mean_C[None, :]) / std_C[None, :]
    return jnp.where(count_B1 > 0, x_BC, 0.0)


def _mean_codes(video):
    """Returns the mean code over regions and real frames, and how many those are."""
    video = gathered(video)
    # First over regions, then over frames: in one step a CPU takes seven times as long.
    frames_BFC = jnp.sum(video.codes_BFMC.astype(jnp.float32), axis=2)
    sum_BC = jnp.sum(jnp.where(video.mask_BF[:, :, None], frames_BFC, 0.0), axis=1)
    count_B1 = jnp.sum(video.mask_BF, axis=1, keepdims=True) * video.codes_BFMC.shape[2]
    return sum_BC / jnp.maximum(count_B1, 1), count_B1


def condensed(video):
    """Returns a video of one frame and one region whose `mean_features` are the same.

    That is all these systems look at, so that a feed may keep it instead of the regions. Its codes
    are float32.

    >>> from uhman_jax.layers import VideoInput
    >>> video = VideoInput(jnp.array([[[[10], [30]], [[99], [99]]]]), jnp.array([[0.5]]),
    ...                    jnp.array([[1.0]]), jnp.array([[True, False]]))
    >>> condensed(video).codes_BFMC.tolist(), condensed(video).mask_BF.tolist()
    ([[[[20.0]]]], [[True]])
    """
    mean_BC, count_B1 = _mean_codes(video)
    return video._replace(codes_BFMC=mean_BC[:, None, None, :], mask_BF=count_B1 > 0, slot_B=None)


class _Baseline(TwoTowers):
    """What the three have in common."""

    condense = staticmethod(condensed)

    @nn.compact
    def query(self, video, user, *, deterministic=True, with_attention=False):
        """Returns query_BD, float32.

        Args:
            video: VideoInput; a video without a real frame counts as the average clip.
            user: UserInput.
            deterministic: False drops units, with the rng "dropout".
            with_attention: also return where the model looked: everywhere alike, with one head.

        Returns:
            query_BD, or (query_BD, Attention).
        """
        x_BC = mean_features(video, *self._statistics(video))
        video_BD = nn.Dense(self.embedding_size, dtype=self.dtype, name="video_out")(x_BC)  # V x
        query_BD = self._finish(self._meet(video_BD, user, deterministic), deterministic)
        if with_attention:
            return query_BD, _everywhere(video)
        return query_BD

    def _meet(self, video_BD, user, deterministic):
        """Returns query_BD: how a clip's vector and its user come together."""
        raise NotImplementedError

    def _offset(self, user, deterministic):
        """Returns S u, user_BD."""
        out = nn.Dense(self.embedding_size, use_bias=False, dtype=self.dtype, name="user_out")
        return out(self._user(user, deterministic))


class Bilinear(_Baseline):
    """BL: score = (V x) . (W t). The user is not looked at.

    V is linear, C to d, as the name says: UHMAN's two-layer region network in its place would be a
    UHMAN without users, not the paper's baseline.
    """

    def _meet(self, video_BD, user, deterministic):
        return video_BD


class UserAdditive(_Baseline):
    """UA (Denton et al. 2015): score = (V x + S u) . (W t).

    What a user adds to a hashtag's score is the same for all their clips.
    """

    def _meet(self, video_BD, user, deterministic):
        return video_BD + self._offset(user, deterministic)


class ThreeWay(_Baseline):
    """3WM (Denton et al. 2015): score = ((V x) * (1 + S u)) . (W t), elementwise.

    The parents' gate is S u alone. It starts near 0 and would scale every score and every gradient
    down with it, and a user of whom nothing is known could be shown nothing; with the 1 the model
    starts as BL and learns where users deviate from it.
    """

    def _meet(self, video_BD, user, deterministic):
        return video_BD * (1 + self._offset(user, deterministic))


def _everywhere(video):
    """Uniform Attention over the regions and the real frames; all 0 without a real frame."""
    num_regions = video.codes_BFMC.shape[2]
    mask_BF = video.mask_BF.astype(jnp.float32)
    regions_BFM = jnp.repeat(mask_BF[:, :, None] / num_regions, num_regions, axis=2)
    frames_BF = mask_BF / jnp.maximum(jnp.sum(mask_BF, axis=1, keepdims=True), 1)
    return Attention(regions_BFM[:, :, None, :], frames_BF[:, None, :])
