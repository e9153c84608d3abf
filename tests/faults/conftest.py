import time

import pytest
from tiny_run import left_by, make_command, start


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    """What runs the tiny world, but for its --workdir."""
    return make_command(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def undisturbed(command, tmp_path_factory):
    """(what a whole run leaves, the seconds that it takes once its programs are compiled)."""
    for _ in range(2):
        workdir = tmp_path_factory.mktemp("whole")
        begin = time.monotonic()
        process = start(command, workdir)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return left_by(workdir), time.monotonic() - begin
