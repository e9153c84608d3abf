import time

import pytest
from tiny_run import left_by, make_command, start


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    """What runs the tiny world, but for its --workdir."""
    return make_command(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def undisturbed(command, tmp_path_factory):
    """A whole run: what it leaves, its seconds and its bytes."""
    workdir, begin = tmp_path_factory.mktemp("whole"), time.monotonic()
    process = start(command, workdir)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    seconds = time.monotonic() - begin
    needed = sum(path.stat().st_size for path in workdir.rglob("*") if path.is_file())
    return left_by(workdir), seconds, needed
