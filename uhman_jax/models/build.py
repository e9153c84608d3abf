"""Builds the model of a config."""

import dataclasses

import jax.numpy as jnp

from uhman_jax.models.baselines import BASELINES
from uhman_jax.models.uhman import UHMAN

SYSTEMS = {"uhman": UHMAN} | BASELINES


def build_model(config, view):
    """Returns the model of a config, sized for a view's hashtags and attributes.

    A model gets only the settings that are fields of its class.

    Args:
        config: a `config.ModelConfig`.
        view: a `dataset.view.View`, for its numbers of hashtags and attribute values.

    Raises:
        ValueError: no system has this name.
    """
    settings = dict(vars(config))
    name, precision = settings.pop("name").value, settings.pop("precision").value
    if name not in SYSTEMS:
        raise ValueError(
            f"model.name must be one of {' '.join(SYSTEMS)}, got {name!r}; add the system to "
            "models.baselines.BASELINES"
        )
    fields = {field.name for field in dataclasses.fields(SYSTEMS[name])}
    return SYSTEMS[name](
        num_hashtags=len(view.hashtags),
        num_genders=len(view.genders),
        num_ages=len(view.ages),
        num_countries=len(view.countries),
        dtype=jnp.dtype(precision),
        **{field: value for field, value in settings.items() if field in fields},
    )
