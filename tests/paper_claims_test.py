"""Tests of the verdicts on the paper's claims."""

import numpy as np
import pytest
from fake_study import make_cell, make_study

from experiments.paper import claims, summary
from experiments.paper.claims import Verdict
from experiments.paper.stats import Estimate

HOLDS, FAILS, UNDECIDED, MISSING = Verdict


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Cells and the folder of their per-video values."""
    return make_study(folder := tmp_path_factory.mktemp("study")), folder


@pytest.mark.parametrize(
    ("gap", "p", "verdict"),
    [
        ((0.02, 0.01, "seeds", 2, True), 0.04, HOLDS),
        ((-0.02, 0.01, "seeds", 2, True), 0.04, FAILS),
        ((0.02, 0.01, "seeds", 2, True), 0.06, UNDECIDED),
        ((0.02, 0.01, "seeds", 2, True), None, UNDECIDED),
        ((0.02, 0.03, "seeds", 2, True), 0.001, UNDECIDED),
        ((0.02, None, "seeds", 1, True), 0.001, UNDECIDED),
        ((0.02, 0.01, "seeds", 2, False), 0.001, UNDECIDED),
    ],
)
def test_interval_datasets_and_p_settle_a_comparison_together(gap, p, verdict):
    assert claims.settle(Estimate(*gap), p) == verdict


def test_parts_of_a_claim_add_up():
    assert claims.settle(Estimate(0.02, 0.01, "seeds", 2, True), None, tested=False) == HOLDS
    assert claims.settle(None, None) == MISSING
    assert claims.together([HOLDS, HOLDS]) == HOLDS
    assert claims.together([HOLDS, UNDECIDED]) == UNDECIDED
    assert claims.together([MISSING, UNDECIDED]) == claims.together([]) == MISSING
    assert claims.together([MISSING, FAILS, HOLDS]) == FAILS


def verdicts(found, world="selection", recipe="plus"):
    rows = [claim for claim in found if (claim.world, claim.recipe) == (world, recipe)]
    return {claim.name: claim.verdict for claim in rows}


def test_claims_of_the_synthetic_study(study):
    cells, folder = study
    found = claims.claims(cells, folder)
    here = verdicts(found)
    assert len(here) == 13 and set(here.values()) == {HOLDS}
    additive = verdicts(found, "additive")
    for view in ("natural", "balanced"):  # UHMAN was made worse than 3WM there
        assert additive[f"BL < UA < 3WM < UHMAN, {view}"] == FAILS
        assert additive[f"UHMAN above BL, UA and 3WM, {view}"] == FAILS
    assert additive["UHMAN above UHMAN(a)"] == HOLDS
    assert additive["K: rises, then falls"] == MISSING
    paper = verdicts(found, recipe="paper")
    assert paper["BL < UA < 3WM < UHMAN, natural"] == HOLDS
    assert paper["Balanced is harder, P@10"] == MISSING
    order = next(claim for claim in found if claim.name == "BL < UA < 3WM < UHMAN, natural")
    where = {"world": "selection", "view": "natural", "recipe": "plus"}
    rows = [summary.select(cells, system=name, **where) for name in ("UHMAN", "3WM")]
    gap, _ = summary.compare(*rows, folder)
    # Every p is the smallest possible, 1 / 10,001, times the three comparisons.
    assert f"UHMAN − 3WM: {claims.gap_text(gap)} (p\u00a00.0003)" in order.numbers
    assert "(paper +6.7\u202f%)" in order.numbers


def test_a_system_below_a_ranking_that_knows_less_fails(study):
    cells, folder = study
    name = "Above popularity and history, natural"
    spoilt = [
        cell | {"references": cell["references"] | {"user_history": {"P@10": 0.15}}}
        for cell in cells
        if cell["world"] == "selection" and cell["recipe"] == "plus"
    ]
    found = {claim.name: claim for claim in claims.claims(spoilt, folder)}
    assert found[name].verdict == FAILS
    below = {text.split(" − ")[0] for text in found[name].numbers.split("; ")}
    # UHMAN and (a) to (c) are above it; BL knows no history.
    assert {"UA", "3WM"} <= below and not below & {"BL", "UHMAN", "UHMAN(b)"}


def curve_cells(folder, key, levels, noise=0.001):
    rng = np.random.default_rng(5)
    part = {"hidden_size": "figure4a", "embedding_size": "figure4b"}[key]
    fields = {"noise": noise, "part": [part]}
    return [
        make_cell(rng, folder, level=level, suffix=f"-{size}", **{key: size}, **fields)
        for size, level in levels.items()
    ]


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ({8: 0.1, 32: 0.17, 64: 0.16, 128: 0.13}, HOLDS),
        ({8: 0.1, 32: 0.13, 128: 0.17}, FAILS),  # it only rises
        ({8: 0.17, 32: 0.13, 128: 0.1}, FAILS),  # it only falls
        ({8: 0.1, 32: 0.169, 64: 0.17, 128: 0.1699}, UNDECIDED),  # no fall to see
        ({8: 0.1, 32: 0.17}, MISSING),
    ],
)
def test_hidden_size_claim(tmp_path, levels, verdict):
    found = claims.claims(curve_cells(tmp_path, "hidden_size", levels), tmp_path)
    assert verdicts(found)["K: rises, then falls"] == verdict


@pytest.mark.parametrize(
    ("levels", "noise", "verdict"),
    [
        ({8: 0.05, 16: 0.169, 32: 0.17, 128: 0.172}, 0.001, HOLDS),
        ({16: 0.14, 32: 0.17, 128: 0.17}, 0.001, FAILS),
        ({16: 0.169, 32: 0.17, 128: 0.172}, 0.03, UNDECIDED),  # too noisy to tell
        ({16: 0.17, 64: 0.17}, 0.001, MISSING),  # no d = 32
    ],
)
def test_embedding_size_claim(tmp_path, levels, noise, verdict):
    found = claims.claims(curve_cells(tmp_path, "embedding_size", levels, noise), tmp_path)
    assert verdicts(found)["d: flat from 16 to 128"] == verdict


def test_a_claim_is_undecided_without_videos_and_missing_without_cells():
    rng = np.random.default_rng(2)
    cells = [make_cell(rng, system=name) for name in ("BL", "UA", "3WM", "UHMAN")]
    for some, verdict in ((cells, UNDECIDED), (cells[1:], MISSING)):
        assert verdicts(claims.claims(some))["BL < UA < 3WM < UHMAN, natural"] == verdict
    assert claims.claims([]) == []
