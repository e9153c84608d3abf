"""Tests of the study's statistics and of the paper's numbers."""

import doctest
import itertools
import math

import numpy as np
import pytest
import scipy.stats

from experiments.paper import layout, published, stats, summary
from uhman_jax.metrics import f1


@pytest.mark.parametrize("module", [layout, published, stats, summary])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


@pytest.mark.parametrize(
    ("worlds", "mean", "half_width"),
    [
        # Means 1, 2, 3 of the worlds: t(0.975, 2) = 4.303, standard error 1 / sqrt(3).
        ({0: [1.0, 1.0], 1: [1.0, 3.0], 2: [3.0]}, 2, 4.3027 / math.sqrt(3)),
        # Two worlds: the mean of each has variance 2 / 2, that of both (1 + 1) / 4, two degrees.
        ({0: [0.0, 2.0], 1: [11.0, 13.0]}, 6.5, 4.3027 * math.sqrt(0.5)),
        # One world: the ordinary interval, 1, 2 and 3 as above.
        ({4: [1.0, 2.0, 3.0]}, 2, 4.3027 / math.sqrt(3)),
        ({0: [0.5]}, 0.5, None),
        ({0: [0.5], 1: [0.75]}, 0.625, None),
    ],
)
def test_the_interval_is_over_three_or_more_worlds_or_over_seeds(worlds, mean, half_width):
    score = stats.over_worlds(worlds)
    assert score.mean == pytest.approx(mean)
    assert score.half_width == (half_width and pytest.approx(half_width, rel=1e-4))
    assert stats.over_worlds({}) is None


def test_difference_of_one_world_is_welchs():
    first, second = [0.2, 0.5, 0.3], [0.1, 0.15, 0.05, 0.3, 0.2]
    welch = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    gap = stats.difference({0: first}, {0: second})
    assert gap.mean - gap.half_width == pytest.approx(welch.low)
    assert gap.mean + gap.half_width == pytest.approx(welch.high)


def test_difference_is_paired_by_world_and_says_whether_worlds_agree():
    first = {0: [1.0], 1: [2.0], 2: [3.5], 9: [100.0]}
    gap = stats.difference(first, {2: [2.5], 1: [1.5], 0: [0.0]})  # 1, 0.5, 1
    assert gap.mean == pytest.approx(2.5 / 3) and gap.agree
    error = np.std([1, 0.5, 1], ddof=1) / math.sqrt(3)
    assert gap.half_width == pytest.approx(4.3027 * error, rel=1e-4)
    assert not stats.difference({0: [1.0], 1: [1.0]}, {0: [0.0], 1: [1.5]}).agree
    assert stats.difference({0: [1.0]}, {1: [1.0]}) is None


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 1.0, 1.0], 2 / 8),  # +++ and --- reach a sum of 3
        ([1.0, -2.0, 4.0], 6 / 8),  # sums 7 5 3 1 and their negatives; 6 of 8 reach |3|
        ([0.0, 1.0, 0.0], 1),
        ([0.0] * 5, 1),
        ([], 1),
        ([0.1, 0.2, -0.3], 1),  # a sum of 0 but for rounding
    ],
)
def test_exact_p_by_hand(differences, p):
    assert stats.sign_flip_p(np.array(differences)) == p


@pytest.mark.parametrize("num_videos", [1, 4, 7, 11])
def test_exact_p_is_the_enumeration(num_videos):
    rng = np.random.default_rng(num_videos)
    differences_V = np.round(rng.normal(0.3, 1, num_videos), 1)  # ties
    signs_NV = np.array(list(itertools.product((-1, 1), repeat=num_videos)))
    expected = np.mean(abs(signs_NV @ differences_V) >= abs(sum(differences_V)) - 1e-12)
    assert stats.sign_flip_p(differences_V) == pytest.approx(expected)
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
    assert np.mean(np.array(null) <= 0.05) == pytest.approx(0.05, abs=0.04)  # sd 0.009
    effect = [stats.sign_flip_p(rng.normal(0.6, 1, 60), num_draws=999) for _ in range(40)]
    assert np.mean(np.array(effect) < 0.01) > 0.8  # over five seeds mean 0.955, sd 0.027


def test_holm_by_hand():
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 is raised to the value before.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert (stats.holm([0.6, 0.7]), stats.holm([0.2]), stats.holm([])) == ([1, 1], [0.2], [])


# The paper's numbers


def consistent(row, k):
    """Returns whether the printed F1 agrees with the printed P and R within their rounding."""
    texts = [row[f"{kind}@{k}"] for kind in ("P", "R", "F1")]
    halves = [0.5 * 10.0 ** -len(text.partition(".")[2]) for text in texts]
    (p, dp), (r, dr), (score, ds) = zip(map(float, texts), halves, strict=True)
    return f1(p - dp, r - dr) <= score + ds and score - ds <= f1(p + dp, r + dr)


@pytest.mark.parametrize("row", published.ROWS.values(), ids=map(str, published.ROWS))
def test_every_printed_row_has_the_f1_of_its_precision_and_recall(row):
    for k in (10, 50):
        if f"F1@{k}" in row:
            assert consistent(row, k), row
    assert not consistent(row | {"R@10": row["R@10"].replace("0.", "0.0", 1)}, 10)


def test_table_3_repeats_table_1():
    table_1 = published.ROWS[1, "natural", "UHMAN"]
    assert published.ROWS[3, "natural", "UHMAN"].items() <= table_1.items()
    assert [table for table, _, _ in published.ROWS].count(2) == 4
    assert published.value("temporal", "UHMAN", "P@10") is None
