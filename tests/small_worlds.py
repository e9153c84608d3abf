"""Small simulated datasets, for the tests of the simulator."""

import dataclasses

import numpy as np

from uhman_jax.config import SimulatorConfig, SimulatorOutput, World

WORLDS = list(World)


def tiny(**changes) -> SimulatorConfig:
    """Returns settings whose simulation takes less than a second."""
    sizes = {"num_videos": 40, "num_users": 17, "num_hashtags": 29, "num_generic": 2}
    sizes |= {"num_classes": 7, "num_countries": 3, "posterior_samples": 400, "num_channels": 11}
    sizes |= {"num_frames": 5, "regions_per_object": 6, "min_seconds": 0.6, "max_seconds": 1.0}
    return SimulatorConfig(**{"door": SimulatorOutput.FEATURES} | sizes | changes)


def precision(scores_VT, probability_VT, k: int) -> float:
    """Returns the expected P@k of a ranking."""
    top_Vk = np.argsort(-scores_VT, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(probability_VT, top_Vk, axis=1).mean())


def with_clips(simulated, user_V, objects_VO, styles_VO):
    """Returns the simulation with other clips."""
    changed = dataclasses.replace(
        simulated.posts, user_V=user_V, objects_VO=objects_VO, styles_VO=styles_VO
    )
    return dataclasses.replace(simulated, posts=changed)
