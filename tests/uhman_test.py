import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_inputs import AGES, B, C, D, F, K, M, R, inputs_of, make_inputs, sizes_of, train
from model_inputs import make_model as make_system
from slow_model import reference

from uhman_jax.models import layers
from uhman_jax.models.uhman import UHMAN

SIZES = sizes_of(UHMAN)
VARIANTS = [
    {},
    {"region_attention": False},
    {"frame_attention": False},
    {"region_attention": False, "frame_attention": False},
    {"user_guidance": False},
    {"unit_length": False},
]


def make_model(seed=0, **options):
    return make_system(UHMAN, seed, **options)


@pytest.mark.parametrize("no_frame", [False, True])
@pytest.mark.parametrize(
    "options, num_regions", [(options, M) for options in VARIANTS] + [({}, 64)]
)
def test_agrees_with_the_equations(options, num_regions, no_frame):
    model, variables = make_model(3, **options)
    video, user = make_inputs(4, num_regions=num_regions)
    if no_frame:  # the user, unknown in every respect, gives the ranking
        video = video._replace(mask_BF=jnp.zeros((B, F), bool))
        user = user._replace(gender_B=jnp.zeros(B, int), history_mask_BR=jnp.zeros((B, R), bool))
    query_BD, attention = model.apply(variables, video, user, with_attention=True, method="query")
    hashtags_TD = model.apply(variables, method="hashtags")
    scores_BT = model.apply(variables, video, user)
    flags = {name: value for name, value in options.items() if name != "unit_length"}
    unit = options.get("unit_length", True)
    query, hashtags, regions, frames = reference(variables, video, user, unit=unit, **flags)
    scale = 1 if unit else np.abs(query @ hashtags.T).max()
    np.testing.assert_allclose(query_BD, query, atol=1e-5 * scale)
    np.testing.assert_allclose(hashtags_TD, hashtags, atol=1e-5 * scale)
    np.testing.assert_allclose(scores_BT, query @ hashtags.T, atol=1e-5 * scale)
    np.testing.assert_allclose(attention.regions_BFHM, regions, atol=1e-5)
    np.testing.assert_allclose(attention.frames_BHF, frames, atol=1e-5)
    assert no_frame or regions.std() > 1e-3 or not options.get("region_attention", True)


def test_an_ablation_has_no_attention_parameters():
    full = make_model()[1]["params"]
    without = make_model(region_attention=False)[1]["params"]
    assert set(full["region_block"]) - set(without["region_block"]) == {"heads"}
    assert jax.tree.structure(full["frame_block"]) == jax.tree.structure(without["frame_block"])


def test_an_unknown_attribute_id_spoils_only_its_example():
    model, variables = make_model()
    video, user = make_inputs()
    scores_BT = model.apply(variables, video, user._replace(age_B=jnp.array([-1, 0, AGES])))
    assert np.isnan(scores_BT).all(axis=1).tolist() == [True, False, True]


