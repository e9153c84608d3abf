"""UHMAN(a): the mean over regions instead of region attention (paper, section 3.4).

    python -m uhman_jax.main --config=configs/uhman_a.py

It uses the clips, features and schedule of configs/natural.py.
"""

from configs import natural
from uhman_jax.config import Config


def get_config() -> Config:
    """Returns configs/natural.py without attention to regions."""
    config = natural.get_config()
    config.name = "uhman_a"
    config.model.region_attention = False
    return config
