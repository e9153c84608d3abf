"""Stopped and resumed runs, checkpoints, and errors of a run."""

import pathlib
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import short_runs
import tiny_world
from short_runs import assert_same_bytes, log_of, run, without_times

from uhman_jax import input_pipeline, run_directory, train
from uhman_jax.config import Features
from uhman_jax.dataset.view import TRAIN, View
from uhman_jax.runtime.errors import DivergedError, UserError
from uhman_jax.train import checkpoints as checkpoints_lib
from uhman_jax.train import loop
from uhman_jax.train import metrics_log as log_lib


@pytest.fixture(scope="module", autouse=True)
def programs():
    """Are traced once."""
    with short_runs.one_trace_per_program():
        yield


@pytest.mark.parametrize(
    ("features", "stops"),
    [
        (Features.STREAM, (3, 9, 1, 30)),  # 11 steps are an epoch; asked before steps and batches
        pytest.param(  # also while features are loaded; many steps at once
            Features.DEVICE, (1, 4, 6, 5), marks=pytest.mark.slow
        ),
    ],
)
def test_a_stopped_and_resumed_run_equals_an_unbroken_one_bit_for_bit(
    root, world, tmp_path, features, stops
):
    config = tiny_world.sampled(tiny_world.make_config(root, num_seeds=2, momentum=0.5, ema=0.9))
    config.model.dropout, config.train.features = 0.1, features
    whole = run(config, world, tmp_path / "whole")
    for stop in stops:
        with pytest.raises(train.Interrupted):
            run(config, world, tmp_path / "parts", stop_after=stop)
    parts = run(config, world, tmp_path / "parts")
    assert_same_bytes(whole, parts)
    assert without_times(log_of(tmp_path / "whole")) == without_times(log_of(tmp_path / "parts"))
    # What is on disk is the same too, and starting a finished run changes nothing.
    view, *_ = world
    assert_same_bytes(whole, train.restore(config, view, tmp_path / "parts"))
    assert_same_bytes(whole, run(config, world, tmp_path / "parts"))


def test_a_stop_during_the_first_validation_saves_parameters_and_validates_later(
    root, world, tmp_path
):
    config = tiny_world.make_config(root, num_epochs=3, ema=0.9, features=Features.STREAM)
    view, *_ = world
    whole = run(config, world, tmp_path / "whole")
    per_epoch = train.steps_per_epoch(config, view)
    # Asked once before every step, then before every batch of the validation.
    with pytest.raises(train.Interrupted) as caught:
        run(config, world, tmp_path / "parts", stop_after=per_epoch + 1)
    assert caught.value.step == per_epoch
    state = train.restore(config, view, tmp_path / "parts")
    assert (int(state.step), int(state.validated_step)) == (per_epoch, 0)
    kept, start = jax.tree.leaves(state.kept), jax.tree.leaves(state.best_params)
    assert any((one != other).any() for one, other in zip(kept, start, strict=True))
    finished = run(config, world, tmp_path / "parts")
    assert finished.kept is finished.best_params
    assert_same_bytes(whole, finished)


def test_a_run_without_a_better_score_stops_there_also_if_interrupted(root, world, tmp_path):
    how = {"num_seeds": 2, "num_epochs": 60, "eval_every": 5, "checkpoint_every": 7, "ema": 0.5}
    config = tiny_world.make_config(root, stop_after=3, **how)
    config.evaluate.select_by = "NDCG@10"
    lines = []
    whole = run(config, world, tmp_path / "whole", log=lines.append)
    entries = log_of(tmp_path / "whole")
    scores_NS = np.float32([entry["validation/NDCG@10"] for entry in entries])
    new_best_N = [
        n == 0 or bool(np.any(scores_NS[n] > scores_NS[:n].max(axis=0)))
        for n in range(len(scores_NS))
    ]
    assert new_best_N[-4:] == [True, False, False, False]
    assert all(any(new_best_N[n : n + 3]) for n in range(len(new_best_N) - 3)), "not earlier"
    assert int(whole.step) == 5 * len(entries) < train.total_steps(config, world[0])
    np.testing.assert_array_equal(whole.best_score_S, scores_NS.max(axis=0))
    text = f"Stopped after validation {len(entries)}: no better validation NDCG@10 for 3 "
    assert lines == [text + "validations."]

    for stop in (4, 18, 9):
        with pytest.raises(train.Interrupted):
            run(config, world, tmp_path / "parts", stop_after=stop)
    assert_same_bytes(whole, run(config, world, tmp_path / "parts"))
    assert without_times(entries) == without_times(log_of(tmp_path / "parts"))
    # The final state is on disk, and starting a stopped run changes nothing.
    assert_same_bytes(whole, train.restore(config, world[0], tmp_path / "parts"))
    again = run(config, world, tmp_path / "parts", log=lines.append)
    assert_same_bytes(whole, again)
    assert lines[1:] == lines[:1]