def test_some_regions_are_distinct_regions_of_their_frame_and_all_have_the_same_chance():
    video, _ = make_inputs(num_regions=64)
    codes_BFMC = np.zeros(video.codes_BFMC.shape, np.uint8)
    codes_BFMC[...] = np.arange(64)[:, None]  # the value of a region is its number
    codes_BFMC[..., 0] = np.arange(codes_BFMC[..., 0].size // 64).reshape(*video.mask_BF.shape, 1)
    video = video._replace(codes_VFMC=jnp.asarray(codes_BFMC))
    draw = jax.jit(lambda key: layers.drop_regions(key, 0.75, video))
    times_M = np.zeros(64)
    for seed in range(200):
        codes = np.asarray(draw(jax.random.key(seed)).codes_BFMC)
        frame_NM, region_NM = codes[..., 0].reshape(-1, 16), codes[..., 1].reshape(-1, 16)
        np.testing.assert_array_equal(frame_NM, np.arange(len(frame_NM))[:, None].repeat(16, 1))
        assert all(len(set(regions)) == 16 for regions in region_NM.tolist())
        times_M += np.bincount(region_NM.ravel(), minlength=64)
    share_M = times_M / (200 * len(region_NM))
    deviation = np.sqrt(0.25 * 0.75 / (200 * len(region_NM)))
    assert np.abs(share_M - 0.25).max() < 5 * deviation

    slot_B = jnp.array([4, 0, 2])[: len(video.mask_BF)]
    codes_VFMC = jnp.full((5, *codes_BFMC.shape[1:]), 255, jnp.uint8).at[slot_B].set(codes_BFMC)
    elsewhere = video._replace(codes_VFMC=codes_VFMC, slot_B=slot_B)
    same = layers.drop_regions(jax.random.key(199), 0.75, elsewhere)
    np.testing.assert_array_equal(same.codes_VFMC, codes)


def test_dropped_history_is_a_smaller_history_and_dropped_regions_are_not_attended():
    """Only in training, by the key; a dropped item counts as if it had never been there."""
    video, user = make_inputs(num_regions=64)
    model, variables = make_model(history_dropout=0.4, region_dropout=0.3)
    plain = make_model()[0]

    def query(model, user, video=video, **options):
        rngs = {"dropout": jax.random.key(3)}
        arguments = {"rngs": rngs, "method": "query", "with_attention": True} | options
        return model.apply(variables, video, user, **arguments)

    np.testing.assert_array_equal(
        query(model, user, deterministic=True)[0], query(plain, user, deterministic=True)[0]
    )
    trained, attention = query(model, user, deterministic=False)
    regions_NM = np.asarray(attention.regions_BFHM[:, :, 0])[np.asarray(video.mask_BF)]
    assert regions_NM.shape[1] == 45  # 0.7 of 64
    np.testing.assert_allclose(regions_NM.sum(1), 1, rtol=1e-5)

    no_history = user._replace(history_mask_BR=jnp.zeros_like(user.history_mask_BR))
    only_history = make_model(history_dropout=0.4)[0]
    np.testing.assert_array_equal(  # an empty history loses no hashtag
        query(only_history, no_history, deterministic=False)[0],
        query(plain, no_history, deterministic=True)[0],
    )
    slots = np.flatnonzero(user.history_mask_BR[1])  # the second user has three: 8 subsets
    subsets = []
    for kept in itertools.product([False, True], repeat=len(slots)):
        mask_BR = user.history_mask_BR.at[1, slots].set(jnp.array(kept))
        part = user._replace(history_mask_BR=mask_BR)
        subsets.append(query(plain, part, deterministic=True)[0][1])
    seen = set()
    for seed in range(12):
        rngs = {"dropout": jax.random.key(seed)}
        found = query(only_history, user, deterministic=False, rngs=rngs)[0][1]
        (subset,) = [i for i, known in enumerate(subsets) if np.allclose(found, known, atol=1e-5)]
        seen.add(subset)
    assert len(seen) > 2
    assert trained.shape == (B, D)


def test_initial_values():
    """History rows start small, hashtag rows at length 1, queries neither tiny nor huge.

    Content keeps all its directions on its way through an attention block.
    """
    model = UHMAN(**SIZES | {"num_hashtags": 1009}, unit_length=False)
    variables = jax.jit(model.init)(jax.random.key(0), *make_inputs())
    params = variables["params"]
    assert np.linalg.norm(params["hashtag_TK"], axis=1).mean() == pytest.approx(1, abs=0.05)
    assert np.std(params["user"]["history_TK"]) == pytest.approx(0.1, abs=0.002)
    attention = params["frame_block"]["heads"]
    assert np.std(attention["query_KHW"]) > 1.6 * np.std(attention["key_KHW"])
    through = attention["value_KHW"].reshape(K, K) @ attention["output_HWK"].reshape(K, K)
    np.testing.assert_allclose(np.linalg.svd(through, compute_uv=False), 2, rtol=1e-4)
    assert not params["frame_block"]["ffn"]["output"]["kernel"].any()
    query_BD = model.apply(variables, *make_inputs(), method="query")
    assert 0.2 < np.sqrt(np.mean(query_BD**2)) < 5
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert variables["statistics"]["mean_C"].tolist() == [0] * C
    assert variables["statistics"]["std_C"].tolist() == [1] * C


def test_heads_must_divide_the_hidden_size():
    model = UHMAN(**SIZES | {"num_heads": 3})
    with pytest.raises(ValueError, match="num_heads must divide hidden_size 34, got 3; use a div"):
        model.init(jax.random.key(0), *make_inputs())


def test_learns_which_of_two_objects_a_user_tags():
    """Every clip shows two of four objects; the user's gender decides which one is tagged."""
    rng = np.random.default_rng(0)
    num_clips, num_train, objects = 401, 293, 4
    pair_B2 = np.stack([rng.permutation(objects)[:2] for _ in range(num_clips)])
    gender_B = rng.integers(0, 2, num_clips)
    codes_BFMC = rng.normal(scale=0.3, size=(num_clips, 3, M, C)).astype(np.float32)
    for b, pair in enumerate(pair_B2):
        for thing in pair:
            codes_BFMC[b, rng.integers(3), rng.integers(M), thing] += 5
    tagged_B = np.where(gender_B == 0, pair_B2.min(axis=1), pair_B2.max(axis=1))
    inputs = inputs_of(codes_BFMC, gender_B)
    learn = jax.tree.map(lambda a: a[:num_train], inputs)
    unseen = jax.tree.map(lambda a: a[num_train:], inputs)
    model = UHMAN(**SIZES | {"num_hashtags": objects})
    before, after = (
        np.mean(np.argmax(model.apply(variables, *unseen), axis=1) == tagged_B[num_train:])
        for variables in train(model, learn, tagged_B[:num_train], seed=1)
    )
    # Which of the two: without the user 0.5, sd 0.04. Over five seeds and two roundings `after`
    # has mean 0.996, sd 0.005 and `before` 0.24, 0.05.
    assert after > 0.75 > before
