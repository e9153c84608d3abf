"""Renders region features of simulated clips and writes them into shards.

They resemble the output of a convolutional network after its ReLU: every channel has its own scale,
most values are small, and an object raises the channels of its class and of its style in the cells
that it covers.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np

from uhman_jax.config import SimulatorConfig
from uhman_jax.runtime.errors import UserError
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.shards import quantize, store
from uhman_jax.simulator.laws import stream
from uhman_jax.simulator.posts import SimulatedWorld

GRID = 8  # cells per side; regions are its cells row by row
FRAME_SECONDS = 0.2
VIDEOS_PER_SHARD = 256
ACTIVE_SHARE = 0.3  # fraction of the channels that respond to a class
EDGE_STRENGTH = 0.6  # of an object in its outermost cells; it is 1 in the others
BACKGROUND_STRENGTH = 0.7  # of a scene, in units of the class signal
STYLE_STRENGTH = 0.7  # of a style, in the same units
INSTANCE_SPREAD = 0.3  # relative deviation of an object's channels from its class
NUM_SCENES = 16  # kinds of background


@dataclasses.dataclass(frozen=True)
class Block:
    """The position of an object in a frame: rows [top, bottom), columns [left, right)."""

    frame: int
    top: int
    left: int
    bottom: int
    right: int

    def box(self) -> tuple[float, float, float, float]:
        """Returns x0, y0, x1, y1 as fractions of the frame."""
        return self.left / GRID, self.top / GRID, self.right / GRID, self.bottom / GRID


@dataclasses.dataclass(frozen=True)
class Prototypes:
    """Responses of the channels to each class, style and scene, before they are scaled by scale_C.

    The mean square of each response is 1. If there is only one style, its response is 0.
    """

    class_GC: np.ndarray
    style_JC: np.ndarray
    scene_NC: np.ndarray
    scale_C: np.ndarray


def block_shape(num_regions: int) -> tuple[int, int]:
    """Returns height and width of the block with `num_regions` cells that is nearest to a square.

    >>> block_shape(9), block_shape(6), block_shape(1)
    ((3, 3), (2, 3), (1, 1))

    Raises:
        UserError: no block in the grid has `num_regions` cells.
    """
    for height in range(math.isqrt(num_regions), 0, -1):
        if num_regions % height == 0 and num_regions // height <= GRID:
            return height, num_regions // height
    raise UserError(
        f"simulator.regions_per_object must be the area of a block in the {GRID}x{GRID} grid, got "
        f"{num_regions}; use for example 4, 6, 9, 12 or 16"
    )


def plan_clip(config: SimulatorConfig, clip: int) -> tuple[tuple[Block, ...], ...]:
    """Returns the blocks of each object of a clip: a random walk over consecutive frames."""
    rng = stream(config, "media", clip, 0)
    height, width = block_shape(config.regions_per_object)
    objects = []
    for _ in range(config.objects_per_clip):
        first = rng.integers(config.num_frames - config.frames_per_object + 1)
        top, left = rng.integers(GRID - height + 1), rng.integers(GRID - width + 1)
        blocks = []
        for frame in range(first, first + config.frames_per_object):
            blocks.append(
                Block(int(frame), int(top), int(left), int(top) + height, int(left) + width)
            )
            top = np.clip(top + rng.integers(-1, 2), 0, GRID - height)
            left = np.clip(left + rng.integers(-1, 2), 0, GRID - width)
        objects.append(tuple(blocks))
    return tuple(objects)


def draw_prototypes(config: SimulatorConfig) -> Prototypes:
    """Draws sparse non-negative responses and log-normal scales of the channels."""

    def sparse(rng: np.random.Generator, count: int) -> np.ndarray:
        strength = rng.exponential(size=(count, config.num_channels))
        active = rng.random((count, config.num_channels)) < ACTIVE_SHARE
        active[np.arange(count), rng.integers(config.num_channels, size=count)] = True
        response = (strength * active).astype(np.float32)
        return response / np.sqrt(np.mean(response**2, axis=1, keepdims=True))

    rng = stream(config, "media")
    class_GC, scene_NC = sparse(rng, config.num_classes), sparse(rng, NUM_SCENES)
    scale_C = np.exp(0.7 * rng.standard_normal(config.num_channels, np.float32))
    style_JC = sparse(stream(config, "styles", 2), config.num_styles) * (config.num_styles > 1)
    return Prototypes(class_GC, style_JC, scene_NC, scale_C)


def clip_features(
    config: SimulatorConfig, prototypes: Prototypes, objects_O, styles_O, clip: int
) -> np.ndarray:
    """Returns non-negative float32 features_FMC of one clip, a pure function of the arguments."""
    rng = stream(config, "media", clip, 1)
    shape_FMC = (config.num_frames, GRID * GRID, config.num_channels)
    features_FMC = rng.standard_normal(shape_FMC, np.float32)
    features_FMC *= np.float32(config.noise)
    scenes_2C = prototypes.scene_NC[rng.choice(NUM_SCENES, 2, replace=False)]
    mix_M1 = np.linspace(0, 1, GRID, dtype=np.float32).repeat(GRID)[:, None]  # from top to bottom
    scene_MC = (1 - mix_M1) * scenes_2C[0] + mix_M1 * scenes_2C[1]
    features_FMC += np.float32(BACKGROUND_STRENGTH) * scene_MC
    plans = plan_clip(config, clip)
    for class_id, style, blocks in zip(objects_O, styles_O, plans, strict=True):
        spread_C = 1 + INSTANCE_SPREAD * rng.standard_normal(config.num_channels, np.float32)
        response_C = prototypes.class_GC[class_id] * spread_C
        response_C += np.float32(STYLE_STRENGTH) * prototypes.style_JC[style]
        for block in blocks:
            grid_YXC = features_FMC[block.frame].reshape(GRID, GRID, -1)
            strength_YX = _strength(block.bottom - block.top, block.right - block.left)
            grid_YXC[block.top : block.bottom, block.left : block.right] += (
                strength_YX[:, :, None] * response_C
            )
    np.maximum(features_FMC, 0, out=features_FMC)
    features_FMC *= prototypes.scale_C
    return features_FMC


def _strength(height: int, width: int) -> np.ndarray:
    """Returns EDGE_STRENGTH in the outermost cells, 1 in the others; 1 if there are no others."""
    strength_YX = np.ones((height, width), np.float32)
    if height > 2 and width > 2:
        strength_YX[:] = EDGE_STRENGTH
        strength_YX[1:-1, 1:-1] = 1
    return strength_YX


def write_features(
    directory: Path, world: SimulatedWorld, video_ids: tuple[str, ...], info: dict
) -> None:
    """Writes the shards of all clips, with a progress bar; complete shards are kept."""
    config = world.config
    directory.mkdir(parents=True, exist_ok=True)
    prototypes = draw_prototypes(config)
    schema = store.Schema(config.num_channels, "uint8", GRID * GRID)
    num_shards = -(-len(video_ids) // VIDEOS_PER_SHARD)
    times_F = (np.arange(config.num_frames) * FRAME_SECONDS).astype(np.float32)

    with progress_bar(total=len(video_ids), desc="features", unit="clip") as progress:

        def record(clip: int) -> store.FrameRecord:
            progress.update()
            content = world.posts.objects_VO[clip], world.posts.styles_VO[clip]
            packed = quantize.encode(clip_features(config, prototypes, *content, clip))
            return store.FrameRecord(video_ids[clip], *packed, times_F)

        for index in range(num_shards):
            clips = range(len(video_ids))[index * VIDEOS_PER_SHARD : (index + 1) * VIDEOS_PER_SHARD]
            if _is_written(directory, index, num_shards, schema, [video_ids[c] for c in clips]):
                progress.update(len(clips))
            else:
                store.write_shard(directory, index, num_shards, map(record, clips), schema)
    store.write_metadata(directory, num_shards, schema, info)


def _is_written(directory, index, num_shards, schema, expected: list[str]) -> bool:
    try:
        ids = store.read_ids(store.shard_path(directory, index, num_shards), schema)
    except (FileNotFoundError, UserError):
        return False
    return list(ids) == expected
