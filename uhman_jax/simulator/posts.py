"""Draws simulated clips, their users and hashtags, and computes the true probabilities."""

import dataclasses
from typing import assert_never

import numpy as np

from uhman_jax.config import SimulatorConfig, World
from uhman_jax.runtime.errors import UserError
from uhman_jax.simulator.laws import Language, Laws, build_laws, softmax, speak, stream

FIRST_POST = 1_451_606_400  # 2016-01-01, unix seconds
POSTING_SECONDS = 2 * 365 * 24 * 3600


@dataclasses.dataclass(frozen=True)
class Posts:
    """The clips of the dataset."""

    user_V: np.ndarray
    objects_VO: np.ndarray  # classes, all different within a clip
    styles_VO: np.ndarray  # style in which each object is shown
    timestamp_V: np.ndarray  # unix seconds
    tagged_V: np.ndarray  # index of the tagged object in `objects_VO`, -1: none or all
    tags: tuple[np.ndarray, ...]  # hashtag ids, ascending, never empty


@dataclasses.dataclass(frozen=True)
class SimulatedWorld:
    """The parameters of a generative model and all posts that were drawn from it."""

    laws: Laws
    language: Language
    posts: Posts
    history: tuple[tuple[np.ndarray, ...], ...]  # per user, per earlier post: hashtag ids

    @property
    def config(self) -> SimulatorConfig:
        """The settings of the simulation."""
        return self.laws.config

    def affinity_VO(self) -> np.ndarray:
        """Returns the preference logit of every clip's user for each of its objects."""
        posts = self.posts
        return self.laws.affinity_VO(posts.user_V, posts.objects_VO, posts.styles_VO)


def build_world(config: SimulatorConfig) -> SimulatedWorld:
    """Draws the simulated posts; a pure function of `config`.

    Raises:
        UserError: the settings are invalid, or they cannot give `mean_hashtags` per clip.
    """
    match config.world:
        case World.SELECTION | World.ADDITIVE | World.EVERYTHING:
            laws = build_laws(config)
        case _:
            assert_never(config.world)
    rng = stream(config, "clips")
    user_V = draw_posters(config, rng)
    objects_VO = draw_objects(laws.popularity_G, config.num_videos, config.objects_per_clip, rng)
    timestamp_V = FIRST_POST + rng.integers(0, POSTING_SECONDS, config.num_videos)
    styles_VO = stream(config, "styles", 1).integers(config.num_styles, size=objects_VO.shape)
    choice_VO = softmax(laws.affinity_VO(user_V, objects_VO, styles_VO))
    language = calibrate(laws, user_V, objects_VO, choice_VO)
    rng = stream(config, "tags")
    clips = zip(user_V, objects_VO, choice_VO, strict=True)
    tagged_V, tags = zip(*(draw_tags(laws, language, rng, *clip) for clip in clips), strict=True)
    posts = Posts(user_V, objects_VO, styles_VO, timestamp_V, np.array(tagged_V), tags)
    return SimulatedWorld(laws, language, posts, draw_history(laws, language))


def draw_posters(config: SimulatorConfig, rng: np.random.Generator) -> np.ndarray:
    """Returns user_V: one clip per user if there are enough; the rest is long-tailed over users."""
    once_U = rng.permutation(config.num_users)[: config.num_videos]
    weight_U = rng.pareto(2.0, config.num_users) + 0.1
    more = config.num_videos - len(once_U)
    again_V = rng.choice(config.num_users, more, p=weight_U / weight_U.sum())
    return rng.permutation(np.concatenate([once_U, again_V]))


def draw_objects(popularity_G, num_clips: int, num_objects: int, rng) -> np.ndarray:
    """Returns objects_VO, drawn by popularity without replacement (Gumbel top-k)."""
    gumbel_VG = rng.gumbel(size=(num_clips, len(popularity_G)))
    return np.argsort(-(np.log(popularity_G) + gumbel_VG), axis=1)[:, :num_objects]


