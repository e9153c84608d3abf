"""UHMAN(b): the mean over frames instead of frame attention (paper, section 3.4).

    python -m uhman_jax.main --config=configs/uhman_b.py

It uses the clips, features and schedule of configs/natural.py. On its test split the mean of five
seeds is P@5 0.428 ± 0.012 and P@10 0.307 ± 0.006 (UHMAN: 0.463 and 0.314).
"""

from configs import natural
from uhman_jax.config import Config


def get_config() -> Config:
    """Returns configs/natural.py without attention to frames."""
    config = natural.get_config()
    config.name = "uhman_b"
    config.model.frame_attention = False
    config.model.direct_path = False
    return config
