"""Renders pictures as clips: one picture that pans and zooms, or three of three artists.

Everything is drawn from the name of the clip and fixed seeds, so a set can be made again.
"""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from experiments.real_tags.pictures import Picture, on_square
from uhman_jax.dataset.split import stateless_hash
from uhman_jax.runtime import storage
from uhman_jax.simulator.truth import box_regions

SIDE = 320  # of a frame, pixels
RATE = 10  # frames per second
# Without B-frames, with which equal frames give different files.
_ENCODER = {"preset": "veryfast", "crf": "20", "threads": "1", "bf": "0"}
PLACES = "places.json"
COMPOSITE_SECONDS = 3.0


class Path(NamedTuple):
    """The way of one picture through a composite; positions and sizes in parts of the frame.

    Attributes:
        name: of the picture.
        centres: (x, y) at the first and at the last moment of the clip.
        size: side of the square that holds the picture.
        shown: first and last moment at which it is visible, in parts of the clip.
    """

    name: str
    centres: tuple[tuple[float, float], tuple[float, float]]
    size: float
    shown: tuple[float, float]

    def box(self, moment: float) -> tuple[float, float, float, float] | None:
        """Returns (x0, y0, x1, y1) at a moment in 0..1; None while it is not visible."""
        if not self.shown[0] <= moment <= self.shown[1]:
            return None
        start, end = np.array(self.centres)
        x, y = start + moment * (end - start)
        half = self.size / 2
        return x - half, y - half, x + half, y + half


def render_single(path: pathlib.Path, picture: Picture) -> None:
    """Writes a clip of one second that shows a picture on white, with a slow pan and zoom."""
    rng = np.random.default_rng(stateless_hash("single", 0, picture.name))
    image = on_square(picture.open(), SIDE)
    zooms = rng.permutation([0.72, 0.88])
    starts, ends = rng.uniform(-0.05, 0.05, (2, 2))

    def paint(frame: Image.Image, moment: float) -> None:
        side = round(SIDE * (zooms[0] + moment * (zooms[1] - zooms[0])))
        centre = 0.5 + starts + moment * (ends - starts)
        _paste(frame, image.resize((side, side), Image.Resampling.BILINEAR), centre)

    _write(path, 1.0, (255, 255, 255), paint)


def plan_composite(name: str, own: Picture, others: Sequence[Picture]) -> list[Path]:
    """Returns the ways of three pictures: three of four quarters of the frame, three intervals.

    Each picture stays in its quarter and is visible for six tenths of the clip.
    """
    rng = np.random.default_rng(stateless_hash("composite", 0, name))
    corners = rng.permutation([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)])[:3]
    begins = rng.permutation([0.0, 0.2, 0.4])
    paths = []
    for picture, corner, begin in zip((own, *others), corners, begins, strict=True):
        size = float(rng.uniform(0.36, 0.46))
        way = corner + rng.uniform(-1, 1, (2, 2)) * (0.25 - size / 2)
        centres = tuple(tuple(round(float(c), 4) for c in point) for point in way)
        shown = round(float(begin), 4), round(float(begin) + 0.6, 4)
        paths.append(Path(picture.name, centres, round(size, 4), shown))  # type: ignore[bad-argument-type]
    return paths


def render_composite(
    path: pathlib.Path, name: str, paths: Sequence[Path], pictures: Sequence[Picture]
) -> None:
    """Writes a clip of three seconds with the pictures on their ways, on a pale colour."""
    rng = np.random.default_rng(stateless_hash("colour", 0, name))
    colour = tuple(int(c) for c in rng.integers(200, 256, 3))
    images = [
        on_square(p.open(), round(way.size * SIDE)) for p, way in zip(pictures, paths, strict=True)
    ]

    def paint(frame: Image.Image, moment: float) -> None:
        for way, image in zip(paths, images, strict=True):
            if box := way.box(moment):
                _paste(frame, image, (np.array(box[:2]) + box[2:]) / 2)

    _write(path, COMPOSITE_SECONDS, colour, paint)


def choose_others(own: Picture, block: Sequence[Picture]) -> list[Picture]:
    """Returns two pictures of a block by two other artists, who differ from each other too."""
    rng = np.random.default_rng(stateless_hash("others", 0, own.name))
    chosen: list[Picture] = []
    for index in rng.permutation(len(block)):
        picture = block[index]
        if picture.artist not in (own.artist, *(p.artist for p in chosen)):
            chosen.append(picture)
        if len(chosen) == 2:
            return chosen
    raise ValueError(f"a block must hold pictures of three artists, got fewer around {own.name}")


def write_places(root: pathlib.Path, plans: dict[str, list[Path]]) -> None:
    """Writes the ways of all composites, by video_id; the first of three is the poster's."""
    with storage.atomic_write(root / PLACES) as file:
        file.write(json.dumps(plans).encode())


class Places:
    """Where each composite shows which picture, for `evaluate.attention.attention_facts`.

    Attributes:
        paths: the ways of the three pictures by video_id, the poster's first.
        tagged: 0, the index of the poster's picture, by video_id.
    """

    def __init__(self, root: pathlib.Path):
        """Reads what `write_places` wrote."""
        plans = json.loads((root / PLACES).read_text())
        self.paths = {name: [Path(*way) for way in ways] for name, ways in plans.items()}
        self.tagged = dict.fromkeys(self.paths, 0)

    def region_masks(self, video_id: str, times_F: np.ndarray, num_regions: int) -> np.ndarray:
        """Returns mask_FOM, bool: which regions show which picture; see `Truth.region_masks`."""
        paths = self.paths[video_id]
        mask_FOM = np.zeros((len(times_F), len(paths), num_regions), bool)
        for frame, time in enumerate(times_F):
            for index, path in enumerate(paths):
                if box := path.box(time / (COMPOSITE_SECONDS - 1 / RATE)):
                    mask_FOM[frame, index] = box_regions(np.array([box]), num_regions)[0]
        return mask_FOM


def _paste(frame: Image.Image, image: Image.Image, centre: np.ndarray) -> None:
    left, top = (round(float(c) * SIDE - image.size[0] / 2) for c in centre)
    frame.paste(image, (left, top), image)


def _write(
    path: pathlib.Path,
    seconds: float,
    colour: tuple[int, ...],
    paint: Callable[[Image.Image, float], None],
) -> None:
    """Writes an MP4 file (H.264); `paint` draws the frame of a moment in 0..1."""
    count = round(seconds * RATE)
    with storage.atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as file:
        video = file.add_stream("libx264", rate=RATE, options=_ENCODER)
        video.width, video.height, video.pix_fmt = SIDE, SIDE, "yuv420p"
        for index in range(count):
            frame = Image.new("RGB", (SIDE, SIDE), colour)
            paint(frame, index / (count - 1))
            file.mux(video.encode(av.VideoFrame.from_image(frame)))
        file.mux(video.encode())
