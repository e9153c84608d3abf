"""A choice that no code handles is refused; it never silently means another one."""

import dataclasses
import enum

import jax
import numpy as np
import pytest
import views

from uhman_jax import config as config_lib
from uhman_jax.backbone import INCEPTION_V3
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
from uhman_jax.dataset.view import build_view
from uhman_jax.losses import make_loss
from uhman_jax.models.build import build_model
from uhman_jax.preprocess import ledger, shard_builder
from uhman_jax.shards import quantize
from uhman_jax.simulator import simulate
from uhman_jax.train import device_dataset, state, step


class New(enum.Enum):
    """A choice that somebody added to an enum of `config` and nowhere else."""

    ADDED = "added"


def changed(settings, field):
    return dataclasses.replace(settings, **{field: New.ADDED})


def loss(world, root, field):
    made = make_loss(**to_dict(changed(LossConfig(), field)), num_hashtags=3)
    query_BD, hashtags_TD, positives_BP = np.ones((2, 5)), np.ones((3, 5)), np.zeros((2, 1), int)
    return made.per_example(query_BD, hashtags_TD, positives_BP, positives_BP == 0, None)


def model(world, root, field):
    return build_model(changed(ModelConfig(), field), world[0])


def view(world, root, field):
    views.build(*views.random_world(0), **{field: New.ADDED})


def simulated(world, root, field):
    simulate(root / "new", changed(SimulatorConfig(num_videos=3), field))


def copies(world, root, field):
    videos, users = views.random_world(0)
    ids = [video.video_id for video in videos]
    build_view(views.make_raw(videos, users), ids, ViewConfig(), contents={}, duplicates=New.ADDED)


def network(world, root, field):
    from uhman_jax.preprocess import extractor  # imports TensorFlow

    extractor._network(INCEPTION_V3, New.ADDED)


FEATURES = np.ones((1, 2, 3), np.float32)
REFUSED = {
    **dict.fromkeys(("loss.name", "loss.estimator", "loss.rank_weight"), loss),
    **dict.fromkeys(("model.name", "model.precision"), model),
    **dict.fromkeys(("view.split", "view.distribution"), view),
    **dict.fromkeys(("simulator.world", "simulator.door"), simulated),
    "train.optimiser": lambda world, root, field: state.optimiser(changed(TrainConfig(), field)),
    "train.decay": lambda world, root, field: step.learning_rate(changed(TrainConfig(), field), 10),
    "train.features": lambda world, *_: device_dataset.fits_on_device(
        world[1], world[0].rows(0), New.ADDED
    ),
    "preprocess.storage": lambda *_: quantize.pack(FEATURES, New.ADDED.value),
    "preprocess.backbone": lambda *_: ledger.settings(PreprocessConfig(backbone=New.ADDED)),
    "preprocess.backend": lambda *_: shard_builder.extractor_class(New.ADDED),
    "preprocess.precision": network,
    "data.duplicates": copies,
}


@pytest.mark.parametrize("path", REFUSED)
def test_an_unhandled_choice_is_refused(path, world, tmp_path):
    with pytest.raises(
        (AssertionError, KeyError, TypeError, ValueError), match="(?i)added|be one of"
    ):
        REFUSED[path](world, tmp_path, path.split(".")[1])


def test_every_choice_is_listed_here():
    choices = {
        path
        for path, default in config_lib.flatten(Config()).items()
        if isinstance(default, enum.Enum)
    }
    assert choices == set(REFUSED)


@pytest.mark.parametrize("name", config_lib.Loss)
@pytest.mark.parametrize("estimator", config_lib.Estimator)
def test_every_loss_can_be_made(name, estimator):
    made = make_loss(**to_dict(LossConfig(name=name, estimator=estimator)), num_hashtags=3)
    vectors, positives_BP = np.ones((3, 5)), np.zeros((3, 1), np.int32)
    negatives_BPN = np.ones((3, 1, 4), np.int32) if made.num_negatives else None
    loss_B = jax.eval_shape(
        made.per_example, vectors, vectors, positives_BP, positives_BP == 0, negatives_BPN
    )
    assert loss_B.shape == (3,)
