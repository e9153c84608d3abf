"""The paper study's statistics, tables, figures and page, from cells made up here."""

import doctest
import itertools
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import scipy.stats
import tiny_world
from PIL import Image

from experiments.paper import (
    breakdowns,
    claims,
    drawing,
    elements,
    figures,
    layout,
    page,
    published,
    stats,
    summary,
    tables,
)
from experiments.paper.claims import Verdict
from experiments.paper.stats import Estimate
from uhman_jax.config import Distribution
from uhman_jax.metrics import f1

WORLDS = ("selection", "additive", "everything")
SYSTEMS = ("BL", "UA", "3WM", "UHMAN(a)", "UHMAN(b)", "UHMAN(c)", "UHMAN")
LEVELS = dict(zip(SYSTEMS, (0.104, 0.121, 0.138, 0.151, 0.166, 0.155, 0.174), strict=True))
REFERENCES = {"popularity": 0.046, "user_attributes": 0.061, "user_history": 0.083}
REFERENCES |= {"user_oracle": 0.112, "content_oracle": 0.212, "additive_oracle": 0.241}
REFERENCES |= {"observable_oracle": 0.279, "oracle": 0.291}
NUM_SEEDS, NUM_VIDEOS = 5, 211


def metrics_of(level):
    """Recall, F1 and the rest that go with a P@10."""
    table = {"P@10": level, "R@10": min(2.4 * level, 1), "P@50": 0.33 * level, "R@50": 3.6 * level}
    for k in (10, 50):
        precision, recall = table[f"P@{k}"], table[f"R@{k}"]
        table[f"F1@{k}"] = 2 * precision * recall / (precision + recall)
    return table


def make_cell(
    rng, folder=None, *, world="selection", world_seed=0, view="natural", recipe="plus",
    system="UHMAN", level=None, noise=0.002, part=("tables",), suffix="", seeds=NUM_SEEDS, **fields,
):  # fmt: skip
    """A finished cell whose per-video values, if a folder is given, have the cell's means."""
    level = LEVELS[system] if level is None else level
    name = f"{world}-{world_seed}/{view}/{recipe}/{system}{suffix}"
    base_V = np.random.default_rng([world_seed, len(world)]).gamma(2, 0.5, NUM_VIDEOS)
    p10_SV = level * base_V / base_V.mean() * rng.normal(1, 0.15, (seeds, NUM_VIDEOS))
    p10_SV += level + rng.normal(0, noise, (seeds, 1)) - p10_SV.mean(axis=1, keepdims=True)
    rows = [metrics_of(float(value)) for value in p10_SV.mean(axis=1)]
    test = {metric: [row[metric] for row in rows] for metric in rows[0]}
    cell = {
        "cell": name, "world": world, "world_seed": world_seed, "view": view, "recipe": recipe,
        "system": system, "part": list(part), "hidden_size": 64, "embedding_size": 64,
        "data_share": 1.0, "seeds": list(range(seeds)), "train_videos": 7409,
        "test_videos": NUM_VIDEOS, "hashtags": 578, "test": test, "validation": test,
        "references": {key: metrics_of(value) for key, value in REFERENCES.items()},
        "config": {"model.name": system.lower(), "train.weight_decay": 0.002}, "seconds": 210.0,
        "failed": "",
    }  # fmt: skip
    if folder is not None:
        path = folder / "per_video" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        order = rng.permutation(NUM_VIDEOS)
        ids = np.array([f"v{index:04d}" for index in order])
        p10 = p10_SV[:, order].astype(np.float32)
        np.savez(path, video_ids=ids, p10_SV=p10, r10_SV=np.float32(2.4) * p10)
        cell["per_video"] = str(path.relative_to(folder))
    return cell | fields


def attention_of(rng, system):
    """Region attention only where the system has it, frame attention likewise."""
    facts = {"object_mass": 0.58, "tagged_mass": 0.31, "top_region_tagged": 0.44}
    frames = {"tagged_frame_mass": 0.71, "top_frame_tagged": 0.83}
    chance = {"object": 0.237, "tagged": 0.14, "tagged_frame": 0.5}
    values = facts if system != "UHMAN(a)" else {}
    values = values | (frames if system != "UHMAN(b)" else {})
    result = {key: rng.normal(value, 0.02, NUM_SEEDS).tolist() for key, value in values.items()}
    for key in list(result):
        level = chance.get(key.removesuffix("_mass"), 0.14 if "region" in key else 0.5)
        name = f"{key}_chance" if key.startswith("top") else key.replace("_mass", "_chance")
        result[name] = [level] * NUM_SEEDS
    return result


