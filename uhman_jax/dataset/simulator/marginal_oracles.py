"""Oracles that know only the clip, or only the user.

    content   p(hashtag | the clip), averaged over users
    user      p(hashtag | observable facts of the user), averaged over clips

They bound models without the user and models without the clip. The observable oracle exceeds both
by what requires clip and user together.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.sparse

from uhman_jax.config import World
from uhman_jax.dataset.simulator.laws import stream
from uhman_jax.dataset.simulator.observable_oracle import Hypotheses, Posterior
from uhman_jax.dataset.simulator.posts import SimulatedWorld, draw_objects, favourite_prob

NUM_DRAWS = 4096  # sampled clips; the same for all users


def content_probability(world: SimulatedWorld) -> np.ndarray:
    """Returns p(hashtag is attached | content of the clip) as float32 [V, T].

    It is the exact mean of `posts.probability` over the users of the dataset, weighted by their
    numbers of clips, and equal for clips of equal content.
    """
    config, posts = world.config, world.posts
    kinds_VO = np.sort(posts.objects_VO * config.num_styles + posts.styles_VO, axis=1)
    kinds_SO, set_V = np.unique(kinds_VO, axis=0, return_inverse=True)
    probability_T = _content_law(world)
    table_ST = np.empty((len(kinds_SO), config.num_hashtags), np.float32)
    for index, kinds_O in enumerate(kinds_SO):
        table_ST[index] = probability_T(*np.divmod(kinds_O, config.num_styles))
    return table_ST[set_V.reshape(-1)]


def _content_law(world: SimulatedWorld) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns a function of a clip's classes and styles: p(hashtag) averaged over users."""
    config, language = world.config, world.language
    posts_U = np.bincount(world.posts.user_V, minlength=config.num_users)
    order_U = np.argsort(world.dialect_U, kind="stable")
    order_U = order_U[posts_U[order_U] > 0]
    share_U = posts_U[order_U] / config.num_videos
    dialects_E, starts_E = np.unique(world.dialect_U[order_U], return_index=True)

    if config.world is World.EVERYTHING:
        share_E = np.add.reduceat(share_U, starts_E)

        def everything(objects_O, styles_O):
            given = [language.given_set_T(dialect, objects_O) for dialect in dialects_E]
            return share_E @ np.stack(given)

        return everything

    if config.world is World.SELECTION:
        preference_GU = np.exp(world.preference_UG[order_U].T.copy())
        style_preference_JU = np.exp(world.style_preference_UJ[order_U].T.copy())

        def selection(objects_O, styles_O):
            weight_OU = preference_GU[objects_O] * style_preference_JU[styles_O]
            weight_OU *= share_U / weight_OU.sum(0)
            choice_EG = np.zeros((len(language.rates_ET), config.num_classes))
            by_dialect_OE = np.add.reduceat(weight_OU, starts_E, axis=1)
            choice_EG[np.ix_(dialects_E, objects_O)] = by_dialect_OE.T
            return language.given_mixture_T(choice_EG)

        return selection

    favourite_UG = favourite_prob(world.laws, world.preference_UG)[order_U] * share_U[:, None]
    mean_EG = np.zeros((len(language.rates_ET), config.num_classes))
    mean_EG[dialects_E] = config.user_share * np.add.reduceat(favourite_UG, starts_E, axis=0)

    def additive(objects_O, styles_O):
        choice_EG = mean_EG.copy()
        choice_EG[language.neutral, objects_O] += (1 - config.user_share) / len(objects_O)
        return language.given_mixture_T(choice_EG)

    return additive


@dataclasses.dataclass(frozen=True)
class AnyClip:
    """The user oracle: averages over the distribution of clips, given the user.

    The average is over `NUM_DRAWS` sampled clips; the frequency of each class is exact, only the
    other objects of a clip are sampled. For configs/worlds.py the error of a probability is 6 %
    (median) in World.SELECTION and that of the ranking's P@10 at most 0.0003 of 0.058; in
    World.EVERYTHING 0.1 % and less than 0.00001; World.ADDITIVE is exact.
    """

    judge: Posterior
    choice_AGQ: np.ndarray  # World.SELECTION: p(class is tagged | hypothesis), float32
    any_ET: np.ndarray  # World.EVERYTHING: p(hashtag | dialect)
    any_T: np.ndarray  # World.ADDITIVE: p(hashtag | the post is about an object of the clip)

    @classmethod
    def of(cls, judge: Posterior) -> "AnyClip":
        """Averages over clips for every combination of attributes and private preference."""
        config, laws = judge.world.config, judge.world.laws
        nothing = np.zeros(0)
        included_G = inclusion_prob(laws.popularity_G, config.objects_per_clip)
        if config.world is World.ADDITIVE:
            choice_EG = np.zeros(judge.log_silence_EG.shape)
            choice_EG[judge.world.language.neutral] = included_G / config.objects_per_clip
            return cls(judge, nothing, nothing, judge.world.language.given_mixture_T(choice_EG))
        rng = stream(config, "ceilings")
        objects_SO = draw_objects(laws.popularity_G, NUM_DRAWS, config.objects_per_clip, rng)
        styles_SO = rng.integers(config.num_styles, size=objects_SO.shape)
        if config.world is World.EVERYTHING:
            return cls(judge, nothing, _everything_ET(judge, objects_SO, included_G), nothing)
        kinds_SO = objects_SO * config.num_styles + styles_SO
        return cls(judge, _choice_AGQ(judge, kinds_SO, included_G), nothing, nothing)

    def predict(self, video: int, hypotheses: Hypotheses, weight_AQ: np.ndarray) -> np.ndarray:
        """Returns p(hashtag | user), as [T]; a `posterior.Predict`, the same for every video."""
        config = self.judge.world.config
        if config.world is World.EVERYTHING:
            return weight_AQ.sum(1) @ self.any_ET[hypotheses.dialect_A]
        if config.world is World.ADDITIVE:
            user_T = self.judge.favourites(hypotheses, weight_AQ)
            return (1 - config.user_share) * self.any_T + config.user_share * user_T
        pairs = zip(hypotheses.combination_A, weight_AQ.astype(np.float32), strict=True)
        choice_AG = np.stack([self.choice_AGQ[index] @ weight_Q for index, weight_Q in pairs])
        return self.judge.in_dialect(hypotheses, choice_AG)


