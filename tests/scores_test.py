"""Scores: metrics.json, intervals and tables."""

import json
import math

import pytest

from uhman_jax import scores as scores_lib
from uhman_jax.config import ModelName
from uhman_jax.scores import COLUMNS, MODEL, RATIO, SYSTEMS, Score, Scores


def make_scores(num_seeds=3):
    """Score i of system n has the mean n + i / 100; the seeds of the model lie 0.01 apart."""
    steps = [0.01 * (s - (num_seeds - 1) / 2) for s in range(num_seeds)]
    scores = Scores()
    for n, system in enumerate(SYSTEMS):
        for i, name in enumerate((*COLUMNS, RATIO)):
            mean = n + 0.01 * i
            seeds = [mean + step for step in steps]
            scores[system.key, name] = Score(mean) if n != 3 else Score.over_seeds(seeds)
    scores["gap_closed", "P@5"] = Score(0.4567)
    return scores


def test_keys_of_metrics_json_are_as_they_always_were():
    scores = Scores.over_seeds("test", {"P@10": [0.25, 0.75], "kP/R@10": [2.0, 2.0]})
    scores["oracle", "P@10"] = Score(0.9)
    width = pytest.approx(6.3531 * 0.5, rel=1e-4)
    entries = scores.to_metrics()
    assert entries == {
        "test/P@10": 0.5,
        "test/P@10/seeds": [0.25, 0.75],
        "test/P@10/interval": width,
        "test/kP/R@10": 2.0,
        "test/kP/R@10/seeds": [2.0, 2.0],
        "test/kP/R@10/interval": 0.0,
        "oracle/P@10": 0.9,
    }
    facts = {"step": 9, "best_step/seeds": [3, 6], "data": {"users": 4}, "slices": []}
    assert Scores.from_metrics(facts | json.loads(json.dumps(entries))) == scores
    assert Scores.over_seeds("test", {"MAP": [0.5]}).to_metrics()["test/MAP/interval"] is None


def test_a_score_that_is_undefined_or_was_not_measured_is_no_number():
    scores = Scores.from_metrics({"test/MAP": None, "test/MAP/seeds": [None, 0.5]})
    assert math.isnan(scores["test", "MAP"].mean) and scores["test", "MAP"].interval is None
    assert math.isnan(scores["test", "MAP"].seeds[0])
    assert math.isnan(scores["oracle", "P@5"].mean) and ("oracle", "P@5") not in scores


def test_a_new_metric_needs_no_change_of_the_module():
    scores = Scores.from_metrics({"test/Hit@3": 0.5, "test/Hit@3/seeds": [0.5]})
    assert scores.of("test") == {"Hit@3": Score(0.5, None, (0.5,))}


def test_slices():
    entry = {"by": "user", "name": "no history", "num_videos": 7, "P@10": 0.5, "R@50": None}
    (found,) = scores_lib.read_slices([entry])
    assert (found.by, found.name, found.num_videos) == ("user", "no history", 7)
    assert found.means["P@10"] == 0.5 and math.isnan(found.means["R@50"])
    assert scores_lib.read_slices(None) == []


def test_interval_is_students():
    # Three values 1, 2, 3: t(0.975, 2) = 4.3027, deviation 1, over sqrt(3).
    expected = pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert scores_lib.interval([1.0, 2.0, 3.0]) == expected
    assert scores_lib.interval([1.0]) is None


def test_table_has_a_row_per_system_and_a_column_per_metric():
    lines = scores_lib.table(make_scores(), "UHMAN").splitlines()
    assert lines[0].split() == [*COLUMNS, "kP/R"]
    names = [line.split("  ")[0] for line in lines[1:5]]
    assert names == ["popularity", "user history", "user attributes", "UHMAN"]
    assert lines[4].split() == ["UHMAN", *(f"{3 + 0.01 * i:.4f}" for i in range(11))]
    # Deviation 0.01, over sqrt(3), times 4.3027.
    assert lines[5].split() == ["+-", "95", "%,", "3", "seeds", *["0.0248"] * 10]
    assert lines[6].startswith("observable oracle") and lines[7].startswith("oracle ")
    assert lines[8] == "Gap closed between popularity and oracle in P@5: 0.46"
    assert len({line.index(line.split()[-1]) + len(line.split()[-1]) for line in lines[1:3]}) == 1


def test_table_of_one_seed_on_real_data_has_neither_intervals_nor_oracles():
    known = ("popularity", "user_history", "user_attributes", MODEL)
    scores = Scores({key: score for key, score in make_scores(1).items() if key[0] in known})
    scores[MODEL, "MAP"] = Score()
    title = ModelName.UHMAN.title(frame_attention=False)
    lines = scores_lib.table(scores, title).splitlines()
    assert len(lines) == 5 and lines[4].split()[-2] == "-"
    assert lines[4].startswith("UHMAN(b)  ")
