"""Adds the scores of two models, as one pair of towers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from uhman_jax.models.layers import TwoTowers, score

PATHS = ("network", "direct")  # names of the attributes and of their collections


def num_channels(variables):
    """Returns C, the number of channels of the features, of the variables of any model.

    >>> constants = {"mean_C": jnp.zeros(7), "std_C": jnp.ones(7)}
    >>> num_channels({"statistics": constants})
    7
    >>> num_channels({"statistics": {"network": constants, "direct": constants}})
    7
    """
    return len(jax.tree.leaves(variables["statistics"])[0])


class TwoPaths(nn.Module):
    """A trained network and a trained direct path: score = w_1 * network + w_2 * direct.

    Each vector is the concatenation of both models' vectors, the query's parts times w_1 and w_2,
    so D is the sum of their sizes. The two weights are the parameter `weight_P`, in the order of
    `PATHS`; see `evaluate.path_weights`. It is not trained.

    Attributes:
        network: model whose attention is shown.
        direct: model without attention.
    """

    network: TwoTowers
    direct: TwoTowers

    pool_features = None

    @property
    def num_hashtags(self):
        """T."""
        return self.network.num_hashtags

    @property
    def hidden_size(self):
        """K of the network."""
        return self.network.hidden_size

    def resized(self, num_hashtags):
        """Returns the same models for tables of `num_hashtags` rows."""
        return TwoPaths(self.network.resized(num_hashtags), self.direct.resized(num_hashtags))

    def alone(self, params, name):
        """Returns the parameters with weight 1 for one path and 0 for the other."""
        weight_P = jnp.array([float(name == path) for path in PATHS])
        return params | {"weight_P": jnp.broadcast_to(weight_P, params["weight_P"].shape)}

    def __call__(self, video, user):
        """Returns scores_BT, float32; higher is better."""
        return score(self.query(video, user), self.hashtags())

    def hashtags(self):
        """Returns hashtags_TD, float32."""
        return jnp.concatenate([self.network.hashtags(), self.direct.hashtags()], axis=1)

    @nn.compact
    def query(self, video, user, *, with_attention=False, seen_BFM=None):
        """Returns query_BD, float32, or (query_BD, Attention of the network).

        Args:
            video: VideoInput.
            user: UserInput.
            with_attention: also returns the attention.
            seen_BFM: bool, False hides a region from both models; None hides none.
        """
        weight_P = self.param("weight_P", nn.initializers.ones, (len(PATHS),))
        how = {} if seen_BFM is None else {"seen_BFM": seen_BFM}
        network_BD, attention = self.network.query(video, user, with_attention=True, **how)
        direct_BD = self.direct.query(video, user, **how)
        parts = weight_P[0] * network_BD, weight_P[1] * direct_BD
        query_BD = jnp.concatenate(parts, axis=1)
        return (query_BD, attention) if with_attention else query_BD
