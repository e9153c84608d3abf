"""Computes the oracles that know only the clip, or only the user.

    content   p(hashtag | clip), averaged over users
    user      p(hashtag | observable data of the user), averaged over clips

They are upper bounds for models without the user and models without the clip. The observable oracle
exceeds both where a prediction needs both the clip and the user.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse

from uhman_jax.config import World
from uhman_jax.simulator.laws import stream
from uhman_jax.simulator.observable_oracle import Hypotheses, Posterior, Predict
from uhman_jax.simulator.posts import SimulatedWorld, draw_objects

NUM_DRAWS = 4096  # sampled clips; the same for all users


def content_probability(world: SimulatedWorld) -> np.ndarray:
    """Returns p(hashtag is attached | content of the clip) as float32 [V, T].

    This is the exact mean of `posts.probability` over the users of the dataset, weighted by their
    numbers of clips. Clips of equal content have equal values.
    """
    config, posts = world.config, world.posts
    kinds_VO = np.sort(posts.objects_VO * config.num_styles + posts.styles_VO, axis=1)
    kinds_SO, set_V = np.unique(kinds_VO, axis=0, return_inverse=True)
    probability_T = _content_model(world)
    table_ST = np.empty((len(kinds_SO), config.num_hashtags), np.float32)
    for index, kinds_O in enumerate(kinds_SO):
        table_ST[index] = probability_T(*np.divmod(kinds_O, config.num_styles))
    return table_ST[set_V.reshape(-1)]


def _content_model(world: SimulatedWorld) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns a function of a clip's classes and styles: p(hashtag) averaged over users."""
    config, laws, language = world.config, world.laws, world.language
    posts_U = np.bincount(world.posts.user_V, minlength=config.num_users)
    order_U = np.argsort(laws.dialect_U, kind="stable")
    order_U = order_U[posts_U[order_U] > 0]
    share_U = posts_U[order_U] / config.num_videos
    dialects_E, starts_E = np.unique(laws.dialect_U[order_U], return_index=True)

    if config.world is World.EVERYTHING:
        share_E = np.add.reduceat(share_U, starts_E)

        def everything(objects_O, styles_O):
            given = [language.given_set_T(dialect, objects_O) for dialect in dialects_E]
            return share_E @ np.stack(given)

        return everything

    if config.world is World.SELECTION:
        preference_GU = np.exp(laws.preference_UG[order_U].T.copy())
        style_preference_JU = np.exp(laws.style_preference_UJ[order_U].T.copy())

        def selection(objects_O, styles_O):
            weight_OU = preference_GU[objects_O] * style_preference_JU[styles_O]
            weight_OU *= share_U / weight_OU.sum(0)
            choice_EG = np.zeros((len(language.rates_ET), config.num_classes))
            by_dialect_OE = np.add.reduceat(weight_OU, starts_E, axis=1)
            choice_EG[np.ix_(dialects_E, objects_O)] = by_dialect_OE.T
            return language.given_mixture_T(choice_EG)

        return selection

    favourite_UG = laws.favourite_UG[order_U] * share_U[:, None]
    mean_EG = np.zeros((len(language.rates_ET), config.num_classes))
    mean_EG[dialects_E] = config.user_share * np.add.reduceat(favourite_UG, starts_E, axis=0)

    def additive(objects_O, styles_O):
        choice_EG = mean_EG.copy()
        choice_EG[language.neutral, objects_O] += (1 - config.user_share) / len(objects_O)
        return language.given_mixture_T(choice_EG)

    return additive


def user_oracle(posterior: Posterior) -> Predict:
    """Returns the prediction p(hashtag | user): the mean over the distribution of clips.

    World.ADDITIVE is exact. Otherwise the mean is over `NUM_DRAWS` sampled clips; the frequency of
    each class is exact, only the other objects of a clip are sampled. Errors for configs/worlds.py:

    - World.SELECTION: 6 % of a probability (median), and at most 0.0003 of a P@10 of 0.058.
    - World.EVERYTHING: the same errors are 0.1 % and less than 0.00001.
    """
    config, laws, language = posterior.world.config, posterior.world.laws, posterior.world.language
    included_G = inclusion_prob(laws.popularity_G, config.objects_per_clip)
    if config.world is World.ADDITIVE:
        choice_EG = np.zeros(posterior.log_empty_EG.shape)
        choice_EG[language.neutral] = included_G / config.objects_per_clip
        content_T = (1 - config.user_share) * language.given_mixture_T(choice_EG)

        def additive(video: int, hypotheses: Hypotheses, weight_AQ: np.ndarray) -> np.ndarray:
            return content_T + config.user_share * posterior.favourites(hypotheses, weight_AQ)

        return additive

    rng = stream(config, "oracles")
    objects_SO = draw_objects(laws.popularity_G, NUM_DRAWS, config.objects_per_clip, rng)
    if config.world is World.EVERYTHING:
        any_ET = _everything_ET(posterior, objects_SO, included_G)

        def everything(video: int, hypotheses: Hypotheses, weight_AQ: np.ndarray) -> np.ndarray:
            return weight_AQ.sum(1) @ any_ET[hypotheses.dialect_A]

        return everything

    styles_SO = rng.integers(config.num_styles, size=objects_SO.shape)
    choice_AGQ = _choice_AGQ(posterior, objects_SO * config.num_styles + styles_SO, included_G)

    def selection(video: int, hypotheses: Hypotheses, weight_AQ: np.ndarray) -> np.ndarray:
        pairs = zip(hypotheses.combination_A, weight_AQ.astype(np.float32), strict=True)
        choice_AG = np.stack([choice_AGQ[index] @ weight_Q for index, weight_Q in pairs])
        return posterior.in_dialect(hypotheses, choice_AG)

    return selection


