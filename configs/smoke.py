"""The whole pipeline in about a minute, to test that it runs.

    python -m uhman_jax.main --config=configs/smoke.py

With 40 clips and two epochs the scores mean nothing.
"""

from uhman_jax.config import Config


def get_config() -> Config:
    """Returns the defaults with 40 clips of one frame and two epochs."""
    config = Config()
    config.name = "smoke"
    config.simulator.num_videos = 40
    config.simulator.num_users = 20
    config.simulator.num_hashtags = 12
    config.simulator.num_generic = 2
    config.simulator.num_classes = 5
    config.simulator.objects_per_clip = 2
    config.simulator.max_seconds = 2.5
    config.preprocess.max_frames, config.data.simulated_frames = 0, 1
    config.preprocess.calibration_frames = 16
    config.view.min_count = 2
    config.train.num_epochs = 2
    return config
