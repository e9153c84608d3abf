"""The observable oracle: p(hashtag | what a model may see), the ceiling to compare models with.

A model may see the objects of the clip, the attributes that the dataset tells, and other posts of
the user: the history column, and their other clips with hashtags. It cannot see the user's private
taste nor a missing attribute. Those are averaged out here, by Bayes' rule under the world's laws:
missing attributes are enumerated with their prior; private taste is drawn from its prior and
weighted by the likelihood of the user's other posts (self-normalised importance sampling).

All other clips of the user count as seen, whichever split they fall into, and history comes as
posts although the dataset lists only hashtags: slightly more than a model may see, so a ceiling.
"""

import dataclasses

import numpy as np
from tqdm import tqdm

from uhman_jax.config import World
from uhman_jax.dataset.simulator import names
from uhman_jax.dataset.simulator.posts import SimulatedWorld
from uhman_jax.dataset.simulator.world import country_prob_A, stream


def observable_probability(world: SimulatedWorld) -> np.ndarray:
    """Returns p(hashtag is attached | clip, what may be seen of the user) as float32 [V, T]."""
    judge = _Judge.of(world)
    order_V = np.argsort(world.posts.user_V, kind="stable")
    bounds_U = np.searchsorted(world.posts.user_V[order_V], np.arange(world.config.num_users + 1))
    observable_VT = np.zeros((world.config.num_videos, world.config.num_hashtags), np.float32)
    users = tqdm(range(world.config.num_users), desc="observable oracle", unit="user", leave=False)
    for user in users:
        videos = order_V[bounds_U[user] : bounds_U[user + 1]]
        if len(videos):
            observable_VT[videos] = judge.predict(user, videos)
    return observable_VT


@dataclasses.dataclass(frozen=True)
class _Hypotheses:
    """What a user could be: combinations A of attributes; private tastes Q are common to all."""

    prior_A: np.ndarray
    dialect_A: np.ndarray
    weight_AG: np.ndarray  # exp of the taste that attributes explain
    popular_AG: np.ndarray  # the same times popularity
    total_AQ: np.ndarray  # sum over classes of popularity times exp of the whole taste


