"""UA, the user additive baseline (paper, section 3.2).

    python -m uhman_jax.main --config=configs/ua.py

It uses the clips, features and schedule of configs/natural.py. On its test split the mean of five
seeds is P@5 0.370 ± 0.009 and P@10 0.283 ± 0.002 (UHMAN: 0.463 and 0.314).
"""

from configs import natural
from uhman_jax.config import Config, ModelName


def get_config() -> Config:
    """Returns configs/natural.py with UA as the model."""
    config = natural.get_config()
    config.name = "ua"
    config.model.name = ModelName.UA
    config.model.direct_path = False
    return config
