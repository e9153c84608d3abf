import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from uhman_jax import losses

B, P, N, T = 3, 5, 7, 23
MARGIN = 0.1
WEIGHTS = ["none", "wsabie"]


def exact(batch, rank_weight="wsabie", **options):
    return losses.warp_exact(*batch, margin=MARGIN, rank_weight=rank_weight, **options)


def sampled(*batch, rank_weight="wsabie", num_hashtags=T):
    how = dict(margin=MARGIN, rank_weight=rank_weight, num_hashtags=num_hashtags)
    return losses.warp_sampled(*batch, **how)


def draw(positives_BP, mask_BP, seed=0, num_hashtags=T, num_negatives=N):
    how = dict(num_hashtags=num_hashtags, num_negatives=num_negatives)
    return losses.sample_negatives(jax.random.key(seed), positives_BP, mask_BP, **how)


def harmonic(rank):
    return math.fsum(1 / i for i in range(1, rank + 1))


def make_batch(seed=0, num_hashtags=T, scale=0.1):
    """Scores of the order of the margin; 5, 2 and 0 positives in random slots."""
    rng = np.random.default_rng(seed)
    scores_BT = rng.normal(scale=scale, size=(B, num_hashtags)).astype(np.float32)
    positives_BP = np.stack([rng.permutation(num_hashtags)[:P] for _ in range(B)]).astype(np.int32)
    mask_BP = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
    return scores_BT, positives_BP, mask_BP


def examples(scores_BT, positives_BP, mask_BP):
    """Yields (example, score of a positive, scores of the non-positives) in float64."""
    for b in range(len(scores_BT)):
        own = positives_BP[b][mask_BP[b]]
        others = np.delete(scores_BT[b].astype(np.float64), own)
        for p in own:
            yield b, float(scores_BT[b, p]), others


def obvious_exact(scores_BT, positives_BP, mask_BP, rank_weight, num_negatives):
    loss_B = np.zeros(len(scores_BT))
    for b, positive, others in examples(scores_BT, positives_BP, mask_BP):
        violators = [MARGIN - positive + s for s in others if MARGIN - positive + s > 0]
        if rank_weight == "none":
            loss_B[b] += num_negatives * sum(violators) / len(others)
        elif violators:
            loss_B[b] += harmonic(len(violators)) * sum(violators) / len(violators)
    return loss_B


def sequential_wsabie(positive, draws, num_hashtags, known_rank=None):
    """One step of [15]: draw until a violator; its rank from the number of draws, or known."""
    for n, negative in enumerate(draws[: num_hashtags - 1], start=1):
        hinge = MARGIN - positive + negative
        if hinge > 0:
            rank = (num_hashtags - 1) // n if known_rank is None else known_rank
            return harmonic(rank) * hinge
    return 0.0


@pytest.mark.parametrize("highest", [0, 1, 22, 1_000_000])
def test_harmonic_numbers_are_exact_to_float32(highest):
    table = losses.harmonic_numbers(highest)
    assert table.dtype == np.float32 and table.shape == (highest + 1,)
    assert table[highest] == np.float32(harmonic(highest))


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("rank_weight", WEIGHTS)
def test_exact_is_the_obvious_loop(rank_weight, platform):
    for seed in range(5):
        batch = make_batch(seed)
        loss_B = exact(batch, rank_weight, num_negatives=N, platform=platform)
        expected_B = obvious_exact(*batch, rank_weight, N)
        assert loss_B.dtype == jnp.float32 and expected_B[0] > 0.1
        np.testing.assert_allclose(loss_B, expected_B, rtol=1e-5, atol=1e-7)


