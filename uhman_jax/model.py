"""UHMAN, the user-guided hierarchical multi-head attention network (paper, sections 2.2 and 2.3).

Attention is written for one user and one set of items (the regions of a frame, or the frames of a
video) and mapped over frames and examples.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from uhman_jax.layers import (
    FFN,
    Attention,
    Items,
    RegionFeatures,
    TwoTowers,
    UserInput,
    VideoInput,
    keep_mask,
    orthogonal,
    score,
    standardise,
)

__all__ = ["Attention", "UHMAN", "UserInput", "VideoInput", "masked_softmax", "score"]


def masked_softmax(logits_HX, mask_X):
    """Returns weights_HX over the real items, in float32 (X: regions or frames).

    An item outside the mask gets exactly 0 and passes no gradient; with no real item all are 0.

    >>> masked_softmax(jnp.array([[5.0, 5.0, 9.0]]), jnp.array([True, True, False])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    floor = jnp.finfo(jnp.float32).min  # not -inf: with no real item that would be NaN
    logits_HX = jnp.where(mask_X[None, :], logits_HX.astype(jnp.float32), floor)
    return jnp.where(mask_X[None, :], jax.nn.softmax(logits_HX, axis=-1), 0.0)


def pool(weights_HX, items):
    """Returns pooled_HK: the weighted sums of the items' vectors, one per head.

    >>> items = Items(jnp.array([[1.0], [3.0]]), jnp.array([[2.0]]), jnp.array([10.0]))
    >>> pool(jnp.array([[0.5, 0.5], [0.0, 0.0]]), items).tolist()  # 2 x 2 + 10; no item at all
    [[14.0], [0.0]]
    """
    weights_HX = weights_HX.astype(items.hidden_XJ.dtype)
    pooled_HJ = jnp.einsum("hx,xj->hj", weights_HX, items.hidden_XJ)
    if items.kernel_JK is None:
        return pooled_HJ
    total_H1 = jnp.sum(weights_HX, axis=1, keepdims=True)
    return jnp.einsum("hj,jk->hk", pooled_HJ, items.kernel_JK) + total_H1 * items.bias_K[None, :]


class MultiHead(nn.Module):
    """Multi-head attention [14] of one user over one set of items: MultiHead(u_e, F, F).

    There is one query, so it is folded into the keys (q_h^T W_K) and the items are pooled before
    W_V, and likewise with the items' own map (`Items`): the same numbers, without projecting every
    item. The map's bias adds the same to all logits of a head, which changes no weight.
    Projections have no bias, as in [14].
    """

    num_heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, user_K, items, mask_X):
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
        folded_HJ = jnp.einsum("hw,khw->hk", query_HW, key_KHW)
        if items.kernel_JK is not None:
            folded_HJ = jnp.einsum("hk,jk->hj", folded_HJ, items.kernel_JK)
        logits_HX = jnp.einsum(
            "hj,xj->hx", folded_HJ, items.hidden_XJ, preferred_element_type=jnp.float32
        ) / jnp.sqrt(jnp.float32(heads[2]))
        weights_HX = masked_softmax(logits_HX, mask_X)
        pooled_HK = pool(weights_HX, items)
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
    def __call__(self, user_K, items, mask_X):
        """Returns pooled_K and, in float32, weights_HX."""
        if self.attention:
            head = MultiHead(self.num_heads, self.dtype, name="attention")
            attended_K, weights_HX = head(user_K, items, mask_X)
        else:
            equal_HX = jnp.zeros((self.num_heads, mask_X.shape[0]))
            weights_HX = masked_softmax(equal_HX, mask_X)
            attended_K = pool(weights_HX[:1], items)[0]
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


_ITEMS = Items(hidden_XJ=0, kernel_JK=None, bias_K=None)  # the map is shared
FramePooling = _over(GuidedPooling, (0, _ITEMS, 0))  # the frames of each video
RegionPooling = _over(_over(GuidedPooling, (None, _ITEMS, 0)), (0, _ITEMS, 0))  # of each frame


class UHMAN(TwoTowers):
    """The network of Fig. 2; see `TwoTowers` for the methods, collections and other attributes.

    Attributes:
        num_heads: heads of both attention blocks; divides `hidden_size`.
        region_attention: False for UHMAN(a), the mean over regions (section 3.4).
        frame_attention: False for UHMAN(b), the mean over frames (section 3.4).
        user_guidance: False for UHMAN(c): one learned vector takes the place of every user in both
            attention blocks, so that all attend alike. The query has the user all the same. Not
            in the paper; it says what the guidance is worth.
        region_dropout: share of regions that attention may not see in training.
    """

    num_heads: int = 4
    region_attention: bool = True
    frame_attention: bool = True
    user_guidance: bool = True
    region_dropout: float = 0.0

    def setup(self):
        """Checks the sizes."""
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads must divide hidden_size {self.hidden_size}, got {self.num_heads}; "
                "use a divisor"
            )
        super().setup()

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
        regions_BFMC = standardise(video, *self._statistics(video), self.dtype)
        network = RegionFeatures(self.hidden_size, self.dropout, self.dtype, name="regions")
        regions = network(regions_BFMC, deterministic=deterministic)
        user_BK = self._user(user, deterministic)
        guide_BK = user_BK
        if not self.user_guidance:
            guide_K = self.param("guide_K", nn.initializers.normal(1.0), (self.hidden_size,))
            guide_BK = jnp.broadcast_to(guide_K.astype(self.dtype), user_BK.shape)

        mask_BFM = jnp.broadcast_to(video.mask_BF[:, :, None], regions_BFMC.shape[:3])
        if self.region_dropout and not deterministic:
            key = self.make_rng("dropout")
            mask_BFM &= keep_mask(key, self.region_dropout, mask_BFM.shape)
        over_regions = RegionPooling(
            self.num_heads, self.region_attention, self.dtype, name="region_pooling"
        )
        frames_BFK, region_weights_BFHM = over_regions(guide_BK, regions, mask_BFM)
        over_frames = FramePooling(
            self.num_heads, self.frame_attention, self.dtype, name="frame_pooling"
        )
        video_BK, frame_weights_BHF = over_frames(guide_BK, Items(frames_BFK), video.mask_BF)

        both = jnp.concatenate([user_BK, video_BK], axis=-1)  # equation 10
        out = nn.Dense(
            self.embedding_size,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=orthogonal(),
            name="query_out",
        )
        query_BD = self._finish(out(both), deterministic)
        if with_attention:
            return query_BD, Attention(region_weights_BFHM, frame_weights_BHF)
        return query_BD
