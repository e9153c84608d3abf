"""Decoding processes: the limits of each clip, faults of the library, and the end of processes."""

import dataclasses
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import av
import clips
import numpy as np
import pytest

from uhman_jax.config import PreprocessConfig
from uhman_jax.preprocess import decode_process, self_test
from uhman_jax.preprocess.decode import sample_frames
from uhman_jax.preprocess.decode_pool import DecoderPool
from uhman_jax.preprocess.decode_process import LibraryFault
from uhman_jax.runtime.errors import UserError

FIXTURES = Path(__file__).parent / "fixtures"


def child(kind):
    return (sys.executable, str(FIXTURES / "small_network.py"), kind)


def pool_of(paths, timeout=60, num_decoders=2, memory_bytes=0, command=decode_process.COMMAND):
    config = PreprocessConfig(
        num_decoders=num_decoders, clip_timeout=timeout, decoder_memory=memory_bytes / 2**30
    )
    return DecoderPool(paths, config, max_frames=3, size=8, command=command)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Path of a good clip."""
    root = tmp_path_factory.mktemp("clips")
    clips.write_noise(root, (2,))
    return str(root / "0.mp4")


def test_hangs_and_crashes_cost_one_clip_each(clip, tmp_path):
    names, started = "good hang good2 crash exit good3 surprise greedy good4", time.monotonic()
    paths = [shutil.copy(clip, tmp_path / f"{name}.mp4") for name in names.split()]
    with pool_of(
        list(map(str, paths)), 4, memory_bytes=3 << 30, command=child("misbehave")
    ) as pool:
        found = list(pool)
    assert time.monotonic() - started < 60
    assert [one.state for one in found] == [
        "ok", "timeout", "ok", "corrupt", "corrupt", "ok", "corrupt", "unsupported", "ok"
    ]  # fmt: skip
    assert found[1].reason == "decoding took longer than 4 s"
    assert "SIGSEGV" in found[3].reason and "exit status 3" in found[4].reason
    assert "ZeroDivisionError" in found[6].reason and "memory" in found[7].reason
    assert all(len(one.images) == 2 * (one.state == "ok") for one in found)
    np.testing.assert_array_equal(found[0].images, found[-1].images)


def test_memory_of_a_decoder_does_not_grow_and_its_lack_is_named(tmp_path):
    """Ten 4K clips pass where one does (each takes 50 MiB); with less they are not "corrupt"."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (135, 240, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    path = clips.write_clip(tmp_path / "4k.mp4", [noise, 255 - noise, noise], [0, 200, 400])
    program = "from uhman_jax.preprocess import decode_worker; print(decode_worker._peak_bytes())"
    command = [sys.executable, "-c", program]
    one_thread = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(FIXTURES.parents[1])}
    bare = subprocess.run(command, env=one_thread, capture_output=True, check=True, text=True)
    found = {}
    for extra, count in ((120, 10), (30, 2)):
        memory_bytes = int(bare.stdout) + (extra << 20)
        with pool_of([path] * count, num_decoders=1, memory_bytes=memory_bytes) as pool:
            found[extra] = {(clip.state, clip.reason) for clip in pool}
    assert found[120] == {("ok", "")}
    reason = f"decoding needs more than decoder_memory, {memory_bytes / 2**30:g} GiB"
    assert found[30] == {("unsupported", reason)}


def test_few_clips_wait_for_the_network(clip):
    with pool_of([clip] * 60) as pool:
        clips_iterator = iter(pool)
        next(clips_iterator)
        time.sleep(1)
        assert sum(one.done() for one in pool._clips) <= 8  # four per decoder


def test_a_library_that_fails_the_self_test_is_at_fault_and_no_clip_is(clip):
    with (
        pool_of([clip] * 3, command=child("outdated")) as pool,
        pytest.raises(LibraryFault) as caught,
    ):
        next(iter(pool))
    message = str(caught.value)
    assert message.startswith(f"av {av.__version__} (FFmpeg ")
    assert "TypeError: open() got an unexpected keyword argument" in message
    assert "pip install 'av>=" in message and "\n" not in message


@pytest.mark.parametrize(
    ("program", "memory_bytes", "sentence"),
    [
        ("import no_such_module", 0, "ended with .*No module named 'no_such_module'"),
        ("raise SystemExit('cannot: x\\n')", 0, "ended with 'cannot: x'"),
        ("", 1 << 20, "within decoder_memory, 0.000976562 GiB .0: no limit."),
    ],
)
def test_a_decoder_that_cannot_start_says_why(clip, program, memory_bytes, sentence):
    command = (sys.executable, "-c", program) if program else decode_process.COMMAND
    with (
        pool_of([clip], command=command, memory_bytes=memory_bytes) as pool,
        pytest.raises(UserError, match=f"a decoding process must start.*{sentence}") as caught,
    ):
        next(iter(pool))
    assert bool(memory_bytes) == ("decoder_memory" in str(caught.value))


def test_the_remedy_names_the_versions_that_the_project_allows(clip):
    project = tomllib.loads((FIXTURES.parents[1] / "pyproject.toml").read_text())
    (bound,) = [name for name in project["project"]["dependencies"] if name.startswith("av>")]

    def decode(path, **options):
        raise ZeroDivisionError

    assert f"pip install '{bound}'" in self_test.trouble(decode)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({}, ""),
        ({"reason": "some packets"}, "'some packets'"),
        ({"width": 32, "height": 16}, "32x16"),
        ({"seconds": 0.64}, "0.640 s"),
        ({"times_F": np.array([0, 0.2, 0.6], np.float32)}, "[0.0, 0.2, 0.6]"),
        ({"images": np.zeros((3, 16, 16, 3), np.uint8)}, "the colour [0, 0, 0] for [255, 0, 0]"),
        ({"images": np.zeros((2, 16, 16, 3), np.uint8)}, "images (2, 16, 16, 3)"),
    ],
)
def test_the_self_test_reports_each_difference(change, part):
    def decode(path, **options):
        return dataclasses.replace(sample_frames(path, **options), **change)

    trouble = self_test.trouble(decode)
    assert part in trouble and bool(part) == bool(trouble)


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
    with pool_of(["x"], num_decoders=1, command=command) as pool:
        assert [clip.reason for clip in pool] == ["1"]


@pytest.mark.parametrize("name", ["decode_worker", "pipeline"])
def test_decoders_and_checks_import_no_heavy_library(name):
    program = f"import uhman_jax.preprocess.{name}, sys; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(FIXTURES.parents[1])}
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    loaded = set(found.stdout.split())
    assert not loaded & {"tensorflow", "keras", "jax", "flax"}
    # The processes that need a library report that it cannot be imported.
    assert ("av" in loaded) == (name == "decode_worker")


def test_decoders_end_with_the_pool(clip):
    def num_children():
        listing = ["ps", "--ppid", str(os.getpid()), "-o", "pid,args"]
        found = subprocess.run(listing, capture_output=True, text=True)
        return found.stdout.count("preprocess.decode_worker")

    with pool_of([clip] * 60) as pool:
        next(iter(pool))
        assert num_children() == 2
    assert num_children() == 0
