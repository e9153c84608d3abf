import time

import pytest
from tiny_run import finish, make_command


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    """The command of a run of the tiny world, without --workdir."""
    return make_command(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def undisturbed(command, tmp_path_factory):
    """A whole run: the content that it leaves, its seconds and its bytes."""
    workdir, begin = tmp_path_factory.mktemp("whole"), time.monotonic()
    left = finish(command, workdir)
    seconds = time.monotonic() - begin
    return left, seconds, sum(path.stat().st_size for path in workdir.rglob("*") if path.is_file())
