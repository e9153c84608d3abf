"""Decodes clips in a separate process, so that a hang or crash of FFmpeg costs only one clip.

`decode_process` starts it as `python -m uhman_jax.preprocess.decode_worker FD BYTES MEMORY`.
It reads one JSON job per line from standard input, writes the images to the shared memory of file
descriptor FD and answers with one JSON line on standard output: a DecodedClip, with the shape of
its images. It imports neither TensorFlow nor JAX.

Its first line is the result of the self-test.
"""

import gc
import json
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from uhman_jax.preprocess import self_test
from uhman_jax.preprocess.clip_file import DecodedClip, DecodeError
from uhman_jax.preprocess.decode import sample_frames

_NICE = 5  # the network's threads have priority; decoding runs ahead in idle time
_GRACE = 5.0  # seconds beyond a job's limit after which an orphan ends itself


def serve(decode: Callable[..., DecodedClip] = sample_frames) -> None:
    """Answers jobs until standard input ends.

    Args:
        decode: takes the job's "path" and "options"; tests replace it.
    """
    descriptor, num_bytes, memory_bytes = map(int, sys.argv[1:4])
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="ascii")
    os.dup2(2, 1)  # a library that prints must not garble the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    av.logging.set_level(av.logging.PANIC)
    os.nice(_NICE)
    fault = self_test.trouble(decode)  # before the memory limit, which could cause a fault
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    shared = np.frombuffer(mmap.mmap(descriptor, num_bytes), np.uint8)
    # The parent waits for this line, so a clip's time limit does not include the start.
    answers.write(json.dumps({"fault": fault} if fault else {}) + "\n")
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 2)  # the parent reads messages of imports only
    for line in sys.stdin:
        job = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, job["timeout"] + _GRACE)
        answer = _answer(decode, job, shared)
        at_limit = bool(memory_bytes) and (
            answer["reason"].startswith("MemoryError") or _peak_bytes() > 0.8 * memory_bytes
        )
        if at_limit and answer["reason"] and answer["state"] != "no_video":
            # Most likely out of memory, which FFmpeg reports as invalid data.
            reason = f"decoding needs more than decoder_memory, {memory_bytes / 2**30:g} GiB"
            answer = {"state": "unsupported", "reason": reason}
        gc.collect()  # PyAV's objects form reference cycles that hold megabytes of frames
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(answer) + "\n")
        if at_limit:
            return  # the next clip gets a fresh process, whose peak is its own


def _answer(decode: Callable[..., DecodedClip], job: dict, shared: np.ndarray) -> dict:
    try:
        clip = decode(job["path"], **job["options"])
    except DecodeError as error:
        return {"state": error.kind, "reason": error.reason}
    except Exception as error:  # a bad file must not stop later clips
        return {"state": "corrupt", "reason": f"{type(error).__name__}: {error}"}
    shared[: clip.images.size] = clip.images.reshape(-1)
    arrays = {name: array.tolist() for name, array in clip.arrays.items()}
    return vars(clip) | arrays | {"images": clip.images.shape}


def _peak_bytes() -> int:
    """Returns the peak of this process's address space; 0 where the system does not report it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmPeak:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    serve()
