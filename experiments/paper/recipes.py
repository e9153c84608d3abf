"""Defines the recipes of the study: functions that set the training settings of a config."""

from collections.abc import Callable, Mapping
from typing import Any

from configs import plus
from uhman_jax.config import Config, Decay, Estimator, Loss, Optimiser, RankWeight, flatten


def set_values(config: Config, values: Mapping[str, Any]) -> None:
    """Sets fields of a config by their paths, such as `train.learning_rate`."""
    for path, value in values.items():
        section, field = path.split(".")
        setattr(getattr(config, section), field, value)


def paper(config: Config) -> None:
    """Sets section 2.4 of the paper exactly, and workable settings where it is silent.

    The paper says: margin 0.1, uniform negatives 4:1, a step for every violator, no rank weight,
    SGD at rate 0.1, divided by 10 when performance stops improving, K = d = 32. Where it is silent,
    hinges are summed over the pairs of an example and averaged over the batch; vectors are not
    normalised, gradients are not clipped, and all parameters have the same rate. The patience is 24
    epochs, because UHMAN does not improve for the first 20 or so. If the rate falls earlier, UHMAN
    never exceeds popularity (with a patience of 12 on three of four datasets of *selection*,
    natural view).
    """
    config.loss.estimator = Estimator.SAMPLED
    config.loss.rank_weight = RankWeight.NONE
    config.model.unit_length = False
    config.train.learning_rate = 0.1
    config.train.user_rate = config.train.hashtag_rate = 1.0
    config.train.clip_norm = 0.0
    config.train.decay, config.train.patience = Decay.PLATEAU, 24
    config.train.num_epochs = 48


def warp(config: Config) -> None:
    """Sets the paper's optimiser with exact WARP: SGD, step decay, L(rank), unit vectors.

    These are the defaults of `uhman_jax.config` at the paper's K = d = 32, with more epochs. After
    16, 32 and 48, UHMAN's validation P@10 on five datasets of *selection* was 0.170, 0.179, 0.180.
    """
    config.train.num_epochs = 32


RECIPES: dict[str, Callable[[Config], None]] = {"paper": paper, "warp": warp, "plus": plus.recipe}


def _defaults(*paths: str) -> dict[str, Any]:
    defaults = flatten(Config())
    return {path: defaults[path] for path in paths}


# Changes of `plus`, one per variant; weight decay has none, because it is tuned.
VARIANTS: dict[str, dict[str, Any]] = {
    "without_width": _defaults("model.hidden_size", "model.embedding_size"),
    "without_average": _defaults("train.ema", "train.decay_at"),
    "without_region_dropout": _defaults("model.region_dropout"),
    "with_history_dropout": {"model.history_dropout": 0.5},
    "with_wider_margin": {"loss.margin": 0.2},
    "with_attention_rate": {"train.attention_rate": 10.0},
    "with_one_head": {"model.num_heads": 1},
    "with_eight_heads": {"model.num_heads": 8},
    "with_softmax": {"loss.name": Loss.SOFTMAX},
    "with_adamw": {
        "train.optimiser": Optimiser.ADAMW,
        "train.decay": Decay.COSINE,
        "train.learning_rate": 0.001,
        "train.user_rate": 1.0,
        "train.hashtag_rate": 1.0,
    },
}
