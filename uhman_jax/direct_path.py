"""The direct path: a small model without attention that is trained beside the network.

With `model.direct_path` a run trains two models one after the other: the network of its config, and
`GatedMean` on the mean feature of each clip, which takes a minute. `evaluate.path_weights` then
chooses on validation clips how much each counts. The direct path needs thousands of clips to be
good by itself; where it is worse, its weight is small or 0.
"""

import copy
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from uhman_jax.config import (
    Config,
    Loss,
    LossConfig,
    ModelConfig,
    ModelName,
    Optimiser,
    TrainConfig,
)
from uhman_jax.dataset.view import VALIDATION, View
from uhman_jax.evaluate.path_weights import MAX_CLIPS, fit_weights
from uhman_jax.input_pipeline import eval_batches, iterate
from uhman_jax.models.build import build_model
from uhman_jax.models.two_paths import PATHS, TwoPaths
from uhman_jax.runtime.errors import count_of
from uhman_jax.shards.store import FrameStore
from uhman_jax.train import State, restore, train

PATH_WEIGHTS = "path_weights"  # key of metrics.json
FOLDER = "direct"  # of the direct path's checkpoints and log, in the run directory
_LEAST_BATCH = 64


class TrainedModel(NamedTuple):
    """A model of a run with the best parameters of all seeds.

    Attributes:
        module: query tower and hashtag tower.
        params: parameters, with a leading axis S.
        statistics: the module's constants.
    """

    module: nn.Module
    params: Any
    statistics: Any


def has_direct_path(config: Config, view: View) -> bool:
    """Returns whether a run trains a direct path: it needs validation clips for the weights."""
    return config.model.direct_path and len(view.rows(VALIDATION)) > 0


def direct_config(config: Config) -> Config:
    """Returns the config with which the direct path of a run is trained.

    The recipe was chosen on validation clips (experiments/real_tags). The loss samples hashtags if
    that of the run does.
    """
    config, run = copy.deepcopy(config), config
    config.model = ModelConfig(
        name=ModelName.GATED_MEAN,
        hidden_size=256,
        embedding_size=128,
        unit_length=False,
        bias=True,
        dropout=0.3,
        history_sampling=True,
        precision=run.model.precision,
    )
    config.loss = LossConfig(Loss.LOGISTIC, temperature=1.0, estimator=run.loss.estimator)
    config.train = TrainConfig(
        num_seeds=run.train.num_seeds,
        batch_size=run.train.batch_size * -(-_LEAST_BATCH // run.train.batch_size),
        features=run.train.features,
        num_epochs=40,
        optimiser=Optimiser.ADAMW,
        learning_rate=0.002,
        user_rate=1.0,
        hashtag_rate=1.0,
        weight_decay=0.3,
        clip_norm=0.0,
        decay_at=(),
        stop_after=8,
    )
    config.evaluate.select_by = "NDCG@10"
    return config


class Paths(NamedTuple):
    """The final training states of a run.

    Attributes:
        config: of the run.
        view: hashtags and attributes.
        network: state of the network.
        direct: state of the direct path; None if the run has none.
    """

    config: Config
    view: View
    network: State
    direct: State | None

    def model(self, weights: Mapping[str, float] | None = None) -> TrainedModel:
        """Returns the model; `weights` are those of the paths, by default 1."""
        module = build_model(self.config.model, self.view)
        if self.direct is None:
            return TrainedModel(module, self.network.kept, self.network.statistics)
        states = dict(zip(PATHS, (self.network, self.direct), strict=True))
        params: dict[str, Any] = {name: state.kept for name, state in states.items()}
        weight_P = [1.0 if weights is None else weights[name] for name in PATHS]
        num_seeds = len(self.network.best_step_S)
        params["weight_P"] = jnp.tile(jnp.array(weight_P, jnp.float32), (num_seeds, 1))
        return TrainedModel(
            TwoPaths(module, build_model(direct_config(self.config).model, self.view)),
            params,
            {name: state.statistics for name, state in states.items()},
        )


def train_paths(config: Config, view: View, *inputs: Any, **options: Any) -> Paths:
    """Trains the network, then the direct path if `has_direct_path`; see `train.train`.

    The direct path has its own checkpoints and log in the folder `direct` of the run directory.
    """
    store, statistics, workdir = inputs
    network = train(config, view, *inputs, **options)
    if not has_direct_path(config, view):
        return Paths(config, view, network, None)
    inputs = store, statistics, workdir / FOLDER
    direct = train(direct_config(config), view, *inputs, title="Direct path", **options)
    return Paths(config, view, network, direct)


def restore_paths(config: Config, view: View, workdir: pathlib.Path) -> Paths | None:
    """Returns the newest states of a run directory; None without one of the network.

    Raises:
        UserError: all checkpoints of a path are damaged, or the storage cannot be read.
    """
    network = restore(config, view, workdir)
    if network is None:
        return None
    direct = None
    if has_direct_path(config, view):
        direct = restore(direct_config(config), view, workdir / FOLDER)
    return Paths(config, view, network, direct)


def choose_weights(
    paths: Paths, store: FrameStore, log: Callable[[str], object] = print
) -> dict[str, float]:
    """Returns the weights of the paths that fit the validation clips best."""
    rows_V = paths.view.rows(VALIDATION)[:MAX_CLIPS]
    size = paths.config.evaluate.batch_size
    batches = iterate(eval_batches(paths.view, store, rows=rows_V, batch_size=size))
    module, params, statistics = paths.model()
    assert isinstance(module, TwoPaths)  # because there is a direct path
    weight_P, share_P = fit_weights(module, params, statistics, batches)
    log(
        f"The network has {share_P[0]:.0%} of the score and the direct path {share_P[1]:.0%} "
        f"(chosen on {count_of(len(rows_V), 'validation clip')})."
    )
    return dict(zip(PATHS, map(float, weight_P), strict=True))
