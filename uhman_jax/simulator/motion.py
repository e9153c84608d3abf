"""Plans the motion of objects in a rendered clip, both for its frames and for its truth."""

import dataclasses

import numpy as np

from uhman_jax.config import SimulatorConfig
from uhman_jax.simulator import sprites
from uhman_jax.simulator.laws import stream

WIDTH, HEIGHT = 360, 640  # pixels, portrait
RATES = (24, 25, 30)  # frames per second
GRID_RATE = 5.0  # times per second in the truth; preprocessing samples frames at this rate
POP_SECONDS = 0.25  # time in which an object grows at its start and shrinks at its end
# An object is visible while at least the fraction MIN_INSIDE of its box is inside the frame and its
# radius is at least the fraction MIN_GROWN of its full radius.
MIN_INSIDE, MIN_GROWN = 0.3, 0.5
CROSS, DRIFT, BOUNCE = range(3)


@dataclasses.dataclass(frozen=True)
class Path:
    """The motion of one object; times in seconds, lengths in pixels."""

    look: tuple[int, int, int]  # shape, colour, texture
    kind: int  # CROSS, DRIFT or BOUNCE
    start: float
    stop: float
    radius: float  # of the circle around the shape
    origin: tuple[float, float]
    travel: tuple[float, float]  # from the origin: end of a CROSS, amplitude of a DRIFT or BOUNCE
    phases: tuple[float, float, float]  # radians
    turns: float  # cycles over the object's time on screen
    tilt: float  # radians
    swing: float  # radians
    brightness: float  # factor on the luma

    def pose(self, times_F: np.ndarray):
        """Returns x_F, y_F, angle_F and radius_F; radius 0 while the object is absent."""
        elapsed_F = (times_F - self.start) / max(self.stop - self.start, 1e-6)
        a, b, c = self.phases
        wave_F = 2 * np.pi * self.turns * elapsed_F
        (x, y), (dx, dy) = self.origin, self.travel
        if self.kind == CROSS:
            side_F = 0.15 * np.sin(wave_F + a)
            x_F, y_F = x + dx * elapsed_F - dy * side_F, y + dy * elapsed_F + dx * side_F
        elif self.kind == DRIFT:
            x_F, y_F = x + dx * np.sin(wave_F + a), y + dy * np.sin(0.7 * wave_F + b)
        else:
            x_F = x + dx * (2 / np.pi) * np.arcsin(np.sin(wave_F / 2 + a))
            y_F = y + dy * (1 - 2 * np.abs(np.sin(wave_F + b)))
        radius_F = self.radius * (1 + 0.08 * np.sin(1.3 * wave_F + c))
        if self.kind != CROSS:
            edge_F = np.minimum(times_F - self.start, self.stop - times_F) / POP_SECONDS
            radius_F = radius_F * np.sin(np.pi / 2 * np.clip(edge_F, 0, 1))
        there_F = (times_F >= self.start) & (times_F <= self.stop)
        return x_F, y_F, self.tilt + self.swing * np.sin(wave_F + c), radius_F * there_F

    def boxes(self, times_F: np.ndarray):
        """Returns boxes_F4 (x0, y0, x1, y1 as fractions of the frame, clipped to it), visible_F."""
        x_F, y_F, angle_F, radius_F = self.pose(times_F)
        right_N, down_N = sprites.outline(self.look[0]).T
        cos_F1, sin_F1 = np.cos(angle_F)[:, None], np.sin(angle_F)[:, None]
        x_FN = x_F[:, None] + radius_F[:, None] * (right_N * cos_F1 - down_N * sin_F1)
        y_FN = y_F[:, None] + radius_F[:, None] * (right_N * sin_F1 + down_N * cos_F1)
        whole_F4 = np.stack([x_FN.min(1), y_FN.min(1), x_FN.max(1), y_FN.max(1)], axis=1)
        limits = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], float)
        boxes_F4 = np.clip(whole_F4, 0, limits)
        inside_F = _area(boxes_F4) >= MIN_INSIDE * np.maximum(_area(whole_F4), 1e-9)
        return boxes_F4 / limits, inside_F & (radius_F >= MIN_GROWN * self.radius)


