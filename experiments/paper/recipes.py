"""How the systems of the study are trained; each changes a config in place."""

from collections.abc import Callable
from typing import Any

from configs import plus
from uhman_jax.config import Config, Decay, Estimator, Loss, Optimiser, RankWeight


def paper(config: Config) -> None:
    """Section 2.4 to the letter where it speaks; where it is silent, what trains at all.

    It says: margin 0.1, uniform negatives 4:1, a step against every violator, no rank weight, SGD
    0.1, divided by 10 when performance stops improving, K = d = 32. It is silent on batches: the
    hinges of a batch are summed over pairs and divided by its examples, so that a step is that of
    one example. Vectors are free, gradients are not clipped, every parameter has one rate. And on
    how long performance may stand still: 24 epochs, since UHMAN's does for the first 20 or so, and
    with a rate that falls before that it never leaves popularity (in three of four worlds of
    *selection*, natural view, with 12).
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
    """The paper's optimiser with exact WARP: SGD in steps, L(rank), vectors of unit length.

    The defaults of `uhman_jax.config`, at the paper's K = d = 32, and more epochs: validation P@10
    of UHMAN over five worlds of *selection* was 0.170, 0.179, 0.180 after 16, 32 and 48.
    """
    config.train.num_epochs = 32


def with_value(path: str, value: Any) -> Callable[[Config], None]:
    """Sets one field of a config, by its path."""
    section, field = path.split(".")

    def change(config: Config) -> None:
        setattr(getattr(config, section), field, value)

    return change


RECIPES: dict[str, Callable[[Config], None]] = {"paper": paper, "warp": warp, "plus": plus.recipe}


def _as_in_warp(*paths: str) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        default = Config()
        for path in paths:
            section, field = path.split(".")
            setattr(getattr(config, section), field, getattr(getattr(default, section), field))

    return change


def _adamw(config: Config) -> None:
    config.train.optimiser, config.train.decay = Optimiser.ADAMW, Decay.COSINE
    config.train.learning_rate = 0.001
    config.train.user_rate = config.train.hashtag_rate = 1.0


# One change of `plus` at a time: a choice taken back, or another made. Weight decay is tuned.
VARIANTS: dict[str, Callable[[Config], None]] = {
    "without_width": _as_in_warp("model.hidden_size", "model.embedding_size"),
    "without_average": _as_in_warp("train.ema", "train.decay_at"),
    "without_region_dropout": _as_in_warp("model.region_dropout"),
    "with_history_dropout": with_value("model.history_dropout", 0.5),
    "with_wider_margin": with_value("loss.margin", 0.2),
    "with_attention_rate": with_value("train.attention_rate", 10.0),
    "with_one_head": with_value("model.num_heads", 1),
    "with_eight_heads": with_value("model.num_heads", 8),
    "with_softmax": with_value("loss.name", Loss.SOFTMAX),
    "with_adamw": _adamw,
}
