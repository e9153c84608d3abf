import types

import jax.numpy as jnp
import pytest
from model_inputs import AGES, COUNTRIES, GENDERS, SIZES, D, T

from uhman_jax.config import ModelConfig, ModelName, Precision
from uhman_jax.models.baselines import Bilinear, GatedMean, ThreeWay, UserAdditive
from uhman_jax.models.build import build_model
from uhman_jax.models.uhman import UHMAN


@pytest.mark.parametrize("name", ModelName)
def test_a_config_names_the_system_and_its_settings(name):
    view = types.SimpleNamespace(
        hashtags="h" * T, genders="g" * GENDERS, ages="a" * AGES, countries="c" * COUNTRIES
    )
    options = dict(hidden_size=12, embedding_size=D, unit_length=False, bias=True)
    options |= dict(dropout=0.1, history_dropout=0.2, history_sampling=True)
    own = dict(num_heads=3, region_attention=False, frame_attention=False)
    own |= dict(user_guidance=False, region_dropout=0.3)
    config = ModelConfig(name=name, precision=Precision.BFLOAT16, **options | own)
    assert vars(config).keys() == options.keys() | own.keys() | {"name", "precision", "direct_path"}
    model = build_model(config, view)
    systems = UHMAN, Bilinear, UserAdditive, ThreeWay, GatedMean
    assert type(model) is dict(zip(ModelName, systems, strict=True))[name]
    expected = SIZES | options | (own if name is ModelName.UHMAN else {}) | {"dtype": jnp.bfloat16}
    assert {field: getattr(model, field) for field in expected} == expected