def slices_of(level):
    groups = [("frequency", "rare: 8 to 12 uses", 0.4), ("frequency", "medium: 13 to 31 uses", 0.9)]
    groups += [("frequency", "frequent: 32 to 900 uses", 1.9), ("user", "no history", 0.7)]
    groups += [("user", "missing attributes", 0.9), ("user", "history and all attributes", 1.1)]
    return [
        {"by": by, "name": name, "num_videos": 40 + 7 * index}
        | {"P@10": scale * level, "R@10": scale * level, "R@50": 2 * scale * level}
        for index, (by, name, scale) in enumerate(groups)
    ]


def make_study(folder, num_worlds=2):
    """A whole study: every system, world, view and recipe, both sweeps, sample sizes."""
    rng = np.random.default_rng(0)
    cells = []
    world_scale = {"selection": 1.0, "additive": 1.25, "everything": 0.9}
    for world in WORLDS:
        for recipe, views in (("plus", ("natural", "balanced")), ("paper", ("natural",))):
            for view in views:
                for world_seed in range(num_worlds):
                    scale = world_scale[world] * (1 + 0.02 * world_seed)
                    scale *= {"plus": 1.0, "paper": 0.55}[recipe]
                    scale *= {"natural": 1.0, "balanced": 0.7}[view]
                    for system in SYSTEMS:
                        level = LEVELS[system] * scale
                        if world == "additive" and system.startswith("UHMAN"):
                            level *= 0.72
                        if system.startswith("UHMAN"):
                            facts = attention_of(rng, system)
                        else:
                            facts = {}
                        cells.append(
                            make_cell(
                                rng,
                                folder,
                                world=world,
                                world_seed=world_seed,
                                view=view,
                                recipe=recipe,
                                system=system,
                                level=level,
                                attention=facts,
                                slices=slices_of(level),
                                config={"model.name": system.lower(), "simulator.world": world},
                                part=("tables", "sizes"),
                            )  # fmt: skip
                        )
    for size, level in zip((8, 16, 32, 64, 128), (0.09, 0.14, 0.165, 0.174, 0.16), strict=True):
        fields = {"part": ["figure4a"], "hidden_size": size, "suffix": f"-K{size}"}
        cells.append(make_cell(rng, folder, level=level, **fields))
    for size, level in zip((8, 16, 32, 64, 128), (0.12, 0.172, 0.174, 0.175, 0.173), strict=True):
        fields = {"part": ["figure4b"], "embedding_size": size, "suffix": f"-d{size}"}
        cells.append(make_cell(rng, folder, level=level, **fields))
    for share in (0.25, 0.5):
        for system in ("BL", "UA", "3WM", "UHMAN"):
            cells.append(
                make_cell(
                    rng,
                    folder,
                    system=system,
                    level=LEVELS[system] * share**0.35,
                    part=["sizes"],
                    data_share=share,
                    train_videos=int(7409 * share),
                    suffix=f"-x{share}",
                )  # fmt: skip
            )
    for choice, level in (("history_dropout", 0.162), ("weight_decay", 0.174)):
        for world_seed in range(num_worlds):
            level *= 1 + 0.02 * world_seed
            fields = {
                "part": ["recipe"],
                "variant": f"without_{choice}",
                "suffix": f"-without_{choice}",
            }
            cells.append(make_cell(rng, folder, level=level, world_seed=world_seed, **fields))
    for view in ("temporal", "cold_user"):
        for system in ("BL", "UA", "3WM", "UHMAN"):
            level = LEVELS[system] * {"temporal": 0.95, "cold_user": 0.8}[view]
            cells.append(make_cell(rng, folder, view=view, system=system, level=level))
    return cells


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Cells and the folder that `write_all` filled from them."""
    folder = tmp_path_factory.mktemp("study")
    cells = make_study(folder)
    page.write_all(cells, folder)
    return cells, folder


def plain(scores, **fields):
    """A cell of hand-written P@10 values."""
    cell = make_cell(np.random.default_rng(0), **fields)
    return cell | {"test": {"P@10": list(scores)}, "validation": {"P@10": list(scores)}}


MODULES = (claims, layout, published, stats, summary)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


# Intervals


def test_three_worlds_give_an_interval_over_worlds_and_seeds_do_not_count():
    score = stats.over_worlds({0: [1.0, 1.0], 1: [1.0, 3.0], 2: [3.0]})
    # Means 1, 2, 3: t(0.975, 2) = 4.303, standard error 1 / sqrt(3).
    assert score.mean == pytest.approx(2) and score.over == "worlds" and score.num_worlds == 3
    assert score.half_width == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)


def test_two_worlds_give_an_interval_over_the_seeds_within_them():
    score = stats.over_worlds({0: [0.0, 2.0], 1: [11.0, 13.0]})
    # Each mean has variance 2 / 2, the mean of both (1 + 1) / 4, with two degrees of freedom.
    assert score.mean == pytest.approx(6.5) and score.over == "seeds"
    assert score.half_width == pytest.approx(4.3027 * math.sqrt(0.5), rel=1e-4)


def test_one_world_is_the_ordinary_t_interval_and_one_value_has_none():
    values = [0.3, 0.1, 0.2, 0.25]
    low, high = scipy.stats.t.interval(
        0.95, 3, loc=np.mean(values), scale=np.std(values, ddof=1) / 2
    )
    score = stats.over_worlds({4: values})
    assert (score.mean - score.half_width, score.mean + score.half_width) == pytest.approx(
        (low, high)
    )
    assert stats.over_worlds({0: [0.5]}).half_width is None
    assert stats.over_worlds({0: [0.5], 1: [0.6]}).half_width is None


def test_difference_of_one_world_is_welchs():
    first, second = [0.2, 0.5, 0.3], [0.1, 0.15, 0.05, 0.3, 0.2]
    welch = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    gap = stats.difference({0: first}, {0: second})
    assert gap.mean - gap.half_width == pytest.approx(welch.low)
    assert gap.mean + gap.half_width == pytest.approx(welch.high)


def test_difference_is_paired_by_world_and_says_whether_worlds_agree():
    first = {0: [1.0], 1: [2.0], 2: [3.5], 9: [100.0]}
    gap = stats.difference(first, {2: [2.5], 1: [1.5], 0: [0.0]})  # 1, 0.5, 1
    assert gap.mean == pytest.approx(2.5 / 3) and gap.num_worlds == 3 and gap.agree
    error = np.std([1, 0.5, 1], ddof=1) / math.sqrt(3)
    assert gap.half_width == pytest.approx(4.3027 * error, rel=1e-4)
    assert not stats.difference({0: [1.0], 1: [1.0]}, {0: [0.0], 1: [1.5]}).agree
    assert stats.difference({0: [1.0]}, {1: [1.0]}) is None


# The randomisation test


def brute_force_p(differences):
    """Every sign vector, one after the other."""
    total = abs(sum(differences))
    sums = [
        abs(sum(sign * x for sign, x in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return np.mean([value >= total - 1e-12 for value in sums])


def test_exact_p_by_hand():
    # +++ and --- of 8 reach a sum of 3.
    assert stats.sign_flip_p(np.array([1.0, 1.0, 1.0])) == 2 / 8
    # Sums of 1, 2 and 4 with signs: 7 5 3 1 and their negatives; |3| is reached by 6 of 8.
    assert stats.sign_flip_p(np.array([1.0, -2.0, 4.0])) == 6 / 8
    assert stats.sign_flip_p(np.array([0.0, 1.0, 0.0])) == 1
    assert stats.sign_flip_p(np.zeros(5)) == stats.sign_flip_p(np.zeros(0)) == 1
    assert stats.sign_flip_p(np.array([0.1, 0.2, -0.3])) == 1  # a sum of 0 but for rounding


@pytest.mark.parametrize("num_videos", [1, 4, 7, 11])
def test_exact_p_is_the_enumeration(num_videos):
    rng = np.random.default_rng(num_videos)
    differences_V = np.round(rng.normal(0.3, 1, num_videos), 1)  # ties
    assert stats.sign_flip_p(differences_V) == pytest.approx(brute_force_p(differences_V))
    assert stats.sign_flip_p(-differences_V) == stats.sign_flip_p(differences_V)
    assert stats.sign_flip_p(differences_V[::-1]) == stats.sign_flip_p(differences_V)


def test_drawn_p_is_near_the_exact_one_never_zero_and_the_same_every_time():
    differences_V = np.random.default_rng(1).normal(0.4, 1, 12)
    exact = stats.sign_flip_p(differences_V)
    drawn = stats.sign_flip_p(differences_V, num_draws=4000)
    assert drawn != exact  # 4096 sign vectors are too many to enumerate
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000))
    assert stats.sign_flip_p(differences_V, num_draws=4000) == drawn
    assert stats.sign_flip_p(np.full(40, 0.1)) == 1 / 10_001
    # 300 draws: one whole block and a part of another.
    assert stats.sign_flip_p(np.full(40, 0.1), num_draws=300) == 1 / 301


def test_p_is_uniform_under_the_null_and_small_under_an_effect():
    rng = np.random.default_rng(7)
    # Symmetric around 0 but far from normal, and of different spread for every video.
    spread_V = rng.gamma(1, 1, 37)
    null = [
        stats.sign_flip_p(spread_V * rng.standard_t(3, 37), num_draws=499, seed=index)
        for index in range(600)
    ]
    distance = scipy.stats.kstest(null, "uniform").statistic
    assert distance < 1.63 / math.sqrt(600), "Kolmogorov's bound at 1 %"
    assert np.mean(np.array(null) <= 0.05) == pytest.approx(0.05, abs=0.03)
    effect = [stats.sign_flip_p(rng.normal(0.6, 1, 60), num_draws=999) for _ in range(40)]
    assert np.mean(np.array(effect) < 0.01) > 0.9


def test_holm_by_hand():
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 is raised to the one before.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.7]) == [1, 1]
    assert stats.holm([0.2]) == [0.2]
    assert stats.holm([]) == []


# The paper's numbers


def consistent(row, k):
    """Whether the printed F1 can come from numbers that are printed as P and R."""
    ends = [published.rounding(row.printed[f"{kind}@{k}"]) for kind in ("P", "R", "F1")]
    (low_p, high_p), (low_r, high_r), (low, high) = ends
    return f1(low_p, low_r) <= high and low <= f1(high_p, high_r)  # F1 rises with both


@pytest.mark.parametrize("row", published.ROWS, ids=lambda row: f"{row.table}-{row.system}")
def test_every_printed_row_has_the_f1_of_its_precision_and_recall(row):
    for k in (10, 50):
        if f"F1@{k}" in row.printed:
            assert consistent(row, k), row
    wrong = row.printed | {"R@10": row.printed["R@10"].replace("0.", "0.0", 1)}
    assert not consistent(published.Row(row.table, row.view, row.system, wrong), 10)


@pytest.mark.parametrize("row", published.IMPROVEMENTS, ids=lambda row: row.view)
def test_every_printed_improvement_is_that_of_the_rows(row):
    """All twelve hold within the rounding of the two numbers that they compare."""
    for metric, text in row.printed.items():
        low, high = published.rounding(published.printed(row.view, "UHMAN", metric))
        least, most = published.rounding(published.printed(row.view, "3WM", metric))
        printed_low, printed_high = published.rounding(text)
        assert 100 * (low / most - 1) <= printed_high, (row.view, metric)
        assert 100 * (high / least - 1) >= printed_low, (row.view, metric)


def test_mean_improvements_are_those_of_the_two_tables():
    for metric, text in published.MEAN_IMPROVEMENT.items():
        mean = np.mean([float(row.printed[metric]) for row in published.IMPROVEMENTS])
        low, high = published.rounding(text)
        assert low - 1e-9 <= mean <= high + 1e-9


def test_table_3_repeats_table_1():
    rows = {(row.table, row.system): row.printed for row in published.ROWS}
    for metric, text in rows[3, "UHMAN"].items():
        assert rows[1, "UHMAN"][metric] == text
    assert [row.table for row in published.ROWS].count(2) == 4
    assert published.value("temporal", "UHMAN", "P@10") is None


# Choosing and comparing cells


def test_cells_are_chosen_by_what_they_are():
    cells = [
        plain([0.1], system="BL"),
        plain([0.2], system="UA", world="additive"),
        plain([0.3], system="BL", part=["figure4a"]),
        plain([0.4], system="BL") | {"failed": "the loss is not finite"},
        plain([0.5], system="BL") | {"test": {}},
    ]
    assert summary.select(cells, system="BL") == [cells[0]]
    assert summary.select(cells, part=None, world="selection") == [cells[0], cells[2]]
    assert summary.select(cells, failed=True) == cells[3:]
    assert summary.settings(cells) == [("selection", "plus"), ("additive", "plus")]


def test_parts_follow_from_the_name_where_they_are_not_given():
    names = {"uhman": ["tables", "sizes"], "uhman_a": ["tables", "sizes"]}
    names |= {"uhman-K8": ["figure4a"], "uhman-d128": ["figure4b"], "bl-x0.5": ["sizes"]}
    for name, parts in names.items():
        assert summary.parts({"cell": f"selection-0/cold_user/plus/{name}"}) == parts


def test_two_cells_of_one_world_are_never_averaged():
    cells = [plain([0.1], suffix="-first"), plain([0.2], suffix="-second")]
    with pytest.raises(ValueError, match="-first and .*-second"):
        summary.estimate(cells, "P@10")


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, True])
def test_a_value_that_is_no_number_leaves_its_cell_out(bad):
    cells = [plain([0.1, bad]), plain([0.3, 0.5], world_seed=1)]
    assert summary.values(cells, "P@10") == {1: [0.3, 0.5]}
    assert summary.estimate(cells[:1], "P@10") is None
    assert summary.estimate(cells, "R@50") is None


def test_shares_are_taken_within_a_world():
    cells = [plain([0.1, 0.2]), plain([0.3, 0.3], world_seed=1)]
    cells[0]["references"] = {"oracle": {"P@10": 0.5}, "popularity": {"P@10": 0.1}}
    cells[1]["references"] = {"oracle": {"P@10": 0.6}}
    assert summary.share(cells, "oracle").mean == pytest.approx((0.15 / 0.5 + 0.5) / 2)
    assert summary.reference_share(cells, "popularity", "oracle").mean == pytest.approx(0.2)
    assert summary.share(cells, "content_oracle") is None
    assert summary.reference(cells, "oracle", "P@10").mean == pytest.approx(0.55)


def test_the_last_line_of_a_name_counts(tmp_path):
    rows = [plain([0.1]), plain([0.2], system="BL"), plain([0.3])]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    cells = summary.load_cells(tmp_path)
    assert [cell["test"]["P@10"] for cell in cells] == [[0.3], [0.2]]


def test_comparison_aligns_videos_and_pools_worlds(tmp_path):
    rng = np.random.default_rng(3)
    where = [{"world_seed": 0}, {"world_seed": 1}]
    first = [make_cell(rng, tmp_path, system="UHMAN", level=0.14, **kind) for kind in where]
    second = [make_cell(rng, tmp_path, system="3WM", level=0.138, **kind) for kind in where]
    gap, p = summary.compare(first, second, tmp_path)
    differences = []
    for one, two in zip(first, second, strict=True):
        scores = []
        for cell in (one, two):
            with np.load(tmp_path / cell["per_video"]) as arrays:
                by_id = dict(zip(arrays["video_ids"], arrays["p10_SV"].T, strict=True))
            scores.append({key: np.mean(seeds, dtype=np.float64) for key, seeds in by_id.items()})
        differences += [scores[0][key] - scores[1][key] for key in sorted(scores[0])]
    assert len(differences) == 2 * NUM_VIDEOS
    assert p == stats.sign_flip_p(np.array(differences)) < 1
    means = [np.mean(one["test"]["P@10"]) - np.mean(two["test"]["P@10"]) for one, two in
             zip(first, second, strict=True)]  # fmt: skip
    assert gap.mean == pytest.approx(np.mean(means))
    assert summary.compare(first, second, tmp_path, "R@10")[1] is not None


def test_comparison_without_or_with_other_per_video_values_has_no_p(tmp_path):
    rng = np.random.default_rng(3)
    one, two = (make_cell(rng, tmp_path, system=name) for name in ("UHMAN", "BL"))
    assert summary.compare([one], [two], tmp_path)[1] is not None
    stale = two | {"test": {"P@10": [value + 0.01 for value in two["test"]["P@10"]]}}
    for other in (stale, two | {"per_video": "nowhere.npz"}, make_cell(rng, system="BL")):
        gap, p = summary.compare([one], [other], tmp_path)
        assert gap is not None and p is None
    assert summary.compare([one], [], tmp_path) == (None, None)
    path = tmp_path / two["per_video"]
    with np.load(path) as arrays:
        changed = dict(arrays)
    changed["video_ids"] = np.array([f"other{name}" for name in changed["video_ids"]])
    np.savez(path, **changed)
    with pytest.raises(ValueError, match="same test videos"):
        summary.compare([one], [two], tmp_path)


# Claims


def test_a_comparison_is_settled_by_interval_worlds_and_p_together():
    sure = Estimate(0.02, 0.01, "seeds", 2, True)
    assert claims.settle(sure, 0.04) == Verdict.HOLDS
    assert claims.settle(Estimate(-0.02, 0.01, "seeds", 2, True), 0.04) == Verdict.FAILS
    for gap, p in (
        (sure, 0.06),
        (sure, None),
        (Estimate(0.02, 0.03, "seeds", 2, True), 0.001),
        (Estimate(0.02, None, "seeds", 1, True), 0.001),
        (Estimate(0.02, 0.01, "seeds", 2, False), 0.001),
    ):
        assert claims.settle(gap, p) == Verdict.UNDECIDED
    assert claims.settle(sure, None, tested=False) == Verdict.HOLDS
    assert claims.settle(None, None) == Verdict.MISSING


def test_parts_of_a_claim_add_up():
    holds, fails, undecided, missing = Verdict
    assert claims.together([holds, holds]) == holds
    assert claims.together([holds, undecided]) == undecided
    assert claims.together([missing, undecided]) == missing
    assert claims.together([missing, fails, holds]) == fails
    assert claims.together([]) == missing


def verdicts(found, world="selection", recipe="plus"):
    rows = [claim for claim in found if (claim.world, claim.recipe) == (world, recipe)]
    return {claim.name: claim.verdict for claim in rows}


def test_claims_of_the_made_up_study(study):
    cells, folder = study
    found = claims.claims(cells, folder)
    here = verdicts(found)
    assert len(here) == 13 and set(here.values()) == {Verdict.HOLDS}
    additive = verdicts(found, "additive")
    for view in ("natural", "balanced"):  # UHMAN was made worse than 3WM there
        assert additive[f"BL < UA < 3WM < UHMAN, {view}"] == Verdict.FAILS
        assert additive[f"UHMAN above BL, UA and 3WM, {view}"] == Verdict.FAILS
    assert additive["UHMAN above UHMAN(a)"] == Verdict.HOLDS
    assert additive["K: rises, then falls"] == Verdict.MISSING
    paper = verdicts(found, recipe="paper")
    assert paper["BL < UA < 3WM < UHMAN, natural"] == Verdict.HOLDS
    assert paper["Balanced is harder, P@10"] == Verdict.MISSING
    order = next(claim for claim in found if claim.name == "BL < UA < 3WM < UHMAN, natural")
    gap, _ = summary.compare(
        *(
            summary.select(cells, world="selection", view="natural", recipe="plus", system=name)
            for name in ("UHMAN", "3WM")
        ),
        folder,
    )
    # Every p is the least there is, 1 / 10,001, times the three comparisons.
    assert f"UHMAN − 3WM: {claims.gap_text(gap)} (p\u00a00.0003)" in order.numbers
    assert "(paper +6.7\u202f%)" in order.numbers


def test_below_a_ranking_that_knows_less_is_said(study):
    cells, folder = study
    name = "Above popularity and history, natural"
    spoilt = [
        cell | {"references": cell["references"] | {"user_history": {"P@10": 0.15}}}
        for cell in cells
        if cell["world"] == "selection" and cell["recipe"] == "plus"
    ]
    found = {claim.name: claim for claim in claims.claims(spoilt, folder)}
    assert found[name].verdict == Verdict.FAILS
    below = {text.split(" − ")[0] for text in found[name].numbers.split("; ")}
    # UHMAN and (a) to (c) are above it; BL knows no history.
    assert {"UA", "3WM"} <= below and not below & {"BL", "UHMAN", "UHMAN(b)"}


def curve_cells(folder, key, levels, noise=0.001):
    rng = np.random.default_rng(5)
    part = {"hidden_size": "figure4a", "embedding_size": "figure4b"}[key]
    return [
        make_cell(rng, folder, level=level, noise=noise, part=[part], suffix=f"-{size}",
                  **{key: size})
        for size, level in levels.items()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ({8: 0.1, 32: 0.17, 64: 0.16, 128: 0.13}, Verdict.HOLDS),
        ({8: 0.1, 32: 0.13, 128: 0.17}, Verdict.FAILS),  # it only rises
        ({8: 0.17, 32: 0.13, 128: 0.1}, Verdict.FAILS),  # it only falls
        ({8: 0.1, 32: 0.169, 64: 0.17, 128: 0.1699}, Verdict.UNDECIDED),  # no fall to see
        ({8: 0.1, 32: 0.17}, Verdict.MISSING),
    ],
)
def test_hidden_size_claim(tmp_path, levels, verdict):
    found = claims.claims(curve_cells(tmp_path, "hidden_size", levels), tmp_path)
    assert verdicts(found)["K: rises, then falls"] == verdict


@pytest.mark.parametrize(
    ("levels", "noise", "verdict"),
    [
        ({8: 0.05, 16: 0.169, 32: 0.17, 128: 0.172}, 0.001, Verdict.HOLDS),
        ({16: 0.14, 32: 0.17, 128: 0.17}, 0.001, Verdict.FAILS),
        ({16: 0.169, 32: 0.17, 128: 0.172}, 0.03, Verdict.UNDECIDED),  # too noisy to tell
        ({16: 0.17, 64: 0.17}, 0.001, Verdict.MISSING),  # no d = 32
    ],
)
def test_embedding_size_claim(tmp_path, levels, noise, verdict):
    found = claims.claims(curve_cells(tmp_path, "embedding_size", levels, noise), tmp_path)
    assert verdicts(found)["d: flat from 16 to 128"] == verdict


def test_a_claim_is_undecided_without_videos_and_missing_without_cells():
    rng = np.random.default_rng(2)
    cells = [make_cell(rng, system=name) for name in ("BL", "UA", "3WM", "UHMAN")]
    here = verdicts(claims.claims(cells))
    assert here["BL < UA < 3WM < UHMAN, natural"] == Verdict.UNDECIDED
    here = verdicts(claims.claims(cells[1:]))
    assert here["BL < UA < 3WM < UHMAN, natural"] == Verdict.MISSING
    assert claims.claims([]) == []


# Tables


def parse(text):
    """Rows of the first Markdown table, as {first column: {column: text}}."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1, "every row has every column"
    return {row[0].strip("*"): dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[2:]}


