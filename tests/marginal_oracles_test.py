"""The oracles that know only the clip or only the user, against brute force."""

import dataclasses
import itertools

import numpy as np
import pytest
import small_worlds
from small_worlds import WORLDS, precision, with_clips

from uhman_jax import simulator
from uhman_jax.config import Config, SimulatorConfig, World
from uhman_jax.simulator import marginal_oracles, observable_oracle, posts
from uhman_jax.simulator.truth import load_truth


def tiny(**changes) -> SimulatorConfig:
    few = {"num_styles": 2, "style_share": 0.5, "posterior_samples": 300}
    return small_worlds.tiny(**few | changes)


def possible_clips(config, popularity_G):
    """(probability, classes, styles) of every clip that could be filmed, in every order."""
    styles = list(itertools.product(range(config.num_styles), repeat=config.objects_per_clip))
    for classes in itertools.permutations(range(config.num_classes), config.objects_per_clip):
        left, chance = 1.0, 1.0
        for kind in classes:
            chance *= popularity_G[kind] / left
            left -= popularity_G[kind]
        for ways in styles:
            yield chance / len(styles), np.array(classes), np.array(ways)


@pytest.fixture(scope="module", params=WORLDS)
def simulated(request):
    return posts.build_world(tiny(world=request.param))


# --- the content oracle


def test_content_is_the_mean_over_posters(simulated):
    content_VT = marginal_oracles.content_probability(simulated)
    played, count = simulated.posts, simulated.config.num_videos
    for clip in (0, 7):
        shown = played.objects_VO[[clip] * count], played.styles_VO[[clip] * count]
        expected_T = posts.probability(with_clips(simulated, played.user_V, *shown)).mean(0)
        np.testing.assert_allclose(content_VT[clip], expected_T, rtol=1e-5, atol=1e-7)
    assert content_VT.dtype == np.float32


def test_clips_that_show_the_same_have_the_same_content(simulated):
    played = simulated.posts
    objects_VO, styles_VO = played.objects_VO.copy(), played.styles_VO.copy()
    objects_VO[5], styles_VO[5] = objects_VO[3, ::-1], styles_VO[3, ::-1]
    posed = with_clips(simulated, played.user_V, objects_VO, styles_VO)
    content_VT = marginal_oracles.content_probability(posed)
    np.testing.assert_array_equal(content_VT[5], content_VT[3])
    assert np.abs(content_VT[4] - content_VT[3]).max() > 0.01
    styles_VO[5, 0] = 1 - styles_VO[5, 0]
    other_VT = marginal_oracles.content_probability(posed)
    differs = np.abs(other_VT[5] - other_VT[3]).max() > 1e-3
    assert differs == (simulated.config.world is World.SELECTION)  # styles count in no other


# --- the user oracle


def user_VT_of(simulated):
    posterior = observable_oracle.Posterior.of(simulated)
    return observable_oracle.average(posterior, marginal_oracles.user_oracle(posterior))[0]


@pytest.mark.parametrize(  # sampling error of 4,096 draws; the additive world has none
    ("kind", "tolerance"),
    [(World.SELECTION, 0.06), (World.ADDITIVE, 1e-5), (World.EVERYTHING, 0.006)],
)
def test_user_is_the_mean_over_possible_clips(kind, tolerance):
    """Replaces the real clip by every possible one, with the same weights of the hypotheses."""
    config = tiny(world=kind, missing_prob=0.4, mean_hashtags=1.6, generic_share=0.4)
    simulated = posts.build_world(config)
    played = simulated.posts
    posterior = observable_oracle.Posterior.of(simulated)
    user_oracle = marginal_oracles.user_oracle(posterior)
    user = int(np.argmax(np.bincount(played.user_V)))
    videos = np.flatnonzero(played.user_V == user)
    hypotheses, weight_VAQ = posterior.weigh(user, videos)
    clips = list(possible_clips(config, simulated.laws.popularity_G))
    assert sum(chance for chance, *_ in clips) == pytest.approx(1)
    for video, weight_AQ in list(zip(videos, weight_VAQ, strict=True))[:2]:
        expected_T = 0
        objects_VO, styles_VO = played.objects_VO.copy(), played.styles_VO.copy()
        posed = with_clips(simulated, played.user_V, objects_VO, styles_VO)
        posed_posterior = dataclasses.replace(posterior, world=posed)
        for chance, classes, ways in clips:
            objects_VO[video], styles_VO[video] = classes, ways
            expected_T = expected_T + chance * posed_posterior.predict(video, hypotheses, weight_AQ)
        actual_T = user_oracle(video, hypotheses, weight_AQ)
        np.testing.assert_allclose(actual_T, expected_T, rtol=tolerance, atol=tolerance / 1000)


