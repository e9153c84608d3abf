"""Tests of other starts of the attention: only the first equals the model's own."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from model_inputs import make_inputs, sizes_of

from experiments.recipe import starts
from uhman_jax.models import uhman

CHANGED = {
    "as it is": set(),
    "queries at the usual scale": {"query_KHW"},
    "values at the usual scale": {"value_KHW"},
    "random values and outputs": {"value_KHW", "output_HWK"},
    "all as usual": {"query_KHW", "value_KHW", "output_HWK"},
}


def initial(attention):
    module = attention(hidden_size=12, num_heads=2, dtype=jnp.float32)
    return module.init(jax.random.key(0), jnp.ones((3, 12)), method="fold")["params"]


def test_a_start_changes_only_the_parameters_that_it_names():
    own = initial(uhman.MultiHead)
    for name, start in starts.STARTS.items():
        other = initial(starts.attention_of(*start))
        assert own.keys() == other.keys()
        changed = {key for key in own if not np.array_equal(own[key], other[key])}
        assert changed == CHANGED[name], name


def test_the_model_uses_the_attention_that_takes_the_place_of_its_own():
    with mock.patch.object(uhman, "MultiHead", wraps=uhman.MultiHead) as attention:
        model = uhman.UHMAN(**sizes_of(uhman.UHMAN))
        jax.eval_shape(model.init, jax.random.key(0), *make_inputs())
    assert attention.call_count >= 2, "regions and frames"
