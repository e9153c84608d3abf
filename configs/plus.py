"""UHMAN with the recipe `plus`, the best one with WARP and the paper's architecture.

    python -m uhman_jax.main --config=configs/plus.py

It is for the study of the paper (experiments/paper), where every system is trained with the same
loss. For your own clips use configs/natural.py. Without --config.data.root=FOLDER it trains on the
dataset of configs/worlds.py. On such data it has a test P@10 of 0.217 (popularity 0.048, observable
oracle 0.269). experiments/paper/README.md has these scores and the effect of each choice.
"""

from configs import worlds
from uhman_jax.config import Config


def get_config() -> Config:
    """Returns configs/worlds.py with this recipe."""
    config = worlds.get_config()
    config.name = "plus"
    recipe(config)
    return config


def recipe(config: Config) -> None:
    """Sets wide layers, strong region dropout, a constant learning rate and a moving average."""
    config.model.hidden_size = config.model.embedding_size = 128
    config.model.region_dropout = 0.8
    config.train.weight_decay = 0.001
    config.train.decay_at, config.train.ema = (), 0.998
    config.train.num_epochs = 20
