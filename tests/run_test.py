"""The guards of a run directory, and the cache of compiled programs."""

import json

import pytest
import tiny_world

from uhman_jax import run
from uhman_jax.config import Duplicates, to_dict
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError


def test_another_config_is_refused_before_any_work(tmp_path):
    config = tiny_world.make_config("/nowhere")
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config) | {"run": {"data": "x"}}))
    other = tiny_world.make_config("/nowhere", learning_rate=0.5, num_seeds=4)
    differences = "train.num_seeds: 1 before, 4 now; train.learning_rate: .* before, 0.5 now"
    with pytest.raises(UserError, match=f"these differ: {differences}; use another --workdir"):
        run.run(other, tmp_path)
    # The same config passes the guard and fails at the missing dataset.
    with pytest.raises(UserError, match="/nowhere"):
        run.run(config, tmp_path)


@pytest.mark.parametrize(
    ("stored", "command", "difference"),
    [
        (None, Duplicates.TOGETHER, ""),
        (None, Duplicates.KEEP, ""),
        (None, Duplicates.DROP, "keep before, drop now"),
        (Duplicates.KEEP, Duplicates.TOGETHER, "keep before, together now"),
        (Duplicates.TOGETHER, Duplicates.TOGETHER, ""),
    ],
)
def test_a_run_older_than_a_field_continues_unchanged(
    tmp_path, monkeypatch, stored, command, difference
):
    """An old run without the field continues with the field's old behaviour."""
    config = tiny_world.make_config("/nowhere")
    values = to_dict(config) | {"run": {}}
    del values["data"]["duplicates"]
    if stored:
        values["data"]["duplicates"] = stored.value
    text = json.dumps(values)
    (tmp_path / "config.json").write_text(text)
    config.data.duplicates = command
    seen = []

    def stop(config, *rest):
        seen.append(config.data.duplicates)
        raise UserError("far enough")

    monkeypatch.setattr(run, "prepare", stop)
    with pytest.raises(UserError, match=difference or "far enough"):
        run.run(config, tmp_path)
    expected = [] if difference else [stored or Duplicates.KEEP]
    assert seen == expected and config.data.duplicates is command
    assert (tmp_path / "config.json").read_text() == text


def test_checkpoints_without_a_config_are_not_touched(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="must have its config.json, got none"):
        run.run(tiny_world.make_config("/nowhere"), tmp_path)


def test_compiled_programs_are_kept_where_the_environment_says(monkeypatch, tmp_path):
    import jax

    before = jax.config.jax_compilation_cache_dir
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    try:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(before))
        run.keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir == before
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        run.keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir == str(storage.user_cache("xla"))
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


@pytest.fixture
def prepared_only(monkeypatch):
    """Ends a run when its data are prepared."""
    monkeypatch.setattr(run, "_train_and_evaluate", lambda *arguments: None)


def test_automatic_numbers_are_stored_and_kept(root, tmp_path, prepared_only, monkeypatch):
    config = tiny_world.make_config(root)
    config.view.min_count = config.preprocess.max_frames = 0
    lines = []

    def start():
        run.run(config, tmp_path, log=lines.append, report=False)
        return run.read_config(tmp_path)[0]

    first = start()
    assert first.view.min_count == 3 and first.preprocess.max_frames == 16
    assert config.view.min_count == config.preprocess.max_frames == 0
    monkeypatch.setattr("uhman_jax.dataset.view.fitting_min_count", lambda number: 9)
    monkeypatch.setattr("uhman_jax.prepare.MAX_FRAMES", 9)
    config.data.simulated_frames = 5  # has no effect on a run that has begun
    assert start() == first
    assert sum("at least 3 uses in train" in line for line in lines) == 2
    config.view.min_count = 4
    with pytest.raises(UserError, match="view.min_count: 3 before, 4 now"):
        start()
    other = run.run(config, tmp_path / "other", log=lines.append, report=False)
    assert not other and "at least 4 uses" in "".join(lines)


def test_a_run_older_than_automatic_numbers_keeps_its_own(root, tmp_path, prepared_only):
    config = tiny_world.make_config(root)
    config.view.min_count, config.preprocess.max_frames = 10, 4
    run.run(config, tmp_path, log=lambda line: None, report=False)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    del values["data"]["simulated_frames"]
    path.write_text(json.dumps(values))
    config.view.min_count = config.preprocess.max_frames = 0
    config.data.simulated_frames = 2
    run.run(config, tmp_path, log=lambda line: None, report=False)
    assert json.loads(path.read_text()) == values


def test_a_run_that_stopped_early_is_finished(root, tmp_path):
    config = tiny_world.make_config(root, num_epochs=60, stop_after=1)
    lines = []
    assert run.run(config, tmp_path, log=lines.append, report=False)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    epochs, rest = divmod(metrics["step"], 11)
    assert metrics["step"] == metrics["num_steps"] and rest == 0 and epochs < 60
    message = f"Stopped after epoch {epochs}: no better validation MAP for 1 epoch."
    assert lines.count(message) == 1
    for mode in ("train_and_evaluate", "evaluate"):
        lines.clear()
        assert run.run(config, tmp_path, mode=mode, log=lines.append, report=False)
        assert any("finished earlier" in line for line in lines) == (mode != "evaluate")
        assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
