"""BL, the bilinear baseline without a user (paper, section 3.2).

    python -m uhman_jax.main --config=configs/bl.py

Clips, features and schedule are those of configs/natural.py.
"""

from configs import natural
from uhman_jax.config import Config, ModelName


def get_config() -> Config:
    """Returns configs/natural.py with another system."""
    config = natural.get_config()
    config.name = "bl"
    config.model.name = ModelName.BL
    return config
