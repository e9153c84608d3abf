"""Decodes many clips ahead of the network, in child processes with a time limit for each clip.

A process that hangs or dies is replaced, and its clip gets a state and a reason. Results come in
the order of the paths; the number that waits in memory is bounded.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from uhman_jax.config import PreprocessConfig
from uhman_jax.preprocess.clip_file import FRAME_TIMES, DecodedClip, DecodeError, require_size
from uhman_jax.preprocess.decode_process import COMMAND, Worker, usable_cores
from uhman_jax.runtime import storage

_MAX_WAITING_FRAMES = 1024  # images that wait for the network, about 270 MB


class DecoderPool(contextlib.AbstractContextManager["DecoderPool"]):
    """Iterates over the decoded clips of `paths`, in order; use it as a context manager.

    Decoding starts at once and stays a bounded number of clips ahead of the iteration.

    Args:
        paths: paths of the clips.
        config: limits of a clip, number of child processes and their memory.
        max_frames: maximum number of frames per clip.
        size: width and height of the images.
        frame_times: see `video_index.read_index`.
        locate: maps a path to a local file or an object (gs://), which is copied and decoded;
            raises DecodeError if the path is not allowed.
        command: starts a child process; the arguments of `decode_worker` are appended.
    """

    def __init__(
        self,
        paths: Sequence[str],
        config: PreprocessConfig,
        max_frames: int,
        size: int,
        frame_times: int = FRAME_TIMES,
        locate: Callable[[str], str] = str,
        command: Sequence[str] = COMMAND,
    ):
        self._paths = iter(paths)
        limits = ("frames_per_second", "max_megabytes", "max_seconds", "max_megapixels")
        self._options = {name: getattr(config, name) for name in limits}
        self._options |= {"max_frames": max_frames, "size": size, "frame_times": frame_times}
        self._locate = locate
        self._closing = threading.Event()
        num_decoders = config.num_decoders or min(8, usable_cores())
        sizes = max_frames * size**2 * 3, int(config.decoder_memory * 2**30)
        arguments = command, *sizes, config.clip_timeout, self._closing.is_set
        self._workers = [Worker(*arguments) for _ in range(num_decoders)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = concurrent.futures.ThreadPoolExecutor(num_decoders)
        self._clips: collections.deque[concurrent.futures.Future] = collections.deque()
        self._submit(max(num_decoders, min(4 * num_decoders, _MAX_WAITING_FRAMES // max_frames)))

    def __exit__(self, *exc):
        """Ends the child processes; clips that were not read are lost."""
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
            if storage.is_remote(path):  # do not copy an object that is too large
                size = storage.path(path).stat().st_size
                require_size(size, self._options["max_megabytes"])
            with storage.temporary_copy(storage.path(path)) as file:
                return worker.decode(str(file), self._options)
        except DecodeError as error:
            return DecodedClip(error.kind, error.reason)
        except FileNotFoundError as error:  # an object; the child process reports missing files
            return DecodedClip("corrupt", f"the file cannot be read: {error.strerror}")
        finally:
            self._idle.put(worker)
