"""UHMAN(c), not in the paper: attention that is the same for all users.

    python -m uhman_jax.main --config=configs/uhman_c.py

It uses the clips, features and schedule of configs/natural.py. On its test split the mean of five
seeds is P@5 0.431 ± 0.013 and P@10 0.315 ± 0.007 (UHMAN: 0.463 and 0.314).
"""

from configs import natural
from uhman_jax.config import Config


def get_config() -> Config:
    """Returns configs/natural.py without the user's guidance."""
    config = natural.get_config()
    config.name = "uhman_c"
    config.model.user_guidance = False
    config.model.direct_path = False
    return config
