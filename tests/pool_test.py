"""Decoders in processes of their own: what each clip may cost, and that they end."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import clips
import numpy as np
import pytest

from uhman_jax.errors import UserError
from uhman_jax.preprocess.pool import DecoderPool

TESTS = Path(__file__).parent
OPTIONS = {"max_frames": 3, "size": 8}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Path of a good clip."""
    root = tmp_path_factory.mktemp("clips")
    clips.write_noise(root, (2,))
    return str(root / "0.mp4")


@pytest.fixture
def misbehaving(clip, tmp_path):
    paths = []
    for i, name in enumerate("good hang good2 crash exit good3 surprise greedy good4".split()):
        paths.append(str(tmp_path / f"{i}_{name}.mp4"))
        shutil.copy(clip, paths[-1])
    return paths


def test_hangs_and_crashes_cost_one_clip_each(misbehaving):
    command = (sys.executable, str(TESTS / "small_network.py"), "child")
    started = time.monotonic()
    with DecoderPool(
        misbehaving, OPTIONS, num_decoders=2, timeout=4, memory_bytes=3 << 30, command=command
    ) as pool:
        found = list(pool)
    assert time.monotonic() - started < 60
    assert [one.state for one in found] == [
        "ok", "timeout", "ok", "corrupt", "corrupt", "ok", "corrupt", "unsupported", "ok"
    ]  # fmt: skip
    assert found[1].reason == "decoding took longer than 4 s"
    assert "SIGSEGV" in found[3].reason and "exit status 3" in found[4].reason
    assert "ZeroDivisionError" in found[6].reason and "memory" in found[7].reason
    assert all(len(clip.images) == 2 * (clip.state == "ok") for clip in found)
    np.testing.assert_array_equal(found[0].images, found[-1].images)


def test_memory_of_a_decoder_does_not_grow_and_its_lack_is_named(tmp_path):
    """Ten 4K clips pass where one does (each takes 50 MiB); with less they are not "corrupt"."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (135, 240, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    path = clips.write_clip(tmp_path / "4k.mp4", [noise, 255 - noise, noise], [0, 200, 400])
    program = "from uhman_jax.preprocess import child; print(child._peak_bytes())"
    command = [sys.executable, "-c", program]
    one_thread = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}
    bare = subprocess.run(command, env=one_thread, capture_output=True, check=True, text=True)
    found = {}
    for extra in (120, 30):
        memory_bytes = int(bare.stdout) + (extra << 20)
        limits = {"timeout": 60, "memory_bytes": memory_bytes}
        with DecoderPool([path] * 10, OPTIONS, num_decoders=1, **limits) as pool:
            found[extra] = {(clip.state, clip.reason) for clip in pool}
    assert found[120] == {("ok", "")}
    reason = f"decoding needs more than decoder_memory, {memory_bytes / 2**30:g} GiB"
    assert found[30] == {("unsupported", reason)}


def test_few_clips_wait_for_the_network(clip):
    with DecoderPool([clip] * 60, OPTIONS, num_decoders=2, timeout=60) as pool:
        clips_iterator = iter(pool)
        next(clips_iterator)
        time.sleep(1)
        assert pool.ready() <= 8  # four per decoder


def test_a_decoder_without_room_to_start_is_told_in_a_sentence(clip):
    limits = {"timeout": 60, "memory_bytes": 1 << 20}
    with (
        DecoderPool([clip], OPTIONS, num_decoders=1, **limits) as pool,
        pytest.raises(UserError, match="within decoder_memory, 0.000976562 GiB .0: no limit."),
    ):
        next(iter(pool))


def test_a_decoder_has_one_thread_however_many_cores_there_are():
    """Each further one takes 40 MB of the address space that a decoder has."""
    script = """if True:
        import json, os
        print("{}", flush=True)
        input()
        reason = os.environ["OPENBLAS_NUM_THREADS"]
        print(json.dumps({"state": "corrupt", "reason": reason}), flush=True)
        input()
    """
    command = (sys.executable, "-c", script)
    with DecoderPool(["x"], OPTIONS, num_decoders=1, timeout=60, command=command) as pool:
        assert [clip.reason for clip in pool] == ["1"]


def test_decoders_end_with_the_pool(clip):
    with DecoderPool([clip] * 60, OPTIONS, num_decoders=2, timeout=60) as pool:
        next(iter(pool))
        children = subprocess.run(
            ["ps", "--ppid", str(os.getpid()), "-o", "pid,args"], capture_output=True, text=True
        ).stdout
        assert children.count("preprocess.child") == 2
    children = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "pid,args"], capture_output=True, text=True
    ).stdout
    assert "preprocess.child" not in children
