"""Writes a dataset of pictures: clips, videos.csv, and for composites where each picture is."""

import calendar
import concurrent.futures
import datetime
import functools
import multiprocessing
import os
import pathlib

from experiments.real_tags import clips
from experiments.real_tags.pictures import Picture
from uhman_jax.dataset.field_checks import Video
from uhman_jax.dataset.raw import write_raw_dataset
from uhman_jax.dataset.split import stateless_hash
from uhman_jax.runtime.progress import progress_bar

_BLOCK = 100  # pictures, about


def make(root: pathlib.Path, pictures: list[Picture], *, composites: bool = False) -> None:
    """Writes a dataset of these pictures; clips that exist are kept."""
    (root / "clips").mkdir(parents=True, exist_ok=True)
    names = {picture.name: f"c{n:05d}" for n, picture in enumerate(pictures)}
    files = {name: root / "clips" / f"{name}.mp4" for name in names.values()}
    groups = {picture.name: picture.group for picture in pictures}
    tasks, plans = [], {}
    if composites:
        blocks = _blocks(pictures)
        groups = {p.name: f"block {b}" for b, block in enumerate(blocks) for p in block}
        for block in blocks:
            for own in block:
                name, others = names[own.name], clips.choose_others(own, block)
                plans[name] = clips.plan_composite(own.name, own, others)
                task = functools.partial(clips.render_composite, files[name], own.name, plans[name])
                tasks.append((files[name], functools.partial(task, [own, *others])))
        clips.write_places(root, plans)
    else:
        tasks = [
            (files[names[p.name]], functools.partial(clips.render_single, files[names[p.name]], p))
            for p in pictures
        ]
    _render([task for path, task in tasks if not path.exists()])
    rows = [
        Video(
            names[p.name],
            f"clips/{names[p.name]}.mp4",
            p.artist,
            p.keywords,
            unix_time(p.date),
            group=groups[p.name],
        )
        for p in pictures
    ]
    write_raw_dataset(root, rows, [])


def _blocks(pictures: list[Picture]) -> list[list[Picture]]:
    """Divides the pictures into blocks of about 100, with near copies in the same block."""
    count = max(1, round(len(pictures) / _BLOCK))
    blocks: list[list[Picture]] = [[] for _ in range(count)]
    for picture in pictures:
        blocks[stateless_hash("block", 0, picture.group) % count].append(picture)
    return blocks


def unix_time(date: str) -> int | None:
    """Returns the seconds of an ISO date; None if it is empty or not a day."""
    try:
        day = datetime.date.fromisoformat(date)
    except ValueError:  # empty, or a day that does not exist
        return None
    return calendar.timegm(day.timetuple())


def _render(tasks: list) -> None:
    context = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(len(os.sched_getaffinity(0)), context) as pool,
        progress_bar(total=len(tasks), desc="clips", unit="clip") as bar,
    ):
        for _ in pool.map(_call, tasks, chunksize=8):
            bar.update()


def _call(task) -> None:
    task()
