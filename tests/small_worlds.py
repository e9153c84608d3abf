"""Small simulated worlds, for the tests of the simulator."""

import dataclasses

import numpy as np

from uhman_jax.config import SimulatorConfig, SimulatorOutput, World

WORLDS = list(World)


def tiny(**changes) -> SimulatorConfig:
    """Settings of a world that is simulated in no time."""
    config = SimulatorConfig(
        door=SimulatorOutput.FEATURES,
        num_videos=40,
        num_users=17,
        num_hashtags=29,
        num_generic=2,
        num_classes=7,
        num_countries=3,
        posterior_samples=400,
        min_seconds=0.6,
        max_seconds=1.0,
        num_channels=11,
        num_frames=5,
        regions_per_object=6,
    )
    return dataclasses.replace(config, **changes)


def precision(scores_VT, probability_VT, k: int) -> float:
    """Expected P@k of a ranking."""
    top_Vk = np.argsort(-scores_VT, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(probability_VT, top_Vk, axis=1).mean())


def with_clips(simulated, user_V, objects_VO, styles_VO):
    """The simulation with other clips, as many as before."""
    changed = dataclasses.replace(
        simulated.posts, user_V=user_V, objects_VO=objects_VO, styles_VO=styles_VO
    )
    return dataclasses.replace(simulated, posts=changed)
