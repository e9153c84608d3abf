"""The files of a run directory, written and read again."""

import dataclasses
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import views

from uhman_jax import run_directory
from uhman_jax.config import Config, ModelConfig, ModelName
from uhman_jax.dataset.view import TEST
from uhman_jax.runtime.errors import UserError


def test_config_and_facts_come_back(tmp_path):
    config = Config(name="mine")
    config.train.num_seeds = 3
    run_directory.write_config(tmp_path, config, {"data": "abc"})
    assert run_directory.read_config(tmp_path) == (config, {"data": "abc"})
    (tmp_path / "config.json").write_text('{"run": 5}')
    with pytest.raises(UserError, match=r"config\.json must be a JSON object .* damaged"):
        run_directory.read_config(tmp_path)


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
def test_a_run_names_its_system_and_the_ablation(tmp_path, settings, title):
    config = Config(model=ModelConfig(**settings))
    assert run_directory.FinishedRun(tmp_path, config, {}, {}).system == title


def test_a_seed_must_be_one_of_the_run():
    config = Config()
    config.seed, config.train.num_seeds = 4, 2
    assert [run_directory.which_seed(config, seed) for seed in (None, 4, 5)] == [4, 4, 5]
    with pytest.raises(UserError, match="--seed must be one of the run's, 4 to 5, got 6"):
        run_directory.which_seed(config, 6)


def test_metrics_count_as_final_only_at_the_last_step(tmp_path):
    path = tmp_path / "metrics.json"
    assert run_directory.final_metrics(tmp_path) is None
    for text, final in (
        ('{"step": 5, "num_steps": 9}', False),
        ('{"step": 9, "num_steps": 9}', True),
        ('{"step": 9', False),
        ("[]", False),
    ):
        path.write_text(text)
        assert (run_directory.final_metrics(tmp_path) is not None) == final


def test_json_is_strict(tmp_path):
    values = {"a": [float("nan"), np.float32(0.5)], "b": math.inf}
    run_directory.write_json(tmp_path / "x.json", values)
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 0.5], "b": None}


def test_a_step_of_the_log_counts_once_and_half_a_last_line_not_at_all(tmp_path):
    assert run_directory.read_log(tmp_path) == []
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in ((9, 1), (5, 2), (9, 3))]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([*lines, '{"step": 12, "lo']))
    expected = [{"step": 5, "loss": 2}, {"step": 9, "loss": 3}]
    assert run_directory.read_log(tmp_path) == expected
    path.write_text("\n".join(['{"loss": 1}', *lines]))
    with pytest.raises(UserError, match=r"metrics\.jsonl:1 must be a JSON object with a step"):
        run_directory.read_log(tmp_path)


def test_predictions_of_a_seed_or_of_some_videos(tmp_path):
    view = views.build(*views.random_world(15))
    view = dataclasses.replace(view, spellings=tuple(map(str.title, view.hashtags)))
    rows_V = view.rows(TEST)
    num_videos, num_hashtags = len(rows_V), len(view.hashtags)
    assert num_videos > 2
    rng = np.random.default_rng(0)
    top_SVT = rng.integers(num_hashtags, size=(3, num_videos, 4))
    scores_SVT = rng.random((3, num_videos, 4), np.float32)
    run_directory.write_predictions(tmp_path, view, rows_V, top_SVT, scores_SVT, [7, 8, None])
    everything = run_directory.read_predictions(tmp_path)
    assert [row["seed"] for row in everything] == [7] * num_videos + [8] * num_videos
    for v, row in enumerate(run_directory.read_predictions(tmp_path, 8)):
        assert row["video_id"] == view.video_ids[rows_V[v]]
        assert row["hashtags"] == [view.spellings[t] for t in top_SVT[1, v]]
        true = view.positives.row(rows_V[v])
        assert row["true_hashtags"] == [view.spellings[t] for t in true]
    ids = [view.video_ids[row] for row in rows_V[1:3]]
    found = run_directory.read_predictions(tmp_path, video_ids=ids)
    assert [row["video_id"] for row in found] == ids * 2
    stored = pq.read_table(tmp_path / "predictions.parquet")
    columns = "video_id user_id seed true_hashtags hashtags scores".split()
    assert stored.column_names == columns
    np.testing.assert_array_equal(stored["scores"].to_pylist(), scores_SVT.reshape(-1, 4))
