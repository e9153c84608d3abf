"""Scores: metrics.json, intervals and tables."""

import dataclasses
import json
import math

import pytest

from uhman_jax import scores as scores_lib
from uhman_jax.config import ModelName
from uhman_jax.scores import (
    COLUMNS,
    COMPARED,
    ENSEMBLE,
    MODEL,
    RATIO,
    REFERENCES,
    SYSTEMS,
    Score,
    Scores,
    difference,
)


def make_scores(num_seeds=3):
    """Score i of system n has the mean n + i / 100; the seeds of the model lie 0.01 apart.

    With one seed there is no ensemble.
    """
    steps = [0.01 * (s - (num_seeds - 1) / 2) for s in range(num_seeds)]
    scores = Scores()
    systems = [system for system in SYSTEMS if num_seeds > 1 or system.key != ENSEMBLE]
    for n, system in enumerate(systems):
        for i, name in enumerate((*COLUMNS, RATIO)):
            mean = n + 0.01 * i
            seeds = [mean + step for step in steps]
            score = dataclasses.replace(Score.over_seeds(seeds), interval_clips=0.0321)
            scores[system.key, name] = score if system.key == MODEL else Score(mean)
            if system.key == ENSEMBLE:
                scores[ENSEMBLE, name] = Score(mean, interval_clips=0.0234)
    scores["gap_closed", "P@5"] = Score(0.4567)
    if num_seeds > 1:
        scores["gap_closed_ensemble", "P@5"] = Score(0.6789)
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
    scores["test", "P@10"] = dataclasses.replace(scores["test", "P@10"], interval_clips=0.125)
    assert scores.to_metrics() == entries | {"test/P@10/interval_clips": 0.125}
    assert Scores.from_metrics(scores.to_metrics()) == scores
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
    names = [line.split("  ")[0] for line in lines[1:9]]
    counted = ["popularity", "user history", "user attributes"]
    parts = ["direct path alone", "network alone"]
    assert names == [*counted, "nearest neighbours", "ridge", *parts, "UHMAN"]
    assert lines[8].split() == ["UHMAN", *(f"{7 + 0.01 * i:.4f}" for i in range(11))]
    # Deviation 0.01, over sqrt(3), times 4.3027.
    assert lines[9].split() == ["+-", "95", "%", "over", "seeds", "(3)", *["0.0248"] * 10]
    assert lines[10].split() == ["+-", "95", "%", "over", "clips", *["0.0321"] * 10]
    assert lines[11].split()[:7] == "UHMAN, ensemble of 3 seeds 8.0000 8.0100".split()
    assert lines[12].split() == ["+-", "95", "%", "over", "clips", *["0.0234"] * 10]
    assert lines[13].startswith("observable oracle") and lines[14].startswith("oracle ")
    gap = "Gap closed between popularity and oracle in P@5: 0.46 (ensemble of 3 seeds: 0.68)"
    assert lines[15] == gap
    assert len(lines) == 16, "without differences there is nothing to say about them"
    assert len({line.index(line.split()[-1]) + len(line.split()[-1]) for line in lines[1:3]}) == 1


def test_table_of_one_seed_on_real_data_has_the_interval_over_clips_but_no_oracles():
    scores = Scores({k: v for k, v in make_scores(1).items() if k[0] in (*REFERENCES, MODEL)})
    scores[MODEL, "MAP"] = Score()
    title = ModelName.UHMAN.title(frame_attention=False)
    lines = scores_lib.table(scores, title).splitlines()
    assert len(lines) == 8 and lines[6].split()[-2] == "-"
    assert lines[6].startswith("UHMAN(b)  ")
    assert lines[7].split() == ["+-", "95", "%", "over", "clips", *["0.0321"] * 9, "-"]


def test_table_of_an_earlier_run_has_only_what_it_measured():
    """Before there were intervals over clips, and references that see the clip."""
    entries = {"popularity/P@5": 0.2, "test/P@5": 0.5, "test/P@5/seeds": [0.4, 0.6]}
    scores = Scores.from_metrics(entries | {"test/P@5/interval": 0.6353})
    lines = scores_lib.table(scores, "UHMAN").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["popularity", "UHMAN", "+-"]
    assert scores_lib.verdict(scores) == []
    assert scores.to_metrics() == entries | {"test/P@5/interval": 0.6353}


# How the model compares with the references


def compared(model=(0.25, 0.75), **gaps):
    """Scores with differences: (P@10, its half-width, NDCG@10, its half-width) by reference."""
    scores = Scores({(MODEL, name): Score(m) for name, m in zip(COMPARED, model, strict=True)})
    for reference, values in gaps.items():
        for i, metric in enumerate(COMPARED):
            mean, width = values[2 * i : 2 * i + 2]
            scores[reference, metric] = Score(model[i] - mean)
            scores[difference(reference), metric] = Score(mean, interval_clips=width)
    return scores


WON = (0.1, 0.02, 0.3, 0.05)


