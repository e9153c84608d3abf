"""The flags of several processes; devices_test runs such processes."""

import pytest

from uhman_jax.config import Config, Features
from uhman_jax.config_checks import check_mesh
from uhman_jax.runtime.errors import UserError
from uhman_jax.runtime.processes import Cluster


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mesh": "4"}, "--mesh must be two numbers of devices"),
        ({"mesh": "0x4"}, "--mesh must be two numbers of devices"),
        ({"coordinator": "host"}, "--coordinator must be HOST:PORT of process 0 or auto"),
        ({"coordinator": "host:port"}, "--coordinator must be HOST:PORT of process 0 or auto"),
        ({"num_processes": 2}, "--num_processes 2 needs --coordinator, got none"),
        ({"process": 1}, "--process must be from 0 to 0, one less than --num_processes, got 1"),
        ({"coordinator": "h:1", "num_processes": 2, "process": 2}, "--process must be from 0 to 1"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Cluster(**fields).check()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"mesh": "16x4"},
        {"coordinator": "auto"},
        {"coordinator": "10.0.0.2:8476", "num_processes": 2, "process": 1},
    ],
)
def test_valid_flags_are_accepted(fields):
    Cluster(**fields).check()


def test_settings_must_fit_the_mesh():
    config = Config()
    config.train.batch_size, config.evaluate.batch_size = 6, 4
    for mesh, message in (
        ("4x1", "train.batch_size must be a multiple of the 4 devices .*, got 6; use e.g. 8"),
        ("3x1", "evaluate.batch_size must be a multiple of the 3 devices .*, got 4; use e.g. 6"),
    ):
        with pytest.raises(UserError, match=message):
            check_mesh(config, Cluster(mesh=mesh).shape())
    check_mesh(config, (2, 1))
    config.train.features = Features.DEVICE
    check_mesh(config, None)
    with pytest.raises(UserError, match="needs a run on one device, got a mesh of 2"):
        check_mesh(config, (1, 2))


def test_a_single_process_does_not_wait_and_writes():
    single = Cluster()
    single.initialize()
    single.barrier("name")
    assert single.is_main_process and single.shape() is None
    assert Cluster(mesh="8x2").shape() == (8, 2)


def test_a_failed_connection_is_a_user_error(monkeypatch):
    import jax

    def refuse(*arguments, **options):
        raise RuntimeError("DEADLINE_EXCEEDED: no answer\nand more")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    cluster = Cluster(coordinator="10.0.0.2:8476", num_processes=2, process=1)
    with pytest.raises(UserError, match="must find each other, got 'DEADLINE_EXCEEDED: no answer'"):
        cluster.initialize()
