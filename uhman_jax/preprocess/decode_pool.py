"""Decodes many clips ahead of the network, in child processes with a time limit for each clip.

A process that hangs or dies is replaced, and its clip gets a state and a reason. Results come in
the order of the paths; a bounded number of them waits in memory.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from uhman_jax.preprocess.clip_file import DecodedClip, DecodeError, require_size
from uhman_jax.preprocess.decode_process import COMMAND, Worker
from uhman_jax.runtime import storage

_MAX_WAITING_FRAMES = 1024  # images that wait for the network, about 270 MB


class DecoderPool(contextlib.AbstractContextManager["DecoderPool"]):
    """Iterates over the decoded clips of `paths`, in order; use it as a context manager.

    Decoding starts with the object and stays a bounded number of clips ahead of the iteration.

    Args:
        paths: of the clips.
        options: of `decode.sample_frames`, the same for every clip; `max_frames` and `size` are
            required.
        num_decoders: child processes.
        timeout: seconds of wall time for one clip.
        memory_bytes: address space of a child process; 0: no limit.
        locate: returns the file of a path, or an object (gs://), which is copied and decoded; it
            raises DecodeError where the path is not allowed.
        command: starts a child process; the arguments of `decode_worker` follow it.
    """

    def __init__(
        self,
        paths: Sequence[str],
        options: dict,
        *,
        num_decoders: int,
        timeout: float,
        memory_bytes: int = 0,
        locate: Callable[[str], str] = str,
        command: Sequence[str] = COMMAND,
    ):
        self._paths = iter(paths)
        self._options = options
        self._locate = locate
        self._closing = threading.Event()
        num_bytes = options["max_frames"] * options["size"] ** 2 * 3
        arguments = command, num_bytes, memory_bytes, timeout, self._closing.is_set
        self._workers = [Worker(*arguments) for _ in range(num_decoders)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = concurrent.futures.ThreadPoolExecutor(num_decoders)
        self._clips: collections.deque[concurrent.futures.Future] = collections.deque()
        fitting = _MAX_WAITING_FRAMES // options["max_frames"]
        self._submit(max(num_decoders, min(4 * num_decoders, fitting)))

    def __exit__(self, *exc):
        """Ends the child processes; clips that were not taken are lost."""
        self._closing.set()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def __iter__(self) -> Iterator[DecodedClip]:
        """Yields the clips in the order of `paths`; waits for a clip that is not decoded yet.

        Raises:
            LibraryFault: the decoders cannot decode the clip of the self-test.
            UserError: a decoder does not start.
        """
        while self._clips:
            clip = self._clips.popleft().result()
            self._submit(1)
            yield clip

    def _submit(self, count: int) -> None:
        for path in itertools.islice(self._paths, count):
            self._clips.append(self._threads.submit(self._decode, path))

    def _decode(self, path: str) -> DecodedClip:
        worker = self._idle.get()
        try:
            path = self._locate(path)
            if storage.is_remote(path):  # an object that is too large is not copied
                size = storage.path(path).stat().st_size
                require_size(size, self._options.get("max_megabytes", math.inf))
            with storage.temporary_copy(storage.path(path)) as file:
                return worker.decode(str(file), self._options)
        except DecodeError as error:
            return DecodedClip(error.kind, error.reason)
        except FileNotFoundError as error:  # of an object; the child process reports files
            return DecodedClip("corrupt", f"the file cannot be read: {error.strerror}")
        finally:
            self._idle.put(worker)
