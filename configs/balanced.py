"""UHMAN on the balanced hashtag distribution (paper, section 3.1).

    python -m uhman_jax.main --config=configs/balanced.py

The same clips and features as configs/natural.py. The paper downsamples its 150 most frequent
hashtags of 669; with the 30 of the embedded world the same share is 7, so set
--config.view.balanced_top=150 for data of the paper's size.
"""

from configs import natural
from uhman_jax.config import Config, Distribution


def get_config() -> Config:
    """Returns configs/natural.py with the other distribution."""
    config = natural.get_config()
    config.name = "balanced"
    config.view.distribution = Distribution.BALANCED
    config.view.balanced_top = 7
    return config
