"""Renders H.264 clips of textured objects that move over moving backgrounds."""

import concurrent.futures
import math
import multiprocessing
import os
from pathlib import Path

import av
import numpy as np
from scipy import ndimage

from uhman_jax.runtime import storage
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.simulator import sprites
from uhman_jax.simulator.laws import STREAMS
from uhman_jax.simulator.motion import HEIGHT, WIDTH, ClipPlan

MARGIN = 48  # pixels by which a background exceeds the frame on every side
# 1.5 ms and 4 KB per frame; one thread for reproducible bytes.
ENCODER = {"preset": "ultrafast", "crf": "28", "threads": "1", "bf": "0"}


def render_clips(folder: Path, plans: dict[str, ClipPlan], num_workers: int = 0) -> None:
    """Renders each missing clip to `folder/NAME.mp4`, with a progress bar.

    Each clip is written under a temporary name and renamed, so a killed run leaves only complete
    clips, and the next run renders the rest.

    Args:
        folder: created if it is missing.
        plans: plan of each clip, by NAME.
        num_workers: processes; 0: one per core; 1: only this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / f"{name}.mp4": plan for name, plan in plans.items()}
    todo = [(path, plan) for path, plan in paths.items() if not path.exists()]
    if not todo:
        return
    num_workers = min(num_workers or len(os.sched_getaffinity(0)), len(todo))
    progress = progress_bar(
        total=len(paths), initial=len(paths) - len(todo), desc="clips", unit="clip"
    )
    with progress:
        if num_workers == 1:
            for _ in map(_render_to, todo):
                progress.update()
            return
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(num_workers, context) as pool:
            for _ in pool.map(_render_to, todo):  # an error cancels the waiting clips
                progress.update()


def _render_to(task: tuple[Path, ClipPlan]) -> None:
    path, plan = task
    with storage.atomic_path(path) as temporary:
        render_clip(temporary, plan)


def render_clip(path: Path, plan: ClipPlan) -> None:
    """Writes one clip as MP4 (H.264, yuv420p, constant frame rate)."""
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=plan.rate, options=ENCODER)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        paint = painter(plan)
        for index in range(plan.num_frames):
            frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
            paint(index, *(_pixels(plane) for plane in frame.planes))
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode())


def _pixels(plane) -> np.ndarray:
    """Returns a view of the pixels of a plane without the padding of its lines."""
    lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return lines[: plane.height, : plane.width]


def painter(plan: ClipPlan):
    """Returns a function (frame index, Y, U, V) that paints a frame of a clip into three planes."""
    rng = np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([*plan.seed, STREAMS.index("media"), 1]))
    )
    scene = background(rng)
    times_F = np.arange(plan.num_frames) / plan.rate
    period, phase = rng.uniform(4, 9, 2), rng.uniform(0, 2 * np.pi, 2)
    pan_F2 = MARGIN * (1 + np.sin(2 * np.pi * times_F[:, None] / period + phase))
    pan_F2 = np.rint(pan_F2).astype(int)
    poses = [np.stack(path.pose(times_F), axis=1) for path in plan.paths]
    pictures = [sprites.sprite(path.look).copy() for path in plan.paths]
    for path, picture in zip(plan.paths, pictures, strict=True):
        picture[:, 0] = np.clip(picture[:, 0] * path.brightness, 16, 235)

    def paint(index: int, *planes: np.ndarray) -> None:
        x, y = pan_F2[index]
        for plane, whole, step in zip(planes, scene, (1, 2, 2), strict=True):
            height, width = plane.shape
            plane[:] = whole[y // step : y // step + height, x // step : x // step + width]
        for pose_F, picture in zip(poses, pictures, strict=True):
            _draw(planes, picture, *pose_F[index].tolist())

    return paint


def _draw(planes, picture, x: float, y: float, angle: float, radius: float) -> None:
    """Draws a rotated and scaled sprite, by nearest neighbour."""
    x0, x1 = (int(min(max(edge, 0), WIDTH)) // 2 * 2 for edge in (x - radius, x + radius + 2))
    y0, y1 = (int(min(max(edge, 0), HEIGHT)) // 2 * 2 for edge in (y - radius, y + radius + 2))
    if radius < 2 or x0 >= x1 or y0 >= y1:
        return
    scale = sprites.SIZE / (2 * sprites.REACH * radius)
    cos, sin = np.float32(math.cos(angle) * scale), np.float32(math.sin(angle) * scale)
    right = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - x)
    down = np.arange(y0, y1, dtype=np.float32)[:, None] + np.float32(0.5 - y)
    middle = np.float32(sprites.SIZE / 2)
    column = (right * cos + (down * sin + middle)).astype(np.intp)
    row = (down * cos - (right * sin - middle)).astype(np.intp)
    row *= sprites.SIZE
    row += column
    texels = picture.view(np.uint32).ravel().take(row, mode="clip")  # one look-up for Y, U, V, A
    texels = texels.view(np.uint8).reshape(y1 - y0, x1 - x0, 4)
    for channel, (plane, step) in enumerate(zip(planes, (1, 2, 2), strict=True)):
        target = plane[y0 // step : y1 // step, x0 // step : x1 // step]
        part = texels[::step, ::step]
        _blend(target, part[..., channel], part[..., 3])


def _blend(target: np.ndarray, values: np.ndarray, opacity: np.ndarray) -> None:
    """Moves uint8 `target` towards uint8 `values` by `opacity` / 128, rounding half up."""
    step = np.subtract(values, target, dtype=np.int16)
    step *= opacity  # at most 255 * 128, so step + 64 fits int16
    step += 64
    step >>= 7
    target += step.astype(np.uint8)  # modulo 256, which a negative step needs


def background(rng: np.random.Generator):
    """Returns Y, U and V of a soft scene larger than the frame, uint8; U and V at half size."""
    height, width = HEIGHT // 2 + MARGIN, WIDTH // 2 + MARGIN  # at half resolution
    y, x = np.mgrid[0:height, 0:width] / height
    palette = _palette(rng)
    kind = rng.integers(5)
    shade = _blobs(rng, height, width, 5)
    if kind == 0:  # a sky
        mix = np.clip(y * 1.2 + 0.25 * (shade - 0.5), 0, 1)
    elif kind == 1:  # clouds of colour
        mix = shade
    elif kind == 2:  # soft stripes
        angle = rng.uniform(0, np.pi)
        wave = np.sin(rng.uniform(12, 30) * (x * np.cos(angle) + y * np.sin(angle)) + 3 * shade)
        mix = 0.5 + 0.3 * np.clip(2 * wave, -1, 1)
    elif kind == 3:  # hills
        mix = np.zeros_like(x)
        for layer in range(4):
            waves = np.sin(rng.uniform(4, 12, 2)[:, None, None] * x + rng.uniform(0, 6, (2, 1, 1)))
            mix += 0.25 * (y > 0.25 + 0.17 * layer + 0.04 * waves.sum(0))
    else:  # lights out of focus
        mix = 0.3 * shade
        for _ in range(14):
            distance = np.hypot(x - rng.uniform(0, 0.6), y - rng.uniform(0, 1))
            mix += rng.uniform(0.15, 0.45) * (distance < rng.uniform(0.02, 0.09))
        mix = ndimage.uniform_filter(np.clip(mix, 0, 1), 3)
    rgb = palette[0] + (palette[1] - palette[0]) * mix[..., None]
    rgb += 0.35 * (palette[2] - rgb) * _blobs(rng, height, width, 4)[..., None]
    yuv = sprites.to_yuv(rgb)
    luma = ndimage.zoom(yuv[..., 0], 2, order=1)
    grain = rng.standard_normal(luma.shape, np.float32) * 1.0
    luma = np.clip(luma + grain, 16, 235).astype(np.uint8)
    chroma = np.clip(yuv[..., 1:], 16, 240).astype(np.uint8)
    return luma, chroma[..., 0].copy(), chroma[..., 1].copy()


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Returns three muted RGB colours of a background."""
    hue = rng.uniform(0, 1) + np.array([0, rng.uniform(0.05, 0.3), rng.uniform(0.4, 0.6)])
    saturation, value = rng.uniform(0.1, 0.45, 3), rng.permutation([0.45, 0.65, 0.85])
    channel = np.abs(((hue[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1) * 6 - 3) - 1
    pure = np.clip(channel, 0, 1)
    return 255 * value[:, None] * (1 - saturation[:, None] * (1 - pure))


def _blobs(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Returns smooth noise in 0..1 with about `cells` blobs across."""
    coarse = rng.uniform(0, 1, (2 * cells, cells))

    def smooth(size: int, count: int) -> np.ndarray:
        distance = (np.arange(size)[:, None] + 0.5) / size * count - (np.arange(count) + 0.5)
        weight = np.exp(-0.5 * (distance / 0.6) ** 2)
        return weight / weight.sum(1, keepdims=True)

    field = smooth(height, 2 * cells) @ coarse @ smooth(width, cells).T
    return (field - field.min()) / (field.max() - field.min())