def calibrate(laws: Laws, user_V, objects_VO, choice_VO) -> Language:
    """Returns the language with `config.mean_hashtags` expected hashtags per clip."""
    goal = laws.config.mean_hashtags

    def mean_size(scale: float) -> float:
        size_V = expected_size(laws, speak(laws, scale), user_V, objects_VO, choice_VO)
        return float(size_V.mean())

    low, high = np.log(1e-4), np.log(1e4)
    smallest, largest = mean_size(np.exp(low)), mean_size(np.exp(high))
    if not smallest < goal < largest:
        raise UserError(
            f"simulator.mean_hashtags must lie between {smallest:.2f} and {largest:.2f} with "
            f"these settings, got {goal}; change it, num_hashtags or num_classes"
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_size(np.exp(middle)) < goal else (low, middle)
    return speak(laws, np.exp(low))


def expected_size(laws: Laws, language: Language, user_V, objects_VO, choice_VO) -> np.ndarray:
    """Returns the expected number of hashtags of every clip: the row sums of `probability`."""
    config, dialect_V = laws.config, laws.dialect_U[user_V]
    if config.world is World.EVERYTHING:
        generic_T = language.generic_T
        generic_E = language.rates_ET[:, generic_T].sum(1)
        no_generic_E = np.exp(np.log1p(-language.rates_ET[:, generic_T]).sum(1))
        words_EG = language.rates_ET @ language.belongs_GT.T - generic_E[:, None]
        no_words_EG = language.empty_EG / no_generic_E[:, None]
        rows_V1 = dialect_V[:, None]
        empty_V = no_words_EG[rows_V1, objects_VO].prod(1) * no_generic_E[dialect_V]
        return (words_EG[rows_V1, objects_VO].sum(1) + generic_E[dialect_V]) / (1 - empty_V)
    size_EG = language.size_EG
    if config.world is World.SELECTION:
        return (choice_VO * size_EG[dialect_V[:, None], objects_VO]).sum(1)
    content_V = size_EG[language.neutral][objects_VO].mean(1)
    user_U = (laws.favourite_UG * size_EG[laws.dialect_U]).sum(1)
    return (1 - config.user_share) * content_V + config.user_share * user_U[user_V]


def probability(world: SimulatedWorld) -> np.ndarray:
    """Returns the true p(hashtag | clip, user) as float64 [V, T].

    - World.SELECTION: the hashtags are about one object, in the user's dialect. The user chooses it
      by a softmax of their preferences for its class and its style.
    - World.ADDITIVE: with probability `user_share` the hashtags are about a favourite class, in the
      user's dialect and independent of the clip; otherwise they are about a random object of the
      clip, in the neutral dialect. So p is the sum of a term of the clip and a term of the user.
    - World.EVERYTHING: the hashtags are about all objects, in the user's dialect.
    """
    config, laws, posts, language = world.config, world.laws, world.posts, world.language
    dialect_V = laws.dialect_U[posts.user_V]
    if config.world is World.EVERYTHING:
        pairs = zip(dialect_V, posts.objects_VO, strict=True)
        return np.stack([language.given_set_T(dialect, objects) for dialect, objects in pairs])
    given_EGT = language.given_class_EGT
    if config.world is World.SELECTION:
        choice_VO = softmax(world.affinity_VO())
        probability_VT = np.zeros((config.num_videos, config.num_hashtags))
        for choice_V, object_V in zip(choice_VO.T, posts.objects_VO.T, strict=True):
            probability_VT += choice_V[:, None] * given_EGT[dialect_V, object_V]
        return probability_VT
    pairs = zip(laws.favourite_UG, laws.dialect_U, strict=True)
    user_UT = np.stack([favourite_G @ given_EGT[dialect] for favourite_G, dialect in pairs])
    probability_VT = config.user_share * user_UT[posts.user_V]
    for object_V in posts.objects_VO.T:
        part = (1 - config.user_share) / config.objects_per_clip
        probability_VT += part * given_EGT[language.neutral, object_V]
    return probability_VT


def draw_tags(laws: Laws, language: Language, rng: np.random.Generator, user, objects_O, choice_O):
    """Returns the index of the tagged object (or -1), and ascending hashtag ids, at least one.

    Args:
        laws: parameters of the generative model.
        language: rates of hashtags in all dialects.
        rng: random generator.
        user: index of the user who posts the clip.
        objects_O: classes in the clip.
        choice_O: probability that the user chooses each object; World.SELECTION only.
    """
    config, dialect = laws.config, laws.dialect_U[user]
    if config.world is World.EVERYTHING:
        return -1, draw_words(language, dialect, objects_O, rng)
    if config.world is World.SELECTION:
        index = int(rng.choice(len(objects_O), p=choice_O))
        return index, draw_words(language, dialect, objects_O[[index]], rng)
    if rng.random() >= config.user_share:
        index = int(rng.integers(len(objects_O)))
        return index, draw_words(language, language.neutral, objects_O[[index]], rng)
    favourite = rng.choice(config.num_classes, p=laws.favourite_UG[user])
    index = objects_O.tolist().index(favourite) if favourite in objects_O else -1
    return index, draw_words(language, dialect, np.array([favourite]), rng)


def draw_words(language: Language, dialect: int, classes: np.ndarray, rng) -> np.ndarray:
    """Returns ascending hashtag ids about some classes, at least one."""
    ids = np.flatnonzero(language.belongs_GT[classes].any(0))
    rates = language.rates_ET[dialect, ids]
    while True:
        if len(chosen := ids[rng.random(len(ids)) < rates]):
            return chosen


def draw_history(laws: Laws, language: Language) -> tuple[tuple[np.ndarray, ...], ...]:
    """Returns the hashtags of each user's posts before the dataset begins; some users have none.

    Each of these posts is about one class, drawn with the probabilities `favourite_UG`, and has
    hashtags in the user's dialect. Their clips are not in the dataset.
    """
    config, rng = laws.config, stream(laws.config, "history")
    size_U = (laws.favourite_UG * language.size_EG[laws.dialect_U]).sum(1)
    mean_posts = config.mean_history / size_U.mean() / max(1 - config.no_history_prob, 1e-9)
    posts_U = rng.poisson(rng.gamma(1.5, mean_posts / 1.5, config.num_users))
    posts_U[rng.random(config.num_users) < config.no_history_prob] = 0
    history = []
    for user, num_posts in enumerate(posts_U):
        classes = rng.choice(config.num_classes, (num_posts, 1), p=laws.favourite_UG[user])
        dialect = laws.dialect_U[user]
        history.append(tuple(draw_words(language, dialect, row, rng) for row in classes))
    return tuple(history)