def test_user_depends_on_the_clip_only_through_the_other_posts():
    simulated = posts.build_world(tiny())
    before_VT = user_VT_of(simulated)
    played = simulated.posts
    user = int(np.argmax(np.bincount(played.user_V)))
    clip, *others = np.flatnonzero(played.user_V == user)
    objects_VO = played.objects_VO.copy()
    kinds = simulated.language.class_T[played.tags[clip]]
    about = int(kinds[kinds >= 0][0]) if (kinds >= 0).any() else int(objects_VO[clip, 0])
    rest = [kind for kind in range(7) if kind not in objects_VO[clip]]
    objects_VO[clip] = [about, *rest[:2]]  # other company, and the hashtags still fit
    posed = with_clips(simulated, played.user_V, objects_VO, played.styles_VO)
    after_VT = user_VT_of(posed)
    np.testing.assert_array_equal(after_VT[clip], before_VT[clip])
    assert np.abs(after_VT[others] - before_VT[others]).max() > 1e-4
    strangers = played.user_V != user
    np.testing.assert_array_equal(after_VT[strangers], before_VT[strangers])


@pytest.mark.parametrize("num_objects", [1, 3, 7])
def test_inclusion_is_the_sum_over_orders(num_objects):
    config = tiny(objects_per_clip=num_objects, num_styles=1)
    popularity_G = np.arange(1.0, 8) ** -1.3
    popularity_G /= popularity_G.sum()
    expected_G = np.zeros(7)
    for chance, classes, _ in possible_clips(config, popularity_G):
        expected_G[classes] += chance
    np.testing.assert_allclose(
        marginal_oracles.inclusion_prob(popularity_G, num_objects), expected_G, rtol=1e-9
    )


def test_inclusion_at_the_papers_size_adds_up():
    popularity_G = np.arange(1.0, 151) ** -0.7
    included_G = marginal_oracles.inclusion_prob(popularity_G / popularity_G.sum(), 6)
    assert included_G.sum() == pytest.approx(6, rel=1e-9)
    assert (np.diff(included_G) < 0).all() and included_G[0] < 1


# --- the order of the oracles


def oracles_of(simulated):
    posterior = observable_oracle.Posterior.of(simulated)
    user_oracle = marginal_oracles.user_oracle(posterior)
    observable_VT, user_VT = observable_oracle.average(posterior, posterior.predict, user_oracle)
    return {
        "oracle": posts.probability(simulated),
        "observable": observable_VT,
        "content": marginal_oracles.content_probability(simulated),
        "user": user_VT,
    }


def shrunk(kind: World, **changes) -> SimulatorConfig:
    """Returns the study's settings with a tenth of its clips and users, a third of its hashtags."""
    from configs import worlds

    config = Config()
    getattr(worlds, kind.value)(config)
    small = {"num_videos": 900, "num_users": 500, "num_hashtags": 220, "num_classes": 31}
    return dataclasses.replace(config.simulator, posterior_samples=256, **small, **changes)


@pytest.mark.parametrize("kind", WORLDS)
def test_no_side_beats_both_and_only_selection_needs_them_together(kind):
    tables = oracles_of(posts.build_world(shrunk(kind)))
    p_VT, content_VT, user_VT = tables["oracle"], tables["content"], tables["user"]
    popularity_VT = np.tile(p_VT.mean(0), (len(p_VT), 1))
    # A score of the clip plus a score of the user, as logarithms or as probabilities.
    product_VT = np.maximum(content_VT, 1e-9) * np.maximum(user_VT, 1e-9) / popularity_VT
    tables |= {"product": product_VT, "sum": content_VT + user_VT - popularity_VT}
    score = {name: precision(table_VT, p_VT, 10) for name, table_VT in tables.items()}
    popular = precision(popularity_VT, p_VT, 10)
    assert score["oracle"] > score["observable"] > score["content"] > popular
    assert score["observable"] > score["user"] > popular
    best = max(score["product"], score["sum"])
    if kind is World.SELECTION:
        assert best < 0.9 * score["observable"]  # over five seeds mean 0.84, sd 0.01
    else:
        assert best > 0.98 * score["observable"]


def test_the_additive_world_is_the_sum_of_its_sides():
    """Each side has its part of p and the mean of the other part, a constant of the hashtag."""
    simulated = posts.build_world(tiny(world=World.ADDITIVE))
    tables = oracles_of(simulated)
    rest_VT = tables["observable"] - tables["content"] - tables["user"]
    np.testing.assert_allclose(rest_VT, np.tile(rest_VT[0], (len(rest_VT), 1)), atol=1e-6)
    own_VT = tables["oracle"] - tables["content"]  # depends only on the user
    first_V = [simulated.posts.user_V.tolist().index(user) for user in simulated.posts.user_V]
    np.testing.assert_allclose(own_VT, own_VT[first_V], atol=1e-6)


def test_in_everything_the_clip_determines_all_but_the_dialect():
    simulated = posts.build_world(tiny(world=World.EVERYTHING, dialect_strength=0.0))
    tables = oracles_of(simulated)
    np.testing.assert_allclose(tables["content"], tables["oracle"], rtol=1e-5)
    with_dialects = oracles_of(posts.build_world(tiny(world=World.EVERYTHING)))
    assert np.abs(with_dialects["content"] - with_dialects["oracle"]).max() > 0.05


def test_the_dataset_has_the_oracles(tmp_path, simulated):
    simulator.simulate(tmp_path, simulated.config)
    truth, tables = load_truth(tmp_path), oracles_of(simulated)
    for name in ("observable", "content", "user"):
        np.testing.assert_array_equal(getattr(truth, f"{name}_VT"), tables[name])