@pytest.mark.parametrize(
    ("step", "validated", "stale_S", "expected"),
    [
        (30, 30, (2, 9), True),
        (30, 30, (1, 9), False),  # a seed improved not long ago
        (30, 20, (2, 9), False),  # the last step has not been validated
        (44, 44, (2, 9), False),  # the regular end
    ],
)
def test_a_run_stops_if_no_seed_improves(root, world, step, validated, stale_S, expected):
    config = tiny_world.make_config(root, num_seeds=2, stop_after=2)
    state = tiny_world.fresh(config, world)[1]
    state = state._replace(
        step=jnp.int32(step), validated_step=jnp.int32(validated), stale_S=jnp.int32(stale_S)
    )
    assert train.total_steps(config, world[0]) == 44
    assert train.stopped_early(config, world[0], state) == expected
    config.train.stop_after = 0
    assert not train.stopped_early(config, world[0], state)


def test_a_lost_newest_checkpoint_costs_steps_but_not_the_result(root, world, tmp_path):
    config = tiny_world.make_config(root)
    whole = run(config, world, tmp_path / "whole")
    run(config, world, tmp_path / "parts")
    newest = max((tmp_path / "parts" / "checkpoints").iterdir(), key=lambda path: int(path.stem))
    newest.write_bytes(newest.read_bytes()[:7])
    lines = []
    view, store, statistics = world
    parts = train.train(config, view, store, statistics, tmp_path / "parts", log=lines.append)
    assert any("Skipped a damaged checkpoint" in line for line in lines)
    assert_same_bytes(whole, parts)
    assert without_times(log_of(tmp_path / "whole")) == without_times(log_of(tmp_path / "parts"))

    for path in (tmp_path / "parts" / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="checkpoints must hold a checkpoint that can be read"):
        run(config, world, tmp_path / "parts")


def test_a_run_is_saved_at_validations_but_does_not_spend_its_time_on_it(
    root, world, tmp_path, monkeypatch
):
    saved = []

    def save(self, state):
        saved.append(int(state.step))
        self.seconds = 1.0

    monkeypatch.setattr(checkpoints_lib.Checkpoints, "save", save)
    monkeypatch.setattr(loop, "SAVING_SHARE", 1e-9)
    config = tiny_world.make_config(root, num_epochs=6)
    run(config, world, tmp_path)
    per_epoch = train.steps_per_epoch(config, world[0])
    assert saved == [per_epoch, 6 * per_epoch]


