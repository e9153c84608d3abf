"""The worlds of the study by name: whole, or shrunk for a quick look."""

from collections.abc import Callable

from configs import worlds
from uhman_jax.config import Config


def _shrinkable(world: Callable[[Config], None]) -> Callable[[Config, bool], None]:
    def change(config: Config, shrink: bool) -> None:
        world(config)
        if shrink:
            _shrink(config)

    return change


def _shrink(config: Config) -> None:
    """Keeps the laws of a world and takes fewer of everything."""
    simulator = config.simulator
    simulator.num_videos, simulator.num_users = 1500, 900
    simulator.num_hashtags, simulator.num_generic, simulator.num_classes = 84, 4, 20
    simulator.num_styles = 3
    simulator.num_frames, simulator.num_channels = 4, 32
    simulator.posterior_samples = 128


WORLDS: dict[str, Callable[[Config, bool], None]] = {
    "selection": _shrinkable(worlds.selection),
    "additive": _shrinkable(worlds.additive),
    "everything": _shrinkable(worlds.everything),
}
