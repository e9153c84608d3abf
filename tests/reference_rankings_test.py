"""Reference rows and oracles against slow rankings."""

import dataclasses
import pathlib
from fractions import Fraction

import numpy as np
import pytest
from fake_truth import make_truth
from small_view import small_view

from uhman_jax.config import Distribution, ViewConfig
from uhman_jax.dataset.raw import RawDataset, Video
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, build_view
from uhman_jax.evaluate import ranking, reference_rankings
from uhman_jax.runtime.errors import UserError
from uhman_jax.simulator import truth as truth_lib


@pytest.fixture(scope="module")
def view(world):
    return world[0]


def test_popularity_and_history_agree_with_sorting(view):
    """By training uses, of equal ones by name; with a user's own hashtags first."""
    rows_V = view.rows(TEST)
    uses = dict.fromkeys(view.hashtags, 0)
    for row in view.rows(TRAIN):
        for hashtag in view.positives.row(row):
            uses[view.hashtags[hashtag]] += 1
    popular = [view.hashtags.index(name) for name in sorted(uses, key=lambda n: (-uses[n], n))]
    positives_VP, mask_VP = reference_rankings.positives_of(view, rows_V)
    popularity_VP = reference_rankings.popularity_ranks(positives_VP)
    history_VP = reference_rankings.user_history_ranks(view, rows_V, positives_VP)
    for v, row in enumerate(rows_V):
        own = view.history.row(row).tolist()
        personal = own + [hashtag for hashtag in popular if hashtag not in own]
        for ranks_VP, order in ((popularity_VP, popular), (history_VP, personal)):
            expected = [1 + order.index(hashtag) for hashtag in view.positives.row(row)]
            assert ranks_VP[v][mask_VP[v]].tolist() == expected


def test_user_attributes_agree_with_exact_fractions():
    """Few users and many hashtags, some without a use in train, so that scores often tie."""
    rng = np.random.default_rng(0)
    num_videos, num_hashtags = 41, 8
    attributes_V = rng.integers(0, (2, 3, 5), (num_videos, 3))
    tags_V = [sorted(rng.permutation(6)[: 1 + v % 3].tolist()) for v in range(num_videos)]
    splits_V = [TRAIN] * 19 + [VALIDATION] * 5 + [TEST] * 17
    counts_T = np.bincount(np.concatenate(tags_V[:19]), minlength=num_hashtags)
    new_id = np.argsort(np.argsort(-counts_T, kind="stable"))  # a view has the most used first
    tags_V = [sorted(new_id[tags].tolist()) for tags in tags_V]
    view = small_view(attributes_V, tags_V, splits_V, num_hashtags=num_hashtags)
    rows_V = np.arange(24, num_videos)
    all_VP = np.tile(np.arange(num_hashtags), (len(rows_V), 1))
    ranks_VP = reference_rankings.user_attributes_ranks(view, rows_V, all_VP)

    total, ties = sum(len(tags) for tags in tags_V[:19]), 0
    for v, row in enumerate(rows_V):
        scores = []
        for t in range(num_hashtags):
            prob = Fraction(sum(t in tags for tags in tags_V[:19]) + 1, total + num_hashtags)
            score = prob
            for a in range(3):
                own = [w for w in range(19) if attributes_V[w, a] == attributes_V[row, a]]
                uses = sum(t in tags_V[w] for w in own)
                of_value = sum(len(tags_V[w]) for w in own)
                score *= (uses + num_hashtags * prob) / (of_value + num_hashtags) / prob
            scores.append(score)
        order = sorted(range(num_hashtags), key=lambda t: (-scores[t], t))
        assert ranks_VP[v].tolist() == [1 + order.index(t) for t in range(num_hashtags)]
        ties += num_hashtags - len(set(scores))
    assert ties > len(rows_V)


def test_reference_rankings_count_only_training_uses(view):
    """Other labels of the test clips change no ranking."""
    rows_V = view.rows(TEST)
    values = view.positives.values.copy()
    is_test = np.repeat(view.split_V == TEST, np.diff(view.positives.offsets))
    values[is_test] = len(view.hashtags) - 1 - values[is_test]
    other = dataclasses.replace(view, positives=view.positives._replace(values=values))
    all_VP = np.tile(np.arange(len(view.hashtags)), (len(rows_V), 1))
    for ranks in (reference_rankings.user_history_ranks, reference_rankings.user_attributes_ranks):
        np.testing.assert_array_equal(ranks(view, rows_V, all_VP), ranks(other, rows_V, all_VP))


def with_sides(truth, seed=1):
    """The truth with tables of the clip's and the user's part, with zeros and ties."""
    rng = np.random.default_rng(seed)
    sides = {
        name: rng.integers(0, 5, truth.probability_VT.shape).astype(np.float32) / 8
        for name in ("content_VT", "user_VT")
    }
    return dataclasses.replace(truth, **sides)