def test_main_table_by_hand():
    cells = [
        plain([0.1, 0.2], system="BL", seeds=2),
        plain([0.3, 0.3], system="UHMAN", seeds=2),
        plain([0.1, 0.1], system="3WM", seeds=2) | {"failed": "the loss | is not finite"},
    ]
    text = tables.main_table(cells, world="selection", view="natural", recipe="plus")
    rows = parse(text)
    # One degree of freedom: 12.706 * 0.05 = 0.6353.
    assert rows["BL"]["P@10"] == "0.1500 ±\u202f0.6353"
    assert rows["BL"]["*paper P@10*"] == "*0.0650*"
    assert rows["3WM"]["*paper F1@10*"] == "*0.113*", "as printed"
    assert rows["BL"]["P@10 of oracle's"].startswith("51.5\u202f%")  # 0.15 / 0.291
    assert rows["BL"]["p, UHMAN − row"] == "– +0.1500"
    assert set(rows["UA"].values()) >= {"–"} and rows["UA"]["P@10"] == "–"
    assert rows["3WM"]["P@10"] == "–" and rows["BL"]["R@50"] == "–"
    assert rows["UHMAN"]["p, UHMAN − row"] == ""
    assert rows["Observable oracle"]["P@10"] == "0.2790"
    assert rows["Oracle"]["P@10 of oracle's"] == "100.0\u202f%"
    assert "Failed: 3WM, world seed 0: the loss | is not finite" in text
    assert "1 world, 2 seeds each" in text and "another data set" in text


