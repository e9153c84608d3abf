"""The parts that all systems share: inputs, layers, the user network, the towers and the score.

A model is a query tower `(video, user) -> query_BD` and a hashtag tower `-> hashtags_TD`. The score
of a hashtag is the inner product of both vectors (the paper's f, a distance, is its negative).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from uhman_jax.kernels.video_input import ChannelStatistics

# Rows of length 1 in expectation.
_unit_rows = nn.initializers.variance_scaling(1.0, "fan_out", "normal", in_axis=0, out_axis=1)


class UserInput(NamedTuple):
    """The users who post the videos of a batch.

    Attributes:
        gender_B: int32 gender index, 0 is "unknown".
        age_B: int32 age bucket index, 0 is "unknown".
        country_B: int32 country index, 0 is "unknown".
        history_BR: int32 ids of hashtags that the user used elsewhere, without repetition.
        history_mask_BR: bool, True for a real slot; the values of other slots have no effect.
        history_parts_BR: int32, bit p is set if a video in part p of the user's other videos has
            the hashtag (see `dataset.history`); None if no history is sampled.
    """

    gender_B: jax.Array | np.ndarray
    age_B: jax.Array | np.ndarray
    country_B: jax.Array | np.ndarray
    history_BR: jax.Array | np.ndarray
    history_mask_BR: jax.Array | np.ndarray
    history_parts_BR: jax.Array | np.ndarray | None = None


class Attention(NamedTuple):
    """Attention weights of a batch; padding has weight 0, and weights of real items sum to 1.

    Attributes:
        regions_BFHM: float32, weights of the regions of each frame, for every head.
        frames_BHF: float32, weights of the frames, for every head.
    """

    regions_BFHM: jax.Array
    frames_BHF: jax.Array


def unit_length(vectors):
    """Returns the vectors scaled to Euclidean length 1 over the last axis, in float32.

    A vector shorter than 1e-6 has no direction: it becomes zero and passes no gradient.

    >>> unit_length(jnp.array([[3.0, 4.0], [0.0, 0.0]])).round(3).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    vectors = vectors.astype(jnp.float32)
    square = jnp.sum(vectors**2, axis=-1, keepdims=True)
    long_enough = square > 1e-12
    inverse = jax.lax.rsqrt(jnp.where(long_enough, square, 1.0))
    return vectors * jnp.where(long_enough, inverse, 0.0)


def score(query_BD, hashtags_TD):
    """Returns scores_BT, float32: equation 9 without its sign, so that higher is better.

    >>> score(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]])).tolist()
    [[3.0, 2.0, 3.0]]
    """
    return jnp.einsum(
        "bd,td->bt",
        query_BD.astype(jnp.float32),
        hashtags_TD.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )


def lookup(table_AK, ids):
    """Returns the rows `ids` of a table; an id outside the table gives NaN.

    >>> lookup(jnp.array([[1.0], [2.0]]), jnp.array([1, -1, 2])).ravel().tolist()
    [2.0, nan, nan]
    """
    ids = jnp.where(ids < 0, table_AK.shape[0], ids)  # JAX would count negative ids from the end
    return table_AK.at[ids].get(mode="fill", fill_value=jnp.nan)


def drop_regions(key, rate, video):
    """Keeps a random fraction `1 - rate` of the regions of every frame, in random order.

    The number of regions is rounded, but at least one.

    >>> from uhman_jax.kernels.video_input import VideoInput
    >>> codes = jnp.arange(8, dtype=jnp.uint8).reshape(1, 1, 8, 1)
    >>> video = VideoInput.plain(codes, jnp.ones((1, 1)), jnp.zeros((1, 1)), jnp.array([[True]]))
    >>> drop_regions(jax.random.key(0), 0.75, video).codes_VFMC.shape
    (1, 1, 2, 1)
    """
    shape = (*video.mask_BF.shape, video.codes_VFMC.shape[2])
    num_kept = max(1, round(shape[2] * (1 - rate)))
    kept_BFM = jax.lax.top_k(jax.random.uniform(key, shape), num_kept)[1]
    frame_F1 = jnp.arange(shape[1])[:, None]
    codes_BFMC = video.codes_VFMC[video.slot_B[:, None, None], frame_F1[None], kept_BFM]
    return video.with_codes(codes_BFMC)


def orthogonal(scale=1.0, num_inputs=1):
    """Returns an initialiser of matrices with orthogonal columns (or rows) of length `scale`.

    A matrix is `scale` times the polar factor of a Gaussian matrix, by Newton-Schulz iteration.
    `nn.initializers.orthogonal` has the same distribution, but its QR decomposition under `vmap`
    over three seeds never returns on two cores (jaxlib 0.10.2).

    Args:
        scale: Euclidean length of the columns, or of the rows if there are fewer rows.
        num_inputs: number of leading axes of the parameter that are inputs.
    """

    def init(key, shape, dtype=jnp.float32):
        rows = int(np.prod(shape[:num_inputs]))
        matrix = jax.random.normal(key, (rows, int(np.prod(shape[num_inputs:]))), jnp.float32)
        wide = matrix.shape[0] < matrix.shape[1]
        matrix = matrix.T if wide else matrix
        matrix /= jnp.linalg.norm(matrix)  # all singular values at most 1

        def iterate(_, x):  # moves singular values towards 1; small ones grow by half
            return 1.5 * x - 0.5 * jnp.matmul(x, jnp.matmul(x.T, x, precision="highest"))

        matrix = jax.lax.fori_loop(0, 60, iterate, matrix)
        return (scale * (matrix.T if wide else matrix)).reshape(shape).astype(dtype)

    return init


