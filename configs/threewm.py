"""3WM, the three-way multiplicative baseline (paper, section 3.2).

    python -m uhman_jax.main --config=configs/threewm.py

It uses the clips, features and schedule of configs/natural.py.
"""

from configs import natural
from uhman_jax.config import Config, ModelName


def get_config() -> Config:
    """Returns configs/natural.py with 3WM as the model."""
    config = natural.get_config()
    config.name = "threewm"
    config.model.name = ModelName.THREE_WAY
    return config
