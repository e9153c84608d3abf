"""Stopping when asked: between two steps where there are steps, at once wherever else.

All files are whole at any moment, so nothing but unsaved steps can be lost, and a process may end
in the middle of anything. It does not raise an exception for that: one that is raised inside of a
callback is lost (JAX has some). Python runs a signal's handler between two of its own instructions,
so a compilation of a minute makes a signal wait a minute; a thread therefore hears of signals too
and ends the process after a time of grace. Programs are compiled where there are no unsaved steps.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from uhman_jax import streams

STOPPED = 75  # exit status, EX_TEMPFAIL of sysexits.h: the same command goes on from there
GRACE_SECONDS = 8.0
NUMBERS = (signal.SIGINT, signal.SIGTERM)
MESSAGE = "Stopped; the same command goes on from there."

_saving = threading.Lock()


@contextlib.contextmanager
def saving() -> Iterator[None]:
    """While the block runs, the time of grace does not end the process."""
    with _saving:
        yield


def end(*unused: object) -> None:
    """Ends the process with status `STOPPED`, without any cleaning up."""
    with contextlib.suppress(OSError, ValueError):  # nobody may be listening any more
        sys.stdout.flush()
        print(f"\n{MESSAGE}", file=sys.stderr, flush=True)
    os._exit(STOPPED)


@contextlib.contextmanager
def anywhere(grace: float = GRACE_SECONDS, *, for_reader: bool = False) -> Iterator[None]:
    """Lets SIGINT and SIGTERM end the process.

    Args:
        grace: seconds after a signal that code outside of Python, or another handler that is set
            within the block, may take.
        for_reader: the process only serves the reader of its standard output, and ends without a
            word when that is gone, also while it has nothing to write.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    done = threading.Event()

    def watch() -> None:
        poll = select.poll()
        poll.register(heard, select.POLLIN)
        if for_reader:
            poll.register(streams.STDOUT, 0)
        while True:
            if dict(poll.poll()).get(streams.STDOUT, 0) & streams.GONE:
                os._exit(streams.READER_GONE)
            if not (byte := heard.recv(1)):
                return
            if byte[0] in NUMBERS:
                if not done.wait(grace):
                    with _saving:
                        end()
                return

    before = {number: signal.signal(number, end) for number in NUMBERS}
    wakeup = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        told.close()
        thread.join()
        heard.close()


@contextlib.contextmanager
def between_steps() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a flag, for a stop between two steps.

    Yields:
        A function that says whether one came. A second one ends the process.
    """
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if received:
            end()
        received.append(number)
        print("\nStopping after this step (once more: at once).", file=sys.stderr)

    before = {number: signal.signal(number, handle) for number in NUMBERS}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