class FFN(nn.Module):
    """The two-layer network of equations 4 and 8: W_2 max(0, W_1 x + b_1) + b_2.

    With `starts_at_zero`, W_2 is initialised to zero, so that a residual block starts as the
    identity.
    """

    features: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    starts_at_zero: bool = False

    @nn.compact
    def __call__(self, x, *, deterministic=True):
        """Maps the last axis to size `features`, which is also the hidden width."""
        out = nn.initializers.zeros if self.starts_at_zero else nn.linear.default_kernel_init
        hidden = nn.relu(nn.Dense(self.features, dtype=self.dtype, name="hidden")(x))
        hidden = nn.Dropout(self.dropout)(hidden, deterministic=deterministic)
        return nn.Dense(self.features, dtype=self.dtype, kernel_init=out, name="output")(hidden)


def sampled_history(key, history_parts_BR):
    """Returns bool (B, R): whether a hashtag is on a clip of randomly chosen parts of the clips.

    Each example draws the fraction of parts to choose, uniform in 0..1.

    >>> seen = sampled_history(jax.random.key(0), jnp.full((9999, 2), 5, jnp.int32))
    >>> bool(jnp.all(seen[:, 0] == seen[:, 1])), round(float(jnp.mean(seen)), 1)
    (True, 0.7)
    """
    num_parts = 32
    rate_key, choice_key = jax.random.split(key)
    rate_B1 = jax.random.uniform(rate_key, (len(history_parts_BR), 1))
    chosen_BN = jax.random.bernoulli(choice_key, rate_B1, (len(history_parts_BR), num_parts))
    bits_N = jnp.left_shift(jnp.int32(1), jnp.arange(num_parts, dtype=jnp.int32))
    chosen_B = jnp.sum(jnp.where(chosen_BN, bits_N[None, :], 0), axis=1, dtype=jnp.int32)
    return (history_parts_BR & chosen_B[:, None]) != 0


class _UserTables(nn.Module):
    """Embedding tables of attributes and hashtags; id 0 of an attribute ("unknown") has its row.

    A history is the sum of its rows divided by the square root of their number, so that long and
    short histories have the same scale; an empty history gives zeros. Each training step drops a
    fraction `history_dropout` of the history's hashtags.
    """

    num_hashtags: int
    num_genders: int
    num_ages: int
    num_countries: int
    hidden_size: int
    history_dropout: float = 0.0

    def _embeddings(self, user, deterministic, attribute_scale, history_scale):
        """Returns the embeddings (B, K) of gender, age, country and history."""
        mask_BR = user.history_mask_BR
        if self.history_dropout and not deterministic:
            rate = 1 - self.history_dropout
            mask_BR &= jax.random.bernoulli(self.make_rng("dropout"), rate, mask_BR.shape)

        def table(name, num_rows, scale):
            init = nn.initializers.normal(scale)
            return self.param(name, init, (num_rows, self.hidden_size))

        gender_BK = lookup(table("gender_AK", self.num_genders, attribute_scale), user.gender_B)
        age_BK = lookup(table("age_AK", self.num_ages, attribute_scale), user.age_B)
        country_BK = lookup(
            table("country_AK", self.num_countries, attribute_scale), user.country_B
        )
        history_BR = jnp.where(mask_BR, user.history_BR, 0)
        rows_BRK = lookup(table("history_TK", self.num_hashtags, history_scale), history_BR)
        rows_BRK = jnp.where(mask_BR[:, :, None], rows_BRK, 0.0)
        count_B = jnp.maximum(jnp.sum(mask_BR, axis=1), 1)
        history_BK = jnp.sum(rows_BRK, axis=1) / jnp.sqrt(count_B.astype(jnp.float32))[:, None]
        return gender_BK, age_BK, country_BK, history_BK


class UserEmbedding(_UserTables):
    """u_e of section 2.2: `FFN` of concatenated embeddings of attributes and history, each K.

    The tables start small: large rows let a model memorise a user.
    """

    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, user, *, deterministic):
        """Returns user_BK."""
        parts = jnp.concatenate(self._embeddings(user, deterministic, 0.3, 0.1), axis=-1)
        ffn = FFN(self.hidden_size, self.dropout, self.dtype, name="ffn")
        return ffn(parts.astype(self.dtype), deterministic=deterministic)


class UserSum(_UserTables):
    """The sum of the embeddings of attributes and history, which is linear in the user.

    Attributes:
        scale: standard deviation of the entries of the tables at the start.
    """

    scale: float = 1.0

    @nn.compact
    def __call__(self, user, *, deterministic):
        """Returns user_BK, float32."""
        return sum(self._embeddings(user, deterministic, self.scale, self.scale))