def test_two_checkpoints_are_kept(root, world, tmp_path):
    config = tiny_world.make_config(root, checkpoint_every=5)
    run(config, world, tmp_path)
    steps = sorted(int(path.stem) for path in (tmp_path / "checkpoints").iterdir())
    last = train.total_steps(config, world[0])
    assert steps == [(last - 1) // 5 * 5, last]


# Errors


def test_a_loss_that_is_not_finite_stops_with_the_step_the_checkpoint_and_remedies(
    root, world, tmp_path
):
    config = tiny_world.make_config(root, checkpoint_every=3)
    view, store, statistics = world

    class Poisoned(type(store)):  # the clip that is trained on at step 7 has a NaN
        def copy(self, index, codes_FMC):
            num_frames, arrays = super().copy(index, codes_FMC)
            factor = np.nan if index == poison else 1
            return num_frames, arrays | {"offset_C": factor * arrays["offset_C"]}

    rows = view.rows(TRAIN)
    seen = [
        input_pipeline.TrainOrder(rows, config.train.batch_size, config.seed)[step]
        for step in range(8)
    ]
    row = next(row for row in seen[7] if all(row not in rows_B for rows_B in seen[:7]))
    poison = store.rows([view.video_ids[row]])[0]
    with pytest.raises(DivergedError) as caught:
        train.train(
            config, view, Poisoned(store.directory), statistics, tmp_path, log=lambda line: None
        )
    message = str(caught.value)
    assert "got a loss of nan and a gradient norm of nan at step 7 with seed 0" in message
    assert f"last good checkpoint: step 6 in {tmp_path / 'checkpoints'}" in message
    assert "lower train.learning_rate (0.05)" in message and "train.clip_norm (5.0)" in message
    state = train.restore(config, view, tmp_path)
    assert int(state.step) == 6
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_training_without_videos_is_an_error(root, world, tmp_path):
    view, *rest = world
    empty = type("Empty", (), {"rows": lambda self, split: np.zeros(0, np.int64)})()
    with pytest.raises(UserError, match="at least one video in the training split, got none"):
        run(tiny_world.make_config(root), (empty, *rest), tmp_path)


def test_the_log_drops_later_steps_and_half_a_line_but_no_damaged_line_before(tmp_path):
    log = log_lib.MetricsLog(tmp_path)
    log.truncate(0)
    for step in (5, 10, 15):
        log.append({"step": step, "seconds": step / 2})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 20, "sec')
    log.truncate(10)
    assert [entry["step"] for entry in log_of(tmp_path)] == [5, 10] and log.seconds == 5.0
    path.write_text('{"step": 5}\nnonsense\n{"step": 10}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2 must be a JSON object.*'nonsense'"):
        log.truncate(10)


@pytest.fixture(scope="module")
def state(root, world):
    return tiny_world.fresh(tiny_world.make_config(root), world)[1]


def test_checkpoints_of_the_same_step_are_replaced(state, tmp_path):
    with checkpoints_lib.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(state) is None and checkpoints.latest_step is None
        checkpoints.save(state._replace(step=jnp.int32(4)))
        checkpoints.save(state._replace(step=jnp.int32(4), validated_step=jnp.int32(4)))
    with checkpoints_lib.Checkpoints(tmp_path) as checkpoints:
        assert int(checkpoints.restore(state).validated_step) == 4


def test_a_flipped_bit_in_any_file_of_a_checkpoint_is_found(state, tmp_path):
    old = state._replace(step=jnp.int32(3))
    new = state._replace(
        step=jnp.int32(5), params=jax.tree.map(lambda leaf: leaf + 1, state.params)
    )
    with checkpoints_lib.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(old)
        checkpoints.save(new)
        checkpoints.wait()
        newest, rng = tmp_path / "checkpoints" / "5.npz", np.random.default_rng(0)
        whole = newest.read_bytes()
        for index in [0, len(whole) - 1, *rng.integers(len(whole), size=10).tolist()]:
            damaged = bytearray(whole)
            damaged[index] ^= 1 << int(rng.integers(8))
            newest.write_bytes(damaged)
            lines = []
            assert_same_bytes(checkpoints.restore(state, lines.append), old)
            assert lines == [
                "Skipped a damaged checkpoint (step 5: 5.npz does not match its checksum); "
                "used step 3."
            ]
        newest.write_bytes(whole)
        assert_same_bytes(checkpoints.restore(state), new)


def test_checkpoints_of_earlier_versions_are_read_checked_and_replaced(tmp_path):
    with tarfile.open(pathlib.Path(__file__).parent / "fixtures" / "stored_run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    config, _ = run_directory.read_config(tmp_path / "run")
    view, folder = View.load(tmp_path / "run" / "view.npz"), tmp_path / "run" / "checkpoints"
    whole = train.restore(config, view, tmp_path / "run")
    assert int(whole.step) == 6
    dispensable = ("_CHECKPOINT_METADATA", "commit_success.txt", "crc32c.json")
    with checkpoints_lib.Checkpoints(tmp_path / "run") as checkpoints:
        rng = np.random.default_rng(0)
        for path in [path for path in (folder / "6").rglob("*") if path.is_file()]:
            content = path.read_bytes()
            damaged = bytearray(content)
            damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            lines = []
            state = checkpoints.restore(whole, lines.append)
            assert int(state.step) == (2 if lines else 6)
            assert lines or path.name in dispensable
            path.write_bytes(content)
        assert_same_bytes(checkpoints.restore(whole), whole)
        for step in (6, 7, 8):
            checkpoints.save(whole._replace(step=jnp.int32(step)))
    assert sorted(path.name for path in folder.iterdir()) == ["7.npz", "8.npz"]
