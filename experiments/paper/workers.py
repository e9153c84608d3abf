"""Runs the cells of a study in processes: one per core on a CPU, one on an accelerator.

A model of this size leaves half of two cores idle. Two models at once, each on its own core, take a
quarter less time than one after the other.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from uhman_jax.runtime.progress import progress_bar

MAX_WORKERS = 8  # a worker takes up to 1.5 GB of memory


class Interrupted(Exception):
    """A signal stopped the study; the state of the running cells is on disk."""


def num_workers() -> int:
    """Returns the number of cells to run at once: one per core on a CPU, else one.

    A child process looks for the accelerator, because JAX would reserve its memory in this one.
    """
    script = "import jax; print(jax.default_backend())"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    on_cpu = found.stdout.strip() == "cpu"
    return min(len(os.sched_getaffinity(0)), MAX_WORKERS) if on_cpu else 1


class Workers:
    """A pool of `count` processes that a signal stops cleanly; use it in a `with` statement."""

    def __init__(self, count: int):
        context = multiprocessing.get_context("spawn")
        self._pids, cores = context.SimpleQueue(), context.SimpleQueue()
        self._stop_event = context.Event()
        available = sorted(os.sched_getaffinity(0))
        for worker in range(count):  # an equal share of the cores for each
            cores.put(available[worker::count] or available)
        self._pool = concurrent.futures.ProcessPoolExecutor(
            count, context, initializer=_start, initargs=(cores, self._pids, self._stop_event)
        )
        self._stopped = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Workers":
        """Handles SIGINT and SIGTERM, and hides the progress bars of the workers."""
        self._tqdm_disable = os.environ.get("TQDM_DISABLE")
        os.environ["TQDM_DISABLE"] = "1"  # tqdm reads it on import; `_start` would be too late
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *exc: object) -> None:
        """Waits for the running tasks; queued tasks do not start."""
        self._stop_event.set()
        self._pool.shutdown()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        del os.environ["TQDM_DISABLE"]
        if self._tqdm_disable is not None:
            os.environ["TQDM_DISABLE"] = self._tqdm_disable

    def run(
        self,
        function: Callable[..., Any],
        tasks: Sequence[tuple[Any, ...]],
        *,
        done: int = 0,
        desc: str = "",
        unit: str = "task",
    ) -> Iterator[tuple[int, Any]]:
        """Calls `function(*task)` for all tasks and yields (index of the task, result) as they end.

        Args:
            function: a function defined in a module, not in another function.
            tasks: the arguments of each call.
            done: number of earlier tasks on the progress bar.
            desc: title of the progress bar.
            unit: unit of the progress bar.

        Raises:
            Interrupted: a signal arrived or a process was killed; finished tasks are yielded first.
        """
        futures = {}
        with contextlib.suppress(BrokenProcessPool):  # the pool takes no more tasks
            for i, task in enumerate(tasks):
                futures[self._pool.submit(_call, function, task)] = i
        self._stopped |= len(futures) < len(tasks)
        bar = {"total": done + len(tasks), "initial": done, "disable": not tasks}
        with progress_bar(desc=desc, unit=unit, **bar) as shown:
            for future in concurrent.futures.as_completed(futures):
                try:
                    yield futures[future], future.result()
                except (Interrupted, BrokenProcessPool):
                    self._stopped = True
                    # Futures are not cancelled: a pool that breaks then would hang.
                    self._stop_event.set()
                shown.update()
        if self._stopped:
            raise Interrupted

    def _stop(self, number: int, frame: object) -> None:
        """Forwards the signal: a training worker saves its state, others exit at once."""
        if self._stopped:
            return
        self._stopped = True
        self._stop_event.set()
        print("\nStopping after the current steps.", file=sys.stderr)
        while not self._pids.empty():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pids.get(), signal.SIGTERM)


_stop_event: Any = None


def _call(function: Callable[..., Any], task: tuple[Any, ...]) -> Any:
    """Runs a task in a worker, unless a stop was requested after the pool handed it out."""
    if _stop_event.is_set():
        raise Interrupted
    return function(*task)


def _start(cores: Any, pids: Any, stop_event: Any) -> None:
    """Initialises a worker: sets its cores before JAX counts them."""
    global _stop_event
    _stop_event = stop_event
    os.sched_setaffinity(0, cores.get())
    os.setpgrp()  # a terminal's interrupt reaches only the parent, which forwards it
    pids.put(os.getpid())
    import absl.logging

    absl.logging.set_verbosity(absl.logging.WARNING)  # orbax logs every file
