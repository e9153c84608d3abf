import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rax
from hypothesis import strategies as st

from uhman_jax import metrics

B, P, T = 7, 5, 23

# (precision, recall, F1) of every row of the paper: Table 1 @10 and @50, Table 2, Table 3.
PAPER = [
    (0.0650, 0.1658, 0.0934),
    (0.0733, 0.1823, 0.1046),
    (0.0796, 0.1946, 0.113),
    (0.0849, 0.2110, 0.1210),
    (0.0227, 0.4255, 0.0431),
    (0.0301, 0.4389, 0.0563),
    (0.0312, 0.4468, 0.0583),
    (0.0409, 0.4517, 0.075),
    (0.0371, 0.1549, 0.0599),
    (0.0389, 0.1607, 0.0626),
    (0.0451, 0.1898, 0.0729),
    (0.0507, 0.2088, 0.0816),
    (0.0206, 0.4333, 0.0394),
    (0.0221, 0.4604, 0.0421),
    (0.0237, 0.4917, 0.0453),
    (0.0250, 0.5186, 0.0477),
    (0.0736, 0.1973, 0.1072),
    (0.0822, 0.2031, 0.1170),
    (0.0849, 0.2110, 0.1210),
]


def make_batch(seed, *, values=None, num_hashtags=T):
    rng = np.random.default_rng(seed)
    if values is None:  # no ties
        scores_BT = np.stack([rng.permutation(num_hashtags) for _ in range(B)]) / num_hashtags
    else:
        scores_BT = rng.choice(values, size=(B, num_hashtags))
    positives_BP = np.stack([rng.permutation(num_hashtags)[:P] for _ in range(B)])
    mask_BP = rng.random((B, P)) < 0.6
    mask_BP[0], mask_BP[1] = True, False
    return scores_BT.astype(np.float32), positives_BP.astype(np.int32), mask_BP


def slow_ranking(scores_T, positives):
    """Sorts all hashtags: by score, NaN last, non-positives before positives, then by slot."""

    def key(t):
        score = -math.inf if math.isnan(scores_T[t]) else scores_T[t]
        return (-score, t in positives, positives.index(t) if t in positives else 0)

    return sorted(range(len(scores_T)), key=key)


def slow_metrics(scores_T, positives, k):
    """Every metric by walking down the ranking."""
    ranking = slow_ranking(scores_T, positives)
    hits = [t in positives for t in ranking]
    at_k = sum(hits[:k])
    ideal = sum(1 / math.log2(i + 2) for i in range(min(k, len(positives))))
    gain = sum(1 / math.log2(i + 2) for i, hit in enumerate(hits[:k]) if hit)
    precisions = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]
    return {
        "precision": at_k / k,
        "recall": at_k / len(positives) if positives else 0,
        "ndcg": gain / ideal if positives else 0,
        "reciprocal_rank": max((1 / (i + 1) for i, hit in enumerate(hits) if hit), default=0),
        "average_precision": sum(precisions) / len(positives) if positives else 0,
    }


def all_metrics(ranks_BP, mask_BP, k):
    return {
        "precision": metrics.precision_at_k(ranks_BP, mask_BP, k),
        "recall": metrics.recall_at_k(ranks_BP, mask_BP, k),
        "ndcg": metrics.ndcg_at_k(ranks_BP, mask_BP, k),
        "reciprocal_rank": metrics.reciprocal_rank(ranks_BP, mask_BP),
        "average_precision": metrics.average_precision(ranks_BP, mask_BP),
    }


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("values", [None, [0.0, 0.5, 1.0], [3.0], [np.nan, -np.inf, 0.0, 1.0]])
@pytest.mark.parametrize("k", [1, 3, 10, T, T + 4])
def test_agrees_with_walking_down_the_ranking(values, k, platform):
    for seed in range(3):
        scores_BT, positives_BP, mask_BP = make_batch(seed, values=values)
        ranks_BP = metrics.ranks(scores_BT, positives_BP, mask_BP, platform)
        assert ranks_BP.dtype == jnp.int32 and np.all(ranks_BP[~mask_BP] == T + 1)
        got = all_metrics(ranks_BP, mask_BP, k)
        for b in range(B):
            positives = positives_BP[b][mask_BP[b]].tolist()
            ranking = slow_ranking(scores_BT[b], positives)
            expected = [ranking.index(t) + 1 for t in positives]
            assert ranks_BP[b][mask_BP[b]].tolist() == expected
            for name, value in slow_metrics(scores_BT[b], positives, k).items():
                np.testing.assert_allclose(got[name][b], value, rtol=1e-6, err_msg=name)


