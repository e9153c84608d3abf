"""UHMAN with the recipe `plus`: the best on validation within the paper's architecture.

    python -m uhman_jax.main --config=configs/plus.py

For thousands of clips, where the defaults (the paper's K = d = 32) are too small. Without
--config.data.root=FOLDER it trains on the dataset of configs/worlds.py. The study measured a test
P@10 of 0.217 on such data (popularity 0.048, observable oracle 0.269) and the value of each choice:
experiments/paper/README.md.
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
    """Sets wide layers, strong region dropout, a constant rate and averaged parameters."""
    config.model.hidden_size = config.model.embedding_size = 128
    config.model.region_dropout = 0.8
    config.train.weight_decay = 0.001
    config.train.decay_at, config.train.ema = (), 0.998
    config.train.num_epochs = 20
