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


def run(number, *body):
    """Runs `body` in a process that gets a signal; returns its status, output, errors and seconds.

    The grace period is one second. `compute` is outside of Python, so without signals, like a
    compilation.
    """
    script = [
        "import gc, hashlib, time",
        "from uhman_jax.runtime import signals",
        "def compute(rounds):",
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', rounds)",
        "with signals.exit_on_signal(1.0):",
        "    print('begun', flush=True)",
        *(f"    {line}" for line in body),
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", "\n".join(script)], **pipes) as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.5)  # so that it runs `body`
        process.send_signal(number)
        begin = time.monotonic()
        status = process.wait(timeout=30)
        seconds = time.monotonic() - begin
        return status, process.stdout.read(), process.stderr.read().strip(), seconds


@pytest.mark.parametrize("number", signals.NUMBERS)
def test_python_code_ends_at_once(number):
    *ended, seconds = run(number, "print('text', end='')", "time.sleep(60)")
    assert ended == [signals.STOPPED, "text", signals.MESSAGE] and seconds < 0.9


def test_code_outside_of_python_ends_after_the_grace_period():
    *ended, seconds = run(signal.SIGTERM, "compute(10**9)")
    assert ended == [signals.STOPPED, "", signals.MESSAGE] and 0.7 < seconds < 8


def test_an_end_is_not_lost_in_a_callback():
    slow = "gc.callbacks.append(lambda *_: time.sleep(0.01))"
    *ended, _ = run(signal.SIGTERM, slow, "while True: gc.collect()")
    assert ended == [signals.STOPPED, "", signals.MESSAGE]


def test_a_save_is_waited_for():
    body = [
        "with signals.graceful_stop(), signals.defer_exit:",
        "    begin = time.monotonic()",
        "    while time.monotonic() - begin < 2.5:",
        "        compute(10**5)",
        "    print('saved', flush=True)",
        "    compute(10**5)",
        "compute(10**9)",
    ]
    assert run(signal.SIGTERM, *body)[:2] == (signals.STOPPED, "saved\n")


def test_handlers_are_restored_and_the_thread_ends():
    before = [signal.getsignal(number) for number in signals.NUMBERS]
    with signals.exit_on_signal():
        assert "stop" in {thread.name for thread in threading.enumerate()}
    assert [signal.getsignal(number) for number in signals.NUMBERS] == before
    assert "stop" not in {thread.name for thread in threading.enumerate()}
