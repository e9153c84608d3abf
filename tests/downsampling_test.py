"""Downsampling of the frequent hashtags: rates, counts and draws (section 3.1)."""

import numpy as np
import pytest
from views import build, names_of, random_world

from uhman_jax.config import Distribution
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION
from uhman_jax.dataset.vocabulary import draw_uses, keep_rates


def test_keep_rates():
    assert keep_rates(np.array([6, 30, 12, 8, 10]), 2).tolist() == [1, 8 / 30, 8 / 12, 1, 1]
    assert keep_rates(np.array([5, 5, 5]), 0).tolist() == [1, 1, 1]


def test_balanced_counts_are_near_uniform():
    videos, users = random_world(8, num_videos=6000, num_users=900, num_hashtags=40)
    natural = build(videos, users, min_count=10)
    view = build(videos, users, distribution=Distribution.BALANCED, balanced_top=25, min_count=10)
    assert set(view.hashtags) == set(natural.hashtags)
    target = natural.counts_T[25:].mean()
    assert natural.counts_T.max() / natural.counts_T.min() > 20
    assert view.counts_T.max() / view.counts_T.min() < 2.5
    kept = dict(zip(view.hashtags, view.counts_T, strict=True))
    shares = dict(zip(view.hashtags, view.kept_T, strict=True))
    assert set(natural.kept_T) == {1.0} == {shares[name] for name in natural.hashtags[25:]}
    for name, count in zip(natural.hashtags[:25], natural.counts_T[:25], strict=True):
        assert shares[name] == pytest.approx(target / count)
    for name in natural.hashtags[:25]:  # binomial, so the spread is below the root of the mean
        assert abs(kept[name] - target) < 4 * target**0.5
    for name, count in zip(natural.hashtags[25:], natural.counts_T[25:], strict=True):
        assert kept[name] == count
    uses = {"natural": natural.positives.values.size, "balanced": view.positives.values.size}
    assert view.report["downsampled_uses"] == uses["natural"] - uses["balanced"]


def test_all_splits_are_downsampled_alike():
    videos, users = random_world(9, num_videos=6000, num_hashtags=10)
    view = build(videos, users, distribution=Distribution.BALANCED, balanced_top=1)
    natural = build(videos, users)
    assert natural.hashtags[0] == "t00"
    rate = natural.counts_T[1:].mean() / natural.counts_T[0]
    for split in (TRAIN, VALIDATION, TEST):
        kept, all_uses = (
            sum("t00" in names_of(v, v.positives, row) for row in v.rows(split))
            for v in (view, natural)
        )
        assert abs(kept - rate * all_uses) < 4 * (all_uses * rate * (1 - rate)) ** 0.5


def test_draws_are_stateless_and_fair():
    ids, tags = [f"v{i}" for i in range(2000)], [f"t{i % 7}" for i in range(2000)]
    drawn = draw_uses([0.3] * 2000, ids, tags, seed=0)
    assert abs(drawn.mean() - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5
    assert draw_uses([0.3] * 2000, ids[::-1], tags[::-1], seed=0).tolist() == drawn[::-1].tolist()
    assert draw_uses([0.3], ids[5:6], tags[5:6], seed=0)[0] == drawn[5]
    assert np.all(draw_uses([0.6] * 2000, ids, tags, seed=0) >= drawn), "a higher rate keeps more"
    other = draw_uses([0.3] * 2000, ids, tags, seed=1)
    assert 0.5 < np.mean(other == drawn) < 0.66  # independent: 0.09 + 0.49
    assert draw_uses([1.0] * 3, ids[:3], tags[:3], seed=0).all()
