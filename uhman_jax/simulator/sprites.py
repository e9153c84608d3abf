"""Draws the picture of each object class from a shape, a colour and a texture."""

import functools

import numpy as np
from scipy import ndimage

from uhman_jax.simulator.names import COLOURS, SHAPES, TEXTURES

SIZE = 384  # pixels of the square canvas
REACH = 1.5  # the canvas spans [-REACH, REACH] shape units, so a rotated box stays inside it
_RGB = {
    "gold": (245, 190, 30), "scarlet": (222, 38, 48), "teal": (0, 140, 140),
    "violet": (128, 66, 190), "lime": (140, 205, 40), "tangerine": (250, 120, 30),
    "pink": (245, 110, 170), "azure": (45, 130, 235), "ivory": (245, 240, 220),
    "mint": (120, 225, 175), "navy": (35, 45, 115), "cocoa": (115, 70, 45),
}  # fmt: skip


def to_yuv(rgb: np.ndarray) -> np.ndarray:
    """Returns Y, U, V of 8-bit RGB on the last axis: limited-range BT.601, FFmpeg's default."""
    matrix = np.array(
        [[65.738, 129.057, 25.064], [-37.945, -74.494, 112.439], [112.439, -94.154, -18.285]]
    )
    return rgb @ (matrix.T / 256) + np.array([16.0, 128.0, 128.0])


@functools.cache
def sprite(look: tuple[int, int, int]) -> np.ndarray:
    """Returns the picture of a class, uint8 [SIZE * SIZE, 4]: Y, U, V and opacity 0..128.

    A dark rim, a light edge and a soft highlight distinguish the object from any background.
    """
    shape, colour, texture = look
    inside = shape_mask(shape)
    depth = np.asarray(ndimage.distance_transform_edt(inside)) * (2 * REACH / SIZE)  # shape units
    x, y = _grid()
    main = np.array(_RGB[COLOURS[colour]], float)
    second = main * 0.45 if main.mean() > 95 else 255 - (255 - main) * 0.45
    mix = _texture(TEXTURES[texture], x, y)[..., None]
    rgb = main * (1 - mix) + second * mix
    light = np.clip(1.12 - 0.22 * np.hypot(x + 0.35, y + 0.4), 0.8, 1.15)[..., None]
    rgb = rgb * light
    rgb[depth < 0.075] = 250.0
    rgb[depth < 0.025] = 40.0
    planes = to_yuv(np.clip(rgb, 0, 255))
    opacity = 128 * np.clip(depth * SIZE / (2 * REACH) / 1.5, 0, 1)
    packed = np.concatenate([planes, opacity[..., None]], axis=-1)
    return np.ascontiguousarray(np.rint(packed).astype(np.uint8).reshape(-1, 4))


@functools.cache
def outline(shape: int) -> np.ndarray:
    """Returns [64, 2], the farthest points of a shape in 64 directions (x right, y down)."""
    y, x = np.nonzero(shape_mask(shape))
    points = (np.stack([x, y], axis=1) + 0.5) * (2 * REACH / SIZE) - REACH
    angles = np.arange(64) * (2 * np.pi / 64)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    return points[np.argmax(points @ directions, axis=0)]


@functools.cache
def shape_mask(shape: int) -> np.ndarray:
    """Returns bool [SIZE, SIZE], the shape upright inside the unit circle."""
    x, y = _grid()
    mask = _DRAW[SHAPES[shape]](x, -y, np.hypot(x, y), np.arctan2(x, -y))  # y up, angle from north
    return ndimage.binary_opening(mask, iterations=2)


def _grid():
    axis = (np.arange(SIZE) + 0.5) * (2 * REACH / SIZE) - REACH
    return np.meshgrid(axis, axis)


def _texture(name: str, x, y) -> np.ndarray:
    """Returns the fraction of the second colour at each point, 0..1."""
    if name == "striped":
        wave = np.sin(11 * (x + 0.6 * y))
    elif name == "dotted":
        wave = 0.55 - np.hypot((4 * x) % 1 - 0.5, (4 * y) % 1 - 0.5) * 2
    elif name == "checked":
        wave = np.sin(9 * x) * np.sin(9 * y)
    elif name == "ringed":
        wave = np.sin(16 * np.hypot(x, y))
    elif name == "zigzag":
        wave = np.sin(13 * (y + 0.35 * np.abs((2.5 * x) % 1 - 0.5) * 2))
    else:
        return np.zeros_like(x)
    return np.clip(0.5 + 6 * wave, 0, 1)