def _choice_AGQ(posterior: Posterior, kinds_SO: np.ndarray, included_G: np.ndarray) -> np.ndarray:
    """Returns p(class is tagged | attributes, private preference) over all clips, float32.

    Args:
        posterior: of World.SELECTION.
        kinds_SO: objects of the sampled clips S; a kind is class * number of styles + style.
        included_G: p(class is in a clip).
    """
    num_classes, num_styles = len(included_G), posterior.world.config.num_styles
    shown_SI, share_S = _incidence(kinds_SO, num_classes * num_styles)
    frequency_G = (share_S @ shown_SI).reshape(num_classes, num_styles).sum(1)
    hypotheses = posterior.combinations()
    num_draws = posterior.private_GQ.shape[1]
    choice_AGQ = np.empty((len(hypotheses.prior_A), num_classes, num_draws), np.float32)
    for index in range(len(choice_AGQ)):
        weight_GQ = hypotheses.weight_AG[index][:, None] * posterior.private_GQ
        weight_JQ = hypotheses.style_weight_AJ[index][:, None] * posterior.style_private_JQ
        weight_IQ = (weight_GQ[:, None] * weight_JQ).reshape(-1, num_draws)
        per_weight_SQ = share_S[:, None] / (shown_SI @ weight_IQ)
        choice_IQ = weight_IQ * (shown_SI.T @ per_weight_SQ)
        choice_GQ = choice_IQ.reshape(num_classes, num_styles, num_draws).sum(1)
        choice_GQ *= (included_G / np.maximum(frequency_G, 1e-12))[:, None]
        choice_AGQ[index] = choice_GQ / choice_GQ.sum(0)
    return choice_AGQ


def _everything_ET(
    posterior: Posterior, objects_SO: np.ndarray, included_G: np.ndarray
) -> np.ndarray:
    """Returns p(hashtag | dialect) over all clips in World.EVERYTHING."""
    language = posterior.world.language
    shown_SG, share_S = _incidence(objects_SO, len(included_G))
    generic_T = language.generic_T
    log_no_generic_E = np.log1p(-language.rates_ET[:, generic_T]).sum(1)
    log_no_words_EG = posterior.log_empty_EG - log_no_generic_E[:, None]
    log_empty_SE = shown_SG @ log_no_words_EG.T + log_no_generic_E
    per_rate_SE = share_S[:, None] / -np.expm1(log_empty_SE)
    correction_G = included_G / np.maximum(share_S @ shown_SG, 1e-12)
    per_rate_GE = (shown_SG.T @ per_rate_SE) * correction_G[:, None]
    per_rate_TE = np.where(generic_T[:, None], per_rate_SE.sum(0), per_rate_GE[language.class_T])
    return language.rates_ET * per_rate_TE.T


def _incidence(kinds_SO: np.ndarray, num_kinds: int) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """Returns the kinds that each distinct sampled clip shows, and the frequency of the clip."""
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
    is the integral over the arrival time of g of p(fewer than `num_objects` others came before).

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
    for other, waiting_X in enumerate(waiting_XG.T):
        waiting_XG1 = np.repeat(waiting_X[:, None, None], len(popularity_G), axis=1)
        waiting_XG1[:, other] = 1  # g itself does not count
        arrived_XGN = others_XGN * (1 - waiting_XG1)
        others_XGN *= waiting_XG1
        others_XGN[:, :, 1:] += arrived_XGN[:, :, :-1]
    density_XG = popularity_G * waiting_XG * others_XGN.sum(2)
    return (weight_X1 * density_XG).sum(0)
