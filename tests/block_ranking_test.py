"""A ranking block by block is that of all scores at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhman_jax import metrics
from uhman_jax.evaluate import block_ranking


# Blocks of 6, without and with padding; the scores of 45 slots are guessed among 95 hashtags.
@pytest.mark.parametrize("num_hashtags", [24, 23, 95])
def test_blocks_change_no_ranking(num_hashtags):
    rng = np.random.default_rng(num_hashtags)
    # Whole numbers, so that sums are exact and ties are many; two queries are not numbers.
    query_BD = rng.integers(-2, 3, (9, 3)).astype(np.float32)
    query_BD[[4, 7], [0, 2]] = np.nan, np.inf
    hashtags_TD = rng.integers(-1, 2, (num_hashtags, 3)).astype(np.float32)
    positives_BP = np.stack([rng.permutation(num_hashtags)[:5] for _ in range(9)]).astype(np.int32)
    mask_BP = rng.random((9, 5)) < 0.7
    whole, parts = (
        jax.jit(block_ranking.rank_queries, static_argnames=("top_k", "block_size"))(
            query_BD, hashtags_TD, positives_BP, mask_BP, top_k=8, block_size=size
        )
        for size in (num_hashtags, 6)
    )
    number_B = np.isfinite(query_BD).all(axis=1)
    np.testing.assert_array_equal(whole[0], parts[0])
    for one, other in zip(whole[1:], parts[1:], strict=True):
        np.testing.assert_array_equal(np.asarray(one)[number_B], np.asarray(other)[number_B])
    scores_BT = np.asarray(jnp.matmul(query_BD, hashtags_TD.T))
    ranks_BP = metrics.ranks(jnp.asarray(scores_BT), positives_BP, mask_BP)
    np.testing.assert_array_equal(whole[0], ranks_BP)
    order_BT = np.argsort(-scores_BT, axis=1, kind="stable")[:, :8]
    np.testing.assert_array_equal(whole[1][number_B], order_BT[number_B])


@pytest.mark.parametrize("block", [3, 7, 20, 64])  # of 45 slots
def test_the_positives_scores_are_guessed_as_they_are(block):
    rng = np.random.default_rng(block)
    query_BD = rng.integers(-9, 10, (9, 4)).astype(np.float32)  # whole numbers: sums are exact
    query_BD[3] = np.nan
    hashtags_TD = jnp.asarray(rng.integers(-9, 10, (70, 4)), jnp.float32)
    positives_BP = np.stack([rng.permutation(70)[:5] for _ in range(9)]).astype(np.int32)
    mask_BP = rng.random((9, 5)) < 0.7
    scores_BP = np.take_along_axis(query_BD @ hashtags_TD.T, positives_BP, axis=1)
    known_BP = mask_BP & ~np.isnan(scores_BP)
    guess_BP = block_ranking._guess(query_BD, hashtags_TD, positives_BP, mask_BP, block)
    np.testing.assert_array_equal(guess_BP, np.where(known_BP, scores_BP, -np.inf))


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_block_is_the_whole_or_a_share_with_little_padding(platform):
    for batch_size in (1, 64, 1024, 20_000):
        for num_rows in (1, 669, 4500, 100_000, 1_000_003):
            block = block_ranking.fitting_block(batch_size, num_rows, platform)
            num_blocks = -(-num_rows // block)
            assert num_blocks * block - num_rows < 128 * num_blocks
            assert batch_size * block <= max(640 * batch_size, 2**24 + 128 * batch_size)
    assert block_ranking.fitting_block(1024, 669, platform) == 669


def test_a_wrong_guess_of_the_positives_scores_changes_no_ranking(monkeypatch):
    """Two models at once, of which one is guessed wrong: blocks are gone through once more."""
    rng = np.random.default_rng(0)
    # Whole numbers, so that sums are exact.
    query_SBD = rng.integers(-99, 100, (2, 4, 8)).astype(np.float32)
    hashtags_STD = rng.integers(-99, 100, (2, 60, 8)).astype(np.float32)
    positives_BP = np.stack([rng.permutation(60)[:5] for _ in range(4)]).astype(np.int32)
    mask_BP = rng.random((4, 5)) < 0.7
    exact, wrong_for = block_ranking._guess, jnp.inf

    def guess(query_BD, *others):
        wrong = query_BD[0, 0] == wrong_for
        return exact(query_BD, *others) + jnp.where(wrong, 1000.0, 0.0)

    monkeypatch.setattr(block_ranking, "_guess", guess)

    def rank():
        def one(query_BD, hashtags_TD):
            return block_ranking.rank_queries(
                query_BD, hashtags_TD, positives_BP, mask_BP, top_k=3, block_size=4
            )

        return jax.jit(jax.vmap(one))(query_SBD, hashtags_STD)

    right = rank()
    wrong_for = query_SBD[1, 0, 0]
    jax.tree.map(np.testing.assert_array_equal, rank(), right)