def test_tables_of_the_made_up_study(study):
    cells, folder = study
    where = {"world": "selection", "recipe": "plus", "results": folder}
    rows = parse(tables.main_table(cells, view="balanced", **where))
    assert list(rows)[:4] == ["BL", "UA", "3WM", "UHMAN"]
    assert rows["UHMAN"]["*paper P@10*"] == "*0.0507*"
    assert rows["3WM"]["p, UHMAN − row"].startswith("0.0003 +0.0")
    rows = parse(tables.main_table(cells, view="natural", systems=tables.ABLATION, **where))
    assert list(rows) == list(tables.ABLATION) and "P@50" not in rows["UHMAN"]
    assert rows["UHMAN(a)"]["*paper R@10*"] == "*0.1973*"
    assert rows["UHMAN(a)"]["p, UHMAN − row"].startswith("0.0003 "), "Holm over three"
    rows = parse(tables.main_table(cells, view="cold_user", **where))
    assert not any(name.startswith("*paper") for name in rows["UHMAN"])
    missing = tables.main_table(cells, world="additive", view="temporal", recipe="plus")
    assert "Nothing was measured" in missing


def test_rows_say_where_they_lack_worlds():
    cells = [plain([0.1], system="BL"), plain([0.2]), plain([0.3], world_seed=1)]
    rows = parse(tables.main_table(cells, world="selection", view="natural", recipe="plus"))
    assert "BL (1 of 2 worlds)" in rows and "UHMAN" in rows


