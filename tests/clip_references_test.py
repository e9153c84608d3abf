"""Ridge and nearest neighbours on mean features, against slow versions of the same rules."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.sparse
from small_view import small_view

from uhman_jax import metrics
from uhman_jax.clip_means import ClipMeans
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION
from uhman_jax.evaluate import clip_inputs, knn_ranking, reference_rankings, ridge_ranking
from uhman_jax.evaluate.clip_inputs import ClipInputs
from uhman_jax.evaluate.knn_ranking import KnnSettings
from uhman_jax.input_pipeline import pad

NUM_TRAIN, NUM_VALIDATION, NUM_TEST, T, C = 37, 11, 13, 8, 5
V = NUM_TRAIN + NUM_VALIDATION + NUM_TEST
SPLIT_V = [TRAIN] * NUM_TRAIN + [VALIDATION] * NUM_VALIDATION + [TEST] * NUM_TEST
TEST_V = np.arange(NUM_TRAIN + NUM_VALIDATION, V)


def by_popularity(tags_V):
    """The same tags with ids in the order of training uses, as in a view."""
    uses_T = np.bincount(np.concatenate(tags_V[:NUM_TRAIN]), minlength=T)
    new_id = np.argsort(np.argsort(-uses_T, kind="stable"))
    return [sorted(new_id[tags].tolist()) for tags in tags_V]


def make_inputs(splits=SPLIT_V, seed=0):
    """Clips whose first channels say their hashtag, by ten users with histories."""
    rng = np.random.default_rng(seed)
    tags_V = by_popularity([rng.permutation(T)[: 1 + v % 3] for v in range(V)])
    features_VC = 3 + rng.normal(size=(V, C))
    for v, tags in enumerate(tags_V):
        features_VC[v, tags[0] % C] += 2
    view = small_view(
        rng.integers(0, (2, 3, 4), (V, 3)),
        tags_V,
        splits,
        history=[rng.permutation(T)[: v % 4] for v in range(V)],
        num_hashtags=T,
    )
    view = dataclasses.replace(view, user_ids=tuple(f"user{v % 10}" for v in range(V)))
    return ClipInputs(view, ClipMeans(np.arange(V), features_VC.astype(np.float32)))


@pytest.fixture(scope="module")
def inputs():
    return make_inputs()


def other_test_labels(inputs):
    """The same clips, of which those of the test split have other hashtags."""
    values = inputs.view.positives.values.copy()
    is_test = np.repeat(inputs.view.split_V == TEST, np.diff(inputs.view.positives.offsets))
    values[is_test] = T - 1 - values[is_test]
    positives = inputs.view.positives._replace(values=values)
    return ClipInputs(dataclasses.replace(inputs.view, positives=positives), inputs.means)


def slow_ranks(scores_VT, view, rows_V):
    """Ranks of the positives; equal scores by id."""
    ranks = []
    for scores_T, row in zip(scores_VT, rows_V, strict=True):
        order = sorted(range(T), key=lambda t: (-scores_T[t], t))
        ranks.append([1 + order.index(t) for t in view.positives.row(row)])
    return ranks


def real(ranks_VP, view, rows_V):
    mask_VP = pad(view.positives, rows_V, view.max_positives)[1]
    return [ranks_P[mask_P].tolist() for ranks_P, mask_P in zip(ranks_VP, mask_VP, strict=True)]


# Inputs


def test_features_are_standardised_by_training_clips(inputs):
    standard_VC = inputs.features(np.arange(NUM_TRAIN))
    np.testing.assert_allclose(standard_VC.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(standard_VC.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(
        inputs.features(TEST_V[2:3])[0] * inputs.std_C + inputs.mean_C,
        inputs.means.means_VC[TEST_V[2]],
        rtol=1e-5,
    )


def test_a_constant_channel_stays_finite_and_small(inputs):
    means_VC = inputs.means.means_VC.copy()
    means_VC[:, 1] = 7
    changed = ClipInputs(inputs.view, inputs.means._replace(means_VC=means_VC))
    assert (changed.features(TEST_V)[:, 1] == 0).all()
    constant = inputs.means._replace(means_VC=np.full_like(means_VC, 2.5))
    assert (ClipInputs(inputs.view, constant).std_C == 1).all()


def test_user_inputs_are_one_hot_attributes_and_histories_of_equal_norm(inputs, monkeypatch):
    view, rows_V = inputs.view, np.array([3, 6, 8])
    found_VA = inputs.user_inputs(rows_V).toarray()
    size = len(view.genders)
    for row, found_A in zip(rows_V, found_VA, strict=True):
        expected_A = np.zeros(3 * size + T)
        for a, value_V in enumerate((view.gender_V, view.age_V, view.country_V)):
            expected_A[a * size + value_V[row]] = 0.5
        history = view.history.row(row)
        expected_A[3 * size + history] = 0.5 / math.sqrt(max(len(history), 1))
        np.testing.assert_allclose(found_A, expected_A, rtol=1e-6)
    monkeypatch.setattr(clip_inputs, "_MAX_VALUES", 2)
    monkeypatch.setattr(clip_inputs, "_MAX_HISTORY", 3)
    few_VA = inputs.user_inputs(rows_V).toarray()
    kept = [0, 1, size, size + 1, 2 * size, 2 * size + 1, *range(3 * size, 3 * size + 3)]
    np.testing.assert_array_equal(few_VA, found_VA[:, kept])


# Nearest neighbours


def slow_knn_scores(inputs, rows_V, settings):
    view, train_V = inputs.view, np.arange(NUM_TRAIN)
    features_VC = inputs.features(np.arange(V)).astype(float)
    directions_VC = features_VC / np.linalg.norm(features_VC, axis=1, keepdims=True)
    scores_VT = np.zeros((len(rows_V), T))
    for score_T, row in zip(scores_VT, rows_V, strict=True):
        cosines = directions_VC[train_V] @ directions_VC[row]
        nearest = np.argsort(-cosines)[: settings.neighbours]
        total = sum(max(cosines[near], 0) ** 3 for near in nearest)
        for near in nearest:
            score_T[view.positives.row(near)] += max(cosines[near], 0) ** 3 / total
        uses_T = np.zeros(T)
        for other in train_V:
            if view.user_ids[other] == view.user_ids[row]:
                uses_T[view.positives.row(other)] += 1
        for hashtag in view.history.row(row):
            uses_T[hashtag] = max(uses_T[hashtag], 1)
        score_T += settings.own_weight * uses_T / math.sqrt(sum(uses_T**2))
    return scores_VT


def test_neighbours_rank_as_by_the_definition_and_are_chosen_on_validation(inputs, monkeypatch):
    monkeypatch.setattr(knn_ranking, "_BLOCK", 4)
    ranks_VP, settings = knn_ranking.knn_ranks(inputs, TEST_V)
    expected = slow_ranks(slow_knn_scores(inputs, TEST_V, settings), inputs.view, TEST_V)
    assert real(ranks_VP, inputs.view, TEST_V) == expected
    validation_V = np.arange(NUM_TRAIN, NUM_TRAIN + NUM_VALIDATION)
    mask_VP = pad(inputs.view.positives, validation_V, inputs.view.max_positives)[1]
    quality = {}
    for tried in knn_ranking._GRID:
        scores_VT = slow_knn_scores(inputs, validation_V, tried)
        slots = np.full(mask_VP.shape, T + 1)
        for slots_P, ranks in zip(
            slots, slow_ranks(scores_VT, inputs.view, validation_V), strict=True
        ):
            slots_P[: len(ranks)] = ranks
        # With eight hashtags every ranking has the same P@10, so NDCG@10 decides.
        quality[tried] = np.mean(metrics.ndcg_at_k(slots, mask_VP, 10))
    assert len(set(quality.values())) > 5
    assert quality[settings] == pytest.approx(max(quality.values()))


def test_a_clip_far_from_all_others_is_ranked_by_its_user(inputs):
    """Its cosines are all below 0."""
    means_VC = np.tile(np.array([[1.0, 2, 3, 4, 5]]), (V, 1)).astype(np.float32)
    means_VC[:NUM_TRAIN] += np.random.default_rng(1).normal(scale=1e-3, size=(NUM_TRAIN, C))
    opposite = ClipInputs(inputs.view, inputs.means._replace(means_VC=means_VC))
    direction_C = opposite.features(np.arange(NUM_TRAIN)).mean(axis=0)
    means_VC[TEST_V[0]] = opposite.mean_C - 9 * direction_C
    ranks_VP, _ = knn_ranking.knn_ranks(opposite, TEST_V[:1])
    assert np.isfinite(ranks_VP).all() and (ranks_VP >= 1).all()


def test_ranks_of_sparse_scores_agree_with_sorting():
    rng = np.random.default_rng(0)
    scores_VT = rng.integers(0, 4, (29, T)) * (rng.random((29, T)) < 0.5) / 4
    scores_VT[3] = 0
    all_VP = np.tile(rng.permutation(T), (29, 1))
    found = knn_ranking.ranks_of_scores(scipy.sparse.csr_array(scores_VT), all_VP)
    for scores_T, ranks_P in zip(scores_VT, found, strict=True):
        order = sorted(range(T), key=lambda t: (-scores_T[t], t))
        assert ranks_P.tolist() == [1 + order.index(t) for t in all_VP[0]]
    none = scipy.sparse.csr_array((29, 10**6))
    assert knn_ranking.ranks_of_scores(none, np.full((29, 1), 999_999)).tolist() == [[10**6]] * 29


# Ridge


def slow_ridge_scores(inputs, rows_V, penalty):
    def design(rows_V):
        features_VC = inputs.features(rows_V).astype(float) / math.sqrt(C)
        return np.concatenate([features_VC, inputs.user_inputs(rows_V).toarray()], axis=1)

    train_V = np.arange(NUM_TRAIN)
    target_VT = np.zeros((NUM_TRAIN, T))
    for row in train_V:
        target_VT[row, inputs.view.positives.row(row)] = 1
    inputs_VX = design(train_V) - design(train_V).mean(axis=0)
    matrix = inputs_VX.T @ inputs_VX + penalty * np.eye(inputs_VX.shape[1])
    weights_XT = np.linalg.solve(matrix, inputs_VX.T @ target_VT)
    return (design(rows_V) - design(train_V).mean(axis=0)) @ weights_XT + target_VT.mean(axis=0)


def test_ridge_ranks_by_its_scores(inputs, monkeypatch):
    monkeypatch.setattr(ridge_ranking, "_BLOCK", 6)
    fitted = ridge_ranking.fit_ridge(inputs)
    scores_VT = slow_ridge_scores(inputs, TEST_V, fitted.penalty)
    gaps = np.diff(np.sort(scores_VT, axis=1), axis=1)
    assert gaps.min() > 1e-6  # so that no rank depends on rounding
    ranks_VP = ridge_ranking.ridge_ranks(fitted, inputs, TEST_V)
    assert real(ranks_VP, inputs.view, TEST_V) == slow_ranks(scores_VT, inputs.view, TEST_V)


def test_the_penalty_is_the_best_on_validation(inputs):
    validation_V = inputs.validation_V
    mask_VP = pad(inputs.view.positives, validation_V, inputs.view.max_positives)[1]
    quality = {}
    for penalty in ridge_ranking.PENALTIES:
        slots = np.full(mask_VP.shape, T + 1)
        scores_VT = slow_ridge_scores(inputs, validation_V, penalty)
        for slots_P, ranks in zip(
            slots, slow_ranks(scores_VT, inputs.view, validation_V), strict=True
        ):
            slots_P[: len(ranks)] = ranks
        quality[penalty] = np.mean(metrics.ndcg_at_k(slots, mask_VP, 10))
    assert len(set(quality.values())) > 2
    assert quality[ridge_ranking.fit_ridge(inputs).penalty] == max(quality.values())


def test_rare_hashtags_beyond_the_limit_follow_by_popularity(inputs, monkeypatch):
    monkeypatch.setattr(ridge_ranking, "_MAX_TARGETS", 3)
    fitted = ridge_ranking.fit_ridge(inputs)
    assert fitted.coefficients.bias_T.shape == (3,)
    scores_VT = slow_ridge_scores(inputs, TEST_V, fitted.penalty)
    scores_VT[:, 3:] = -9
    ranks_VP = ridge_ranking.ridge_ranks(fitted, inputs, TEST_V)
    assert real(ranks_VP, inputs.view, TEST_V) == slow_ranks(scores_VT, inputs.view, TEST_V)
    both = [min(tags) < 3 <= max(tags) for tags in map(inputs.view.positives.row, TEST_V)]
    assert sum(both) > 2  # clips with a hashtag of each kind


# Both


def test_no_label_of_a_test_clip_has_an_influence(inputs):
    other = other_test_labels(inputs)
    every_V = np.arange(V)
    assert (
        inputs.view.positives.row(TEST_V[0]).tolist()
        != other.view.positives.row(TEST_V[0]).tolist()
    )
    first, second = map(ridge_ranking.fit_ridge, (inputs, other))
    assert first.penalty == second.penalty
    for one, two in zip(first.coefficients, second.coefficients, strict=True):
        np.testing.assert_array_equal(one, two)
    (_, one), (_, two) = (knn_ranking.knn_ranks(given, TEST_V) for given in (inputs, other))
    assert one == two
    for arrays in (
        lambda given: given.features(every_V),
        lambda given: given.user_inputs(every_V).toarray(),
        lambda given: given.targets.toarray(),
        lambda given: knn_ranking.own_uses(given, TEST_V).toarray(),
    ):
        np.testing.assert_array_equal(arrays(inputs), arrays(other))


def test_without_validation_clips_settings_are_fixed():
    splits = [TRAIN if split == VALIDATION else split for split in SPLIT_V]
    inputs = make_inputs(splits)
    assert knn_ranking.knn_ranks(inputs, TEST_V)[1] == KnnSettings(30, 0.3)
    assert ridge_ranking.fit_ridge(inputs).penalty == ridge_ranking.DEFAULT_PENALTY == 1


def test_clips_without_mean_features_are_not_ranked(inputs):
    """As where the test split is larger than the sample."""
    view, means = inputs.view, inputs.means
    kept_V = np.delete(np.arange(V), [TEST_V[1], TEST_V[5]])
    few = ClipInputs(view, ClipMeans(kept_V, means.means_VC[kept_V]))
    rankings = reference_rankings.rank_references(view, TEST_V, None, few)
    assert list(rankings)[-2:] == ["knn", "ridge"]
    whole = reference_rankings.rank_references(view, TEST_V, None, inputs)
    _, mask_VP = reference_rankings.positives_of(view, TEST_V)
    for name in ("knn", "ridge"):
        index_V, ranks_VP, settings = rankings[name]
        assert index_V.tolist() == [v for v in range(NUM_TEST) if v not in (1, 5)]
        np.testing.assert_array_equal(ranks_VP, whole[name].ranks_VP[index_V])
        assert settings == whole[name].settings != {}
    scores = reference_rankings.reference_scores(rankings, mask_VP)
    index_V, ranks_VP, _ = rankings["ridge"]
    expected = metrics.summary(ranks_VP, mask_VP[index_V])["MRR"]
    assert scores["ridge", "MRR"].mean == expected
