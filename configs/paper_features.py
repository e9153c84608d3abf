"""UHMAN on simulated region features with the statistics of the paper's dataset (section 3.1).

    python -m uhman_jax.main --config=configs/paper_features.py

10,291 clips of 6,500 users, 669 hashtags with a long tail, 3.42 per clip; 4 frames of 64 regions
with 128 channels, not 2,048, to fit a small machine. The recipe is from configs/plus.py. On the
test split UHMAN reaches P@10 0.226 (three seeds), popularity 0.046, the observable oracle 0.279
and the oracle 0.291. On two cores simulation takes a minute and training three.
"""

from configs import plus
from uhman_jax.config import Config, SimulatorOutput


def get_config() -> Config:
    """Returns the recipe `plus` with a large dataset that is simulated as features."""
    config = Config()
    config.name = "paper_features"
    config.simulator.door = SimulatorOutput.FEATURES
    config.simulator.num_videos = 10_291
    config.simulator.num_users = 6_500
    config.simulator.num_hashtags = 669
    config.simulator.num_generic = 19
    config.simulator.num_classes = 150
    config.simulator.zipf_exponent = 0.7
    config.simulator.num_channels = 128
    config.simulator.num_frames = 4
    plus.recipe(config)
    config.train.num_seeds = 3
    return config