@pytest.mark.parametrize(
    "name", ["content_oracle", "user_oracle", "additive_oracle", "observable_oracle", "oracle"]
)
def test_oracles_rank_by_the_truth_of_the_right_video_and_hashtag(view, name):
    """And by the share of a hashtag's uses that the view keeps."""
    truth = with_sides(make_truth(view))
    kept_T = np.random.default_rng(2).integers(1, 9, len(view.hashtags)) / 8
    view = dataclasses.replace(view, kept_T=kept_T)
    kept = dict(zip(view.hashtags, kept_T, strict=True))
    kept_H = np.array([kept.get(name, 1.0) for name in truth.hashtags])[None]
    rows_V = view.rows(TEST)
    scores_VT = dict(reference_rankings.oracle_scores(truth, view, rows_V))[name]
    ranks_VP = ranking.rank_scores(scores_VT, *reference_rankings.positives_of(view, rows_V))

    def log(table):
        return np.log(np.maximum(table, 1e-9))

    table = {
        "content_oracle": truth.content_VT * kept_H,
        "user_oracle": truth.user_VT * kept_H,
        "additive_oracle": log(truth.content_VT * kept_H)
        + log(truth.user_VT * kept_H)
        - log(truth.content_VT.mean(axis=0) * kept_H),
        "observable_oracle": truth.observable_VT * kept_H,
        "oracle": truth.probability_VT * kept_H,
    }[name]
    for v, row in enumerate(rows_V):
        scores = table[truth.video_ids.index(view.video_ids[row])]
        by_name = dict(zip(truth.hashtags, scores, strict=True))
        positives = [view.hashtags[hashtag] for hashtag in view.positives.row(row)]
        for slot, name in enumerate(positives):
            ahead = sum(
                by_name[other] >= by_name[name]
                if other not in positives
                else (-by_name[other], positives.index(other)) < (-by_name[name], slot)
                for other in view.hashtags
                if other != name
            )
            assert ranks_VP[v, slot] == 1 + ahead


def test_no_ranking_beats_the_oracle_of_a_balanced_view():
    """Hashtags with known chances of which some are frequent, against the chances left as known."""
    rng = np.random.default_rng(0)
    num_videos, num_hashtags = 4000, 40
    chance_VT = rng.beta(0.3, 3.0, (num_videos, num_hashtags))
    chance_VT[:, :8] = rng.beta(1.0, 2.0, (num_videos, 8))
    names = tuple(f"t{t:02}" for t in range(num_hashtags))
    uses_VT = rng.random(chance_VT.shape) < chance_VT
    videos = [
        Video(f"v{v}", "", "u", tuple(np.array(names)[uses_VT[v]]), None)
        for v in np.flatnonzero(uses_VT.any(axis=1))
    ]
    raw = RawDataset(pathlib.Path(), tuple(videos), {}, (), "")
    config = ViewConfig(distribution=Distribution.BALANCED, balanced_top=8, min_count=1)
    view = build_view(raw, [video.video_id for video in videos], config)
    rows_V = np.arange(len(view.video_ids))
    video_ids = tuple(f"v{v}" for v in range(num_videos))
    truth = truth_lib.Truth(names, video_ids, chance_VT, chance_VT, None, None)
    positives = reference_rankings.positives_of(view, rows_V)

    def precision(view):
        scores_VT = dict(reference_rankings.oracle_scores(truth, view, rows_V))["oracle"]
        return (ranking.rank_scores(scores_VT, *positives) <= 3).sum(axis=1) / 3

    plain = dataclasses.replace(view, kept_T=np.ones(num_hashtags))
    gain_V = precision(view) - precision(plain)
    assert gain_V.mean() > 5 * gain_V.std() / np.sqrt(len(gain_V)) > 0


def test_an_additive_oracle_is_perfect_where_clip_and_user_are_independent(view):
    """Given the hashtag, by Bayes' rule: p(t | clip, user) ~ p(t | clip) p(t | user) / p(t)."""
    truth = with_sides(make_truth(view))
    product_VT = truth.content_VT * truth.user_VT / truth.content_VT.mean(axis=0)[None]
    truth = dataclasses.replace(truth, probability_VT=product_VT)
    rows_V = view.rows(TEST)
    scores = dict(reference_rankings.oracle_scores(truth, view, rows_V))
    positive_VT = scores["oracle"] > 0
    for v in range(len(rows_V)):
        found = scores["additive_oracle"][v][positive_VT[v]]
        np.testing.assert_allclose(found, np.log(scores["oracle"][v][positive_VT[v]]), rtol=1e-5)
        others = scores["additive_oracle"][v][~positive_VT[v]]
        assert found.min(initial=np.inf) > others.max(initial=-np.inf)


def test_rows_that_a_truth_cannot_give_are_absent(view):
    rows_V = view.rows(TEST)
    counted = ["popularity", "user_history", "user_attributes"]
    plain, sided = make_truth(view), with_sides(make_truth(view))
    known = ["observable_oracle", "oracle"]
    for truth, oracles in (
        (None, []),
        (dataclasses.replace(sided, user_VT=None), known),
        (plain, known),
        (sided, ["content_oracle", "user_oracle", "additive_oracle", *known]),
    ):
        rankings = reference_rankings.rank_references(view, rows_V, truth)
        _, mask_VP = reference_rankings.positives_of(view, rows_V)
        scores = reference_rankings.reference_scores(rankings, mask_VP)
        assert list(dict.fromkeys(system for system, _ in scores)) == counted + oracles
        assert all(0 <= scores[system, "P@1"].mean <= 1 for system, _ in scores)


def test_a_truth_of_another_world_is_an_error(view):
    truth = make_truth(view)
    truth = dataclasses.replace(truth, video_ids=truth.video_ids[5:])
    with pytest.raises(UserError, match="every video must be one of the simulated ones"):
        rows_V = np.arange(len(view.video_ids))
        dict(reference_rankings.oracle_scores(truth, view, rows_V))
