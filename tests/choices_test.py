"""A setting whose value nobody handles is refused; it never means the last choice in silence."""

import dataclasses
import enum

import jax
import numpy as np
import pytest
import views

from uhman_jax import config as config_lib
from uhman_jax.config import (
    Config,
    LossConfig,
    ModelConfig,
    PreprocessConfig,
    SimulatorConfig,
    TrainConfig,
    ViewConfig,
    to_dict,
)
from uhman_jax.dataset.simulator import simulate
from uhman_jax.dataset.view import build_view
from uhman_jax.losses import make_loss
from uhman_jax.preprocess import ledger, making
from uhman_jax.preprocess.backbone import INCEPTION_V3
from uhman_jax.shards import quantize
from uhman_jax.train import on_device, state, step


class New(enum.Enum):
    """A choice that somebody added to an enum of `config` and nowhere else."""

    ADDED = "added"


def loss(field):
    settings = dataclasses.replace(LossConfig(), **{field: New.ADDED})
    made = make_loss(**to_dict(settings), num_hashtags=3)
    query_BD, hashtags_TD, positives_BP = np.ones((2, 5)), np.ones((3, 5)), np.zeros((2, 1), int)
    return made.per_example(query_BD, hashtags_TD, positives_BP, positives_BP == 0, None)


def train_setting(function, field):
    return function(dataclasses.replace(TrainConfig(), **{field: New.ADDED}))


def model(view, field):
    return state.build_model(dataclasses.replace(ModelConfig(), **{field: New.ADDED}), view)


def simulated(root, field):
    simulate(root / "new", dataclasses.replace(SimulatorConfig(num_videos=3), **{field: New.ADDED}))


def features(world):
    view, store, *_ = world
    return on_device.wanted(view, store, view.rows(0), New.ADDED)


def network():
    from uhman_jax.preprocess import extractor  # imports TensorFlow

    extractor._network(INCEPTION_V3, New.ADDED)


def view(field):
    views.build(*views.random_world(0), **{field: New.ADDED})


def view_of_copies():
    videos, users = views.random_world(0)
    ids = [video.video_id for video in videos]
    build_view(views.make_raw(videos, users), ids, ViewConfig(), contents={}, duplicates=New.ADDED)


REFUSED = {
    "loss.name": lambda world, root: loss("name"),
    "loss.estimator": lambda world, root: loss("estimator"),
    "loss.rank_weight": lambda world, root: loss("rank_weight"),
    "model.name": lambda world, root: model(world[0], "name"),
    "model.precision": lambda world, root: model(world[0], "precision"),
    "train.optimiser": lambda world, root: train_setting(state.optimiser, "optimiser"),
    "train.decay": lambda world, root: train_setting(
        lambda config: step.learning_rate(config, 10), "decay"
    ),
    "train.features": lambda world, root: features(world),
    "preprocess.storage": lambda world, root: quantize.pack(
        np.ones((1, 2, 3), np.float32), New.ADDED.value
    ),
    "preprocess.backbone": lambda world, root: ledger.settings(
        PreprocessConfig(backbone=New.ADDED)
    ),
    "preprocess.backend": lambda world, root: making.extractor_class(New.ADDED),
    "preprocess.precision": lambda world, root: network(),
    "view.split": lambda world, root: view("split"),
    "view.distribution": lambda world, root: view("distribution"),
    "data.duplicates": lambda world, root: view_of_copies(),
    "simulator.world": lambda world, root: simulated(root, "world"),
    "simulator.door": lambda world, root: simulated(root, "door"),
}


@pytest.mark.parametrize("field", REFUSED)
def test_a_value_that_nobody_handles_is_refused(field, world, tmp_path):
    with pytest.raises((AssertionError, KeyError, ValueError), match="(?i)added|be one of"):
        REFUSED[field](world, tmp_path)


def test_every_choice_is_listed_here():
    choices = {
        path
        for path, default in config_lib.flatten(Config()).items()
        if isinstance(default, enum.Enum)
    }
    assert choices == set(REFUSED)


def test_every_loss_can_be_made(world):
    for name in config_lib.Loss:
        for estimator in config_lib.Estimator:
            settings = dataclasses.replace(LossConfig(), name=name, estimator=estimator)
            made = make_loss(**to_dict(settings), num_hashtags=3)
            key = jax.random.key(0)
            query_BD, hashtags_TD = jax.random.normal(key, (2, 5)), jax.random.normal(key, (3, 5))
            positives_BP = np.zeros((2, 1), np.int32)
            negatives_BPN = np.ones((2, 1, made.num_negatives), np.int32)
            losses_B = made.per_example(
                query_BD,
                hashtags_TD,
                positives_BP,
                np.ones((2, 1), bool),
                negatives_BPN if made.num_negatives else None,
            )
            assert losses_B.shape == (2,) and bool((losses_B >= 0).all()), (name, estimator)