def _polygon(*points):
    """Returns a function that draws a closed polygon (even-odd rule)."""

    def draw(x, y, r, angle):
        inside = np.zeros(x.shape, bool)
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            if y0 != y1:
                crosses = ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
                inside ^= crosses
        return inside

    return draw


def _star(points: int, inner: float):
    corners = []
    for index in range(2 * points):
        radius, angle = (1.0, inner)[index % 2], np.pi * index / points
        corners.append((radius * np.sin(angle), radius * np.cos(angle)))
    return _polygon(*corners)


def _circle(x, y, cx, cy, radius):
    return np.hypot(x - cx, y - cy) < radius


def _fish(x, y, r, angle):
    body = (x / 0.62 - 0.35) ** 2 + (y / 0.5) ** 2 < 1
    tail = (x < -0.25) & (x > -0.85) & (np.abs(y) < -0.85 * (x + 0.15))
    return (body | tail) & ~_circle(x, y, 0.5, 0.12, 0.07)


def _leaf(x, y, r, angle):
    blade = (
        _circle(x, y, -0.55, 0, 1.1)
        & _circle(x, y, 0.55, 0, 1.1)
        & ((np.abs(x) > 0.02) | (y > 0.55))
    )
    return blade | ((np.abs(x) < 0.05) & (np.abs(y + 0.75) < 0.2))


def _wheel(x, y, r, angle):
    spoke = np.abs(((angle + np.pi) * 8 / (2 * np.pi)) % 1 - 0.5) * r < 0.09
    return (r < 0.97) & ((r > 0.72) | (r < 0.22) | spoke)


def _flower(x, y, r, angle):
    return (r < 0.5 + 0.47 * np.abs(np.cos(2.5 * angle))) & ((r > 0.3) | (r < 0.22))


def _butterfly(x, y, r, angle):
    upper = ((np.abs(x) - 0.45) / 0.47) ** 2 + ((y - 0.33) / 0.47) ** 2 < 1
    lower = ((np.abs(x) - 0.33) / 0.4) ** 2 + ((y + 0.42) / 0.42) ** 2 < 1
    return upper | lower | ((np.abs(x) < 0.16) & (np.abs(y) < 0.8))


def _cloud(x, y, r, angle):
    puffs = ((-0.5, -0.15, 0.36), (0.0, 0.15, 0.5), (0.5, -0.1, 0.4), (0.0, -0.2, 0.42))
    return np.any([_circle(x, y, *puff) for puff in puffs], axis=0)


def _cube(x, y, r, angle):
    """Draws a cube seen from a corner: a hexagon with three bright edges cut out."""
    corner = np.abs(((angle + np.pi) * 3 / (2 * np.pi)) % 1 - 0.5) * r * 2 * np.pi / 3 < 0.025
    sextant = (angle + np.pi / 6) % (np.pi / 3) - np.pi / 6
    return (r * np.cos(sextant) < 0.83) & ~(corner & (r < 0.8))


_DRAW = {
    "star": _star(5, 0.45),
    "heart": lambda x, y, r, angle: (
        (1.25 * x) ** 2 + (1.3 * y + 0.15 - 0.75 * np.sqrt(np.abs(1.25 * x))) ** 2 < 1
    ),
    "ring": lambda x, y, r, angle: (r < 0.95) & (r > 0.5),
    "flower": _flower,
    "leaf": _leaf,
    "fish": _fish,
    "moon": lambda x, y, r, angle: (r < 0.95) & ~_circle(x, y, 0.42, 0.12, 0.78),
    "bolt": _polygon(
        (0.45, 0.88), (-0.7, -0.15), (-0.2, -0.15), (-0.4, -0.9), (0.75, 0.25), (0.2, 0.25)
    ),
    "cube": _cube,
    "wheel": _wheel,
    "drop": lambda x, y, r, angle: _circle(x, y, 0, -0.3, 0.62)
    | ((y > -0.1) & (y < 0.95) & (np.abs(x) < 0.6 * (0.95 - y) / 1.05)),
    "cloud": _cloud,
    "crown": _polygon(
        (-0.75, -0.6), (-0.8, 0.5), (-0.4, 0.0), (0.0, 0.75), (0.4, 0.0), (0.8, 0.5), (0.75, -0.6)
    ),
    "butterfly": _butterfly,
    "kite": _polygon((0.0, 0.97), (0.68, 0.25), (0.0, -0.97), (-0.68, 0.25)),
}  # fmt: skip
