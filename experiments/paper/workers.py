"""Runs the cells of a study in processes: one per core on a CPU, one where there is an accelerator.

A model of this size leaves half of two cores idle when it has both; two models, each on a core of
its own, finish a quarter sooner.
"""

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

MAX_WORKERS = 8  # a worker takes up to 1.5 GB of memory


class Interrupted(Exception):
    """A signal stopped the study; the state of what was running is on disk."""


def num_workers() -> int:
    """How many cells to run at once: one per core on a CPU, one where there is an accelerator.

    Asks in another process: one that has looked keeps an accelerator's memory.
    """
    question = "import jax; print(jax.default_backend())"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True)
    on_cpu = answer.stdout.strip() == "cpu"
    return min(len(os.sched_getaffinity(0)), MAX_WORKERS) if on_cpu else 1


class Workers:
    """A pool of processes that a signal stops cleanly; use it in a `with` statement.

    Args:
        count: processes.
    """

    def __init__(self, count: int):
        context = multiprocessing.get_context("spawn")
        self._pids, cores = context.SimpleQueue(), context.SimpleQueue()
        self._stop_event = context.Event()
        available = sorted(os.sched_getaffinity(0))
        for worker in range(count):  # each has an equal share of the cores
            cores.put(available[worker::count] or available)
        self._pool = concurrent.futures.ProcessPoolExecutor(
            count, context, initializer=_start, initargs=(cores, self._pids, self._stop_event)
        )
        self._stopped = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Workers":
        """Takes over SIGINT and SIGTERM, and hides the bars of the processes to come."""
        self._tqdm_disable = os.environ.get("TQDM_DISABLE")
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported: too late in `_start`
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *exc: object) -> None:
        """Waits for the processes; what waits for them does not begin."""
        self._stop_event.set()
        self._pool.shutdown()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        del os.environ["TQDM_DISABLE"]
        if self._tqdm_disable is not None:
            os.environ["TQDM_DISABLE"] = self._tqdm_disable

    def run(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        """Calls `function(*task)` for all tasks at once.

        Yields:
            (index of the task, result), as they end.

        Raises:
            Interrupted: a signal came, or a process was killed. Tasks that ended are yielded first.
        """
        futures = {self._pool.submit(_call, function, task): i for i, task in enumerate(tasks)}
        waiting = set(futures)
        while waiting:
            # Not without end, so that a signal is seen.
            done, waiting = concurrent.futures.wait(
                waiting, 0.5, concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                try:
                    yield futures[future], future.result()
                except (Interrupted, BrokenProcessPool):
                    self._stopped = True
                    # Nothing is cancelled: a pool that breaks meanwhile would wait for ever.
                    self._stop_event.set()
        if self._stopped:
            raise Interrupted

    def _stop(self, number: int, frame: object) -> None:
        """Passes the signal on: a worker in training saves its state, others end at once."""
        if self._stopped:
            return
        self._stopped = True
        self._stop_event.set()
        print("\nStopping after the steps that are running.", file=sys.stderr)
        while not self._pids.empty():
            try:
                os.kill(self._pids.get(), signal.SIGTERM)
            except ProcessLookupError:
                pass


_stop_event: Any = None


def _call(function: Callable[..., Any], task: tuple[Any, ...]) -> Any:
    """A task in a worker; one that the pool has handed out ahead does not begin after a stop."""
    if _stop_event.is_set():
        raise Interrupted
    return function(*task)


def _start(cores: Any, pids: Any, stop_event: Any) -> None:
    """First thing in a worker: its cores, before JAX counts them."""
    global _stop_event
    _stop_event = stop_event
    os.sched_setaffinity(0, cores.get())
    os.setpgrp()  # a terminal's interrupt goes to the parent alone, which passes it on
    pids.put(os.getpid())
    import absl.logging

    absl.logging.set_verbosity(absl.logging.WARNING)  # orbax tells of every file
