"""UHMAN, the user-guided hierarchical multi-head attention network (paper, sections 2.2 and 2.3).

`attend` takes one set of items and is mapped over frames and videos. The layers before and after it
take a whole batch.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from uhman_jax.kernels.region_projection import region_product
from uhman_jax.models.layers import FFN, Attention, TwoTowers, drop_regions, orthogonal


def masked_softmax(logits_HX, mask_X):
    """Returns weights_HX over the real items, in float32 (X: regions or frames).

    An item outside the mask gets exactly 0 and passes no gradient. Without a real item all weights
    are 0.

    >>> masked_softmax(jnp.array([[5.0, 5.0, 9.0]]), jnp.array([True, True, False])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    floor = jnp.finfo(jnp.float32).min  # not -inf: a row without real items would be NaN
    logits_HX = jnp.where(mask_X[None, :], logits_HX.astype(jnp.float32), floor)
    return jnp.where(mask_X[None, :], jax.nn.softmax(logits_HX, axis=-1), 0.0)


def attend(query_HJ, items_XJ, mask_X):
    """Returns pooled_HJ, the weighted sum of the items for each head, and weights_HX in float32.

    It takes one user and one set of items (X: regions or frames), which are vectors of size J.

    >>> items, mask = jnp.array([[0.0], [8.0], [99.0]]), jnp.array([True, True, False])
    >>> attend(jnp.array([[0.0], [9.0]]), items, mask)[0].round(3).tolist()
    [[4.0], [8.0]]
    """
    logits_HX = jnp.einsum("hj,xj->hx", query_HJ, items_XJ, preferred_element_type=jnp.float32)
    weights_HX = masked_softmax(logits_HX, mask_X)
    pooled_HJ = jnp.einsum("hx,xj->hj", weights_HX.astype(items_XJ.dtype), items_XJ)
    return pooled_HJ, weights_HX


class Layer(NamedTuple):
    """The linear layer that computes the items of a set; it is applied after the pooling instead.

    Attributes:
        matrix_JK: matrix of the layer.
        shift_K: bias of the layer.
        total: sum of the pooling weights of each set, 1, or 0 for an empty set; of any shape.
    """

    matrix_JK: jax.Array
    shift_K: jax.Array
    total: jax.Array


class MultiHead(nn.Module):
    """Multi-head attention [14] with one query: MultiHead(u_e, F, F).

    The query is folded into the keys (q_h^T W_K), and W_V is applied after the pooling, so that no
    item is projected. The result is the same. `attend` is called between `fold` and `project`.
    Projections have no bias, as in the paper's reference [14].
    """

    hidden_size: int
    num_heads: int
    dtype: jnp.dtype

    def setup(self):
        """Creates the projections.

        Queries start at twice the usual scale, so that attention weights differ; values too, so
        that the residual user vector does not dominate the content. Values and outputs start as
        isometries: content passes seven matrices, and seven Gaussian ones would suppress most of
        its directions (experiments/recipe).
        """
        width = self.hidden_size
        heads = (width, self.num_heads, width // self.num_heads)
        lecun = nn.initializers.variance_scaling
        into = lecun(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2))
        wide = lecun(4.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2))
        self.query_KHW = self.param("query_KHW", wide, heads)
        self.key_KHW = self.param("key_KHW", into, heads)
        self.value_KHW = self.param("value_KHW", orthogonal(2.0), heads)
        shape = (*heads[1:], width)
        self.output_HWK = self.param("output_HWK", orthogonal(num_inputs=2), shape)

    def fold(self, user_BK):
        """Returns folded_BHK: its product with an item is the logit, for every user and head."""
        query_BHW = jnp.einsum("bk,khw->bhw", user_BK, self.query_KHW.astype(self.dtype))
        query_BHW /= jnp.sqrt(self.hidden_size // self.num_heads).astype(self.dtype)
        return jnp.einsum("bhw,khw->bhk", query_BHW, self.key_KHW.astype(self.dtype))

    def project(self, pooled_HJ, layer):
        """Returns attended_K for pooled_HJ, both with any leading axes; folds `layer` into W_V."""
        value_JHW = value_KHW = self.value_KHW.astype(self.dtype)
        if layer:
            value_JHW = jnp.einsum("jk,khw->jhw", layer.matrix_JK, value_KHW)
        value_HW = jnp.einsum("...hj,jhw->...hw", pooled_HJ, value_JHW)
        if layer:
            shift_HW = jnp.einsum("k,khw->hw", layer.shift_K, value_KHW)
            value_HW += jnp.einsum("...,hw->...hw", layer.total, shift_HW)
        return jnp.einsum("...hw,hwk->...k", value_HW, self.output_HWK.astype(self.dtype))


class GuidedBlock(nn.Module):
    """E(F) of equations 1 to 4 (5 to 8): pools the items of a set under a user's guidance.

    All rows that equation 2 stacks are equal, so one vector represents them. Without `attention`
    (section 3.4) the mean over the real items replaces MultiHead, so that an ablation differs only
    in the pooling. A set without a real item pools to zeros.
    """

    hidden_size: int
    num_heads: int
    attention: bool
    dtype: jnp.dtype

    def setup(self):
        """Creates the layers."""
        if self.attention:
            self.heads = MultiHead(self.hidden_size, self.num_heads, self.dtype)
        self.attention_norm = nn.LayerNorm(dtype=jnp.float32)
        self.ffn = FFN(self.hidden_size, dtype=self.dtype, starts_at_zero=True)
        self.ffn_norm = nn.LayerNorm(dtype=jnp.float32)

    def fold(self, user_BK):
        """Returns folded_BHK; without attention zeros, which give equal weights to all items."""
        if self.attention:
            return self.heads.fold(user_BK)
        return jnp.zeros((user_BK.shape[0], self.num_heads, self.hidden_size), self.dtype)

    def finish(self, user_K, pooled_HJ, layer=None):
        """Returns E(F)_K from the result of `attend`, with any leading axes.

        With a `layer`, the pooled vectors are inputs of that layer instead of items.
        """
        if self.attention:
            attended_K = self.heads.project(pooled_HJ, layer)
        else:
            attended_K = pooled_HJ[..., 0, :]  # all heads are equal
            if layer:
                attended_K = attended_K @ layer.matrix_JK
                attended_K += jnp.einsum("...,k->...k", layer.total, layer.shift_K)
        gamma_K = self._norm(self.attention_norm, attended_K, user_K)
        return self._norm(self.ffn_norm, self.ffn(gamma_K), gamma_K)

    def _norm(self, norm, alpha_K, beta_K):
        """Equation 3: LayerNorm(alpha + beta), in float32."""
        return norm(alpha_K.astype(jnp.float32) + beta_K.astype(jnp.float32)).astype(self.dtype)


class Regions(nn.Module):
    """The region network up to its ReLU, and attention over its outputs.

    The first kernel has the axes JC, so that its gradient is (J x rows) @ (rows x C): on a CPU XLA
    computes this product in a third of the time of the transposed one.
    """

    features: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, query_BHJ, video, mask_BFM, statistics, *, deterministic):
        """Returns pooled_BFHJ and weights_BFHM, which are float32."""
        init = nn.initializers.lecun_normal(in_axis=1, out_axis=0)
        shape = (self.features, video.codes_VFMC.shape[3])
        kernel_JC = self.param("kernel_JC", init, shape)
        bias_J = self.param("bias_J", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        hidden_BFMJ = region_product(video, statistics, kernel_JC, self.dtype)
        hidden_BFMJ = nn.relu(hidden_BFMJ + bias_J[None, None, None, :])
        hidden_BFMJ = nn.Dropout(self.dropout)(hidden_BFMJ, deterministic=deterministic)
        each_frame = jax.vmap(attend, in_axes=(None, 0, 0))
        return jax.vmap(each_frame)(query_BHJ, hidden_BFMJ, mask_BFM)


class UHMAN(TwoTowers):
    """The network of Fig. 2; `TwoTowers` describes methods, collections and other attributes.

    Attributes:
        num_heads: heads of both attention blocks; divides `hidden_size`.
        region_attention: False for UHMAN(a), the mean over regions (section 3.4).
        frame_attention: False for UHMAN(b), the mean over frames (section 3.4).
        user_guidance: False for UHMAN(c): one learned vector replaces every user in both attention
            blocks, so that the attention is the same for all users. The query still depends on the
            user. Not in the paper; it measures the effect of the guidance.
        region_dropout: fraction of a frame's regions to drop in training; the cost of a step falls
            by about the same fraction.
    """

    num_heads: int = 4
    region_attention: bool = True
    frame_attention: bool = True
    user_guidance: bool = True
    region_dropout: float = 0.0

    def setup(self):
        """Checks the number of heads."""
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads must divide hidden_size {self.hidden_size}, got {self.num_heads}; "
                "use a divisor"
            )
        super().setup()

    @nn.compact
    def query(self, video, user, *, deterministic=True, with_attention=False, seen_BFM=None):
        """Returns query_BD, float32: W_V Concat(u, v) (equations 1 to 10).

        Args:
            video: VideoInput; without a real frame the query depends only on the user.
            user: UserInput.
            deterministic: False applies dropout, with the rng "dropout".
            with_attention: also returns the attention weights.
            seen_BFM: bool, False hides a region; None hides none.

        Returns:
            query_BD, or (query_BD, Attention). An ablated attention is uniform.
        """
        user = self._shown(user, deterministic)
        user_BK = self._user(user, deterministic)
        guide_BK = user_BK
        if not self.user_guidance:
            guide_K = self.param("guide_K", nn.initializers.normal(1.0), (self.hidden_size,))
            guide_BK = jnp.broadcast_to(guide_K.astype(self.dtype), user_BK.shape)

        if self.region_dropout and not deterministic:
            video = drop_regions(self.make_rng("dropout"), self.region_dropout, video)
        mask_BFM = jnp.repeat(video.mask_BF[:, :, None], video.codes_VFMC.shape[2], axis=2)
        mask_BFM = mask_BFM if seen_BFM is None else mask_BFM & seen_BFM
        frames_BFK, regions_BFHM = self._frames(guide_BK, video, mask_BFM, deterministic)
        block = self._block(self.frame_attention, "frame_block")
        query_BHK = block.fold(guide_BK)
        pooled_BHK, frames_BHF = jax.vmap(attend)(query_BHK, frames_BFK, video.mask_BF)
        video_BK = block.finish(guide_BK, pooled_BHK)

        both = jnp.concatenate([user_BK, video_BK], axis=-1)  # equation 10
        how = {"use_bias": False, "dtype": self.dtype, "kernel_init": orthogonal()}
        out = nn.Dense(self.embedding_size, **how, name="query_out")
        query_BD = self._finish(out(both), deterministic)
        return (query_BD, Attention(regions_BFHM, frames_BHF)) if with_attention else query_BD

    def _frames(self, guide_BK, video, mask_BFM, deterministic):
        """Returns frames_BFK, the pooled regions of each frame, and weights_BFHM.

        The second layer of the region network is linear, so it is applied after the pooling. For
        the logits its matrix is folded into the query, and its bias is left out, because it adds
        the same number to all logits of a head.
        """
        regions = Regions(self.hidden_size, self.dropout, self.dtype, name="regions")
        shape = (self.hidden_size, self.hidden_size)
        out_JK = self.param("region_out_JK", orthogonal(), shape).astype(self.dtype)
        out_K = self.param("region_out_K", nn.initializers.zeros, shape[1:]).astype(self.dtype)
        block = self._block(self.region_attention, "region_block")
        query_BHJ = jnp.einsum("bhk,jk->bhj", block.fold(guide_BK), out_JK)
        pooled_BFHJ, weights_BFHM = regions(
            query_BHJ, video, mask_BFM, self._statistics(video), deterministic=deterministic
        )
        layer = Layer(out_JK, out_K, jnp.any(mask_BFM, axis=2).astype(self.dtype))
        return block.finish(guide_BK[:, None, :], pooled_BFHJ, layer), weights_BFHM

    def _block(self, attention, name):
        return GuidedBlock(self.hidden_size, self.num_heads, attention, self.dtype, name=name)
