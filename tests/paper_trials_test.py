"""Tests of the study's cells: their configs, tuning, and the processes that run them."""

import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest
import tiny_world
import worker_tasks

from experiments.paper import recipes, trials, tune, workers
from experiments.paper.results_log import Rows, read_lines
from experiments.paper.trials import Cell, Study
from uhman_jax.config import flatten
from uhman_jax.runtime.errors import DivergedError, UserError

ROOT = pathlib.Path(__file__).parents[1]
CELL = Cell("selection", 0, "natural", "plus", "UHMAN")


def settings(cell, **study):
    return flatten(trials.config_of(cell, Study(pathlib.Path("nowhere"), **study)))


@pytest.mark.parametrize("system", trials.SYSTEMS)
@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_systems_differ_only_in_the_model_and_baselines_train_longer(system, recipe):
    base = settings(dataclasses.replace(CELL, recipe=recipe))
    other = settings(dataclasses.replace(CELL, recipe=recipe, system=system))
    differing = {path for path in base if base[path] != other[path]}
    switches = {"region_attention", "frame_attention", "user_guidance", "name"}
    if system in ("BL", "UA", "3WM"):
        assert other["train.num_epochs"] == trials.BASELINE_EPOCHS * base["train.num_epochs"]
        differing.remove("train.num_epochs")
    assert len(differing) == (system != "UHMAN")
    assert differing <= {f"model.{switch}" for switch in switches}


@pytest.mark.parametrize("variant", recipes.VARIANTS)
def test_a_variant_changes_one_choice_and_an_undone_choice_is_that_of_warp(variant):
    plus, warp = settings(CELL), settings(dataclasses.replace(CELL, recipe="warp"))
    other = settings(dataclasses.replace(CELL, variant=variant))
    changed = [path for path in plus if plus[path] != other[path]]
    assert changed
    if variant.startswith("without"):
        assert all(other[path] == warp[path] for path in changed)


def test_cells_have_different_names_and_fingerprints():
    changes = [{}, {"world_seed": 1}, {"view": "balanced"}, {"system": "UHMAN(c)"}]
    changes += [{"hidden_size": 8}, {"embedding_size": 8}, {"data_share": 0.5}, {"recipe": "warp"}]
    changes += [{"variant": variant} for variant in recipes.VARIANTS]
    changed = [dataclasses.replace(CELL, **change) for change in changes]
    prints = [trials.fingerprint(trials.config_of(cell, Study(ROOT))) for cell in changed]
    assert len({cell.name for cell in changed}) == len(set(prints)) == len(changed)


def record(tuning, run, score, failed=""):
    tuning.record(run, {"failed": failed, "validation": {"P@10": [score]}})


def test_every_system_has_the_same_grid_and_the_best_validation_wins(tmp_path):
    study = Study(tmp_path, num_seeds=5)
    tuning = tune.Tuning(study)
    cells = [dataclasses.replace(CELL, system=name) for name in ("BL", "UHMAN(c)")]
    cells += [dataclasses.replace(CELL, view="balanced", world_seed=3, hidden_size=8)]
    runs = tuning.missing(cells)
    size = len(tune.LEARNING_RATES) + len(tune.WEIGHT_DECAYS) + len(tune.HISTORY_DROPOUTS) - 1
    assert len(runs) == 2 * size, "sizes, views, ablations and datasets share a choice"
    tried = [[cell.tuned for cell, _ in runs if cell.system == x] for x in ("BL", "UHMAN")]
    assert tried[0] == tried[1] and len(set(tried[0])) == size
    assert {tuned.num_seeds for _, tuned in runs} == {tune.NUM_SEEDS}
    epochs = [trials.config_of(*run).train.num_epochs for run in (runs[0], runs[-1])]
    assert epochs == [10 * trials.BASELINE_EPOCHS, 10], "half of the recipe's"
    for index, run in enumerate(runs):
        record(tuning, run, 0.5 if run[0].tuned == tried[0][4] else 0.1, "NaN" * (index == 2))
    for choices in (tuning, tune.Tuning(study)):  # the second is read from the file
        assert not choices.missing(cells)
        assert choices.choose(cells[1]).tuned == tried[1][4]
        assert choices.choose(cells[2]).tuned == tried[0][4]
        assert choices.choose(cells[2]).hidden_size == 8
    assert read_lines(tmp_path / "tuning.jsonl")[2]["failed"] == "NaN"


@pytest.mark.parametrize(("gain", "chosen"), [(0.5, 0), (1.5, 2)])
def test_a_gain_by_chance_is_not_chosen_and_the_paper_recipe_is_not_tuned(tmp_path, gain, chosen):
    tuning = tune.Tuning(Study(tmp_path))
    runs = tuning.missing([CELL])
    for index, run in enumerate(runs):
        record(tuning, run, 0.1 * (1 + gain * tune.MIN_GAIN * (index == 2)))
    assert tuning.choose(CELL).tuned == runs[chosen][0].tuned
    cell = dataclasses.replace(CELL, recipe="paper")
    assert tuning.missing([cell]) == [] and tuning.choose(cell) == cell


