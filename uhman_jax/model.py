"""UHMAN, the user-guided hierarchical multi-head attention network (paper, sections 2.2 and 2.3).

Attention is written for one user and one set of items (the regions of a frame, or the frames of a
video) and mapped over frames and examples.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from uhman_jax.layers import (
    FFN,
    RegionFeatures,
    UserEmbedding,
    UserInput,
    VideoInput,
    keep_mask,
    orthogonal,
    score,
    standardise,
    unit_length,
)

__all__ = ["Attention", "UHMAN", "UserInput", "VideoInput", "masked_softmax", "score"]

# Rows of length 1 in expectation.
_unit_rows = nn.initializers.variance_scaling(1.0, "fan_out", "normal", in_axis=0, out_axis=1)


class Attention(NamedTuple):
    """Where a model looked; weights of padding are 0, those of the rest sum to 1.

    Attributes:
        regions_BFHM: float32, per frame and head over regions.
        frames_BHF: float32, per head over frames.
    """

    regions_BFHM: jax.Array
    frames_BHF: jax.Array


def masked_softmax(logits_HX, mask_X):
    """Returns weights_HX over the real items, in float32 (X: regions or frames).

    An item outside the mask gets exactly 0 and passes no gradient; with no real item all are 0.

    >>> masked_softmax(jnp.array([[5.0, 5.0, 9.0]]), jnp.array([True, True, False])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    floor = jnp.finfo(jnp.float32).min  # not -inf: with no real item that would be NaN
    logits_HX = jnp.where(mask_X[None, :], logits_HX.astype(jnp.float32), floor)
    return jnp.where(mask_X[None, :], jax.nn.softmax(logits_HX, axis=-1), 0.0)


class MultiHead(nn.Module):
    """Multi-head attention [14] of one user over one set of items: MultiHead(u_e, F, F).

    There is one query, so it is folded into the keys (q_h^T W_K) and the items are pooled before
    W_V: the same numbers, without projecting every item. Projections have no bias, as in [14].
    """

    num_heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, user_K, items_XK, mask_X):
        """Returns attended_K and, in float32, weights_HX."""
        width = user_K.shape[-1]
        heads = (width, self.num_heads, width // self.num_heads)
        lecun = nn.initializers.variance_scaling
        into = lecun(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2))
        # Queries and values start at twice the usual scale: weights that are not all alike, and
        # content that the residual user does not drown. Values and outputs start as isometries:
        # content passes seven matrices, and as many random ones would crush most of its directions
        # (experiments/recipe).
        wide = lecun(4.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2))
        query_KHW = self.param("query_KHW", wide, heads).astype(self.dtype)
        key_KHW = self.param("key_KHW", into, heads).astype(self.dtype)
        value_KHW = self.param("value_KHW", orthogonal(2.0), heads).astype(self.dtype)
        shape = (*heads[1:], width)
        output_HWK = self.param("output_HWK", orthogonal(num_inputs=2), shape).astype(self.dtype)

        query_HW = jnp.einsum("k,khw->hw", user_K, query_KHW)
        folded_HK = jnp.einsum("hw,khw->hk", query_HW, key_KHW)
        logits_HX = jnp.einsum(
            "hk,xk->hx", folded_HK, items_XK, preferred_element_type=jnp.float32
        ) / jnp.sqrt(jnp.float32(heads[2]))
        weights_HX = masked_softmax(logits_HX, mask_X)
        pooled_HK = jnp.einsum("hx,xk->hk", weights_HX.astype(self.dtype), items_XK)
        value_HW = jnp.einsum("hk,khw->hw", pooled_HK, value_KHW)
        return jnp.einsum("hw,hwk->k", value_HW, output_HWK), weights_HX


class GuidedPooling(nn.Module):
    """E(F) of equations 1 to 4 (5 to 8): the items of one set, pooled under a user's guidance.

    All rows that equation 2 stacks are equal, so one vector stands for them. Without attention
    (section 3.4) the mean over the real items takes the place of MultiHead and the rest of the
    block stays, so that an ablation differs in the pooling alone. No real item: they pool to zeros.
    """

    num_heads: int
    attention: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, user_K, items_XK, mask_X):
        """Returns pooled_K and, in float32, weights_HX."""
        if self.attention:
            head = MultiHead(self.num_heads, self.dtype, name="attention")
            attended_K, weights_HX = head(user_K, items_XK, mask_X)
        else:
            equal_HX = jnp.zeros((self.num_heads, mask_X.shape[0]))
            weights_HX = masked_softmax(equal_HX, mask_X)
            attended_K = jnp.einsum("x,xk->k", weights_HX[0].astype(self.dtype), items_XK)
        gamma_K = self._norm("attention_norm", attended_K, user_K)
        ffn = FFN(user_K.shape[-1], dtype=self.dtype, starts_at_zero=True, name="ffn")
        return self._norm("ffn_norm", ffn(gamma_K), gamma_K), weights_HX

    def _norm(self, name, alpha_K, beta_K):
        """Equation 3: LayerNorm(alpha + beta), in float32."""
        total_K = alpha_K.astype(jnp.float32) + beta_K.astype(jnp.float32)
        return nn.LayerNorm(dtype=jnp.float32, name=name)(total_K).astype(self.dtype)


