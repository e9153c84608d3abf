"""Trains the package's systems on a split and returns their scores of clips."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from configs import gated_mean, natural, plus
from uhman_jax import train
from uhman_jax.config import Config, ModelName, flatten
from uhman_jax.config_checks import validate
from uhman_jax.input_pipeline import eval_batches, iterate
from uhman_jax.models.build import build_model
from uhman_jax.prepare import Prepared
from uhman_jax.run import run
from uhman_jax.runtime.errors import UserError
from uhman_jax.trained_run import open_run

_IGNORED = ("name", "data.root", "preprocess.weights")  # names and paths: a set has one of each


def _plus(name: ModelName) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        plus.recipe(config)
        config.model.name = name

    return change


def _uhman_a(config: Config) -> None:
    plus.recipe(config)
    config.model.region_attention = False


SYSTEMS: dict[str, Callable[[Config], None]] = {
    "natural": lambda config: None,
    "plus": plus.recipe,
    "bl": _plus(ModelName.BL),
    "ua": _plus(ModelName.UA),
    "3wm": _plus(ModelName.THREE_WAY),
    "uhman_a": _uhman_a,
    "gated_mean": gated_mean.recipe,
}


def config_of(system: str, data: Config, num_seeds: int) -> Config:
    """Returns the config of a system: that of configs/natural.py on the data, then changed.

    Args:
        system: key of `SYSTEMS`.
        data: its sections `data`, `preprocess` and `view` are used.
        num_seeds: models to train.
    """
    config = natural.get_config()
    config.name = f"real_tags_{system}"
    config.data, config.preprocess, config.view = data.data, data.preprocess, data.view
    SYSTEMS[system](config)
    config.train.num_seeds = num_seeds
    validate(config)
    return config


def changes(config: Config) -> dict[str, Any]:
    """Returns the settings that differ from the defaults, except names and paths."""
    default = flatten(Config())
    return {
        path: getattr(value, "value", value)
        for path, value in flatten(config).items()
        if value != default[path] and path not in _IGNORED and not path.startswith("simulator.")
    }


def fingerprint(config: Config) -> str:
    """Returns a hash of every setting that affects scores, eight hexadecimal digits."""
    text = json.dumps(changes(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def trained(config: Config, folder: pathlib.Path) -> pathlib.Path:
    """Trains a config, or continues it, and returns its run directory.

    The run also writes its scores on test into its directory; the bench reads none of them.

    Raises:
        UserError: a signal stopped the run, or the data or a setting is wrong.
    """
    workdir = folder / f"{config.name}-{fingerprint(config)}"
    if not run(config, workdir, log=lambda line: None, report=False):
        raise UserError(f"the run must end, got a signal; start again to continue {workdir}")
    return workdir


def scores(workdir: pathlib.Path, prepared: Prepared, rows: np.ndarray) -> np.ndarray:
    """Returns scores_SVT of a run's best parameters, seed by seed, for rows of the view."""
    opened = open_run(workdir)
    state = train.restore(opened.config, opened.view, workdir)
    assert state is not None  # because the run is finished
    model = build_model(opened.config.model, opened.view)

    @jax.jit
    def score(params_S: Any, batch: Any) -> jax.Array:
        def one_seed(params: Any) -> jax.Array:
            variables = {"params": params, "statistics": state.statistics}
            return model.apply(variables, batch.video, batch.user)  # type: ignore[bad-return]

        return jax.vmap(one_seed)(params_S)

    size = opened.config.evaluate.batch_size
    batches = iterate(eval_batches(opened.view, prepared.store, rows=rows, batch_size=size))
    parts = [np.asarray(score(state.kept, batch))[:, batch.mask_B] for batch in batches]
    return np.concatenate(parts, axis=1)


def ensemble(scores_SVT: np.ndarray) -> np.ndarray:
    """Returns the scores of all seeds together, (V, T): their mean."""
    return scores_SVT.mean(axis=0)
