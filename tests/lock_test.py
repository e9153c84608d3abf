"""Locks of folders: one process at a time."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from uhman_jax.runtime import lock
from uhman_jax.runtime.errors import UserError

HOLDER = """
import sys, time
from uhman_jax.runtime import lock
with lock.hold(sys.argv[1], "wait"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_message_names_the_process_that_has_the_lock(tmp_path, holder):
    with pytest.raises(UserError) as caught, lock.hold(tmp_path / "run", "use another --workdir"):
        pass
    message = str(caught.value)
    assert f"process {holder.pid} on {socket.gethostname()} since 20" in message
    assert str(tmp_path / "run") in message and message.endswith("use another --workdir")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_dead_process_holds_nothing(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    with lock.hold(tmp_path / "run", ""):
        assert f"process {os.getpid()} " in (tmp_path / "run" / lock.LOCK_FILE).read_text()
    assert not (tmp_path / "run" / lock.LOCK_FILE).read_text()
    with lock.hold(tmp_path / "run", ""):  # released at the end of the block
        pass


def test_an_empty_file_does_not_matter(tmp_path, holder):
    (tmp_path / "run" / lock.LOCK_FILE).write_text("")
    with pytest.raises(UserError, match="another one does"), lock.hold(tmp_path / "run", ""):
        pass


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(lock._NO_LOCKS_HERE[0], "no locks")

    monkeypatch.setattr("fcntl.flock", refuse)
    with lock.hold(tmp_path, ""):
        pass
