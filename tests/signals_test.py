"""Signals: they set a flag between steps, and end the process within seconds elsewhere."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from uhman_jax.runtime import signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_sets_a_flag_the_second_ends_the_process(number, monkeypatch):
    monkeypatch.setattr(os, "_exit", sys.exit)
    before = signal.getsignal(number)
    with signals.graceful_stop() as stopped:
        assert not stopped()
        os.kill(os.getpid(), number)
        assert stopped()
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), number)
        assert ended.value.code == signals.STOPPED
    assert signal.getsignal(number) == before


def started(body):
    """Starts a process that runs `body` with a grace period of two seconds; returns it running."""
    script = [
        "import hashlib, time",
        "from uhman_jax.runtime import signals",
        "def compute(rounds):  # outside of Python, so without signals, like a compilation",
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', rounds)",
        "with signals.exit_on_signal(2.0):",
        "    print('begun', flush=True)",
        *(f"    {line}" for line in body),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.5)  # so that it runs `body`
    return process


@pytest.mark.parametrize("number", signals.NUMBERS)
def test_code_outside_of_python_ends_after_the_grace_period(number):
    process = started(["compute(10**9)"])
    begin = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert 1.5 < time.monotonic() - begin < 8
    assert process.returncode == signals.STOPPED and errors.strip() == signals.MESSAGE


@pytest.mark.parametrize("number", signals.NUMBERS)
def test_python_code_ends_at_once(number):
    process = started(["print('said', end='')", "time.sleep(60)"])
    process.send_signal(number)
    begin = time.monotonic()
    with process:  # `communicate` would lose the text after a line that was read
        assert process.wait(timeout=30) == signals.STOPPED and time.monotonic() - begin < 1.5
        assert process.stdout.read() == "said" and process.stderr.read().strip() == signals.MESSAGE


def test_an_end_is_not_lost_in_a_callback():
    body = [
        "import gc",
        "gc.callbacks.append(lambda *_: time.sleep(0.01))",
        "while True: gc.collect()",
    ]
    process = started(body)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == signals.STOPPED and errors.strip() == signals.MESSAGE


def test_a_save_is_waited_for():
    body = [
        "with signals.graceful_stop(), signals.defer_exit:",
        "    begin = time.monotonic()",
        "    while time.monotonic() - begin < 4:",
        "        compute(10**5)",
        "    print('saved', flush=True)",
        "    compute(10**5)",
        "compute(10**9)",
    ]
    process = started(body)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert output == "saved\n" and process.returncode == signals.STOPPED


def test_handlers_are_restored_and_the_thread_ends():
    before = [signal.getsignal(number) for number in signals.NUMBERS]
    with signals.exit_on_signal():
        assert "stop" in {thread.name for thread in threading.enumerate()}
    assert [signal.getsignal(number) for number in signals.NUMBERS] == before
    assert "stop" not in {thread.name for thread in threading.enumerate()}