def _choice_AGQ(judge: Posterior, kinds_SO: np.ndarray, included_G: np.ndarray) -> np.ndarray:
    """Returns p(class is tagged | attributes, private preference) over clips, float32.

    Args:
        judge: of World.SELECTION.
        kinds_SO: objects of the sampled clips S; a kind is class * number of styles + style.
        included_G: p(class is in a clip).
    """
    num_classes, num_styles = len(included_G), judge.world.config.num_styles
    shown_SI, share_S = _incidence(kinds_SO, num_classes * num_styles)
    frequency_G = (share_S @ shown_SI).reshape(num_classes, num_styles).sum(1)
    hypotheses = judge.combinations()
    num_draws = judge.private_GQ.shape[1]
    choice_AGQ = np.empty((len(hypotheses.prior_A), num_classes, num_draws), np.float32)
    for index in range(len(choice_AGQ)):
        weight_GQ = hypotheses.weight_AG[index][:, None] * judge.private_GQ
        weight_JQ = hypotheses.style_weight_AJ[index][:, None] * judge.style_private_JQ
        weight_IQ = (weight_GQ[:, None] * weight_JQ).reshape(-1, num_draws)
        per_weight_SQ = share_S[:, None] / (shown_SI @ weight_IQ)
        choice_IQ = weight_IQ * (shown_SI.T @ per_weight_SQ)
        choice_GQ = choice_IQ.reshape(num_classes, num_styles, num_draws).sum(1)
        choice_GQ *= (included_G / np.maximum(frequency_G, 1e-12))[:, None]
        choice_AGQ[index] = choice_GQ / choice_GQ.sum(0)
    return choice_AGQ


def _everything_ET(judge: Posterior, objects_SO: np.ndarray, included_G: np.ndarray) -> np.ndarray:
    """Returns p(hashtag | dialect) over clips, all of whose objects are tagged."""
    language = judge.world.language
    shown_SG, share_S = _incidence(objects_SO, len(included_G))
    generic_T = language.class_T < 0
    log_dull_E = np.log1p(-language.rates_ET[:, generic_T]).sum(1)  # no generic hashtag is drawn
    log_silence_SE = shown_SG @ (judge.log_silence_EG - log_dull_E[:, None]).T + log_dull_E
    per_rate_SE = share_S[:, None] / -np.expm1(log_silence_SE)
    correction_G = included_G / np.maximum(share_S @ shown_SG, 1e-12)
    per_rate_GE = (shown_SG.T @ per_rate_SE) * correction_G[:, None]
    per_rate_TE = np.where(generic_T[:, None], per_rate_SE.sum(0), per_rate_GE[language.class_T])
    return language.rates_ET * per_rate_TE.T


def _incidence(kinds_SO: np.ndarray, num_kinds: int) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """Returns which kinds each distinct sampled clip shows, and the frequency of the clip."""
    different_SO, count_S = np.unique(np.sort(kinds_SO, axis=1), axis=0, return_counts=True)
    starts = np.arange(0, different_SO.size + 1, kinds_SO.shape[1])
    ones = np.ones(different_SO.size)
    shape = (len(different_SO), num_kinds)
    shown_SI = scipy.sparse.csr_array((ones, different_SO.ravel(), starts), shape=shape)
    return shown_SI, count_S / len(kinds_SO)


def inclusion_prob(popularity_G: np.ndarray, num_objects: int) -> np.ndarray:
    """Returns p(class is among the objects of a clip), as `posts.draw_objects` draws them.

    Drawing by popularity without replacement is equivalent to a race: class g arrives after an
    exponential time of rate popularity_G[g], and the first `num_objects` are chosen. So the result
    is the integral, over the time of arrival, of the probability that fewer others came before.

    >>> inclusion_prob(np.array([0.5, 0.25, 0.25]), 2).round(6)  # 1/2 + 2 * 1/4 * 2/3, and so on
    array([0.833333, 0.583333, 0.583333])
    """
    nodes, weight_X = np.polynomial.legendre.leggauss(400)
    share_X = (1 + nodes) / 2
    time_X1 = (share_X / (1 - share_X))[:, None]
    weight_X1 = (weight_X / 2 / (1 - share_X) ** 2)[:, None]
    waiting_XG = np.exp(-popularity_G * time_X1)
    # Distribution of the number of other classes that have arrived, for every class g.
    others_XGN = np.zeros((*waiting_XG.shape, num_objects))
    others_XGN[:, :, 0] = 1
    for kind, waiting_X in enumerate(waiting_XG.T):
        waiting_XG1 = np.repeat(waiting_X[:, None, None], len(popularity_G), axis=1)
        waiting_XG1[:, kind] = 1  # g itself does not count
        arrived_XGN = others_XGN * (1 - waiting_XG1)
        others_XGN *= waiting_XG1
        others_XGN[:, :, 1:] += arrived_XGN[:, :, :-1]
    density_XG = popularity_G * waiting_XG * others_XGN.sum(2)
    return (weight_X1 * density_XG).sum(0)
