"""The three worlds of the study, as region features at the paper's statistics (section 3.1).

    python -m uhman_jax.main --config=configs/worlds.py

10,291 clips of 6,500 users, 669 hashtags in a long tail, 3.42 per clip. A clip shows three objects
of 100 classes, each in two of eight frames and nine of 64 regions and in one of four styles. Users
and clips are the same in all worlds; what they tag differs. Simulating takes half a minute on two
cores.

What rankings by true probabilities reach in each world stands in experiments/paper/README.md. In
the selection world alone there is more to a clip and its user than the sum of both.
"""

from uhman_jax.config import Config, Door, World


def get_config() -> Config:
    """Returns UHMAN in the selection world."""
    config = Config()
    config.name = "worlds"
    selection(config)
    return config


def selection(config: Config) -> None:
    """Sets the world where a user tags the one object that is shown in the style they care for.

    Which style that is depends on the user, and which object has it on the clip: neither says alone
    what is tagged, and what they say does not add up to it. A fifth of the taste's variance is in
    classes, so a user's earlier hashtags tell something too.
    """
    _clips_and_users(config)
    config.simulator.world = World.SELECTION
    config.simulator.style_share = 0.8


def additive(config: Config) -> None:
    """Sets the world where half of the posts are about the clip, half about favourites."""
    _clips_and_users(config)
    config.simulator.world = World.ADDITIVE
    config.simulator.user_share = 0.5


def everything(config: Config) -> None:
    """Sets the world where users tag all that they see, in the words of their country and age."""
    _clips_and_users(config)
    config.simulator.world = World.EVERYTHING


def _clips_and_users(config: Config) -> None:
    simulator = config.simulator
    simulator.door = Door.FEATURES
    simulator.num_videos = 10_291
    simulator.num_users = 6_500
    simulator.num_hashtags = 669
    simulator.num_generic = 19
    simulator.mean_hashtags = 3.42
    simulator.num_classes = 100
    simulator.zipf_exponent = 0.7
    simulator.taste_strength = 4.0
    simulator.private_share = 0.25
    simulator.objects_per_clip = 3
    simulator.num_styles = 4
    simulator.num_frames = 8
    simulator.frames_per_object = 2
    simulator.regions_per_object = 9
    simulator.num_channels = 64
    simulator.noise = 0.3
