"""Tests of the verdicts on the paper's claims."""

import numpy as np
import pytest
from fake_study import make_cell, make_study

from experiments.paper import claims, summary
from experiments.paper.claims import UNTESTED, Verdict
from experiments.paper.layout import gap_text
from experiments.paper.stats import Estimate

HOLDS, FAILS, UNDECIDED, MISSING = Verdict


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Cells, the folder of their per-video values, and the claims."""
    folder = tmp_path_factory.mktemp("study")
    cells = make_study(folder)
    return cells, folder, claims.claims(cells, folder)


@pytest.mark.parametrize(
    ("gap", "p", "verdict"),
    [
        ((0.02, 0.01, True), 0.04, HOLDS),
        ((-0.02, 0.01, True), 0.04, FAILS),
        ((0.02, 0.01, True), 0.06, UNDECIDED),
        ((0.02, 0.01, True), None, UNDECIDED),
        ((0.02, 0.03, True), 0.001, UNDECIDED),
        ((0.02, None, True), 0.001, UNDECIDED),
        ((0.02, 0.01, False), 0.001, UNDECIDED),
        ((0.02, 0.01, True), UNTESTED, HOLDS),
        (None, None, MISSING),
    ],
)
def test_interval_datasets_and_p_settle_a_comparison_together(gap, p, verdict):
    assert claims.settle(gap and Estimate(*gap), p) == verdict


def test_parts_of_a_claim_add_up():
    assert claims.together([HOLDS, HOLDS]) == HOLDS
    assert claims.together([HOLDS, UNDECIDED]) == UNDECIDED
    assert claims.together([MISSING, UNDECIDED]) == claims.together([]) == MISSING
    assert claims.together([MISSING, FAILS, HOLDS]) == FAILS


def verdicts(found, world="selection", recipe="plus"):
    rows = [claim for claim in found if (claim.world, claim.recipe) == (world, recipe)]
    return {claim.name: claim.verdict for claim in rows}


def test_claims_of_the_synthetic_study(study):
    cells, folder, found = study
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
    assert f"UHMAN − 3WM: {gap_text(gap)} (p\u00a00.0003)" in order.numbers
    assert "(paper +6.7\u202f%)" in order.numbers


def test_a_system_below_a_ranking_that_knows_less_fails(study):
    cells, folder, _ = study
    spoilt = [
        cell | {"references": cell["references"] | {"user_history": {"P@10": 0.15}}}
        for cell in summary.select(cells, world="selection", recipe="plus")
    ]
    found = {claim.name: claim for claim in claims.claims(spoilt, folder)}
    claim = found["Above popularity and history, natural"]
    below = {text.split(" − ")[0] for text in claim.numbers.split("; ")}
    # UHMAN and (a) to (c) are above it; BL knows no history.
    assert claim.verdict == FAILS and {"UA", "3WM"} <= below
    assert not below & {"BL", "UHMAN", "UHMAN(b)"}


@pytest.mark.parametrize(
    ("letter", "levels", "noise", "verdict"),
    [
        ("K", {8: 0.1, 32: 0.17, 64: 0.16, 128: 0.13}, 0.001, HOLDS),
        ("K", {8: 0.1, 32: 0.13, 128: 0.17}, 0.001, FAILS),  # it only rises
        ("K", {8: 0.17, 32: 0.13, 128: 0.1}, 0.001, FAILS),  # it only falls
        ("K", {8: 0.1, 32: 0.169, 64: 0.17, 128: 0.1699}, 0.001, UNDECIDED),  # no fall to see
        ("K", {8: 0.1, 32: 0.17}, 0.001, MISSING),
        ("d", {8: 0.05, 16: 0.169, 32: 0.17, 128: 0.172}, 0.001, HOLDS),
        ("d", {16: 0.14, 32: 0.17, 128: 0.17}, 0.001, FAILS),
        ("d", {16: 0.169, 32: 0.17, 128: 0.172}, 0.03, UNDECIDED),  # too noisy to tell
        ("d", {16: 0.17, 64: 0.17}, 0.001, MISSING),  # no d = 32
    ],
)
def test_claims_about_sizes(tmp_path, letter, levels, noise, verdict):
    rng = np.random.default_rng(5)
    key = {"K": "hidden_size", "d": "embedding_size"}[letter]
    cells = [
        make_cell(rng, tmp_path, level=x, noise=noise, suffix=f"-{letter}{size}", **{key: size})
        for size, x in levels.items()
    ]
    found = verdicts(claims.claims(cells, tmp_path))
    assert found[{"K": "K: rises, then falls", "d": "d: flat from 16 to 128"}[letter]] == verdict


def test_a_claim_is_undecided_without_videos_and_missing_without_cells(tmp_path):
    rng = np.random.default_rng(2)
    cells = [make_cell(rng, system=name) for name in ("BL", "UA", "3WM", "UHMAN")]
    for some, verdict in ((cells, UNDECIDED), (cells[1:], MISSING)):
        found = verdicts(claims.claims(some, tmp_path))
        assert found["BL < UA < 3WM < UHMAN, natural"] == verdict
    assert claims.claims([], tmp_path) == []