@dataclasses.dataclass(frozen=True)
class _Judge:
    """Weighs hypotheses by what they make of a post."""

    world: SimulatedWorld
    private_GQ: np.ndarray  # exp of the private taste of every draw
    given_EGT: np.ndarray
    log_silence_EG: np.ndarray  # log p(nothing | dialect, class) of one draw
    logit_ET: np.ndarray

    @classmethod
    def of(cls, world: SimulatedWorld) -> "_Judge":
        """Draws the private tastes: half of them, and their mirror images."""
        config, taste = world.config, world.laws.taste
        rng = stream(config, "posterior")
        half_QL = rng.standard_normal(((config.posterior_samples + 1) // 2, config.private_rank))
        private_QL = np.concatenate([half_QL, -half_QL])[: config.posterior_samples]
        rates_ET = world.language.rates_ET
        return cls(
            world=world,
            private_GQ=np.exp(private_QL @ taste.private_LG).T.copy(),
            given_EGT=world.language.given_class_EGT(),
            log_silence_EG=np.log(world.language.empty_EG()),
            logit_ET=np.log(rates_ET) - np.log1p(-rates_ET),
        )

    def predict(self, user: int, videos: np.ndarray) -> np.ndarray:
        """Returns p [videos, T] for all clips of one user, each without its own hashtags."""
        world, posts = self.world, self.world.posts
        hypotheses = self._hypotheses(user)
        start_AQ = np.log(hypotheses.prior_A)[:, None] + np.zeros(self.private_GQ.shape[1])
        for tags in world.history[user]:
            start_AQ = start_AQ + np.log(self._history_likelihood(hypotheses, tags))
        evidence_VAQ = np.zeros((len(videos), *start_AQ.shape))
        if len(videos) > 1:
            for row, video in enumerate(videos):
                seen = self._clip_likelihood(hypotheses, posts.objects_VO[video], posts.tags[video])
                evidence_VAQ[row] = np.log(seen)
        total_AQ = start_AQ + evidence_VAQ.sum(0)
        result_VT = np.empty((len(videos), world.config.num_hashtags), np.float32)
        for row, video in enumerate(videos):
            log_AQ = total_AQ - evidence_VAQ[row]
            weight_AQ = np.exp(log_AQ - log_AQ.max())
            weight_AQ /= weight_AQ.sum()
            result_VT[row] = self._mean(hypotheses, weight_AQ, posts.objects_VO[video])
        return result_VT

    def _hypotheses(self, user: int) -> _Hypotheses:
        """Returns the attribute combinations that agree with what is told of the user."""
        laws, users = self.world.laws, self.world.laws.users
        priors = (names.GENDER_PROB_A, names.AGE_PROB_A, country_prob_A(laws.config))
        truth = (users.gender_U[user], users.age_U[user], users.country_U[user])
        known = users.known_UA[user]
        choices = [
            [value] if told else range(len(prior))
            for value, prior, told in zip(truth, priors, known, strict=True)
        ]
        gender_A, age_A, country_A = (axis.ravel() for axis in np.meshgrid(*choices, indexing="ij"))
        prior_A = np.ones(len(gender_A))
        for value_A, prior in zip((gender_A, age_A, country_A), priors, strict=True):
            prior_A = prior_A * np.asarray(prior)[value_A]
        weight_AG = np.exp(laws.taste.of_attributes(gender_A, age_A, country_A))
        popular_AG = weight_AG * laws.popularity_G
        return _Hypotheses(
            prior_A=prior_A / prior_A.sum(),
            dialect_A=laws.dialect_of(age_A, country_A),
            weight_AG=weight_AG,
            popular_AG=popular_AG,
            total_AQ=popular_AG @ self.private_GQ,
        )

    def _set_prob(self, dialect_A, tags: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Returns p(exactly these hashtags | dialect, one class) as [A, classes]."""
        log_silence_AG = self.log_silence_EG[dialect_A][:, classes]
        log_AG = log_silence_AG + self.logit_ET[np.ix_(dialect_A, tags)].sum(1)[:, None]
        about = self.world.language.class_T[tags]
        fits_G = np.all((about[:, None] == classes) | (about[:, None] < 0), axis=0)
        return np.where(fits_G, np.exp(log_AG) / -np.expm1(log_silence_AG), 0.0)

    def _history_likelihood(self, hypotheses: _Hypotheses, tags: np.ndarray) -> np.ndarray:
        """Returns p(hashtags of an earlier post | hypothesis), [A, Q] or [A, 1]."""
        classes = np.arange(len(self.private_GQ))
        set_AG = self._set_prob(hypotheses.dialect_A, tags, classes)
        if self.world.config.world is World.EVERYTHING:
            return (set_AG @ self.world.laws.popularity_G)[:, None]
        possible = np.flatnonzero(set_AG.any(0))  # one class, unless all hashtags are generic
        weight_AG = (hypotheses.popular_AG * set_AG)[:, possible]
        return weight_AG @ self.private_GQ[possible] / hypotheses.total_AQ

    def _clip_likelihood(self, hypotheses: _Hypotheses, objects_O, tags) -> np.ndarray:
        """Returns p(hashtags of a clip | its objects, hypothesis); see `posts.probability`."""
        world, config = self.world, self.world.config
        if config.world is World.EVERYTHING:
            ids = np.flatnonzero(world.language.belongs_GT()[objects_O].any(0))
            rates_AT = world.language.rates_ET[np.ix_(hypotheses.dialect_A, ids)]
            used_AT = np.where(np.isin(ids, tags), rates_AT, 1 - rates_AT)
            empty_A = np.prod(1 - rates_AT, axis=1)
            return (used_AT.prod(1) / (1 - empty_A))[:, None]
        if config.world is World.SELECTION:
            set_AO = self._set_prob(hypotheses.dialect_A, tags, objects_O)
            weight_AO, tastes_OQ = hypotheses.weight_AG[:, objects_O], self.private_GQ[objects_O]
            return ((weight_AO * set_AO) @ tastes_OQ) / (weight_AO @ tastes_OQ)
        neutral_A = np.array([world.language.neutral])
        content = self._set_prob(neutral_A, tags, objects_O).mean()
        user_AQ = self._history_likelihood(hypotheses, tags)
        return (1 - config.user_share) * content + config.user_share * user_AQ

    def _mean(self, hypotheses: _Hypotheses, weight_AQ: np.ndarray, objects_O) -> np.ndarray:
        """Returns p(hashtag | clip) averaged over the hypotheses, as [T]."""
        world, config = self.world, self.world.config
        if config.world is World.EVERYTHING:
            rows = [world.language.given_set_T(e, objects_O) for e in hypotheses.dialect_A]
            return weight_AQ.sum(1) @ np.stack(rows)
        if config.world is World.SELECTION:
            weight_AO, tastes_OQ = hypotheses.weight_AG[:, objects_O], self.private_GQ[objects_O]
            choice_AO = weight_AO * ((weight_AQ / (weight_AO @ tastes_OQ)) @ tastes_OQ.T)
            given_AOT = self.given_EGT[hypotheses.dialect_A[:, None], objects_O]
            return np.einsum("ao,aot->t", choice_AO, given_AOT)
        per_taste_AQ = weight_AQ / hypotheses.total_AQ
        choice_AG = hypotheses.popular_AG * (per_taste_AQ @ self.private_GQ.T)
        by_dialect_EG = np.zeros(self.given_EGT.shape[:2])
        np.add.at(by_dialect_EG, hypotheses.dialect_A, choice_AG)
        user_T = np.einsum("eg,egt->t", by_dialect_EG, self.given_EGT, optimize=True)
        content_T = self.given_EGT[world.language.neutral, objects_O].mean(0)
        return (1 - config.user_share) * content_T + config.user_share * user_T
