"""Stopping when asked: between two steps where there are steps, within seconds wherever else.

Python runs a signal's handler between two of its own instructions, so a compilation of a minute
makes a signal wait a minute. A thread therefore hears of signals at once and ends the process after
a time of grace. All files are whole at any moment, so nothing but unsaved steps can be lost, and
programs are compiled where there are none.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

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


@contextlib.contextmanager
def within_seconds(grace: float = GRACE_SECONDS) -> Iterator[None]:
    """Makes SIGTERM raise KeyboardInterrupt, as SIGINT does, and ends what does not heed either.

    Args:
        grace: seconds after the first signal; then the process ends with status `STOPPED`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, told = socket.socketpair()
    told.setblocking(False)
    done = threading.Event()

    def watch() -> None:
        while True:
            number = heard.recv(1)
            if not number:
                return
            if number[0] in NUMBERS:
                break
        if done.wait(grace):
            return
        with _saving:  # the last word on disk
            print(MESSAGE, file=sys.stderr, flush=True)
            os._exit(STOPPED)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    wakeup = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        told.close()
        thread.join()
        heard.close()


@contextlib.contextmanager
def between_steps() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a flag, for a stop between two steps.

    Yields:
        A function that says whether one came. A second one raises KeyboardInterrupt.
    """
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if received:
            signal.default_int_handler(number, frame)
        received.append(number)
        print("\nStopping after this step (once more: at once).", file=sys.stderr)

    before = {number: signal.signal(number, handle) for number in NUMBERS}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