def test_attention_and_slices(study):
    cells, _ = study
    rows = parse(layout.markdown(breakdowns.build_attention(cells, recipe="plus")))
    assert rows["UHMAN(a), selection"]["Regions with any object"] == "–"
    assert rows["UHMAN, selection"]["Regions with any object"].endswith("(23.7\u202f%)")
    assert "BL, selection" not in rows
    fixed = plain([0.1]) | {"attention": {"object_mass": 0.5, "object_chance": 0.25}}
    assert breakdowns.attention([fixed], "object")[0].mean == 0.5, "numbers as well as lists"
    table = breakdowns.build_slices(cells, world="selection", view="natural", recipe="plus")
    assert [name.split(",")[0] for name in table.columns] == [
        "no history", "missing attributes", "history and all attributes", "rare", "medium",
        "frequent",
    ]  # fmt: skip
    assert "no history, P@10 (61 clips)" in table.columns
    level = LEVELS["UHMAN"] * (1 + 1.02) / 2  # of two worlds
    rows = parse(layout.markdown(table))
    assert rows["UHMAN"]["no history, P@10 (61 clips)"] == f"{0.7 * level:.4f}"


def test_choices_of_the_recipe(study):
    cells, _ = study
    rows = parse(layout.markdown(breakdowns.build_recipe(cells, world="selection", recipe="plus")))
    assert list(rows) == ["the recipe", "without history dropout", "without weight decay"]
    worse = rows["without history dropout"]["worse by, validation"]
    assert worse.startswith("+0.01") and "±" in worse
    assert abs(float(rows["without weight decay"]["worse by, test"].split()[0][1:])) < 0.005
    assert rows["the recipe"]["worse by, test"] == ""
    nothing = breakdowns.build_recipe(cells, world="additive", recipe="plus")
    assert not nothing.rows


