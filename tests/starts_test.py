"""Other starts of the attention: the first is the model's own, the others are not."""

from unittest import mock

import jax
import numpy as np
from model_inputs import make_inputs
from model_test import SIZES

from experiments.recipe import starts
from uhman_jax import model


def initial(name=None):
    """Parameters of a fresh model, flat."""
    attention = starts.attention_of(*starts.STARTS[name]) if name else model.MultiHead
    with mock.patch.object(model, "MultiHead", attention):
        init = jax.jit(model.UHMAN(**SIZES).init)
        return jax.tree.leaves_with_path(init(jax.random.key(0), *make_inputs())["params"])


def test_a_start_changes_what_it_says_and_nothing_else():
    own = initial()
    changed = {
        name: {
            path[-1].key
            for (path, leaf), (_, other) in zip(own, initial(name), strict=True)
            if not np.array_equal(leaf, other)
        }
        for name in starts.STARTS
    }
    assert changed == {
        "as it is": set(),
        "queries at the usual scale": {"query_KHW"},
        "values at the usual scale": {"value_KHW"},
        "random values and outputs": {"value_KHW", "output_HWK"},
        "all as usual": {"query_KHW", "value_KHW", "output_HWK"},
    }
