import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhman_jax.layers import (
    ChannelStatistics,
    VideoInput,
    lookup,
    orthogonal,
    score,
    standardise,
    unit_length,
)


def test_unit_length_is_safe_at_zero():
    vectors = jnp.array([[0.0, 0.0, 0.0], [1e-20, 0.0, 0.0], [2.0, 3.0, 6.0]])
    got, gradient = jax.value_and_grad(lambda v: unit_length(v)[:, 0].sum())(vectors)
    assert got == pytest.approx(2 / 7)
    expected = [[0] * 3, [0] * 3, [45 / 343, -6 / 343, -12 / 343]]  # (I - x x^T) e_0 / |x|
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_an_id_outside_its_table_is_not_another_row():
    rows = lookup(jnp.arange(6.0).reshape(3, 2), jnp.array([2, -1, 3]))
    assert rows[0].tolist() == [4, 5] and np.all(np.isnan(rows[1:]))


def test_standardise_decodes_each_video_by_its_own_pair():
    rng = np.random.default_rng(0)
    codes_BFMC = rng.integers(0, 256, (2, 3, 5, 7)).astype(np.uint8)
    scale_BC, offset_BC = rng.uniform(0.1, 1, (2, 7)), rng.normal(size=(2, 7))
    mean_C, std_C = rng.normal(size=7), rng.uniform(0.5, 2, 7)
    mask_BF = np.array([[True, True, False], [True, False, False]])
    video = VideoInput.plain(
        jnp.asarray(codes_BFMC), scale_BC.astype(np.float32), offset_BC.astype(np.float32), mask_BF
    )
    statistics = ChannelStatistics(mean_C.astype(np.float32), std_C.astype(np.float32))
    got = standardise(video, statistics)
    decoded = codes_BFMC * scale_BC[:, None, None] + offset_BC[:, None, None]
    expected = (decoded - mean_C) / std_C * mask_BF[:, :, None, None]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def test_score_is_float32_whatever_the_vectors_are():
    query_BD, hashtags_TD = np.eye(2, 3), np.arange(12.0).reshape(4, 3)
    scores_BT = score(jnp.asarray(query_BD, jnp.bfloat16), jnp.asarray(hashtags_TD, jnp.bfloat16))
    assert scores_BT.dtype == jnp.float32
    np.testing.assert_array_equal(scores_BT, query_BD @ hashtags_TD.T)


@pytest.mark.parametrize(
    ("shape", "num_inputs"), [((6, 2, 3), 1), ((2, 3, 6), 2), ((7, 3), 1), ((3, 7), 1)]
)
def test_orthogonal_maps_keep_lengths_and_are_another_for_each_key(shape, num_inputs):
    def draw(key):
        return orthogonal(3.0, num_inputs)(key, shape)

    keys = jax.random.split(jax.random.key(0), 200)
    maps = np.asarray(jax.jit(jax.vmap(draw))(keys))  # as a population draws them
    rows = int(np.prod(shape[:num_inputs]))
    for one in maps.reshape(200, rows, -1):
        np.testing.assert_allclose(np.linalg.svd(one, compute_uv=False), 3, rtol=1e-5)
    assert np.abs(maps[0] - maps[1]).max() > 0.1
    assert np.abs(maps.mean(0)).max() < 0.6, "no direction is preferred"
