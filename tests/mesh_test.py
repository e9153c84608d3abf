"""Several devices give the result of one: eight virtual devices in all shapes, two processes."""

import json
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import time

import jax
import mesh_run
import numpy as np
import pytest
import tiny_world

from uhman_jax import channel_statistics, train
from uhman_jax.dataset.view import TEST, VALIDATION
from uhman_jax.models.build import build_model
from uhman_jax.runtime.errors import UserError
from uhman_jax.runtime.mesh import Devices
from uhman_jax.runtime.processes import Cluster

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
MESH_RUN = FIXTURES / "mesh_run.py"


def start(*command, num_devices=8):
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={num_devices}"
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=FIXTURES.parents[1],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def output_of(process):
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def assert_same_ends(got, want):
    for name, array in want.items():
        kind, _, field = name.partition("/")
        if field == "apart":
            continue
        if field in ("ranks_SVP", "top_SVT"):
            array, got[name] = (ranks[want[f"{kind}/apart"]] for ranks in (array, got[name]))
        atol = 0 if np.asarray(array).dtype.kind in "biu" else 2e-5
        np.testing.assert_allclose(got[name], array, atol=atol, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("estimator", "shapes"),
    [
        pytest.param("exact", "1 8 2,4", marks=pytest.mark.slow),
        ("sampled", "4"),
        pytest.param("exact", "2 4", marks=pytest.mark.long),
    ],
)
def test_every_shape_of_the_mesh_ends_like_one_device(root, tmp_path, estimator, shapes):
    assert jax.device_count() == 1
    config = mesh_run.config_of(root, estimator)
    want = mesh_run.ends(config, root, tmp_path / "one")
    output_of(start(MESH_RUN, root, tmp_path, shapes, f"--estimator={estimator}"))
    for name in shapes.replace(",", "then").split():
        with np.load(tmp_path / f"{name}.npz") as got:
            assert_same_ends(dict(got), want)


@pytest.mark.parametrize(
    ("estimator", "num_hashtags"),
    [
        ("sampled", 50_001),
        pytest.param("exact", 50_001, marks=pytest.mark.slow),
        pytest.param("sampled", 1_000_000, marks=pytest.mark.long),
        pytest.param("exact", 1_000_000, marks=pytest.mark.long),
    ],
)
def test_twice_the_devices_hold_half_the_tables_each(estimator, num_hashtags):
    arguments = (f"--num_hashtags={num_hashtags}", f"--estimator={estimator}")
    two, four = map(json.loads, output_of(start(MESH_RUN, *arguments)).splitlines())
    tables = 4 * 32 * num_hashtags * 4  # parameters and the best of them, twice, K float32 a row
    assert tables / 2 < two["held"] < 1.05 * tables / 2
    assert tables / 4 < four["held"] < 1.05 * tables / 4
    if estimator == "sampled":
        assert max(two["temporary"], four["temporary"]) < 2 * 2**20, "no table is copied"
    else:
        assert four["temporary"] < 0.6 * two["temporary"]
    assert two["loss"] == pytest.approx(four["loss"], rel=1e-4)


def start_two(config, workdir):
    """The two processes of a run, two virtual devices each."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    together = ["--mesh=2x2", f"--coordinator=localhost:{port}", "--num_processes=2"]
    command = ["-m", "uhman_jax.main", f"--config={config}", f"--workdir={workdir}", *together]
    return [start(*command, f"--process={index}", num_devices=2) for index in range(2)]


@pytest.fixture(scope="module")
def config(root, tmp_path_factory):
    """Path of a config of few steps, over which roundings do not grow, nor change a ranking."""
    folder = tmp_path_factory.mktemp("config")
    for seed in range(20):
        how = {"seed": seed, "num_epochs": 3, "checkpoint_every": 2}
        path = tiny_world.write_config(folder / f"tiny{seed}.py", root, **how)
        config = runpy.run_path(str(path))["get_config"]()
        view, store = tiny_world.load(root, config)
        statistics = channel_statistics.measure(view, store)
        state = train.train(config, view, store, statistics, folder / f"{seed}", log=str)
        world = state.statistics, view, store
        model = build_model(config.model, view)
        if all(
            tiny_world.scores(model, params, *world, view.rows(split), apart=5e-5)[1].all()
            for params in (state.params, state.best_params)
            for split in (VALIDATION, TEST)
        ):
            return path
    raise AssertionError("every seed has two hashtags of almost the same score")


@pytest.fixture(scope="module")
def metrics(config, tmp_path_factory):
    """Figures of the run with one process and one device."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    command = ["-m", "uhman_jax.main", f"--config={config}", f"--workdir={workdir}"]
    output_of(start(*command, num_devices=1))
    return figures(workdir)


def figures(workdir):
    """All numbers of metrics.json by their path."""
    values = json.loads((workdir / "metrics.json").read_text())
    leaves, _ = jax.tree_util.tree_flatten_with_path(values)
    return {jax.tree_util.keystr(path): value for path, value in leaves}


def assert_same_figures(workdir, metrics):
    got = figures(workdir)
    assert got.keys() == metrics.keys()
    for path, value in metrics.items():
        assert got[path] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value)


@pytest.mark.slow
def test_two_processes_give_the_metrics_of_one(config, metrics, tmp_path):
    first, second = start_two(config, tmp_path / "run")
    assert "UHMAN" in output_of(first)
    assert "UHMAN" not in output_of(second), "only the first process prints"
    assert_same_figures(tmp_path / "run", metrics)
    command = ["-m", "uhman_jax.main", f"--config={config}", f"--workdir={tmp_path / 'one'}"]
    output_of(start(*command, "--mesh=2x2", num_devices=4))
    assert figures(tmp_path / "one") == figures(tmp_path / "run"), "one mesh, the same bits"


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_two_processes_one_of_which_is_ended_go_on(config, metrics, tmp_path, number):
    processes = start_two(config, tmp_path / "run")
    while len(list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))) < 2:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    processes[1].send_signal(number)
    for process in processes:
        process.communicate(timeout=200)  # a killed one's sign of life is missed after a while
    ends = [process.returncode for process in processes]
    assert ends == [75, 75] if number == signal.SIGTERM else ends[0] not in (0, 75)
    first, second = start_two(config, tmp_path / "run")
    assert "Resumed at step" in output_of(first)
    output_of(second)
    assert_same_figures(tmp_path / "run", metrics)


def test_a_mesh_of_another_number_of_devices_is_refused():
    """The other rules are in processes_test."""
    message = "--mesh must multiply to the number of devices, 1, got 3x1; use e.g. 1x1"
    with pytest.raises(UserError, match=message):
        Cluster(mesh="3x1").initialize()


def test_processes_agree_at_intervals(monkeypatch):
    calls = []

    class Pair(Devices):
        def __init__(self):
            """Without a mesh."""

        def all_max(self, stop, seconds):  # the other one's steps take 0.1 s
            calls.append(stop)
            return [stop, max(seconds, 0.1)]

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    checks = iter(range(100))
    should_stop = Pair().agreed(lambda: next(checks) >= 3)
    answers = [should_stop() for _ in range(12)]
    assert calls == [False, False, False, True]  # at the first call, then at every third
    assert answers.index(True) == 9
