"""BL, the bilinear baseline, which ignores the user (paper, section 3.2).

    python -m uhman_jax.main --config=configs/bl.py

It uses the clips, features and schedule of configs/natural.py.
"""

from configs import natural
from uhman_jax.config import Config, ModelName


def get_config() -> Config:
    """Returns configs/natural.py with BL as the model."""
    config = natural.get_config()
    config.name = "bl"
    config.model.name = ModelName.BL
    return config