def test_markdown_has_claims_first_and_every_row_of_every_table_is_whole(study):
    cells, folder = study
    text = (folder / "tables.md").read_text("utf-8")
    titles = re.findall(r"^### (.*)$", text, re.M)
    assert titles[0] == "The paper's claims" and titles[1].startswith("Claims in numbers")
    assert sum(title.startswith("Table 1") for title in titles) == 6
    assert sum(title.startswith("Table 2") for title in titles) == 3, "none that has no cells"
    for part in text.split("### ")[1:]:
        parse(part)
    assert tables.write_tables(cells, folder).read_text("utf-8") == text


# Figures


def test_every_figure_is_drawn_and_the_same_bytes_again(study, tmp_path):
    cells, folder = study
    names = ("systems", "figure4a", "figure4b", "sample_size", "attention")
    for name in names:
        with Image.open(folder / f"{name}.png") as image:
            assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
            assert image.width > 700
    for path in figures.hidden_size(cells, tmp_path):
        assert path.read_bytes() == (folder / path.name).read_bytes()
    assert not (folder / "figure3.svg").exists(), "no run left its view"
    paths = figures.hashtags(np.array([3, 900, 40, 11]), np.array([3, 11, 12]), tmp_path)
    assert [path.name for path in paths] == ["figure3.png", "figure3.svg"]
    assert "entropy" in paths[1].read_text("utf-8")


