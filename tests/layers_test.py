"""Layers by hand, and the laws of two-tower systems: UHMAN and the baselines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_inputs import HEADS, B, C, F, M, R, T, make_inputs, make_model, sizes_of

from uhman_jax.kernels.video_input import ChannelStatistics, VideoInput, standardise
from uhman_jax.models.baselines import Bilinear, GatedMean, ThreeWay, UserAdditive
from uhman_jax.models.layers import orthogonal, score, unit_length
from uhman_jax.models.uhman import UHMAN

SYSTEMS = [UHMAN, Bilinear, UserAdditive, ThreeWay, GatedMean]


def test_unit_length_is_safe_at_zero():
    vectors = jnp.array([[0.0, 0.0, 0.0], [1e-20, 0.0, 0.0], [2.0, 3.0, 6.0]])
    got, gradient = jax.value_and_grad(lambda v: unit_length(v)[:, 0].sum())(vectors)
    assert got == pytest.approx(2 / 7)
    expected = [[0] * 3, [0] * 3, [45 / 343, -6 / 343, -12 / 343]]  # (I - x x^T) e_0 / |x|
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


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


# Laws of every system


def assert_close(got, want, atol=1e-6):
    np.testing.assert_allclose(got, want, atol=atol)


@pytest.fixture(params=SYSTEMS)
def system(request):
    return request.param


@pytest.fixture(
    params=[*SYSTEMS, dict(region_attention=False, frame_attention=False)],
    ids=["UHMAN", "BL", "UA", "3WM", "gated mean", "UHMAN(ab)"],
)
def model(request):
    """A model and its variables."""
    if isinstance(request.param, dict):
        return make_model(UHMAN, **request.param)
    return make_model(request.param)


def test_padding_changes_nothing(model):
    model, variables = model
    video, user = make_inputs()
    expected_BT = model.apply(variables, video, user)

    def pad(array, axis, value):
        widths = [(0, 2 if i == axis else 0) for i in range(array.ndim)]
        return jnp.pad(array, widths, constant_values=value)

    more_frames = video._replace(
        codes_VFMC=pad(video.codes_VFMC, 1, 77), mask_BF=pad(video.mask_BF, 1, False)
    )
    more_history = user._replace(
        history_BR=pad(user.history_BR, 1, -1),
        history_mask_BR=pad(user.history_mask_BR, 1, False),
    )
    assert_close(model.apply(variables, more_frames, more_history), expected_BT)
    empty = [jax.tree.map(lambda a: pad(a, 0, 0), part) for part in (video, user)]
    got_BT = model.apply(variables, *empty)
    assert_close(got_BT[:B], expected_BT)
    assert np.all(np.isfinite(got_BT))


def test_features_stored_as_bytes_or_decoded_give_the_same(model):
    model, variables = model
    video, user = make_inputs()
    decoded = video.codes_BFMC * video.scale_BC[:, None, None] + video.offset_BC[:, None, None]
    plain = VideoInput.plain(decoded, jnp.ones((B, C)), jnp.zeros((B, C)), video.mask_BF)
    expected_BT = model.apply(variables, video, user)
    assert_close(model.apply(variables, plain, user), expected_BT, atol=1e-5)


@pytest.mark.parametrize("garbage", [255.0, np.nan])
def test_values_of_padding_change_no_bit(system, garbage):
    model, variables = make_model(system)
    video, user = make_inputs(dtype=np.float32)
    filled = video._replace(
        codes_VFMC=jnp.where(video.mask_BF[:, :, None, None], video.codes_VFMC, garbage)
    )
    other = user._replace(history_BR=jnp.where(user.history_mask_BR, user.history_BR, 10**6))

    @jax.jit
    @jax.value_and_grad
    def step(params, video, user):
        return jnp.sum(model.apply(variables | {"params": params}, video, user) ** 2)

    expected = step(variables["params"], video, user)
    got = step(variables["params"], filled, other)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_masked_inputs_get_zero_gradient(system):
    model, variables = make_model(system)
    video, user = make_inputs(dtype=np.float32)

    def loss(codes_VFMC, params):
        changed = video._replace(codes_VFMC=codes_VFMC)
        scores_BT = model.apply(variables | {"params": params}, changed, user)
        return jnp.sum(scores_BT[:, :5] ** 2)

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))
    codes_grad, grad = gradients(video.codes_VFMC, variables["params"])
    used_BF = np.any(np.asarray(codes_grad) != 0, axis=(2, 3))
    np.testing.assert_array_equal(used_BF, video.mask_BF)
    if system is not Bilinear:
        tables = grad["gate"] if system is GatedMean else grad["user"]
        used = np.unique(user.history_BR[user.history_mask_BR])
        np.testing.assert_array_equal(np.flatnonzero(tables["history_TK"].any(axis=1)), used)
        # "unknown", 0, learns a row of its own
        genders = np.flatnonzero(tables["gender_AK"].any(axis=1))
        np.testing.assert_array_equal(genders, np.sort(user.gender_B))


def test_the_order_of_frames_regions_and_history_changes_nothing(system):
    model, variables = make_model(system)
    video, user = make_inputs()
    rng = np.random.default_rng(0)
    frames, regions, slots = rng.permutation(F), rng.permutation(M), rng.permutation(R)
    shuffled_video = video._replace(
        codes_VFMC=video.codes_VFMC[:, frames][:, :, regions], mask_BF=video.mask_BF[:, frames]
    )
    shuffled_user = user._replace(
        history_BR=user.history_BR[:, slots], history_mask_BR=user.history_mask_BR[:, slots]
    )
    how = {"with_attention": True, "method": "query"}
    query, where = model.apply(variables, video, user, **how)
    got, there = model.apply(variables, shuffled_video, shuffled_user, **how)
    assert_close(got, query)
    assert_close(there.frames_BHF, where.frames_BHF[:, :, frames])
    assert_close(there.regions_BFHM, where.regions_BFHM[:, frames][..., regions])


def test_codes_may_lie_among_the_codes_of_other_videos(system):
    options = {"region_dropout": 0.5} if system is UHMAN else {}
    model, variables = make_model(system, **options)
    video, user = make_inputs()
    slot_B = jnp.array([4, 0, 2])
    codes_VFMC = jnp.full((6, F, M, C), 77, jnp.uint8).at[slot_B].set(video.codes_BFMC)
    elsewhere = video._replace(codes_VFMC=codes_VFMC, slot_B=slot_B)
    for deterministic in (True, False):
        how = dict(deterministic=deterministic, rngs={"dropout": jax.random.key(1)})
        want = model.apply(variables, video, user, **how)
        got = model.apply(variables, elsewhere, user, **how)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_without_a_frame_attention_is_zero_and_gradients_are_finite(model):
    model, variables = model
    video, user = make_inputs()
    video = video._replace(mask_BF=jnp.zeros((B, F), bool))

    def loss(params):
        query_BD, attention = model.apply(
            variables | {"params": params}, video, user, with_attention=True, method="query"
        )
        return jnp.sum(query_BD[:, 0]), attention

    gradient, attention = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert not attention.frames_BHF.any() and not attention.regions_BFHM.any()
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_attention_is_a_distribution_over_real_items(system):
    """That of the baselines is uniform and has one head."""
    model, variables = make_model(system)
    video, user = make_inputs()
    query_BD, attention = model.apply(variables, video, user, with_attention=True, method="query")
    np.testing.assert_array_equal(query_BD, model.apply(variables, video, user, method="query"))
    regions_BFHM, frames_BHF = attention
    num_heads = HEADS if system is UHMAN else 1
    real_BFH = np.broadcast_to(video.mask_BF[:, :, None], (B, F, num_heads))
    assert_close(regions_BFHM.sum(axis=3), real_BFH)
    assert_close(frames_BHF.sum(axis=2), np.ones((B, num_heads)))
    assert not frames_BHF.transpose(0, 2, 1)[~video.mask_BF].any()
    assert regions_BFHM.dtype == frames_BHF.dtype == jnp.float32
    if system is not UHMAN:
        assert_close(regions_BFHM, np.broadcast_to(real_BFH[..., None] / M, (B, F, 1, M)))
        assert_close(frames_BHF[:, 0], video.mask_BF / np.array([[5], [2], [1]]))


@pytest.mark.parametrize("unit_length", [True, False])
def test_bfloat16_is_close_to_float32(system, unit_length):
    model, variables = make_model(system, unit_length=unit_length)
    low = model.clone(dtype=jnp.bfloat16)
    inputs = make_inputs()
    expected_BT = model.apply(variables, *inputs)
    scores_BT = low.apply(variables, *inputs)
    assert scores_BT.dtype == low.apply(variables, *inputs, method="query").dtype == jnp.float32
    np.testing.assert_allclose(scores_BT, expected_BT, atol=0.03 * np.abs(expected_BT).max())
    assert np.abs(scores_BT - expected_BT).max() > 1e-5  # it did compute in bfloat16
    assert np.abs(expected_BT).max() <= 1 + 1e-6 or not unit_length, "scores are cosines"
    shapes = jax.eval_shape(low.init, jax.random.key(0), *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


def test_dropout_follows_its_key_and_is_off_by_default(system):
    model, variables = make_model(system, dropout=0.5, history_dropout=0.5)
    video, user = make_inputs()

    def query(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, video, user, deterministic=False, rngs=rngs, method="query")

    np.testing.assert_array_equal(query(1), query(1))
    assert np.abs(query(1) - query(2)).max() > 0.01
    assert 0.2 < np.mean(query(1) == 0) < 0.8  # entries of the query are dropped
    plain = system(**sizes_of(system))
    np.testing.assert_array_equal(
        model.apply(variables, video, user), plain.apply(variables, video, user)
    )
    plain.apply(variables, video, user, deterministic=False)  # rate 0 needs no key


def test_training_samples_the_clips_of_a_history():
    model, variables = make_model(UserAdditive, history_sampling=True)
    video, user = make_inputs()
    one_clip = jnp.full(user.history_BR.shape, 1 << 31, jnp.int32)  # all hashtags of one part
    user = user._replace(history_parts_BR=one_clip)
    without = user._replace(history_mask_BR=jnp.zeros_like(user.history_mask_BR))

    def query(user, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, video, user, deterministic=False, rngs=rngs, method="query")

    whole_BD = model.apply(variables, video, user, method="query")
    none_BD = model.apply(variables, video, without, method="query")
    queries = np.stack([query(user, seed) for seed in range(100)])
    is_whole_NB = np.isclose(queries, whole_BD, atol=1e-6).all(axis=2)
    is_none_NB = np.isclose(queries, none_BD, atol=1e-6).all(axis=2)
    assert (is_whole_NB | is_none_NB).all()
    has_history_B = np.asarray(user.history_mask_BR).any(axis=1)
    assert (0.3 < is_whole_NB.mean(axis=0)[has_history_B]).all()
    assert (is_whole_NB.mean(axis=0)[has_history_B] < 0.7).all()


@pytest.mark.parametrize("unit_length", [True, False])
def test_a_bias_is_one_more_dimension_that_only_adds_to_the_scores(system, unit_length):
    options = {"unit_length": unit_length, "dropout": 0.5}
    model, variables = make_model(system, bias=True, **options)
    plain = system(**sizes_of(system), **options)
    params = dict(variables["params"])
    bias_T = params.pop("bias_T")
    assert bias_T.shape == (T,) and np.abs(bias_T).min() > 0
    without = variables | {"params": params}
    inputs = make_inputs()
    shapes = jax.eval_shape(plain.init, jax.random.key(0), *inputs)["params"]
    assert jax.tree.structure(params) == jax.tree.structure(shapes), "as in earlier versions"
    expected_BT = plain.apply(without, *inputs) + bias_T[None]
    got_BT = model.apply(variables, *inputs)
    np.testing.assert_allclose(got_BT, expected_BT, rtol=1e-6, atol=1e-5)
    hashtags_TD = model.apply(variables, method="hashtags")
    np.testing.assert_array_equal(hashtags_TD[:, -1], bias_T)
    np.testing.assert_array_equal(hashtags_TD[:, :-1], plain.apply(without, method="hashtags"))
    how = {"deterministic": False, "rngs": {"dropout": jax.random.key(1)}, "method": "query"}
    query_BD = model.apply(variables, *inputs, **how)
    np.testing.assert_array_equal(query_BD[:, -1], np.ones(B))
    np.testing.assert_array_equal(query_BD[:, :-1], plain.apply(without, *inputs, **how))


def test_statistics_are_never_made_up(system):
    model, variables = make_model(system)
    with pytest.raises(Exception, match="statistics"):
        model.apply({"params": variables["params"]}, *make_inputs())


def test_a_population_is_its_members(system):
    model, variables = make_model(system)
    members = [make_model(system, seed)[1]["params"] for seed in range(2)]
    population = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)

    def scores(params):
        return model.apply(variables | {"params": params}, *make_inputs())

    scores_SBT = jax.jit(jax.vmap(scores))(population)
    assert np.abs(scores_SBT[0] - scores_SBT[1]).max() > 0.1
    for scores_BT, params in zip(scores_SBT, members, strict=True):
        assert_close(scores_BT, scores(params), atol=1e-5)
