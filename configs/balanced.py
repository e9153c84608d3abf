"""UHMAN on the balanced hashtag distribution (paper, section 3.1).

    python -m uhman_jax.main --config=configs/balanced.py

It uses the clips and features of configs/natural.py. The paper downsamples the 150 most frequent of
669 hashtags. The same fraction of the 30 hashtags here is 7. Set --config.view.balanced_top=150 for
data of the paper's size. The mean of five seeds is P@5 0.388 ± 0.005 and P@10 0.254 ± 0.005
(popularity 0.141 and 0.110, oracle 0.470 and 0.268).
"""

from configs import natural
from uhman_jax.config import Config, Distribution


def get_config() -> Config:
    """Returns configs/natural.py with the balanced distribution."""
    config = natural.get_config()
    config.name = "balanced"
    config.view.distribution = Distribution.BALANCED
    config.view.balanced_top = 7
    return config
