"""The simulated datasets of experiments/paper, with the statistics of the paper (section 3.1).

    python -m uhman_jax.main --config=configs/worlds.py

A world is a rule by which simulated users tag clips. All worlds have the same 10,291 clips, 6,500
users and 669 hashtags with a long tail, 3.42 per clip. A clip shows three objects of 100 classes,
each in two of eight frames, in nine of 64 regions and in one of four styles. Simulation takes half
a minute on two cores. experiments/paper/README.md lists the scores of models and of rankings by
true probabilities. The command trains on *selection*, where the user's preference selects the
object of the clip that is tagged; `selection`, `additive` and `everything` set the three worlds.
"""

from uhman_jax.config import Config, SimulatorOutput, World


def get_config() -> Config:
    """Returns UHMAN on the world *selection*."""
    config = Config()
    config.name = "worlds"
    selection(config)
    return config


def selection(config: Config) -> None:
    """Sets the world where a user tags the one object that is shown in the style they prefer.

    The user determines the style, and the clip the object in that style. The tags depend on both,
    and not as a sum of two terms. A fifth of the variance of preferences is over classes, so a
    user's earlier hashtags are also informative.
    """
    _clips_and_users(config)
    config.simulator.world = World.SELECTION
    config.simulator.style_share = 0.8


def additive(config: Config) -> None:
    """Sets the world where half of the posts are about the clip, half about favourite classes."""
    _clips_and_users(config)
    config.simulator.world = World.ADDITIVE
    config.simulator.user_share = 0.5


def everything(config: Config) -> None:
    """Sets the world where users tag all objects, in the words of their country and age."""
    _clips_and_users(config)
    config.simulator.world = World.EVERYTHING


def _clips_and_users(config: Config) -> None:
    simulator = config.simulator
    simulator.door = SimulatorOutput.FEATURES
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
