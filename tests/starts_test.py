"""Tests of other starts of the attention: only the first equals the model's own."""

from unittest import mock

import jax
import numpy as np
from model_inputs import make_inputs
from uhman_test import SIZES

from experiments.recipe import starts
from uhman_jax.models import uhman


def initial(name=None):
    """Returns the initial parameters of a model, flat."""
    attention = starts.attention_of(*starts.STARTS[name]) if name else uhman.MultiHead
    with mock.patch.object(uhman, "MultiHead", attention):
        init = jax.jit(uhman.UHMAN(**SIZES).init)
        return jax.tree.leaves_with_path(init(jax.random.key(0), *make_inputs())["params"])


def test_a_start_changes_only_the_parameters_that_it_names():
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