class TwoTowers(nn.Module):
    """The hashtag tower, the user network and the end of the query tower, which all systems share.

    A subclass defines `query(video, user, *, deterministic, with_attention)`. `query` and
    `hashtags` are methods for `apply`. The collection "statistics" holds the `ChannelStatistics`
    (zeros and ones after `init`; the trainer sets them). Dropout draws from the rng "dropout".

    Attributes:
        num_hashtags: T.
        num_genders: number of genders, including "unknown".
        num_ages: number of age buckets, including "unknown".
        num_countries: number of countries, including "unknown".
        hidden_size: K.
        embedding_size: d.
        unit_length: scales query and hashtag vectors to length 1, so that scores lie in -1..1.
        bias: adds a learned number to the score of each hashtag. It is one more dimension of both
            vectors, D = d + 1, which is 1 in the query; `unit_length` and dropout leave it as it
            is. It is 0 after `init`; the trainer sets it.
        dropout: fraction of hidden units (region and user networks) and query entries to drop.
        history_dropout: fraction of a history's hashtags to drop.
        history_sampling: in training, a history has only the hashtags of a random part of the
            user's other clips (see `sampled_history`). Otherwise a model can learn the whole set of
            a user's hashtags and find a training clip's own ones as those that its history lacks;
            new clips have no such gap.
        dtype: type of activations; parameters, softmax, layer norm and scores are float32.
    """

    num_hashtags: int
    num_genders: int
    num_ages: int
    num_countries: int
    hidden_size: int = 32
    embedding_size: int = 32
    unit_length: bool = True
    bias: bool = False
    dropout: float = 0.0
    history_dropout: float = 0.0
    history_sampling: bool = False
    dtype: jnp.dtype = jnp.float32

    pool_features = None  # reduces a VideoInput to the features that the query uses; None: all

    def resized(self, num_hashtags):
        """Returns the same model for tables of `num_hashtags` rows."""
        return self.clone(num_hashtags=num_hashtags)

    def setup(self):
        """Creates the hashtag tower."""
        shape = (self.num_hashtags, self.hidden_size)
        self.hashtag_TK = self.param("hashtag_TK", _unit_rows, shape)  # W_T^1
        self.hashtag_out = nn.Dense(self.embedding_size, use_bias=False)  # W_T^2
        if self.bias:
            self.bias_T = self.param("bias_T", nn.initializers.zeros, shape[:1])

    def __call__(self, video, user, *, deterministic=True):
        """Returns scores_BT, float32; higher is better."""
        return score(self.query(video, user, deterministic=deterministic), self.hashtags())

    def hashtags(self):
        """Returns hashtags_TD, float32: W_T^2 W_T^1 t for every hashtag (equation 9), its bias."""
        hashtags_TD = self.hashtag_out(self.hashtag_TK)
        hashtags_TD = unit_length(hashtags_TD) if self.unit_length else hashtags_TD
        return jnp.column_stack([hashtags_TD, self.bias_T]) if self.bias else hashtags_TD

    def query(self, video, user, *, deterministic=True, with_attention=False):
        """Returns query_BD, float32.

        Args:
            video: VideoInput.
            user: UserInput.
            deterministic: False applies dropout, with the rng "dropout".
            with_attention: returns (query_BD, Attention) instead.
        """
        raise NotImplementedError

    def _statistics(self, video):
        """Returns the ChannelStatistics of the training split, which are not trained."""
        shape = (video.codes_VFMC.shape[-1],)
        mean = self.variable("statistics", "mean_C", jnp.zeros, shape)
        std = self.variable("statistics", "std_C", jnp.ones, shape)
        return ChannelStatistics(mean.value, std.value)

    @property
    def _user_sizes(self):
        """The first attributes of `UserEmbedding` and `UserSum`."""
        sizes = self.num_hashtags, self.num_genders, self.num_ages, self.num_countries
        return *sizes, self.hidden_size, self.history_dropout

    def _user(self, user, deterministic):
        """Returns user_BK."""
        embed = UserEmbedding(*self._user_sizes, self.dropout, self.dtype, name="user")
        return embed(user, deterministic=deterministic)

    def _shown(self, user, deterministic):
        """Returns the user with the history to use; in training a sample, if `history_sampling`."""
        if not self.history_sampling or deterministic:
            return user
        seen_BR = sampled_history(self.make_rng("dropout"), user.history_parts_BR)
        return user._replace(history_mask_BR=user.history_mask_BR & seen_BR)

    def _finish(self, query_BD, deterministic):
        """Returns the final query_BD: float32, after dropout, scaled if `unit_length`, the 1."""
        query_BD = query_BD.astype(jnp.float32)
        return self._scaled(nn.Dropout(self.dropout)(query_BD, deterministic=deterministic))

    def _scaled(self, query_BD):
        query_BD = unit_length(query_BD) if self.unit_length else query_BD
        return (
            jnp.column_stack([query_BD, jnp.ones_like(query_BD[:, :1])]) if self.bias else query_BD
        )
