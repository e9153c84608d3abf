"""How the systems of the study are trained; each changes a config in place."""

from collections.abc import Callable

from uhman_jax.config import Config, Decay, Estimator, RankWeight


def paper(config: Config, without: str = "") -> None:
    """Section 2.4 to the letter where it speaks; where it is silent, what trains at all.

    It says: margin 0.1, uniform negatives 4:1, a step against every violator, no rank weight, SGD
    0.1, divided by 10 when performance stops improving, K = d = 32. It is silent on batches: the
    hinges of a batch are summed over pairs and divided by its examples, so that a step is that of
    one example. Vectors are free, gradients are not clipped, every parameter has one rate.
    """
    config.loss.estimator = Estimator.SAMPLED
    config.loss.rank_weight = RankWeight.NONE
    config.model.unit_length = False
    config.train.learning_rate = 0.1
    config.train.user_rate = config.train.hashtag_rate = 1.0
    config.train.clip_norm = 0.0
    config.train.decay = Decay.PLATEAU
    config.train.num_epochs = 24


def warp(config: Config, without: str = "") -> None:
    """The paper's optimiser with exact WARP: SGD in steps, L(rank), vectors of unit length.

    The defaults of `uhman_jax.config`, at the paper's K = d = 32.
    """
    config.train.num_epochs = 16


def _size(config: Config) -> None:
    config.model.hidden_size = config.model.embedding_size = 128


def _margin(config: Config) -> None:
    config.loss.margin = 0.2


def _attention_rate(config: Config) -> None:
    config.train.attention_rate = 10.0


def _history_dropout(config: Config) -> None:
    config.model.history_dropout = 0.5


def _region_dropout(config: Config) -> None:
    config.model.region_dropout = 0.5


def _weight_decay(config: Config) -> None:
    config.train.weight_decay = 0.001


# What `plus` adds to `warp`; the study leaves out one at a time.
PLUS: dict[str, Callable[[Config], None]] = {
    "size": _size,
    "margin": _margin,
    "attention_rate": _attention_rate,
    "history_dropout": _history_dropout,
    "region_dropout": _region_dropout,
    "weight_decay": _weight_decay,
}


def plus(config: Config, without: str = "") -> None:
    """What reached the best validation score within the architecture (experiments/recipe)."""
    warp(config)
    for name, choose in PLUS.items():
        if name != without:
            choose(config)
    config.train.num_epochs = 12


RECIPES: dict[str, Callable[[Config, str], None]] = {"paper": paper, "warp": warp, "plus": plus}
