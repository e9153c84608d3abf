"""Mutated clips: none crashes or holds up the parent, and each gets one state.

Sixty in the default suite, two thousand in `pytest -m long`, which also mutates real clips.
"""

import collections
import time

import clips
import numpy as np
import pytest
from shared_files import shared

from uhman_jax.config import PreprocessConfig
from uhman_jax.preprocess.decode_pool import DecoderPool
from uhman_jax.preprocess.ledger import STATES

TIMEOUT = 10.0
CONFIG = PreprocessConfig(
    max_megapixels=4.0, max_seconds=600.0, max_megabytes=64.0, clip_timeout=TIMEOUT,
    num_decoders=2, decoder_memory=1.5,
)  # fmt: skip
CONTAINERS = {"mp4": "mpeg4", "mkv": "h264", "webm": "vp9", "avi": "mpeg4", "mov": "mjpeg"}
CONTAINERS |= {"ts": "h264"}


def base_clips(folder):
    """Small clips in several containers and codecs; those that this FFmpeg can write."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(10)]
    paths = []
    for container, codec in CONTAINERS.items():
        path = folder / f"base.{container}"
        try:
            clips.write_clip(path, images, range(0, 400, 40), codec)
        except Exception:  # this build of FFmpeg lacks the codec
            path.unlink(missing_ok=True)
        else:
            paths.append(path)
    assert len(paths) >= 3
    return paths


def mutate(data, rng):
    """One of five kinds of damage."""
    data = bytearray(data)
    kind, size = rng.integers(5), len(data)
    if kind == 0:  # single bits
        for _ in range(rng.integers(1, 30)):
            data[rng.integers(size)] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # cut at some per cent
        del data[size * int(rng.integers(1, 100)) // 100 :]
    elif kind == 2:  # a hole
        begin = rng.integers(size)
        data[begin : begin + 200] = bytes(len(data[begin : begin + 200]))
    elif kind == 3:  # numbers of the header, grown
        begin = rng.integers(min(size, 2000))
        data[begin : begin + 4] = b"\x7f\xff\xff\xff"
    else:  # a piece that comes twice
        begin, end = sorted(rng.integers(0, size, 2))
        data[end:end] = data[begin:end][:4000]
    return bytes(data)


def states_of(bases, folder, count, seed):
    """Decodes `count` mutated clips; counts them by state."""
    rng = np.random.default_rng(seed)
    contents = [base.read_bytes() for base in bases]
    paths = []
    for number in range(count):
        base = number % len(bases)
        path = folder / f"{number}{bases[base].suffix}"
        path.write_bytes(mutate(contents[base], rng))
        paths.append(str(path))
    states, last = collections.Counter(), time.monotonic()
    with DecoderPool(paths, CONFIG, max_frames=4, size=16) as pool:
        for clip in pool:
            # A clip may time out, and be tried again in a fresh process.
            assert time.monotonic() - last < 3 * TIMEOUT
            last = time.monotonic()
            states[clip.state] += 1
            assert (clip.state == "ok") == (len(clip.images) > 0)
            assert clip.state == "ok" or clip.reason
            assert np.isfinite(clip.times_F).all() and (np.diff(clip.times_F) > 0).all()
    assert states.total() == count and set(states) <= set(STATES)
    return states


def test_sixty_mutated_clips_cost_nothing_but_themselves(tmp_path):
    states = states_of(base_clips(tmp_path), tmp_path, 60, seed=0)
    assert states["ok"] > 5 and states["corrupt"] > 5, states


@pytest.mark.long
def test_two_thousand_mutated_clips_cost_nothing_but_themselves(tmp_path, record_property):
    real = shared("videos")
    small = sorted(path for path in real.iterdir() if 0 < path.stat().st_size < 3e5)
    bases = [*base_clips(tmp_path), *(path for path in small if path.suffix != ".csv")]
    record_property("states", dict(states_of(bases, tmp_path, 2000, seed=1)))