@dataclasses.dataclass(frozen=True)
class ClipPlan:
    """Everything that rendering a clip needs."""

    seed: tuple[int, int]  # of the simulation and the clip, for the background
    rate: int  # frames per second
    num_frames: int
    paths: tuple[Path, ...]

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.num_frames / self.rate

    def grid_times(self) -> np.ndarray:
        """Returns the times of the truth: 0, 0.2, 0.4, ... before the end."""
        return np.arange(int(np.ceil(self.seconds * GRID_RATE - 1e-9))) / GRID_RATE


def plan_clip(config: SimulatorConfig, looks_O3: np.ndarray, clip: int) -> ClipPlan:
    """Returns the plan of clip number `clip`, a pure function of the arguments.

    Short clips are more frequent than long ones. Each object is present for one interval of about
    `visible_share` of the clip's length; the start or the end of the clip may truncate it.
    """
    rng = stream(config, "media", clip)
    rate = RATES[rng.integers(len(RATES))]
    spare = config.max_seconds - config.min_seconds
    seconds = config.min_seconds + spare * rng.beta(1.2, 3.4)
    num_frames = max(round(seconds * rate), 1)
    paths = tuple(
        _draw_path(config, tuple(look), num_frames / rate, rng) for look in looks_O3.tolist()
    )
    return ClipPlan((config.seed, clip), rate, num_frames, paths)


def _draw_path(config: SimulatorConfig, look, seconds: float, rng: np.random.Generator) -> Path:
    share = np.clip(config.visible_share * rng.uniform(0.7, 1.3), 0.1, 1.0)
    start = rng.uniform(-0.4 * share, 1 - 0.6 * share) * seconds
    radius = config.object_size * WIDTH / 2 * rng.uniform(0.85, 1.15)
    kind = int(rng.choice(3, p=(0.4, 0.35, 0.25)))
    if kind == CROSS:
        heading = rng.uniform(0, 2 * np.pi)
        middle = WIDTH * rng.uniform(0.3, 0.7), HEIGHT * rng.uniform(0.25, 0.75)
        reach = _distance_to_edge(middle, heading) + 0.8 * radius
        back = _distance_to_edge(middle, heading + np.pi) + 0.8 * radius
        origin = middle[0] - back * np.cos(heading), middle[1] - back * np.sin(heading)
        travel = (back + reach) * np.cos(heading), (back + reach) * np.sin(heading)
    else:
        reach = rng.uniform(0.08, 0.2) * WIDTH, rng.uniform(0.06, 0.18) * HEIGHT
        travel = tuple(np.minimum(reach, (0.5 * WIDTH - 0.6 * radius, 0.5 * HEIGHT - 0.6 * radius)))
        room_x, room_y = 0.6 * radius + travel[0], 0.6 * radius + travel[1]
        origin = rng.uniform(room_x, WIDTH - room_x), rng.uniform(room_y, HEIGHT - room_y)
    return Path(
        look=look,
        kind=kind,
        start=float(start),
        stop=float(start + share * seconds),
        radius=float(radius),
        origin=(float(origin[0]), float(origin[1])),
        travel=(float(travel[0]), float(travel[1])),
        phases=tuple(rng.uniform(0, 2 * np.pi, 3).tolist()),
        turns=float(rng.uniform(0.4, 0.9) * max(share * seconds, 1.0) / 2),
        tilt=float(rng.normal(0, 0.2)),
        swing=float(rng.uniform(0.1, 0.4)),
        brightness=float(rng.uniform(0.9, 1.1)),
    )


def _distance_to_edge(point, heading: float) -> float:
    """Returns the distance from a point in the frame to its edge in one direction."""
    direction = np.array([np.cos(heading), np.sin(heading)])
    room = np.where(direction > 0, np.array([WIDTH, HEIGHT]) - point, np.array(point))
    return float(np.min(room / np.maximum(np.abs(direction), 1e-9)))


def _area(boxes_F4: np.ndarray) -> np.ndarray:
    return (boxes_F4[:, 2] - boxes_F4[:, 0]) * (boxes_F4[:, 3] - boxes_F4[:, 1])
