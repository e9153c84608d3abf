"""Computes the observable oracle, p(hashtag | all that a model can observe).

A model can observe the objects of the clip, the attributes that the dataset has, and other posts of
the user: the history column, and their other clips with hashtags. It cannot observe the user's
private preference or a missing attribute. These are marginalised by Bayes' rule under the
generative model: missing attributes are enumerated with their prior; private preferences are drawn
from their prior and weighted by the likelihood of the user's other posts (self-normalised
importance sampling).

The oracle is an upper bound for models, because it observes slightly more: the user's other clips
in all splits, and the history post by post, of which the dataset has only the set of hashtags.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from uhman_jax.config import World
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.simulator import names
from uhman_jax.simulator.laws import country_prob_A, stream
from uhman_jax.simulator.posts import SimulatedWorld


@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """Hypotheses about a user: combinations A of attributes times private preferences Q."""

    combination_A: np.ndarray  # index among all combinations
    prior_A: np.ndarray
    dialect_A: np.ndarray
    weight_AG: np.ndarray  # exp of the preference that attributes explain
    style_weight_AJ: np.ndarray  # the same for styles
    popular_AG: np.ndarray  # weight_AG times popularity
    total_AQ: np.ndarray  # sum over classes of popularity times exp of the whole preference


# Takes (video, hypotheses, weight_AQ) and returns p(hashtag) under the weighted hypotheses, [T].
Predict = Callable[[int, Hypotheses, np.ndarray], np.ndarray]


def average(posterior: "Posterior", *predictions: Predict) -> list[np.ndarray]:
    """Returns a float32 table [V, T] for each prediction.

    A prediction is called once per clip, with the weights of the hypotheses given the user's other
    posts.
    """
    config, posts = posterior.world.config, posterior.world.posts
    shape_VT = (config.num_videos, config.num_hashtags)
    tables = [np.zeros(shape_VT, np.float32) for _ in predictions]
    users = np.unique(posts.user_V)
    for user in progress_bar(users, desc="observable oracle", unit="user", leave=False):
        videos = np.flatnonzero(posts.user_V == user)
        hypotheses, weight_VAQ = posterior.weigh(user, videos)
        for table_VT, predict in zip(tables, predictions, strict=True):
            for video, weight_AQ in zip(videos.tolist(), weight_VAQ, strict=True):
                table_VT[video] = predict(video, hypotheses, weight_AQ)
    return tables


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Computes the posterior of hypotheses about users, and predictions from it."""

    world: SimulatedWorld
    private_GQ: np.ndarray  # exp of the private preference of every draw
    style_private_JQ: np.ndarray  # the same for styles

    @classmethod
    def of(cls, world: SimulatedWorld) -> "Posterior":
        """Draws private preferences, in pairs of opposite sign to reduce the variance."""
        config, laws = world.config, world.laws
        rng = stream(config, "posterior")
        half_QL = rng.standard_normal(((config.posterior_samples + 1) // 2, config.private_rank))
        private_QL = np.concatenate([half_QL, -half_QL])[: config.posterior_samples]
        preferences = laws.preference, laws.style_preference
        return cls(world, *(np.exp(private_QL @ p.private_LI).T.copy() for p in preferences))

    @functools.cached_property
    def log_empty_EG(self) -> np.ndarray:
        """The logarithm of p(empty draw | dialect, class)."""
        return np.log(self.world.language.empty_EG)

    @functools.cached_property
    def _logit_ET(self) -> np.ndarray:
        rates_ET = self.world.language.rates_ET
        return np.log(rates_ET) - np.log1p(-rates_ET)

    def weigh(self, user: int, videos: np.ndarray) -> tuple[Hypotheses, np.ndarray]:
        """Returns the hypotheses about a user and their posteriors weight_VAQ, one per clip.

        The weights of a clip sum to 1 and do not depend on its own hashtags.
        """
        posts = self.world.posts
        hypotheses = self.hypotheses(user)
        start_AQ = np.log(hypotheses.prior_A)[:, None] + np.zeros(self.private_GQ.shape[1])
        for tags in self.world.history[user]:
            start_AQ = start_AQ + np.log(self._history_likelihood(hypotheses, tags))
        evidence_VAQ = np.zeros((len(videos), *start_AQ.shape))
        if len(videos) > 1:
            for row, video in enumerate(videos):
                likelihood_AQ = self._clip_likelihood(hypotheses, video, posts.tags[video])
                evidence_VAQ[row] = np.log(likelihood_AQ)
        log_VAQ = start_AQ + evidence_VAQ.sum(0) - evidence_VAQ
        weight_VAQ = np.exp(log_VAQ - log_VAQ.max((1, 2), keepdims=True))
        return hypotheses, weight_VAQ / weight_VAQ.sum((1, 2), keepdims=True)

    def hypotheses(self, user: int) -> Hypotheses:
        """Returns the hypotheses that agree with the user's known attributes."""
        users = self.world.laws.users
        truth = (users.gender_U[user], users.age_U[user], users.country_U[user])
        pairs = zip(truth, users.known_UA[user], strict=True)
        return self.combinations(*(value if known else None for value, known in pairs))

    def combinations(self, gender=None, age=None, country=None) -> Hypotheses:
        """Returns the hypotheses with these attributes; None means any value."""
        laws = self.world.laws
        priors = (names.GENDER_PROB_A, names.AGE_PROB_A, country_prob_A(laws.config))
        sizes = tuple(map(len, priors))
        choices = [
            range(size) if value is None else [value]
            for value, size in zip((gender, age, country), sizes, strict=True)
        ]
        values = tuple(axis.ravel() for axis in np.meshgrid(*choices, indexing="ij"))
        pairs = zip(priors, values, strict=True)
        prior_A = np.prod([np.asarray(prior)[value_A] for prior, value_A in pairs], axis=0)
        weight_AG = np.exp(laws.preference.of_attributes(*values))
        popular_AG = weight_AG * laws.popularity_G
        return Hypotheses(
            combination_A=np.ravel_multi_index(values, sizes),
            prior_A=prior_A / prior_A.sum(),
            dialect_A=laws.dialect_of(*values[1:]),
            weight_AG=weight_AG,
            style_weight_AJ=np.exp(laws.style_preference.of_attributes(*values)),
            popular_AG=popular_AG,
            total_AQ=popular_AG @ self.private_GQ,
        )

    def _set_prob(self, dialect_A, tags: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Returns p(exactly these hashtags | dialect, one class) as [A, classes]."""
        log_empty_AG = self.log_empty_EG[dialect_A][:, classes]
        log_AG = log_empty_AG + self._logit_ET[np.ix_(dialect_A, tags)].sum(1)[:, None]
        fits_G = self.world.language.belongs_GT[np.ix_(classes, tags)].all(1)
        return np.where(fits_G, np.exp(log_AG) / -np.expm1(log_empty_AG), 0.0)

    def _history_likelihood(self, hypotheses: Hypotheses, tags: np.ndarray) -> np.ndarray:
        """Returns p(hashtags of an earlier post | hypothesis), [A, Q] or [A, 1]."""
        classes = np.arange(len(self.private_GQ))
        set_AG = self._set_prob(hypotheses.dialect_A, tags, classes)
        if self.world.config.world is World.EVERYTHING:
            return (set_AG @ self.world.laws.popularity_G)[:, None]
        possible = np.flatnonzero(set_AG.any(0))  # one class, unless all hashtags are generic
        weight_AG = (hypotheses.popular_AG * set_AG)[:, possible]
        return weight_AG @ self.private_GQ[possible] / hypotheses.total_AQ

    def _clip_likelihood(self, hypotheses: Hypotheses, video: int, tags) -> np.ndarray:
        """Returns p(hashtags of a clip | its objects, hypothesis); see `posts.probability`."""
        world, config = self.world, self.world.config
        objects_O = world.posts.objects_VO[video]
        if config.world is World.EVERYTHING:
            ids = np.flatnonzero(world.language.belongs_GT[objects_O].any(0))
            rates_AT = world.language.rates_ET[np.ix_(hypotheses.dialect_A, ids)]
            used_AT = np.where(np.isin(ids, tags), rates_AT, 1 - rates_AT)
            empty_A = np.prod(1 - rates_AT, axis=1)
            return (used_AT.prod(1) / (1 - empty_A))[:, None]
        if config.world is World.SELECTION:
            set_AO = self._set_prob(hypotheses.dialect_A, tags, objects_O)
            weight_AO, preferences_OQ = self._preferences(hypotheses, video)
            return ((weight_AO * set_AO) @ preferences_OQ) / (weight_AO @ preferences_OQ)
        neutral_A = np.array([world.language.neutral])
        content = self._set_prob(neutral_A, tags, objects_O).mean()
        user_AQ = self._history_likelihood(hypotheses, tags)
        return (1 - config.user_share) * content + config.user_share * user_AQ

    def _preferences(self, hypotheses: Hypotheses, video: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns exp of the preference for a clip's objects as two factors, [A, O] and [O, Q]."""
        posts = self.world.posts
        objects_O, styles_O = posts.objects_VO[video], posts.styles_VO[video]
        weight_AO = hypotheses.weight_AG[:, objects_O] * hypotheses.style_weight_AJ[:, styles_O]
        return weight_AO, self.private_GQ[objects_O] * self.style_private_JQ[styles_O]

    def predict(self, video: int, hypotheses: Hypotheses, weight_AQ: np.ndarray) -> np.ndarray:
        """Returns p(hashtag | clip) averaged over the hypotheses, as [T]; a `Predict`."""
        world, config, given_EGT = (
            self.world,
            self.world.config,
            self.world.language.given_class_EGT,
        )
        objects_O = world.posts.objects_VO[video]
        if config.world is World.EVERYTHING:
            dialects, index_A = np.unique(hypotheses.dialect_A, return_inverse=True)
            rows = [world.language.given_set_T(e, objects_O) for e in dialects]
            return np.bincount(index_A, weight_AQ.sum(1)) @ np.stack(rows)
        if config.world is World.SELECTION:
            weight_AO, preferences_OQ = self._preferences(hypotheses, video)
            choice_AO = weight_AO * ((weight_AQ / (weight_AO @ preferences_OQ)) @ preferences_OQ.T)
            given_AOT = given_EGT[hypotheses.dialect_A[:, None], objects_O]
            return np.einsum("ao,aot->t", choice_AO, given_AOT)
        content_T = given_EGT[world.language.neutral, objects_O].mean(0)
        user_T = self.favourites(hypotheses, weight_AQ)
        return (1 - config.user_share) * content_T + config.user_share * user_T

    def favourites(self, hypotheses: Hypotheses, weight_AQ: np.ndarray) -> np.ndarray:
        """Returns p(hashtag | the post is about a favourite class) over the hypotheses, as [T]."""
        weight_AG = (weight_AQ / hypotheses.total_AQ) @ self.private_GQ.T
        return self.in_dialect(hypotheses, hypotheses.popular_AG * weight_AG)

    def in_dialect(self, hypotheses: Hypotheses, choice_AG: np.ndarray) -> np.ndarray:
        """Returns p(hashtag) as [T], given the probability of each combination and class."""
        choice_EG = np.zeros(self.log_empty_EG.shape)
        np.add.at(choice_EG, hypotheses.dialect_A, choice_AG)
        return self.world.language.given_mixture_T(choice_EG)
