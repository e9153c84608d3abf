"""UHMAN(a): the mean over regions instead of region attention (paper, section 3.4).

    python -m uhman_jax.main --config=configs/uhman_a.py

It uses the clips, features and schedule of configs/natural.py. On its test split the mean of five
seeds is P@5 0.453 ± 0.008 and P@10 0.312 ± 0.002 (UHMAN: 0.463 and 0.314).
"""

from configs import natural
from uhman_jax.config import Config


def get_config() -> Config:
    """Returns configs/natural.py without attention to regions."""
    config = natural.get_config()
    config.name = "uhman_a"
    config.model.region_attention = False
    config.model.direct_path = False
    return config