def _over(module, in_axes):
    """Maps a module over a leading axis with one set of parameters."""
    return nn.vmap(module, {"params": None}, {"params": False}, in_axes=in_axes)


FramePooling = _over(GuidedPooling, (0, 0, 0))  # the frames of each video
RegionPooling = _over(_over(GuidedPooling, (None, 0, 0)), (0, 0, 0))  # the regions of each frame


class UHMAN(nn.Module):
    """The network of Fig. 2.

    `query` and `hashtags` are methods for `apply`; the collection "statistics" holds mean_C and
    std_C of the decoded features (zeros and ones after `init`; the trainer sets them), and dropout
    draws from the rng "dropout".

    Attributes:
        num_hashtags: T.
        num_genders: values with "unknown", as for the next two.
        num_ages: age buckets.
        num_countries: countries.
        hidden_size: K; a multiple of `num_heads`.
        embedding_size: d.
        num_heads: heads of both attention blocks.
        region_attention: False for UHMAN(a), the mean over regions (section 3.4).
        frame_attention: False for UHMAN(b), the mean over frames (section 3.4).
        unit_length: scale query and hashtag vectors to length 1, so that scores lie in -1..1.
        dropout: share of hidden units (region and user networks) and of query entries dropped.
        history_dropout: share of a history's hashtags left out, see `UserEmbedding`.
        region_dropout: share of regions that attention may not see in training.
        dtype: of activations; parameters, softmax, layer norm and scores are float32.
    """

    num_hashtags: int
    num_genders: int
    num_ages: int
    num_countries: int
    hidden_size: int = 32
    embedding_size: int = 32
    num_heads: int = 4
    region_attention: bool = True
    frame_attention: bool = True
    unit_length: bool = True
    dropout: float = 0.0
    history_dropout: float = 0.0
    region_dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Makes the hashtag tower, which no batch is needed for."""
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads must divide hidden_size {self.hidden_size}, got {self.num_heads}; "
                "use a divisor"
            )
        shape = (self.num_hashtags, self.hidden_size)
        self.hashtag_TK = self.param("hashtag_TK", _unit_rows, shape)  # W_T^1
        self.hashtag_out = nn.Dense(self.embedding_size, use_bias=False)  # W_T^2

    def __call__(self, video, user, *, deterministic=True):
        """Returns scores_BT, float32; higher is better."""
        return score(self.query(video, user, deterministic=deterministic), self.hashtags())

    def hashtags(self):
        """Returns hashtags_TD, float32: W_T^2 W_T^1 t for every hashtag (equation 9)."""
        hashtags_TD = self.hashtag_out(self.hashtag_TK)
        return unit_length(hashtags_TD) if self.unit_length else hashtags_TD

    @nn.compact
    def query(self, video, user, *, deterministic=True, with_attention=False):
        """Returns query_BD, float32: W_V Concat(u, v) (equations 1 to 10).

        Args:
            video: VideoInput; a video without a real frame is ranked by its user alone.
            user: UserInput.
            deterministic: False drops units, with the rng "dropout".
            with_attention: also return where the model looked.

        Returns:
            query_BD, or (query_BD, Attention). An ablated attention is uniform.
        """
        num_channels = video.codes_BFMC.shape[-1]
        mean_C = self.variable("statistics", "mean_C", jnp.zeros, (num_channels,)).value
        std_C = self.variable("statistics", "std_C", jnp.ones, (num_channels,)).value
        regions_BFMC = standardise(video, mean_C, std_C, self.dtype)
        network = RegionFeatures(self.hidden_size, self.dropout, self.dtype, name="regions")
        regions_BFMK = network(regions_BFMC, deterministic=deterministic)
        user_BK = UserEmbedding(
            self.num_hashtags,
            self.num_genders,
            self.num_ages,
            self.num_countries,
            self.hidden_size,
            self.dropout,
            self.dtype,
            self.history_dropout,
            name="user",
        )(user, deterministic=deterministic)

        mask_BFM = jnp.broadcast_to(video.mask_BF[:, :, None], regions_BFMK.shape[:3])
        if self.region_dropout and not deterministic:
            key = self.make_rng("dropout")
            mask_BFM &= keep_mask(key, self.region_dropout, mask_BFM.shape)
        over_regions = RegionPooling(
            self.num_heads, self.region_attention, self.dtype, name="region_pooling"
        )
        frames_BFK, region_weights_BFHM = over_regions(user_BK, regions_BFMK, mask_BFM)
        over_frames = FramePooling(
            self.num_heads, self.frame_attention, self.dtype, name="frame_pooling"
        )
        video_BK, frame_weights_BHF = over_frames(user_BK, frames_BFK, video.mask_BF)

        both = jnp.concatenate([user_BK, video_BK], axis=-1)  # equation 10
        query_BD = nn.Dense(
            self.embedding_size,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=orthogonal(),
            name="query_out",
        )(both)
        query_BD = nn.Dropout(self.dropout)(
            query_BD.astype(jnp.float32), deterministic=deterministic
        )
        query_BD = unit_length(query_BD) if self.unit_length else query_BD
        if with_attention:
            return query_BD, Attention(region_weights_BFHM, frame_weights_BHF)
        return query_BD