def test_exact_is_sequential_wsabie_with_the_rank_known():
    batch = make_batch(1)
    rng = np.random.default_rng(0)
    expected_B, variance_B = np.zeros(B), np.zeros(B)
    for b, positive, others in examples(*batch):
        rank = int(np.sum(MARGIN - positive + others > 0))
        share = 1 - (1 - rank / len(others)) ** (T - 1)  # it gives up after T - 1 draws
        steps = [
            sequential_wsabie(positive, rng.choice(others, T - 1), T, known_rank=rank)
            for _ in range(4000)
        ]
        expected_B[b] += np.mean(steps) / max(share, 1e-9)
        variance_B[b] += np.var(steps) / len(steps)
    loss_B = exact(batch)
    tolerance_B = 4 * np.sqrt(variance_B)
    assert np.all(tolerance_B[:2] < 0.05 * expected_B[:2])  # tight enough to fail
    assert np.all(np.abs(loss_B - expected_B) <= tolerance_B)


def test_sampled_is_sequential_wsabie_on_the_same_draws():
    scores_BT, positives_BP, mask_BP = make_batch(2, scale=0.05)
    positive_BP = np.take_along_axis(scores_BT, positives_BP, axis=1)
    rng = np.random.default_rng(0)
    negative_BPN = rng.normal(scale=0.05, size=(B, P, N)).astype(np.float32) - 0.5
    for p in range(P - 1):  # the first violator has index p, and the last positive has none
        negative_BPN[:, p, p:] += 0.9
    loss_B = sampled(positive_BP, mask_BP, negative_BPN)
    step_BP = [
        [sequential_wsabie(float(positive_BP[b, p]), negative_BPN[b, p], T) for p in range(P)]
        for b in range(B)
    ]
    np.testing.assert_allclose(loss_B, np.sum(step_BP * mask_BP, axis=1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rank_weight", WEIGHTS)
def test_sampled_in_expectation(rank_weight):
    scores_BT, positives_BP, mask_BP = make_batch(3)
    positive_BP = jnp.take_along_axis(jnp.asarray(scores_BT), positives_BP, axis=1)

    @jax.jit
    @jax.vmap
    def one_draw(seed):
        ids_BPN = draw(positives_BP, mask_BP, seed)
        negative_BPN = jnp.asarray(scores_BT)[jnp.arange(B)[:, None, None], ids_BPN]
        return sampled(positive_BP, mask_BP, negative_BPN, rank_weight=rank_weight)

    loss_XB = np.asarray(one_draw(jnp.arange(20_000)))
    if rank_weight == "none":
        expected_B = exact((scores_BT, positives_BP, mask_BP), "none", num_negatives=N)
    else:  # the expectation of the sequential step, stopped after N draws
        expected_B = np.zeros(B)
        for b, positive, others in examples(scores_BT, positives_BP, mask_BP):
            hinges = np.maximum(MARGIN - positive + others, 0)
            prob = np.mean(hinges > 0)
            weight = sum(
                (1 - prob) ** (n - 1) * prob * harmonic((T - 1) // n) for n in range(1, N + 1)
            )
            expected_B[b] += weight * hinges.sum() / max(np.sum(hinges > 0), 1)
    tolerance_B = 4 * loss_XB.std(axis=0) / np.sqrt(len(loss_XB))
    assert np.all(tolerance_B[:2] < 0.02 * np.asarray(expected_B)[:2])  # tight enough to fail
    assert np.all(np.abs(loss_XB.mean(axis=0) - expected_B) <= tolerance_B)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("rank_weight", WEIGHTS)
def test_the_weight_passes_no_gradient(rank_weight, platform):
    scores_BT, positives_BP, mask_BP = make_batch(4)
    how = {"num_negatives": N, "platform": platform}
    gradient_BT = jax.grad(
        lambda scores: exact((scores, positives_BP, mask_BP), rank_weight, **how).sum()
    )(jnp.asarray(scores_BT))
    expected_BT = np.zeros((B, T))
    for b in range(B):
        own = positives_BP[b][mask_BP[b]]
        for p in own:
            violators = [
                t for t in range(T)
                if t not in own and MARGIN - scores_BT[b, p] + scores_BT[b, t] > 0
            ]  # fmt: skip
            if rank_weight == "none":
                weight = N / (T - len(own))
            else:
                weight = harmonic(len(violators)) / max(len(violators), 1)
            expected_BT[b, violators] += weight
            expected_BT[b, p] -= weight * len(violators)
    np.testing.assert_allclose(gradient_BT, expected_BT, rtol=1e-5, atol=1e-6)


def test_sampled_gradient_reaches_the_first_violator_only():
    positive, mask = jnp.array([[0.5]]), jnp.array([[True]])
    negatives = jnp.array([[[0.3, 0.45, 0.9]]])
    loss, gradients = jax.value_and_grad(
        lambda p, n: sampled(p, mask, n, num_hashtags=8).sum(), argnums=(0, 1)
    )(positive, negatives)
    weight = 1 + 1 / 2 + 1 / 3  # L(floor(7 / 2))
    np.testing.assert_allclose(loss, weight * 0.05, rtol=1e-5)
    np.testing.assert_allclose(gradients[0], [[-weight]], rtol=1e-6)
    np.testing.assert_allclose(gradients[1], [[[0, weight, 0]]], rtol=1e-6)


@pytest.mark.parametrize("rank_weight", WEIGHTS)
def test_a_hinge_of_exactly_zero_is_no_violation(rank_weight):
    scores = jnp.array([[0.5, 0.25, 0.0]])
    positive, mask = jnp.array([[0]]), jnp.array([[True]])

    def loss(scores):
        return losses.warp_exact(scores, positive, mask, margin=0.25, rank_weight=rank_weight)[0]

    loss, gradient = jax.value_and_grad(loss)(scores)
    assert loss == 0 and not gradient.any()


def test_ties_violate():
    scores = jnp.full((1, T), 0.3)  # all 22 others violate by the margin
    loss = exact((scores, jnp.array([[4]]), jnp.array([[True]])))
    np.testing.assert_allclose(loss, [harmonic(T - 1) * MARGIN], rtol=1e-6)


@pytest.mark.parametrize("rank_weight", WEIGHTS)
@pytest.mark.parametrize("garbage", [-5, 0, 10**6])
def test_padding_slots_change_nothing(rank_weight, garbage):
    scores_BT, positives_BP, mask_BP = make_batch(6)
    filled_BP = np.where(mask_BP, positives_BP, garbage).astype(np.int32)

    @jax.value_and_grad
    def exact_loss(scores, positives):
        return exact((scores, positives, mask_BP), rank_weight).sum()

    got, expected = exact_loss(scores_BT, filled_BP), exact_loss(scores_BT, positives_BP)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    np.testing.assert_array_equal(draw(filled_BP, mask_BP), draw(positives_BP, mask_BP))

    def sampled_loss(positive_BP, negative_BPN):
        return sampled(positive_BP, mask_BP, negative_BPN, rank_weight=rank_weight).sum()

    gradients = jax.grad(sampled_loss, argnums=(0, 1))(jnp.zeros((B, P)), jnp.zeros((B, P, N)))
    assert all(not g[~mask_BP].any() and g[mask_BP].any() for g in gradients)


@pytest.mark.parametrize("rank_weight", WEIGHTS)
@pytest.mark.parametrize("num_positives", [0, P])
def test_nothing_to_rank_is_loss_zero(rank_weight, num_positives):
    """No positive at all, or a vocabulary of P hashtags that are all positive."""
    positives = jnp.arange(P)[None, :]
    mask = jnp.arange(P)[None, :] < num_positives
    scores = jnp.linspace(-1, 1, P)[None, :]
    negatives = draw(positives, mask, num_hashtags=P)
    assert negatives.min() >= 0 and negatives.max() < P

    def both(scores):
        how = {"rank_weight": rank_weight}
        sampled_B = sampled(scores, mask, scores[0][negatives], num_hashtags=P, **how)
        return jnp.sum(sampled_B + exact((scores, positives, mask), **how))

    loss, gradient = jax.value_and_grad(both)(scores)
    assert loss == 0 and not gradient.any()


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("rank_weight", WEIGHTS)
def test_nan_stays_visible(rank_weight, platform):
    scores_BT, positives_BP, mask_BP = make_batch(7, scale=0.001)
    negative = next(t for t in range(T) if t not in positives_BP[0])
    for t in (positives_BP[0, 0], negative):
        poisoned_BT = scores_BT.copy()
        poisoned_BT[0, t] = np.nan
        loss_B = exact((poisoned_BT, positives_BP, mask_BP), rank_weight, platform=platform)
        assert np.isnan(loss_B[0]) and np.isfinite(loss_B[1])
    one, mask = jnp.array([[9.0]]), jnp.array([[True]])
    negatives = jnp.array([[[0.0, np.nan, 0.0]]])
    assert np.isnan(sampled(one, mask, negatives, rank_weight=rank_weight))


def test_negatives_are_uniform_over_the_non_positives():
    num_negatives = 20_000
    positives_BP = jnp.array([[6, 0, 22, 7, 1], [4, 4, 4, 12, 4], [0, 0, 0, 0, 0]])
    mask_BP = np.array([[1, 1, 1, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], bool)
    negatives_BPN = np.asarray(draw(positives_BP, mask_BP, 2, num_negatives=num_negatives))
    for b in range(B):
        allowed = np.setdiff1d(np.arange(T), np.asarray(positives_BP)[b][mask_BP[b]])
        for p in range(P):
            counts_T = np.bincount(negatives_BPN[b, p], minlength=T)
            assert counts_T.sum() == counts_T[allowed].sum() == num_negatives
            assert stats.chisquare(counts_T[allowed]).pvalue > 1e-5
        # Consecutive draws, and draws of two slots, are independent.
        for first, second in [
            (negatives_BPN[b, 0, ::2], negatives_BPN[b, 0, 1::2]),
            (negatives_BPN[b, 0], negatives_BPN[b, 1]),
        ]:
            table, _, _ = np.histogram2d(first, second, bins=[np.arange(T + 1)] * 2)
            assert stats.chi2_contingency(table[np.ix_(allowed, allowed)]).pvalue > 1e-5


@pytest.mark.parametrize("sampled", [sampled, losses.logistic_sampled])
def test_the_sampled_estimator_costs_the_same_at_any_vocabulary(sampled):
    def cost(num_hashtags):
        def estimate(positives_BP, mask_BP, score_BP, score_BPN):
            loss_B = sampled(score_BP, mask_BP, score_BPN, num_hashtags=num_hashtags)
            return draw(positives_BP, mask_BP, num_hashtags=num_hashtags), loss_B

        zeros_BP = jnp.zeros((B, P))
        arrays = zeros_BP.astype(int), zeros_BP == 0, zeros_BP, jnp.zeros((B, P, N))
        compiled = jax.jit(estimate).lower(*arrays).compile()
        memory = compiled.memory_analysis()
        return compiled.cost_analysis()["flops"], memory.temp_size_in_bytes

    assert cost(669) == cost(1_000_000)


def test_exact_keeps_no_array_of_every_slot_and_hashtag():
    num_hashtags, slots = 5_003, 31
    scores_BT = jnp.zeros((B, num_hashtags))
    positives_BP = jnp.broadcast_to(jnp.arange(slots), (B, slots))
    mask_BP = jnp.ones((B, slots), bool)
    gradient = jax.grad(lambda scores, positives: exact((scores, positives, mask_BP)).sum())
    memory = jax.jit(gradient).lower(scores_BT, positives_BP).compile().memory_analysis()
    assert memory.temp_size_in_bytes < B * slots * num_hashtags  # not even one byte for each


def test_an_unknown_rank_weight_is_refused():
    message = "rank_weight must be 'none' or 'wsabie', got 'warp'; use one"
    with pytest.raises(ValueError, match=message):
        exact(make_batch(), "warp")
    zeros_BP = jnp.zeros((B, P))
    with pytest.raises(ValueError, match=message):
        sampled(zeros_BP, zeros_BP == 0, jnp.zeros((B, P, N)), rank_weight="warp")


@pytest.mark.parametrize("garbage", [-5, 0, 10**6])
def test_softmax_is_the_cross_entropy_written_out_and_ignores_padding(garbage):
    scores_BT, positives_BP, mask_BP = make_batch(8, scale=2.0)
    expected_B = []
    for scores_T, ids_P, mask_P in zip(scores_BT.astype(float), positives_BP, mask_BP, strict=True):
        prob_T = np.exp(scores_T) / np.exp(scores_T).sum()
        expected_B.append(-np.log(prob_T[ids_P[mask_P]]).sum() / max(mask_P.sum(), 1))
    filled_BP = np.where(mask_BP, positives_BP, garbage).astype(np.int32)
    loss_B = losses.softmax_cross_entropy(scores_BT, filled_BP, mask_BP)
    np.testing.assert_allclose(loss_B, expected_B, rtol=1e-5)
    assert expected_B[2] == 0

    def total(scores_BT):
        return losses.softmax_cross_entropy(scores_BT, filled_BP, mask_BP).sum()

    gradient_BT = jax.grad(total)(jnp.asarray(scores_BT))
    assert gradient_BT[0].any() and not gradient_BT[2].any()
    np.testing.assert_allclose(gradient_BT.sum(1), 0, atol=1e-6)


def obvious_logistic(scores_BT, positives_BP, mask_BP):
    """-log p of a positive and -log(1 - p) of any other, in the dtype of the scores."""
    slots_BP = jnp.where(mask_BP, positives_BP, T)
    label_BT = jnp.zeros((B, T)).at[jnp.arange(B)[:, None], slots_BP].set(1, mode="drop")
    prob_BT = 1 / (1 + jnp.exp(-scores_BT))
    right_BT = label_BT * prob_BT + (1 - label_BT) * (1 - prob_BT)
    return jnp.where(mask_BP.any(axis=1), -jnp.log(right_BT).sum(axis=1), 0)


@pytest.mark.parametrize("garbage", [-5, 0, 10**6])
def test_logistic_and_its_gradient_are_the_formula_and_ignore_padding(garbage):
    scores_BT, positives_BP, mask_BP = make_batch(9, scale=2.0)
    filled_BP = np.where(mask_BP, positives_BP, garbage).astype(np.int32)

    def of(loss, positives_BP):
        def total(scores_BT):
            loss_B = loss(scores_BT, positives_BP, mask_BP)
            return loss_B.sum(), loss_B

        return jax.grad(total, has_aux=True)(jnp.asarray(scores_BT))

    gradient_BT, loss_B = of(losses.logistic_exact, filled_BP)
    expected_BT, expected_B = of(obvious_logistic, positives_BP)
    np.testing.assert_allclose(loss_B, expected_B, rtol=1e-5)
    np.testing.assert_allclose(gradient_BT, expected_BT, rtol=1e-4, atol=1e-6)
    assert loss_B.dtype == jnp.float32 and expected_B[0] > 1
    assert loss_B[2] == 0 and not gradient_BT[2].any(), "without positives"


def test_logistic_is_linear_far_out_and_nan_stays_visible():
    scores = jnp.array([[-1e4, 2e4, 3e4]])  # a missed positive, a wrong negative, a right positive
    ids, mask = jnp.array([[0, 2]]), jnp.array([[True, True]])
    total = jax.value_and_grad(lambda scores: losses.logistic_exact(scores, ids, mask).sum())
    loss, gradient = total(scores)
    np.testing.assert_allclose(loss, 3e4)
    np.testing.assert_allclose(gradient, [[-1, 1, 0]])
    for t in range(3):
        assert np.isnan(losses.logistic_exact(scores.at[0, t].set(np.nan), ids, mask))
    nan, one = jnp.array([[np.nan]]), jnp.array([[[1.0]]])
    for scores in ((nan, mask[:, :1], one), (one[0], mask[:, :1], nan[None])):
        assert np.isnan(losses.logistic_sampled(*scores, num_hashtags=T))


def test_sampled_logistic_and_its_gradient_are_unbiased():
    scores_BT, positives_BP, mask_BP = make_batch(10, scale=2.0)
    positives = jnp.asarray(positives_BP), jnp.asarray(mask_BP)

    @jax.jit
    @jax.vmap
    def one_draw(seed):
        ids_BPN = draw(*positives, seed)

        def total(scores_BT):
            own_BP = jnp.take_along_axis(scores_BT, positives[0], axis=1)
            others_BPN = scores_BT[jnp.arange(B)[:, None, None], ids_BPN]
            loss_B = losses.logistic_sampled(own_BP, positives[1], others_BPN, num_hashtags=T)
            return loss_B.sum(), loss_B

        gradient_BT, loss_B = jax.grad(total, has_aux=True)(jnp.asarray(scores_BT))
        return jnp.concatenate([gradient_BT, loss_B[:, None]], axis=1)

    def exact_total(scores_BT):
        return losses.logistic_exact(scores_BT, *positives).sum()

    got_XBT = np.asarray(one_draw(jnp.arange(20_000)), np.float64)
    want_BT = jax.grad(exact_total)(jnp.asarray(scores_BT))
    want_BT = np.column_stack([want_BT, losses.logistic_exact(scores_BT, *positives)])
    tolerance_BT = 5 * got_XBT.std(axis=0) / np.sqrt(len(got_XBT)) + 1e-5
    assert np.all(tolerance_BT[:2, -1] < 0.02 * want_BT[:2, -1])  # tight enough to fail
    assert np.all(np.abs(got_XBT.mean(axis=0) - want_BT) <= tolerance_BT)


def test_sampled_logistic_without_negatives_is_exact():
    """The positives are the whole vocabulary; and padding slots have no effect."""
    scores_1P, mask = jnp.linspace(-2, 2, P)[None, :], jnp.ones((1, P), bool)
    want = losses.logistic_exact(scores_1P, jnp.arange(P)[None, :], mask)
    got = losses.logistic_sampled(scores_1P, mask, jnp.ones((1, P, N)), num_hashtags=P)
    np.testing.assert_allclose(got, want, rtol=1e-6)

    def total(own_BP, others_BPN):
        return losses.logistic_sampled(own_BP, mask_BP, others_BPN, num_hashtags=T).sum()

    mask_BP = make_batch()[2]
    gradients = jax.grad(total, argnums=(0, 1))(jnp.zeros((B, P)), jnp.zeros((B, P, N)))
    assert all(not g[~mask_BP].any() and np.all(g[mask_BP] != 0) for g in gradients)


@pytest.mark.parametrize("estimator", ["exact", "sampled"])
def test_the_mixture_is_the_weighted_sum_on_the_same_scores_and_draws(estimator):
    rng = np.random.default_rng(0)
    query_BD, hashtags_TD = (jnp.asarray(rng.normal(size=(n, 4)), jnp.float32) for n in (B, T))
    _, positives_BP, mask_BP = make_batch(11)
    settings = dict(estimator=estimator, rank_weight="wsabie", margin=MARGIN, num_negatives=N)

    def of(name, mixture):
        how = dict(temperature=0.5, mixture=mixture, num_hashtags=T)
        loss = losses.make_loss(name, **how, **settings)
        negatives_BPN = loss.sample(jax.random.key(0), positives_BP, mask_BP)
        assert (negatives_BPN is None) == (estimator == "exact")
        # Another row, as of padding on a mesh, has no effect.
        padded_TD = jnp.concatenate([hashtags_TD, 99 * jnp.ones((1, 4))])
        return loss.per_example(query_BD, padded_TD, positives_BP, mask_BP, negatives_BPN)

    np.testing.assert_allclose(
        of("logistic", 0.25), 0.75 * of("logistic", 0) + 0.25 * of("warp", 0), rtol=1e-5
    )
    np.testing.assert_array_equal(of("logistic", 1), of("warp", 0.25))
    if estimator == "exact":
        scores_BT = 2 * query_BD @ hashtags_TD.T  # divided by the temperature
        want_B = obvious_logistic(scores_BT, positives_BP, mask_BP)
        np.testing.assert_allclose(of("logistic", 0), want_B, rtol=1e-4)
