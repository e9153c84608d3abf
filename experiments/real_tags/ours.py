"""Trains the package's systems on a split and returns their scores of clips."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from configs import natural, plus
from experiments.real_tags.clips import Places
from uhman_jax.config import Config, ModelName, flatten
from uhman_jax.config_checks import validate
from uhman_jax.evaluate.attention import attention_facts, make_observer, observe
from uhman_jax.input_pipeline import eval_batches, iterate
from uhman_jax.models.two_paths import PATHS, TwoPaths
from uhman_jax.prepare import Prepared
from uhman_jax.run import run
from uhman_jax.runtime.errors import UserError
from uhman_jax.trained_run import open_run

_IGNORED = ("name", "data.root", "preprocess.weights")  # names and paths: a set has one of each


def _network(**model: Any) -> Callable[[Config], None]:
    """Returns the recipe without its direct path, with other settings of the model."""

    def change(config: Config) -> None:
        natural.recipe(config)
        vars(config.model).update(model, direct_path=False)

    return change


def _without_attention(config: Config) -> None:
    natural.recipe(config)
    config.model.region_attention = config.model.frame_attention = False


SYSTEMS: dict[str, Callable[[Config], None]] = {
    "natural": natural.recipe,
    "natural_without_attention": _without_attention,
    "uhman_a": _network(region_attention=False),
    "uhman_b": _network(frame_attention=False),
    "uhman_c": _network(user_guidance=False),
    "bl": _network(name=ModelName.BL),
    "ua": _network(name=ModelName.UA),
    "3wm": _network(name=ModelName.THREE_WAY),
    "plus": plus.recipe,
}


def config_of(system: str, data: Config, num_seeds: int) -> Config:
    """Returns the config of a system.

    Args:
        system: key of `SYSTEMS`.
        data: its sections `data`, `preprocess` and `view` are used.
        num_seeds: models to train.
    """
    config = Config(name=f"real_tags_{system}")
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


def parts_of(system: str, config: Config) -> list[str]:
    """Returns the names of a system and of its paths, if it has two."""
    return [system, *(f"{system}_{path}" for path in PATHS if config.model.direct_path)]


def scores(
    system: str, workdir: pathlib.Path, prepared: Prepared, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns scores_SVT of a run's best parameters, for rows of the view, by `parts_of`."""
    opened = open_run(workdir)
    model, params, statistics = opened.models()
    settings = {system: params}
    if isinstance(model, TwoPaths):
        settings |= {f"{system}_{path}": model.alone(params, path) for path in PATHS}

    @jax.jit
    def score(params_S: Any, batch: Any) -> jax.Array:
        def one_seed(params: Any) -> jax.Array:
            variables = {"params": params, "statistics": statistics}
            return model.apply(variables, batch.video, batch.user)  # type: ignore[bad-return]

        return jax.vmap(one_seed)(params_S)

    size = opened.config.evaluate.batch_size
    batches = iterate(eval_batches(opened.view, prepared.store, rows=rows, batch_size=size))
    found: dict[str, list[np.ndarray]] = {name: [] for name in settings}
    for batch in batches:
        for name, params in settings.items():
            found[name].append(np.asarray(score(params, batch))[:, batch.mask_B])
    return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}


def attention(
    workdir: pathlib.Path, prepared: Prepared, rows: np.ndarray, places: Places
) -> dict[str, float]:
    """Returns `attention_facts` of a run's models on composites: the means over its seeds."""
    opened = open_run(workdir)
    model, params, statistics = opened.models()
    view, store, size = opened.view, prepared.store, opened.config.evaluate.batch_size
    observer = functools.partial(make_observer(model), params, statistics)
    batches = iterate(eval_batches(view, store, rows=rows, batch_size=size))
    facts = attention_facts(observe(observer, batches, view, store), places)
    return {name: round(float(np.mean(value_S)), 4) for name, value_S in facts.items()}


def ensemble(scores_SVT: np.ndarray) -> np.ndarray:
    """Returns the scores of all seeds together, (V, T): their mean."""
    return scores_SVT.mean(axis=0)
