"""3WM, the three-way multiplicative baseline (paper, section 3.2).

    python -m uhman_jax.main --config=configs/threewm.py

It uses the clips, features and schedule of configs/natural.py. On its test split the mean of five
seeds is P@5 0.374 ± 0.011 and P@10 0.291 ± 0.002 (UHMAN: 0.463 and 0.314).
"""

from configs import natural
from uhman_jax.config import Config, ModelName


def get_config() -> Config:
    """Returns configs/natural.py with 3WM as the model."""
    config = natural.get_config()
    config.name = "threewm"
    config.model.name = ModelName.THREE_WAY
    config.model.direct_path = False
    return config
