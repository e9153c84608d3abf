"""Simulates users and clips with known probabilities, and writes a raw dataset.

    names.py               names of classes, hashtags and countries
    laws.py                `Laws`: the parameters of the generative model, such as preferences
    posts.py               clips, hashtags and histories drawn from it, and the true probabilities
    observable_oracle.py   these probabilities given the data that a model can observe
    marginal_oracles.py    the same given only the clip, and given only the user
    sprites.py, motion.py, render_videos.py   output as MP4 files
    render_features.py     output as shards of region features

Everything is a function of the settings and the seed, and independent of the models. Array axes
beyond the table in `uhman_jax`: G class of object ("genus"), J style in which an object is shown,
I kind of object (a class in a style; in `Preference` a class or a style), E dialect, L dimension of
private preference, Q draw of private preference, S content of a clip (its classes and styles),
A also combination of attributes.
"""

import collections
import hashlib
import json
import os
from pathlib import Path
from typing import assert_never

import numpy as np
import pyarrow as pa

from uhman_jax.config import SimulatorConfig, SimulatorOutput, to_dict
from uhman_jax.dataset.raw import User, Video, write_raw_dataset
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError
from uhman_jax.simulator import (
    marginal_oracles,
    motion,
    names,
    observable_oracle,
    posts,
    render_features,
    render_videos,
)
from uhman_jax.simulator import truth as truth_lib

__all__ = ["is_simulated", "simulate", "simulated_fingerprint"]

_VERSION = 2  # increase it when the same settings give other data or files
_STARTED = "simulating.json"


