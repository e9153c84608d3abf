"""UA, the user additive baseline (paper, section 3.2).

    python -m uhman_jax.main --config=configs/ua.py

It uses the clips, features and schedule of configs/natural.py.
"""

from configs import natural
from uhman_jax.config import Config, ModelName


def get_config() -> Config:
    """Returns configs/natural.py with UA as the model."""
    config = natural.get_config()
    config.name = "ua"
    config.model.name = ModelName.UA
    return config
