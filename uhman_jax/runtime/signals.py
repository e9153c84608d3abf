"""Ends a process on SIGINT or SIGTERM: between two training steps, immediately elsewhere.

All files are written atomically, so a process may end anywhere and loses only unsaved steps. The
handlers raise no exception, because a library's callback would lose it. Python calls a handler only
between two of its own instructions, so a compilation of a minute would delay it by a minute.
Therefore a thread also receives the signals, and ends the process after a grace period.
"""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from uhman_jax.runtime import streams

STOPPED = 75  # exit status (EX_TEMPFAIL of sysexits.h): run the same command to continue
GRACE_SECONDS = 8.0
NUMBERS = (signal.SIGINT, signal.SIGTERM)
MESSAGE = "Stopped; the same command continues from there."

defer_exit = threading.Lock()  # while it is held, the grace period does not end the process


def end(*unused: object) -> None:
    """Ends the process with status `STOPPED`, without cleanup."""
    with contextlib.suppress(OSError, ValueError):  # the output may have no reader
        sys.stdout.flush()
        print(f"\n{MESSAGE}", file=sys.stderr, flush=True)
    os._exit(STOPPED)


@contextlib.contextmanager
def _handler(handle: Callable[..., None]) -> Iterator[None]:
    """Handles SIGINT and SIGTERM while the block runs."""
    before = {number: signal.signal(number, handle) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def exit_on_signal(grace: float = GRACE_SECONDS, *, for_reader: bool = False) -> Iterator[None]:
    """Lets SIGINT and SIGTERM end the process.

    Args:
        grace: seconds that code outside of Python, or another handler, may take after a signal.
        for_reader: whether to end, without a message, when standard output loses its reader.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    done = threading.Event()

    def watch() -> None:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        if for_reader:
            poll.register(streams.STDOUT, 0)
        while True:
            if dict(poll.poll()).get(streams.STDOUT, 0) & streams.GONE:
                os._exit(streams.READER_GONE)
            if not (number := os.read(reading, 1)):
                return
            if number[0] in NUMBERS:
                if not done.wait(grace):
                    with defer_exit:
                        end()
                return

    thread = threading.Thread(target=watch, name="stop", daemon=True)
    with _handler(end):
        wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        thread.start()
        try:
            yield
        finally:
            done.set()
            signal.set_wakeup_fd(wakeup)
            os.close(writing)
            thread.join()
            os.close(reading)


@contextlib.contextmanager
def graceful_stop() -> Iterator[Callable[[], bool]]:
    """Records the first SIGINT or SIGTERM, for a stop between two steps.

    Yields:
        A function that returns whether a signal was received. A second signal ends the process.
    """
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if received:
            end()
        received.append(number)
        print("\nStopping after this step (a second signal stops at once).", file=sys.stderr)

    with _handler(handle):
        yield lambda: bool(received)