def test_only_diverged_training_is_a_result(tmp_path):
    diverged = DivergedError("the loss must stay finite, got nan")
    with mock.patch.object(trials, "run", side_effect=[diverged, UserError("disk full"), False]):
        row = trials.run_cell(CELL, Study(tmp_path))
        assert row["failed"] == str(diverged) and "test" not in row
        for error in (UserError, workers.Interrupted):
            with pytest.raises(error):
                trials.run_cell(CELL, Study(tmp_path))


def test_cells_of_equal_settings_are_run_once_and_both_have_the_row(tmp_path):
    study = Study(tmp_path)
    curve = dataclasses.replace(CELL, hidden_size=128)  # the recipe's own size
    other = dataclasses.replace(CELL, hidden_size=64)
    rows = Rows(tmp_path)
    assert rows.missing([CELL, curve, other], study) == [CELL, other]
    print_of_cell = trials.fingerprint(trials.config_of(CELL, study))
    rows.add({"cell": CELL.name, "fingerprint": print_of_cell, "variant": "", "test": 1})
    assert rows.missing([CELL, curve, other], study) == [other]
    rows.add_equals([CELL, curve, other], study)
    found = Rows(tmp_path).of([CELL, curve, other], study)
    assert [row["cell"] for row in found] == [CELL.name, curve.name]
    assert found[1]["test"] == 1 and CELL.name != curve.name


def test_workers_have_their_own_cores_and_results_come_with_their_index():
    environment = dict(os.environ)
    with workers.Workers(2) as pool:
        results = dict(pool.run(worker_tasks.cores, [(index,) for index in range(6)]))
    assert dict(os.environ) == environment, "bars are hidden only in the workers"
    assert [results[index][0] for index in range(6)] == list(range(6))
    shares = {tuple(cores) for _, cores in results.values()}
    everything = sorted(os.sched_getaffinity(0))
    if len(everything) > 1:
        assert all(set(share) < set(everything) for share in shares)


@pytest.mark.parametrize("task", [worker_tasks.wait, worker_tasks.wait_and_stop_in_order])
def test_a_signal_ends_the_workers_and_waiting_tasks(tmp_path, task):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(workers.Interrupted), workers.Workers(1) as pool:
        results = pool.run(task, [(str(tmp_path / str(index)),) for index in range(200)])

        def stop():
            while not (tmp_path / "0").exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=stop).start()
        begin = time.monotonic()
        list(results)
    assert time.monotonic() - begin < 50
    assert not (tmp_path / "1").exists(), "a task that the pool handed out ahead must not start"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_worker_that_was_killed_between_tasks_stops_the_study():
    with pytest.raises(workers.Interrupted), workers.Workers(1) as pool:
        assert len(dict(pool.run(worker_tasks.cores, [(0,)]))) == 1
        (worker,) = pool._pool._processes.values()
        worker.kill()
        worker.join()
        while not pool._pool._broken:
            time.sleep(0.01)
        list(pool.run(worker_tasks.cores, [(1,), (2,)]))


def test_mistakes_are_one_sentence():
    script = """if True:
        from absl import flags
        from experiments.paper import __main__ as study
        for arguments in (["--parts=tables,all"], ["--worlds="]):
            try:
                study.main(flags.FLAGS(["study", *arguments]))
            except SystemExit as end:
                assert end.code == 2
    """
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    first, second = done.stderr.splitlines()
    assert re.search("--parts must name some of tables, .*, got all", first)
    assert "--worlds must name some of selection, additive, everything, got none" in second


@pytest.mark.slow
def test_the_study_continues_after_a_stop_and_writes_its_page(tmp_path):
    """Uses a dataset that is too small to mean anything."""
    root = tiny_world.write_dataset(tmp_path / "data")
    command = [sys.executable, "-m", "experiments.paper", f"--root={root}", "--quick"]
    command += ["--parts=figure4a", "--num_epochs=40", "--num_seeds=1", "--num_workers=1"]
    command += [f"--folder={tmp_path / 'paper'}"]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "paper").rglob("checkpoints/[0-9]*")):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.1)
    beside = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert beside.returncode == 2 and "one process at a time may work in" in beside.stderr
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == os.EX_TEMPFAIL and "continues from there" in errors
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr
    assert "study: 100%" in second.stderr and "Training" not in second.stderr, "one bar is enough"
    rows = read_lines(tmp_path / "paper" / "results.jsonl")
    assert sorted(row["hidden_size"] for row in rows) == [16, 64]
    assert all(not row["failed"] and len(row["test"]["P@10"]) == 1 for row in rows)
    assert "K = 16" in (tmp_path / "paper" / "tables.md").read_text()
    assert (tmp_path / "paper" / "study.html").exists()