def test_a_figure_without_cells_is_not_drawn(tmp_path):
    assert figures.write_figures([], tmp_path) == []
    cells = [plain([0.1], part=["figure4a"]), make_cell(np.random.default_rng(0), system="BL")]
    assert {path.stem for path in figures.write_figures(cells, tmp_path)} == {"systems"}
    assert {path.stem for path in tmp_path.iterdir()} == {"systems"}


def test_sample_sizes_are_compared_over_the_same_worlds():
    cells = [
        plain([0.2], world_seed=0), plain([0.9], world_seed=1),
        plain([0.1], world_seed=0, data_share=0.5),
    ]  # fmt: skip
    groups = figures._same_worlds(cells)
    assert [[cell["test"]["P@10"] for cell in group] for group in groups] == [[[0.1]], [[0.2]]]


def test_every_colour_of_the_figures_has_one_for_the_dark():
    used = {*drawing.SYSTEM_COLORS.values(), *drawing.WORLD_COLORS.values()}
    used |= {
        *drawing.VIEW_COLORS.values(),
        *(color for color, _ in drawing.REFERENCE_LINES.values()),
    }
    assert used <= {*elements._DARK, *elements._NAMED}


# The page


class Page(HTMLParser):
    """Checks that elements nest; keeps attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.ids, self.text, self._open = [], [], "", []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "br", "img", "input"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data if "style" not in self._open[-1:] else ""


def test_page_is_whole_self_contained_and_begins_with_the_claims(study):
    cells, folder = study
    text = (folder / "study.html").read_text("utf-8")
    parsed = Page(text)
    assert len(parsed.ids) == len(set(parsed.ids)) > 0
    links = [value for _, name, value in parsed.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith("#") for value in links)
    assert {value[1:] for value in links} <= set(parsed.ids)
    assert "<script" not in text and "@import" not in text
    assert parsed.text.index("Does it hold?") < parsed.text.index("Tables 1 to 3")
    for words in ("Simulated data", "does not", "Fig. 4a", "How to read", "Settings"):
        assert words in parsed.text
    assert "in: selection and everything; one of them beats it in: additive." in parsed.text
    assert text.count("<svg") == 5 and "var(--ink)" in text
    trained = NUM_SEEDS * len(cells)
    assert f"{trained} trained models" in parsed.text.replace("\u202f", "")


def test_page_escapes_what_cells_hold_and_says_that_data_is_real(tmp_path):
    rng = np.random.default_rng(0)
    evil = "<script>alert(1)</script>"
    cells = [make_cell(rng, world="data", system=name, references={}) for name in SYSTEMS]
    cells[0]["config"] = {"data.note": evil}
    cells[1] |= {"failed": evil}
    for cell in cells:
        cell["slices"] = [{"by": "user", "name": evil, "num_videos": 2, "P@10": 0.1}]
    page.write_all(cells, tmp_path)
    text = (tmp_path / "study.html").read_text("utf-8")
    assert evil not in text and "Real data" in Page(text).text
    assert "1 cells failed" not in text and "1 cell failed" in text


def test_nothing_measured_is_a_page_that_says_so(tmp_path):
    folder = tmp_path / "new" / "folder"
    written = page.write_all([], folder)
    assert [path.name for path in written] == ["tables.md", "study.html"]
    text = Page((folder / "study.html").read_text("utf-8")).text
    assert "No claim of the paper can be judged yet." in text


def test_figure_3_comes_from_the_views_of_the_runs(tmp_path):
    root = tiny_world.write_dataset(tmp_path / "data")
    config, cells, counts = tiny_world.make_config(root), [], []
    for view, distribution in (
        ("natural", Distribution.NATURAL),
        ("balanced", Distribution.BALANCED),
    ):
        config.view.distribution, config.view.balanced_top = distribution, 2
        built, _ = tiny_world.load(root, config)
        cell = plain([0.1], view=view) | {"fingerprint": "0123"}
        run = tmp_path / "runs" / cell["cell"] / "0123"
        run.mkdir(parents=True)
        built.save(run / "view.npz")
        cells.append(cell)
        counts.append(built.counts_T)
    found = page.hashtag_counts(cells, tmp_path)
    np.testing.assert_array_equal(found[0], counts[0])
    np.testing.assert_array_equal(found[1], counts[1])
    assert page.hashtag_counts(cells[:1], tmp_path) is None
    assert page.hashtag_counts(cells, tmp_path / "data") is None
    names = {path.name for path in page.write_all(cells, tmp_path)}
    assert {"figure3.svg", "figure3.png"} <= names
    # A later page keeps the figure, though the runs are gone.
    text = page.write_page(cells, tmp_path, results=tmp_path / "data").read_text("utf-8")
    assert "Fig. 3" in text
