"""The generative model of the simulator and its probabilities."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from clips import contents
from small_worlds import WORLDS, tiny

from uhman_jax import simulator
from uhman_jax.config import SimulatorConfig, SimulatorOutput, World
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.runtime.errors import UserError
from uhman_jax.simulator import laws as laws_lib
from uhman_jax.simulator import names, observable_oracle, posts
from uhman_jax.simulator.truth import load_truth

# --- the whole


@pytest.fixture(scope="module")
def simulated_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    simulator.simulate(root, tiny())
    return root


def test_same_settings_give_the_same_bytes(simulated_root, tmp_path):
    first = contents(simulated_root)
    simulator.simulate(tmp_path / "again", tiny())
    assert contents(tmp_path / "again") == first
    simulator.simulate(tmp_path / "other", tiny(seed=1))
    assert contents(tmp_path / "other")["videos.csv"] != first["videos.csv"]


def test_dataset_is_a_good_raw_dataset_and_agrees_with_the_truth(simulated_root):
    raw = read_raw_dataset(simulated_root, strict=True, check_files=False)
    truth = load_truth(simulated_root)
    assert tuple(video.video_id for video in raw.videos) == truth.video_ids
    assert len(raw.users) == tiny().num_users
    column = {hashtag: index for index, hashtag in enumerate(truth.hashtags)}
    for row, video in enumerate(raw.videos):
        used = [column[hashtag] for hashtag in video.hashtags]
        assert (truth.probability_VT[row, used] > 0).all()
    assert simulator.is_simulated(simulated_root)
    stored = json.loads((simulated_root / "simulated.json").read_text())["fingerprint"]
    assert stored == simulator.simulated_fingerprint(tiny())


def test_fingerprint_depends_on_every_setting():
    default = simulator.simulated_fingerprint(SimulatorConfig())
    assert len(default) == 12 and int(default, 16) >= 0
    for field in dataclasses.fields(SimulatorConfig):
        value = getattr(SimulatorConfig(), field.name)
        if isinstance(value, int | float):
            other = dataclasses.replace(SimulatorConfig(), **{field.name: value + 1})
            assert simulator.simulated_fingerprint(other) != default, field.name


def test_refuses_a_folder_that_holds_something_else(simulated_root, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="must hold one dataset.*name another folder"):
        simulator.simulate(simulated_root, tiny(seed=3))
    (tmp_path / "videos.csv").write_text("video_id,path\n")
    with pytest.raises(UserError, match="must hold no other dataset.*videos.csv"):
        simulator.simulate(tmp_path, tiny())
    assert (tmp_path / "videos.csv").read_text() == "video_id,path\n"
    fingerprint = simulator.simulated_fingerprint(tiny())
    monkeypatch.setattr(simulator, "_VERSION", 99)  # a dataset of an earlier version
    with pytest.raises(UserError, match=f"must hold one dataset.*{fingerprint}"):
        simulator.simulate(simulated_root, tiny())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_classes": 181, "num_hashtags": 900}, "num_classes must lie in 1 to 180, got 181"),
        ({"num_hashtags": 8}, "num_hashtags must be at least num_classes"),
        ({"num_hashtags": 1000}, "num_hashtags must leave 1 to 30 words per class"),
        ({"num_generic": 41, "num_hashtags": 60}, "num_generic must lie in 0 to 40, got 41"),
        ({"num_countries": 30}, "num_countries must lie in 1 to 20, got 30"),
        ({"mean_hashtags": 9.0}, "mean_hashtags must lie between .* got 9.0"),
        ({"objects_per_clip": 8}, "objects_per_clip must be at most num_classes 7"),
        ({"generic_share": 0.0}, "generic_share must be above 0"),
        ({"no_history_prob": 1.0}, "no_history_prob must be below 1"),
        ({"num_styles": 2, "door": SimulatorOutput.PIXELS}, "num_styles must be 1 if clips"),
        ({"style_share": 0.5}, "style_share must be 0 if there is one style, got 0.5"),
        ({"regions_per_object": 11}, "regions_per_object must be the area of a block.* got 11"),
    ],
)
def test_settings_without_a_generative_model_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        simulator.simulate(tmp_path / "none", tiny(**changes))
    assert not (tmp_path / "none").exists()


# --- probabilities


@pytest.mark.parametrize("changes", [{}, {"num_styles": 4, "style_share": 0.6}])
@pytest.mark.parametrize("kind", WORLDS)
def test_closed_form_probability_is_the_frequency_of_drawn_hashtags(kind, changes):
    simulated = posts.build_world(tiny(world=kind, **changes))
    laws = simulated.laws
    probability_VT = posts.probability(simulated)
    rng, num_draws = np.random.default_rng(5), 6000
    for clip in (0, 3):
        user, objects_O = simulated.posts.user_V[clip], simulated.posts.objects_VO[clip]
        weight_O = np.exp(simulated.affinity_VO()[clip])
        counts_T = np.zeros(len(laws.hashtags))
        for _ in range(num_draws):
            draw = laws, simulated.language, rng, user, objects_O, weight_O / weight_O.sum()
            counts_T[posts.draw_tags(*draw)[1]] += 1
        p_T = probability_VT[clip]
        tolerance_T = 4.5 * np.sqrt(p_T * (1 - p_T) / num_draws) + 1e-9
        np.testing.assert_array_less(np.abs(counts_T / num_draws - p_T), tolerance_T + 1e-9)


def test_probability_of_a_clip_with_one_object_by_hand():
    simulated = posts.build_world(tiny(objects_per_clip=1))
    clip = 2
    kind = simulated.posts.objects_VO[clip, 0]
    dialect = simulated.laws.dialect_U[simulated.posts.user_V[clip]]
    rates = {
        tag: simulated.language.rates_ET[dialect, tag]
        for tag, owner in enumerate(simulated.language.class_T)
        if owner in (kind, -1)
    }
    nothing = np.prod([1 - rate for rate in rates.values()])
    expected = [rates.get(tag, 0.0) / (1 - nothing) for tag in range(simulated.config.num_hashtags)]
    np.testing.assert_allclose(posts.probability(simulated)[clip], expected, rtol=1e-12)


@pytest.mark.parametrize("kind", WORLDS)
def test_mean_hashtags(kind):
    config = tiny(world=kind, num_videos=3000, num_users=400, mean_hashtags=2.5)
    simulated = posts.build_world(config)
    sizes = np.array([len(tags) for tags in simulated.posts.tags])
    assert posts.probability(simulated).sum(1).mean() == pytest.approx(2.5, abs=1e-6)
    assert sizes.min() >= 1
    assert abs(sizes.mean() - 2.5) < 4 * sizes.std() / np.sqrt(len(sizes))


@pytest.mark.parametrize("changes", [{}, {"num_styles": 5, "style_share": 0.8}])
def test_tagged_object_follows_preference(changes):
    simulated = posts.build_world(tiny(num_videos=3000, num_users=300, **changes))
    played = simulated.posts
    logits_VO = simulated.laws.preference_UG[played.user_V[:, None], played.objects_VO]
    style_VO = simulated.laws.style_preference_UJ[played.user_V[:, None], played.styles_VO]
    weight_VO = np.exp(logits_VO + style_VO)
    chosen_V = weight_VO[np.arange(3000), played.tagged_V] / weight_VO.sum(1)
    expected_V = ((weight_VO / weight_VO.sum(1, keepdims=True)) ** 2).sum(1)  # E of the same
    assert abs(chosen_V.mean() - expected_V.mean()) < 4 * chosen_V.std() / np.sqrt(3000)
    for clip, tags in enumerate(played.tags):
        owners = set(simulated.language.class_T[tags].tolist()) - {-1}
        assert owners <= {int(played.objects_VO[clip, played.tagged_V[clip]])}


def test_everything_world_ignores_preference():
    settings = [tiny(world=World.EVERYTHING, taste_strength=strength) for strength in (0.0, 9.0)]
    worlds = [posts.build_world(config) for config in settings]
    np.testing.assert_array_equal(*map(posts.probability, worlds))
    np.testing.assert_array_equal(*(world.laws.favourite_UG for world in worlds))


def test_without_preferences_objects_are_tagged_evenly():
    simulated = posts.build_world(tiny(taste_strength=0.0, dialect_strength=0.0))
    given_GT = simulated.language.given_class_EGT[0]
    expected_VT = given_GT[simulated.posts.objects_VO].mean(1)
    np.testing.assert_allclose(posts.probability(simulated), expected_VT, rtol=1e-9)


def test_a_style_is_nobodys_or_somebodys_favourite_but_not_everybodys():
    config = tiny(num_users=4000, num_styles=5, style_share=0.75, private_share=0.4)
    laws = [laws_lib.build_laws(dataclasses.replace(config, seed=seed)) for seed in range(60)]
    preference_SUJ = np.stack([one.style_preference.of_users(laws[0].users) for one in laws])
    deviation_J = preference_SUJ[0].std(0)
    np.testing.assert_array_less(np.abs(preference_SUJ[0].mean(0)), 4 * deviation_J / np.sqrt(4000))
    # Over seeds, the mean variance is style_share of taste_strength squared.
    assert preference_SUJ.var(axis=1).mean() == pytest.approx(0.75 * 9, rel=0.1)


def test_styles_change_neither_clips_nor_favourite_classes():
    plain, styled = (
        posts.build_world(tiny(world=World.ADDITIVE, num_styles=num_styles))
        for num_styles in (1, 6)
    )
    assert not plain.posts.styles_VO.any()
    assert set(styled.posts.styles_VO.ravel().tolist()) == set(range(6))
    np.testing.assert_array_equal(plain.posts.objects_VO, styled.posts.objects_VO)
    np.testing.assert_array_equal(posts.probability(plain), posts.probability(styled))


# --- the observable oracle


def observable_VT_of(simulated):
    posterior = observable_oracle.Posterior.of(simulated)
    return observable_oracle.average(posterior, posterior.predict)[0]


@pytest.mark.parametrize("kind", WORLDS)
def test_observable_oracle_is_the_oracle_when_nothing_is_hidden(kind):
    styles = {"num_styles": 3, "style_share": 0.5}
    simulated = posts.build_world(tiny(world=kind, private_share=0.0, missing_prob=0.0, **styles))
    expected_VT = posts.probability(simulated)
    np.testing.assert_allclose(observable_VT_of(simulated), expected_VT, atol=1e-6)


def history_likelihood(simulated, preference_G, dialect, tags):
    """Returns p(hashtags of an earlier post) by its definition."""
    language = simulated.language
    weight_G = simulated.laws.popularity_G * np.exp(preference_G)
    total = 0.0
    for kind, weight in enumerate(weight_G / weight_G.sum()):
        ids = np.flatnonzero((language.class_T == kind) | (language.class_T == -1))
        if set(tags) <= set(ids):
            rates = language.rates_ET[dialect, ids]
            used = np.prod(np.where(np.isin(ids, list(tags)), rates, 1 - rates))
            total += weight * used / (1 - np.prod(1 - rates))
    return total


@pytest.mark.parametrize("changes", [{}, {"num_styles": 3, "style_share": 0.5}])
def test_observable_oracle_by_quadrature(changes):
    """Sums over a grid of one private dimension and over a missing gender."""
    config = tiny(
        private_rank=1, private_share=0.7, posterior_samples=40_000, missing_prob=0.4, **changes
    )
    simulated = posts.build_world(config)
    laws, users = simulated.laws, simulated.laws.users
    posts_U = np.bincount(simulated.posts.user_V, minlength=config.num_users)
    hides_gender_U = (users.known_UA == [False, True, True]).all(1)
    with_history_U = np.array([len(history) > 0 for history in simulated.history])
    user = int(np.flatnonzero((posts_U >= 2) & hides_gender_U & with_history_U)[0])
    clips = np.flatnonzero(simulated.posts.user_V == user)
    clip, others = clips[0], clips[1:]
    dialect, played = simulated.laws.dialect_U[user], simulated.posts
    given_GT = simulated.language.given_class_EGT[dialect]
    only_class = [  # the same dataset if every post were about one class
        dataclasses.replace(simulated, laws=dataclasses.replace(laws, popularity_G=popularity_G))
        for popularity_G in np.eye(config.num_classes)
    ]
    weights, values = [], []
    for gender, z in itertools.product((0, 1), np.linspace(-5, 5, 201)):
        attributes = gender, users.age_U[user], users.country_U[user]
        preference_G, style_J = (
            preference.of_attributes(*attributes) + z * preference.private_LI[0]
            for preference in (laws.preference, laws.style_preference)
        )
        weight_VO = np.exp(preference_G[played.objects_VO] + style_J[played.styles_VO])
        chosen_VO = weight_VO / weight_VO.sum(1, keepdims=True)
        weight = names.GENDER_PROB_A[gender] * np.exp(-(z**2) / 2)
        for tags in simulated.history[user]:
            weight *= history_likelihood(simulated, preference_G, dialect, set(tags.tolist()))
        for other in others:
            tags = set(played.tags[other].tolist())
            weight *= sum(
                chosen * history_likelihood(only_class[kind], preference_G, dialect, tags)
                for chosen, kind in zip(chosen_VO[other], played.objects_VO[other], strict=True)
            )
        weights.append(weight)
        values.append(chosen_VO[clip] @ given_GT[played.objects_VO[clip]])
    expected_T = np.average(values, axis=0, weights=weights)
    actual_T = observable_VT_of(simulated)[clip]
    np.testing.assert_allclose(actual_T, expected_T, atol=0.01)
    prior_T = np.mean(values, axis=0)
    assert np.abs(prior_T - expected_T).max() > 0.03  # the evidence matters in this example


# --- users and the long tail


def test_missing_attributes(tmp_path):
    simulator.simulate(tmp_path, tiny(num_users=400, missing_prob=0.3))
    users = read_raw_dataset(tmp_path, strict=True, check_files=False).users.values()
    for missing in (lambda u: not u.gender, lambda u: u.age is None, lambda u: not u.country):
        share = np.mean([missing(user) for user in users])
        assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 400)
    assert all(user.age is None or 13 <= user.age < 60 for user in users)


def test_history_and_posts():
    config = tiny(num_videos=1500, num_users=1000, mean_history=6.0, no_history_prob=0.25)
    simulated = posts.build_world(config)
    lengths = np.array([sum(map(len, history)) for history in simulated.history])
    assert abs(lengths.mean() - 6.0) < 4 * lengths.std() / np.sqrt(1000)
    assert (lengths == 0).mean() > 0.2
    posts_U = np.bincount(simulated.posts.user_V, minlength=1000)
    assert posts_U.min() == 1 and posts_U.max() >= 8  # everyone posts, few post a lot
    assert all(len(set(row)) == 3 for row in simulated.posts.objects_VO.tolist())
    assert not any(posts.build_world(tiny(mean_history=0.0)).history)


def test_popularity_has_the_long_tail_of_its_exponent():
    config = tiny(num_videos=4000, zipf_exponent=1.0, objects_per_clip=1)
    objects_V = posts.build_world(config).posts.objects_VO[:, 0]
    rank = np.arange(1, 8)
    expected_G = 1 / rank / np.sum(1 / rank)
    counts_G = np.bincount(objects_V, minlength=7)
    np.testing.assert_allclose(counts_G / 4000, expected_G, atol=0.03)


def test_the_default_dataset_keeps_most_of_its_hashtags():
    simulated = posts.build_world(SimulatorConfig())
    uses_T = np.bincount(np.concatenate(simulated.posts.tags[:432]), minlength=60)
    assert (uses_T >= 10).sum() >= 36  # over five seeds mean 53, sd 4


def test_names_are_distinct_and_normalised():
    config = tiny(num_classes=names.MAX_CLASSES, num_hashtags=700, num_generic=40)
    laws = laws_lib.build_laws(config)
    assert len(set(laws.class_names)) == names.MAX_CLASSES
    assert len(set(laws.hashtags)) == 700
    assert all(name.isascii() and name.isalpha() and name.islower() for name in laws.hashtags)