def simulated_fingerprint(config: SimulatorConfig) -> str:
    """Returns 12 hexadecimal digits that identify the dataset of these settings."""
    text = json.dumps([_VERSION, to_dict(config)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_simulated(root: str | os.PathLike) -> bool:
    """Returns whether `root` holds a complete simulated dataset."""
    return (Path(root) / truth_lib.MARKER).is_file()


def simulate(root: str | os.PathLike, config: SimulatorConfig, *, num_workers: int = 0) -> None:
    """Writes the simulated dataset of `config`: tables, truth, and clips or features.

    `simulated.json` is written last: a dataset with this file is complete and is not changed. An
    interrupted simulation is continued.

    Args:
        root: folder of the dataset, created if it is missing.
        config: settings; the tables and probabilities are a pure function of them.
        num_workers: processes that render clips; 0: one per core; 1: only this process.

    Raises:
        UserError: the settings are invalid, or the folder has other content.
    """
    root = Path(root)
    fingerprint = simulated_fingerprint(config)
    if _is_complete(root, fingerprint, config):
        return
    world = posts.build_world(config)
    if config.door is SimulatorOutput.FEATURES:
        render_features.block_shape(config.regions_per_object)
    root.mkdir(parents=True, exist_ok=True)
    settings = {"fingerprint": fingerprint, "config": to_dict(config)}
    _write_json(root / _STARTED, settings)
    video_ids = tuple(f"v{clip + 1:05d}" for clip in range(config.num_videos))
    rows = _render(root, world, video_ids, fingerprint, num_workers)
    truth_lib.write_truth(root, _truth(world, video_ids, rows))
    write_raw_dataset(root, _videos(world, video_ids), _users(world))
    _write_json(root / truth_lib.MARKER, settings)
    for folder in (root, root / "clips", root / "truth"):
        storage.remove_leftovers(folder)
    (root / _STARTED).unlink()


def _is_complete(root: Path, fingerprint: str, config: SimulatorConfig) -> bool:
    """Returns whether the dataset is complete; raises UserError if `root` has other content."""
    for name in (truth_lib.MARKER, _STARTED):
        try:
            found = json.loads((root / name).read_bytes())["fingerprint"]
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError):
            found = "a damaged file"
        if found != fingerprint:
            raise UserError(
                f"a simulated dataset's folder must hold one dataset, got {root / name} of "
                f"{found} instead of {fingerprint}; name another folder or delete this one"
            )
        if name == _STARTED:
            return False
        if config.door is SimulatorOutput.FEATURES:
            return (root / truth_lib.SIMULATED_FEATURES / "extractor.json").exists()
        clips = root / "clips"
        present = sum(file.suffix == ".mp4" for file in clips.iterdir()) if clips.is_dir() else 0
        return present >= config.num_videos
    if (root / "videos.csv").exists():
        raise UserError(
            f"a folder to simulate into must hold no other dataset, got {root / 'videos.csv'}; "
            "name another folder"
        )
    return False


def _render(root: Path, world: posts.SimulatedWorld, video_ids, fingerprint: str, num_workers: int):
    """Writes clips or features; returns an iterable of (object, time, box) for each clip."""
    config = world.config
    match config.door:
        case SimulatorOutput.PIXELS:
            plans = [
                motion.plan_clip(config, world.laws.looks_G3[objects_O], clip)
                for clip, objects_O in enumerate(world.posts.objects_VO)
            ]
            named = dict(zip(video_ids, plans, strict=True))
            render_videos.render_clips(root / "clips", named, num_workers)
            return map(_pixel_rows, plans)
        case SimulatorOutput.FEATURES:
            info = {  # with the keys of a real extraction
                "weights": "simulated",
                "fingerprint": fingerprint,
                "frames_per_second": 1 / render_features.FRAME_SECONDS,
                "max_frames": config.num_frames,
                "storage": "uint8",
                "channels": config.num_channels,
                "versions": {"numpy": np.__version__},
            }
            directory = root / truth_lib.SIMULATED_FEATURES
            render_features.write_features(directory, world, video_ids, info)
            clips = range(config.num_videos)
            return (_feature_rows(render_features.plan_clip(config, clip)) for clip in clips)
        case _:
            assert_never(config.door)


def _pixel_rows(plan: motion.ClipPlan):
    """Yields (object, time, box) of each visible object of a rendered clip."""
    times_F = plan.grid_times()
    for index, path in enumerate(plan.paths):
        boxes_F4, visible_F = path.boxes(times_F)
        for time, box in zip(times_F[visible_F], boxes_F4[visible_F], strict=True):
            yield index, time, box


def _feature_rows(objects: tuple[tuple[render_features.Block, ...], ...]):
    """Yields (object, time, box) of each visible object of a clip of features."""
    for index, blocks in enumerate(objects):
        for block in blocks:
            yield index, block.frame * render_features.FRAME_SECONDS, block.box()


def _truth(world: posts.SimulatedWorld, video_ids: tuple[str, ...], rows) -> truth_lib.Truth:
    """Returns the truth; `rows` has one iterable of (object, time, box) per video."""
    class_names = np.array(world.laws.class_names, object)
    objects_VO = world.posts.objects_VO
    table = [
        (video_id, index, class_names[objects_O[index]], float(time), *map(float, box))
        for video_id, objects_O, visible in zip(video_ids, objects_VO, rows, strict=True)
        for index, time, box in visible
    ]
    columns = [[row[i] for row in table] for i in range(len(truth_lib.OBJECTS_SCHEMA))]
    posterior = observable_oracle.Posterior.of(world)
    user_oracle = marginal_oracles.user_oracle(posterior)
    observable_VT, user_VT = observable_oracle.average(posterior, posterior.predict, user_oracle)
    clips = (video_ids, world.posts.tagged_V, class_names[objects_VO].tolist())
    return truth_lib.Truth(
        hashtags=world.laws.hashtags,
        video_ids=video_ids,
        probability_VT=posts.probability(world).astype(np.float32),
        observable_VT=observable_VT,
        content_VT=marginal_oracles.content_probability(world),
        user_VT=user_VT,
        objects=pa.table(columns, schema=truth_lib.OBJECTS_SCHEMA),
        clips=pa.table([*clips, world.affinity_VO().tolist()], schema=truth_lib.CLIPS_SCHEMA),
    )


def _videos(world: posts.SimulatedWorld, video_ids: tuple[str, ...]):
    """Yields the rows of videos.csv."""
    has_clips = world.config.door is SimulatorOutput.PIXELS
    for clip, video_id in enumerate(video_ids):
        yield Video(
            video_id=video_id,
            path=f"clips/{video_id}.mp4" if has_clips else "",
            user_id=_user_id(world.posts.user_V[clip]),
            hashtags=tuple(world.laws.hashtags[tag] for tag in world.posts.tags[clip]),
            timestamp=int(world.posts.timestamp_V[clip]),
        )


def _users(world: posts.SimulatedWorld):
    """Yields the rows of users.csv; a history lists each hashtag once, the most used first."""
    users, hashtags = world.laws.users, world.laws.hashtags
    for user in range(world.config.num_users):
        uses = collections.Counter(tag for tags in world.history[user] for tag in tags.tolist())
        has_gender, has_age, has_country = users.known_UA[user]
        yield User(
            user_id=_user_id(user),
            gender=names.GENDERS[users.gender_U[user]] if has_gender else "",
            age=int(users.years_U[user]) if has_age else None,
            country=names.COUNTRIES[users.country_U[user]] if has_country else "",
            history=tuple(hashtags[tag] for tag, _ in uses.most_common()),
        )


def _user_id(user: int) -> str:
    return f"u{user + 1:05d}"


def _write_json(path: Path, value: dict) -> None:
    with storage.atomic_write(path) as file:
        file.write(f"{json.dumps(value, indent=1)}\n".encode())