def test_a_run_that_loses_says_to_whom():
    scores = compared(popularity=WON, ridge=(-0.0055, 0.0021, -0.03, 0.04), knn=WON)
    assert scores_lib.verdict(scores) == [
        "Ridge on the mean feature ranks better than this model: P@10 0.2555 against 0.2500, "
        "difference -0.0055 +- 0.0021 over clips."
    ]
    in_ndcg = compared(knn=(0.01, 0.002, -0.03, 0.02))
    assert scores_lib.verdict(in_ndcg) == [
        "A vote of nearest neighbours ranks better than this model: NDCG@10 0.7800 "
        "against 0.7500, difference -0.0300 +- 0.0200 over clips."
    ]
    lost = (-0.1, 0.02, -0.3, 0.05)
    assert len(scores_lib.verdict(compared(popularity=WON, knn=lost, ridge=lost))) == 2


def test_a_difference_that_may_be_0_is_no_win_and_no_loss():
    scores = compared(popularity=WON, user_history=(0.01, 0.02, 0.3, 0.05))
    assert scores_lib.verdict(scores) == [
        "It cannot be said whether this model ranks better or worse than the user's history "
        "(P@10 +0.0100 +- 0.0200 over clips)."
    ]
    scores |= compared(user_attributes=(0.02, 0.01, 0.1, 0.2), knn=(0.0, 0.0, 0.0, 0.0))
    (sentence,) = scores_lib.verdict(scores)
    assert sentence.endswith(
        "the user's history (P@10 +0.0100 +- 0.0200 over clips), the user's attributes (NDCG@10 "
        "+0.1000 +- 0.2000 over clips) or a vote of nearest neighbours (P@10 +0.0000 "
        "+- 0.0000 over clips)."
    )
    scores |= compared(ridge=(-0.1, 0.02, -0.2, 0.02))
    assert len(scores_lib.verdict(scores)) == 2


def test_a_part_that_is_the_whole_model_is_not_compared():
    level = (0.0, 0.0, 0.0, 0.0)
    alone = scores_lib.verdict(compared(popularity=WON, direct=WON, network=level))
    assert alone == scores_lib.verdict(compared(popularity=WON, direct=WON))
    (sentence,) = scores_lib.verdict(compared(popularity=WON, network=(0.0, 0.001, 0.0, 0.001)))
    assert "the network alone" in sentence


def test_with_one_user_nothing_is_won():
    scores = compared(popularity=(0.1, None, 0.2, None))
    assert scores_lib.verdict(scores) == [
        "It cannot be said whether this model ranks better or worse than popularity (P@10 +0.1000 "
        "over clips)."
    ]


def test_a_run_that_wins_names_the_closest_reference():
    assert scores_lib.verdict(compared(popularity=WON, ridge=(0.012, 0.004, 0.1, 0.01))) == [
        "This model ranks better than every reference; the closest is ridge on the mean feature: "
        "P@10 0.2380 against 0.2500, difference +0.0120 +- 0.0040 over clips."
    ]


def test_an_ensemble_is_what_is_compared():
    scores = compared(popularity=WON, ridge=(-0.0055, 0.0021, -0.03, 0.04))
    assert scores.compared == MODEL and scores.ensemble == ""
    scores |= Scores.over_seeds(MODEL, {"P@10": [0.25, 0.24, 0.2], "NDCG@10": [0.7, 0.7, 0.7]})
    assert scores.compared == MODEL, "an earlier version compared the mean over seeds"
    scores[ENSEMBLE, "P@10"], scores[ENSEMBLE, "NDCG@10"] = Score(0.25), Score(0.75)
    assert scores.compared == ENSEMBLE and scores.ensemble == "ensemble of 3 seeds"
    assert scores_lib.verdict(scores) == [
        "Ridge on the mean feature ranks better than the ensemble of 3 seeds: P@10 0.2555 against "
        "0.2500, difference -0.0055 +- 0.0021 over clips."
    ]
    table = scores_lib.table(scores, "UHMAN")
    assert "\nUHMAN, ensemble of 3 seeds - ridge " in table and "UHMAN - " not in table
    for metric in COMPARED:
        scores[difference("ridge"), metric] = Score(0.05, interval_clips=0.01)
    (won,) = scores_lib.verdict(scores)
    assert won.startswith("The ensemble of 3 seeds ranks better than every reference; ")


def test_differences_stand_in_table_and_file():
    scores = compared(popularity=WON, ridge=(-0.0055, 0.0021, -0.03, 0.04))
    assert Scores.from_metrics(json.loads(json.dumps(scores.to_metrics()))) == scores
    assert scores.to_metrics()["test-ridge/P@10/interval_clips"] == 0.0021
    lines = scores_lib.table(scores, "UHMAN").splitlines()
    start = lines.index("Differences, paired over clips, +- 95 % over clips:")
    assert lines[start + 1].split() == [*COMPARED]
    rows = [[cell.strip() for cell in line.split("  ") if cell] for line in lines[start + 2 :]]
    assert rows[0] == ["UHMAN - popularity", "+0.1000 +- 0.0200", "+0.3000 +- 0.0500"]
    assert rows[1] == ["UHMAN - ridge", "-0.0055 +- 0.0021", "-0.0300 +- 0.0400"]
    assert lines[start + 4 :] == scores_lib.verdict(scores)
