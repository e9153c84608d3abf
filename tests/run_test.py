"""The table, the stop by signals, and the guards of a run directory."""

import json

import pytest
import tiny_world

from uhman_jax import run, storage
from uhman_jax.config import Config, Duplicates, ModelConfig, ModelName, to_dict
from uhman_jax.errors import UserError

SYSTEMS = "popularity user_history user_attributes test observable_oracle oracle".split()


def make_metrics(num_seeds=3):
    columns = (*run.COLUMNS, run.RATIO)
    metrics = {"num_seeds": num_seeds, "gap_closed/P@5": 0.4567}
    for row, prefix in enumerate(SYSTEMS):
        metrics |= {f"{prefix}/{name}": row + 0.01 * i for i, name in enumerate(columns)}
    width = 0.0123 if num_seeds > 1 else None
    return metrics | {f"test/{name}/interval": width for name in columns}


def test_table_has_a_row_per_system_and_a_column_per_metric():
    lines = run.table(Config(), make_metrics()).splitlines()
    assert lines[0].split() == [*run.COLUMNS, "kP/R"]
    names = [line.split("  ")[0] for line in lines[1:5]]
    assert names == ["popularity", "user history", "user attributes", "UHMAN"]
    assert lines[4].split() == ["UHMAN", *(f"{3 + 0.01 * i:.4f}" for i in range(11))]
    assert lines[5].split() == ["+-", "95", "%,", "3", "seeds", *["0.0123"] * 10]
    assert lines[6].startswith("observable oracle") and lines[7].startswith("oracle ")
    assert lines[8] == "Gap closed between popularity and oracle in P@5: 0.46"
    assert len({line.index(line.split()[-1]) + len(line.split()[-1]) for line in lines[1:3]}) == 1


def test_table_of_one_seed_on_real_data_has_neither_intervals_nor_oracles():
    metrics = {
        key: value
        for key, value in make_metrics(1).items()
        if not key.startswith(("oracle", "observable", "gap"))
    }
    lines = run.table(Config(), metrics | {"test/MAP": None}).splitlines()
    assert len(lines) == 5 and lines[4].split()[-2] == "-"


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        ({"name": ModelName.THREE_WAY, "region_attention": False}, "3WM"),
        ({"region_attention": False}, "UHMAN(a)"),
        ({"frame_attention": False}, "UHMAN(b)"),
        ({"region_attention": False, "frame_attention": False}, "UHMAN(ab)"),
        ({"user_guidance": False}, "UHMAN(c)"),
    ],
)
def test_table_names_the_system_and_its_ablation(settings, title):
    config = Config(model=ModelConfig(**settings))
    assert run.table(config, make_metrics(1)).splitlines()[4].startswith(f"{title}  ")


def test_another_config_is_refused_before_any_work(tmp_path):
    config = tiny_world.make_config("/nowhere")
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config) | {"run": {"data": "x"}}))
    other = tiny_world.make_config("/nowhere", learning_rate=0.5)
    with pytest.raises(UserError, match="these differ: train.learning_rate: .* before, 0.5 now"):
        run.run(other, tmp_path, say=print)
    # The same config gets past the guard, to the dataset that is not there.
    with pytest.raises(UserError, match="/nowhere"):
        run.run(config, tmp_path, say=print)


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
def test_a_run_older_than_a_field_goes_on_as_it_began(
    tmp_path, monkeypatch, stored, command, difference
):
    """A command that says nothing of duplicates goes on with a run that is older than they are."""
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
    with pytest.raises(UserError, match="must hold its config.json, got none"):
        run.run(tiny_world.make_config("/nowhere"), tmp_path)


def test_metrics_count_as_final_only_at_the_last_step(tmp_path):
    path = tmp_path / "metrics.json"
    assert run._finished_metrics(tmp_path) is None
    for text, final in (
        ('{"step": 5, "num_steps": 9}', False),
        ('{"step": 9, "num_steps": 9}', True),
        ('{"step": 9', False),
        ("[]", False),
    ):
        path.write_text(text)
        assert (run._finished_metrics(tmp_path) is not None) == final


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
