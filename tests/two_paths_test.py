"""`TwoPaths`: the scores of two models as one pair of towers."""

import jax
import jax.numpy as jnp
import model_inputs
import numpy as np
import pytest

from uhman_jax.kernels.video_input import ChannelStatistics
from uhman_jax.models.baselines import GatedMean, mean_features
from uhman_jax.models.two_paths import PATHS, TwoPaths
from uhman_jax.models.uhman import UHMAN


@pytest.fixture(scope="module")
def both():
    """Both models, and their variables with the weights 2 and 3."""
    network, direct = model_inputs.make_model(UHMAN), model_inputs.make_model(GatedMean, bias=True)
    parts = dict(zip(PATHS, (network, direct), strict=True))
    variables = {
        "params": {name: found["params"] for name, (_, found) in parts.items()},
        "statistics": {name: found["statistics"] for name, (_, found) in parts.items()},
    }
    variables["params"]["weight_P"] = jnp.array([2.0, 3.0])
    return TwoPaths(network[0], direct[0]), variables, parts


def test_the_score_is_the_weighted_sum_of_both_models_scores(both):
    model, variables, parts = both
    inputs = model_inputs.make_inputs()
    scores = {name: one.apply(found, *inputs) for name, (one, found) in parts.items()}
    expected = 2 * scores["network"] + 3 * scores["direct"]
    np.testing.assert_allclose(model.apply(variables, *inputs), expected, rtol=1e-4, atol=1e-4)
    for name in PATHS:
        alone = variables | {"params": model.alone(variables["params"], name)}
        found = model.apply(alone, *inputs)
        np.testing.assert_allclose(found, scores[name], rtol=1e-4, atol=1e-4)


def test_the_attention_is_that_of_the_network(both):
    model, variables, parts = both
    inputs, how = model_inputs.make_inputs(), {"with_attention": True, "method": "query"}
    _, found = model.apply(variables, *inputs, **how)
    network, own = parts["network"]
    jax.tree.map(np.testing.assert_array_equal, found, network.apply(own, *inputs, **how)[1])


def test_a_hidden_region_has_no_effect_on_the_mean(both):
    video, _ = model_inputs.make_inputs()
    seen_BFM = np.random.default_rng(0).random(video.codes_BFMC.shape[:3]) < 0.5
    statistics = both[2]["direct"][1]["statistics"]
    statistics = ChannelStatistics(**statistics)
    changed = np.where(seen_BFM[..., None], video.codes_BFMC, 0)
    one, other = (
        mean_features(video.with_codes(jnp.asarray(codes)), statistics, seen_BFM)
        for codes in (video.codes_BFMC, changed)
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)
    assert not np.allclose(one, mean_features(video, statistics))
    everything = mean_features(video, statistics, np.ones_like(seen_BFM))
    np.testing.assert_allclose(everything, mean_features(video, statistics), rtol=1e-5, atol=1e-5)