def rax_metrics(scores_BT, labels_BT, k):
    peers = {
        "precision": (rax.precision_metric, k),
        "recall": (rax.recall_metric, k),
        "ndcg": (rax.ndcg_metric, k),
        "reciprocal_rank": (rax.mrr_metric, None),
        "average_precision": (rax.ap_metric, None),
    }
    with jax.numpy_rank_promotion("allow"):
        return {
            name: metric(scores_BT, labels_BT, topn=topn, reduce_fn=None)
            for name, (metric, topn) in peers.items()
        }


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**31),
    levels=st.sampled_from([1, 2, 5, 10_000]),  # how many scores there are: all tie, or none
    k=st.sampled_from([1, 3, 10, 20]),
)
def test_agrees_with_rax_where_ties_are_broken_against_the_positives(seed, levels, k):
    """Rax breaks a tie by position; our ranks put the positives last, in the order of slots."""
    scores_BT, positives_BP, mask_BP = make_batch(seed, values=np.arange(levels))
    mask_BP[:, 0] = True  # rax gives lists without a relevant item other conventions
    labels_BT = np.zeros((B, T), np.float32)
    broken_BT = np.array(scores_BT, np.float64)
    for b in range(B):
        for slot in np.flatnonzero(mask_BP[b]):
            labels_BT[b, positives_BP[b, slot]] = 1
            broken_BT[b, positives_BP[b, slot]] -= 0.1 + 0.01 * slot
    got = all_metrics(metrics.ranks(scores_BT, positives_BP, mask_BP), mask_BP, k)
    for name, expected_B in rax_metrics(broken_BT, labels_BT, k).items():
        np.testing.assert_allclose(got[name], expected_B, rtol=1e-5, err_msg=name)
    for name, tied_B in rax_metrics(scores_BT, labels_BT, k).items():
        assert np.all(got[name] <= tied_B + 1e-5), f"{name}: ties may not help"


def test_padding_and_the_order_of_videos_change_nothing():
    scores_BT, positives_BP, mask_BP = make_batch(1, values=[0.0, 1.0, 2.0])
    ranks_BP = metrics.ranks(scores_BT, positives_BP, mask_BP)
    for garbage in (-3, 10**6):
        filled_BP = np.where(mask_BP, positives_BP, garbage).astype(np.int32)
        np.testing.assert_array_equal(metrics.ranks(scores_BT, filled_BP, mask_BP), ranks_BP)
    wider = [np.pad(a, ((0, 0), (0, 2))) for a in (positives_BP, mask_BP)]
    wide_BP = metrics.ranks(scores_BT, *wider)
    np.testing.assert_array_equal(wide_BP[:, :P], ranks_BP)
    table = metrics.summary(ranks_BP, mask_BP)
    assert metrics.summary(wide_BP, wider[1]) == table
    assert metrics.summary(ranks_BP[::-1], mask_BP[::-1]) == pytest.approx(table)


@pytest.mark.parametrize("precision, recall, expected", PAPER)
def test_f1_of_the_means_is_the_papers(precision, recall, expected):
    """F1 rises with both, and each figure is rounded to 4 digits (0.113 and 0.075 shown as 3)."""
    half = 0.5e-4
    lowest = metrics.f1(precision - half, recall - half) - half
    highest = metrics.f1(precision + half, recall + half) + half
    assert lowest <= expected <= highest and highest - lowest < 4e-4


def test_summary():
    scores_BT, positives_BP, mask_BP = make_batch(2)
    ranks_BP = np.asarray(metrics.ranks(scores_BT, positives_BP, mask_BP))
    table = metrics.summary(ranks_BP, mask_BP, cutoffs=(5, 10))
    per_k = ["P@{}", "R@{}", "F1@{}", "kP/R@{}"]
    keys = [key.format(k) for k in (5, 10) for key in per_k] + ["NDCG@10", "MRR", "MAP"]
    assert list(table) == keys and all(type(value) is float for value in table.values())
    slow = [slow_metrics(scores_BT[b], positives_BP[b][mask_BP[b]].tolist(), 10) for b in range(B)]
    mean = {name: np.mean([row[name] for row in slow]) for name in slow[0]}
    assert table["P@10"] == pytest.approx(mean["precision"])
    assert table["R@10"] == pytest.approx(mean["recall"])
    f1 = 2 * mean["precision"] * mean["recall"] / (mean["precision"] + mean["recall"])
    assert table["F1@10"] == pytest.approx(f1)
    assert table["kP/R@10"] == pytest.approx(10 * mean["precision"] / mean["recall"])
    assert table["NDCG@10"] == pytest.approx(mean["ndcg"])
    assert table["MRR"] == pytest.approx(mean["reciprocal_rank"])
    assert table["MAP"] == pytest.approx(mean["average_precision"])


def test_summary_of_misses_is_zero_and_of_no_videos_an_error():
    table = metrics.summary(jnp.array([[99]]), jnp.array([[True]]))
    assert table["P@50"] == table["F1@50"] == table["kP/R@50"] == table["NDCG@10"] == 0
    with pytest.raises(ValueError, match="at least one video, got 0; use a split"):
        metrics.summary(jnp.zeros((0, P)), jnp.zeros((0, P), bool))


def test_ranks_keep_no_array_of_every_slot_and_hashtag():
    num_hashtags, slots = 5_003, 31
    shapes = (
        jnp.zeros((B, num_hashtags)),
        jnp.zeros((B, slots), jnp.int32),
        jnp.ones((B, slots), bool),
    )
    memory = jax.jit(metrics.ranks).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < B * slots * num_hashtags
