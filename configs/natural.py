"""UHMAN on the natural hashtag distribution.

    python -m uhman_jax.main --config=configs/natural.py

Without --config.data.root=FOLDER it simulates a small dataset: 800 clips of 2 to 4 seconds by 200
users, with 30 hashtags for 8 object classes. Features of four frames per clip come from a random,
calibrated Inception-v3, so that nothing is downloaded. On the test split the ensemble of five
seeds reaches P@5 0.48 and P@10 0.32 (popularity 0.21 and 0.17, ridge 0.39 and 0.29, oracle 0.55
and 0.33). The whole run takes seven minutes on two cores. On clips of your own it uses 16 frames,
as all configs do.
"""

from uhman_jax.config import Config, Loss


def get_config() -> Config:
    """Returns the recipe, and a simulated dataset for a run of minutes on two cores."""
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
    recipe(config)
    config.train.num_seeds = 5
    return config


def recipe(config: Config) -> None:
    """Sets wide layers, region dropout, a logistic loss, a direct path and early stopping."""
    model, train = config.model, config.train
    model.hidden_size = model.embedding_size = 128
    model.region_dropout = 0.8
    model.bias = model.history_sampling = model.direct_path = True
    config.loss.name = Loss.LOGISTIC
    train.weight_decay, train.attention_rate = 0.001, 4.0
    train.decay_at, train.ema = (), 0.998
    train.num_epochs, train.stop_after = 30, 6
