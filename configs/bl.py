"""BL, the bilinear baseline, which ignores the user (paper, section 3.2).

    python -m uhman_jax.main --config=configs/bl.py

It uses the clips, features and schedule of configs/natural.py. On its test split the mean of five
seeds is P@5 0.343 ± 0.006 and P@10 0.283 ± 0.003 (UHMAN: 0.463 and 0.314).
"""

from configs import natural
from uhman_jax.config import Config, ModelName


def get_config() -> Config:
    """Returns configs/natural.py with BL as the model."""
    config = natural.get_config()
    config.name = "bl"
    config.model.name = ModelName.BL
    config.model.direct_path = False
    return config
