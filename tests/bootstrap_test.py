"""Intervals over clips, of simulated users."""

import math

import numpy as np
import pytest

from uhman_jax.evaluate import bootstrap
from uhman_jax.scores import interval


def width(values_V, users):
    return bootstrap.half_widths({"MAP": np.asarray(values_V, float)}, list(map(str, users)))["MAP"]


def test_with_a_clip_per_user_it_is_students_interval():
    values_V = np.random.default_rng(0).normal(size=40)
    # The standard deviation of 1,000 draws has a relative error of 1 / sqrt(2000) = 0.022.
    assert width(values_V, range(40)) == pytest.approx(interval(values_V.tolist()), rel=0.1)
    assert width([0.0, 1.0, 5.0], [0, 1, 2]) == pytest.approx(interval([0.0, 1.0, 5.0]), rel=0.15)


def test_copies_of_a_users_clip_add_nothing():
    values_V = np.random.default_rng(1).normal(size=30)
    copied = width(np.repeat(values_V, 9), np.repeat(np.arange(30), 9))
    assert copied == pytest.approx(width(values_V, range(30)), rel=1e-6)
    assert width(np.repeat(values_V, 9), range(270)) == pytest.approx(copied / 3, rel=0.1)


def test_the_interval_holds_the_truth_in_19_of_20_worlds():
    """Users differ in level and in number of clips; intervals of independent clips fail here."""
    rng = np.random.default_rng(2)
    held, naive = 0, 0
    for _ in range(400):
        num_clips_U = 1 + rng.poisson(4, 25)
        user_V = np.repeat(np.arange(25), num_clips_U)
        values_V = rng.normal(size=25)[user_V] + 0.5 * rng.normal(size=len(user_V))
        held += abs(values_V.mean()) <= width(values_V, user_V)
        naive += abs(values_V.mean()) <= 1.96 * values_V.std() / math.sqrt(len(values_V))
    # With three seeds 374 to 380, and 239 to 257; the deviations of such counts are 5 and 10.
    assert held >= 354
    assert naive < 297


def test_f1_is_of_the_means():
    rng = np.random.default_rng(3)
    values = {"P@5": rng.random(500), "R@5": rng.random(500) / 3}
    found = bootstrap.half_widths(values, [f"user{v % 100}" for v in range(500)])
    assert list(found) == ["P@5", "R@5", "F1@5"]
    precision, recall = values["P@5"].mean(), values["R@5"].mean()
    # First order: dF = 2 (R^2 dP + P^2 dR) / (P + R)^2, per user.
    effect_V = 2 * (recall**2 * values["P@5"] + precision**2 * values["R@5"])
    effect_V /= (precision + recall) ** 2
    expected = width(effect_V, [v % 100 for v in range(500)])
    assert found["F1@5"] == pytest.approx(expected, rel=0.05)
    zeros = bootstrap.half_widths({"P@1": np.zeros(3), "R@1": np.zeros(3)}, ["a", "b", "c"])
    assert zeros == {"P@1": 0.0, "R@1": 0.0, "F1@1": 0.0}


def test_one_user_has_no_interval():
    assert width([0.0, 1.0, 0.5], [7, 7, 7]) is None
