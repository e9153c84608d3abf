"""Draws the parameters of the generative model: users, object classes, preferences, language."""

import dataclasses
import functools

import numpy as np

from uhman_jax.config import Config, SimulatorConfig, SimulatorOutput, World
from uhman_jax.config_checks import validate
from uhman_jax.runtime.errors import UserError
from uhman_jax.simulator import names

# Purposes of the independent random streams; a stream depends on its index, so append new ones.
STREAMS = ("classes", "words", "preference", "users", "clips", "tags", "history", "posterior")
STREAMS += ("media", "styles", "oracles")


def stream(config: SimulatorConfig, purpose: str, *more: int) -> np.random.Generator:
    """Returns the generator of one purpose; `more` divides it further, for example by clip."""
    seeds = np.random.SeedSequence([config.seed, STREAMS.index(purpose), *more])
    return np.random.Generator(np.random.PCG64(seeds))


@dataclasses.dataclass(frozen=True)
class Users:
    """The users; attributes are indices into the tuples of `names`."""

    gender_U: np.ndarray
    age_U: np.ndarray  # bucket
    years_U: np.ndarray  # age in years
    country_U: np.ndarray
    known_UA: np.ndarray  # bool, whether the dataset has the gender, age and country
    private_UL: np.ndarray  # standard normal latent preference, independent of attributes


@dataclasses.dataclass(frozen=True)
class Preference:
    """Preferences of users for classes or styles (I), as logits: the sum of four terms."""

    gender_AI: np.ndarray
    age_AI: np.ndarray
    country_AI: np.ndarray
    private_LI: np.ndarray

    def of_attributes(self, gender, age, country) -> np.ndarray:
        """Returns the part [..., I] that attributes explain."""
        return self.gender_AI[gender] + self.age_AI[age] + self.country_AI[country]

    def of_users(self, users: Users) -> np.ndarray:
        """Returns the whole preference of each user, [U, I]."""
        explained_UI = self.of_attributes(users.gender_U, users.age_U, users.country_U)
        return explained_UI + users.private_UL @ self.private_LI


@dataclasses.dataclass(frozen=True)
class Language:
    """Probabilities of attaching a hashtag, given the class that a post is about.

    Given a class, each of its hashtags and each generic hashtag is attached independently with its
    rate; an empty draw is repeated.
    """

    class_T: np.ndarray  # class of a hashtag, -1: generic
    rates_ET: np.ndarray  # in (0, 1); the last row is the neutral dialect, the mean of the others

    @property
    def neutral(self) -> int:
        """The index of the neutral dialect."""
        return len(self.rates_ET) - 1

    @property
    def generic_T(self) -> np.ndarray:
        """Whether a hashtag belongs to all classes, bool."""
        return self.class_T < 0

    @functools.cached_property
    def belongs_GT(self) -> np.ndarray:
        """Whether a post about a class may have a hashtag, bool."""
        classes_G1 = np.arange(self.class_T.max() + 1)[:, None]
        return (self.class_T == classes_G1) | self.generic_T

    @functools.cached_property
    def empty_EG(self) -> np.ndarray:
        """The probability that one draw for a class is empty."""
        return np.exp(np.log1p(-self.rates_ET) @ self.belongs_GT.T)

    @functools.cached_property
    def size_EG(self) -> np.ndarray:
        """The expected number of hashtags of a post about a class."""
        return self.rates_ET @ self.belongs_GT.T / (1 - self.empty_EG)

    @functools.cached_property
    def given_class_EGT(self) -> np.ndarray:
        """The probability p(hashtag is attached | dialect, class)."""
        rates_EGT = np.where(self.belongs_GT, self.rates_ET[:, None, :], 0.0)
        return rates_EGT / (1 - self.empty_EG)[:, :, None]

    def given_set_T(self, dialect: int, classes_O: np.ndarray) -> np.ndarray:
        """Returns p(hashtag is attached) if the hashtags of several classes are drawn at once."""
        rates_T = np.where(self.belongs_GT[classes_O].any(0), self.rates_ET[dialect], 0.0)
        return rates_T / -np.expm1(np.log1p(-rates_T).sum())

    def given_mixture_T(self, weight_EG: np.ndarray) -> np.ndarray:
        """Returns p(hashtag is attached), given probabilities of dialect and class."""
        per_draw_EG = weight_EG / (1 - self.empty_EG)
        generic_E1 = per_draw_EG.sum(1, keepdims=True)
        share_ET = np.where(self.generic_T, generic_E1, per_draw_EG[:, self.class_T])
        return np.einsum("et,et->t", self.rates_ET, share_ET)


@dataclasses.dataclass(frozen=True)
class Laws:
    """The parameters of the generative model, from which all posts are drawn."""

    config: SimulatorConfig
    hashtags: tuple[str, ...]
    class_names: tuple[str, ...]
    looks_G3: np.ndarray  # shape, colour, texture of a class
    popularity_G: np.ndarray  # how often a class is filmed; sums to 1
    users: Users
    preference: Preference  # for classes
    style_preference: Preference  # for styles
    class_T: np.ndarray  # class of a hashtag, -1: generic
    appeal_ET: np.ndarray  # relative rate of a hashtag in a dialect, see `word_appeal`

    def dialect_of(self, age, country):
        """Returns the dialect of an age bucket in a country."""
        return 2 * country + (np.asarray(age) >= names.NUM_YOUNG)

    @functools.cached_property
    def dialect_U(self) -> np.ndarray:
        """The dialect of each user."""
        return self.dialect_of(self.users.age_U, self.users.country_U)

    @functools.cached_property
    def preference_UG(self) -> np.ndarray:
        """The preference logit of each user for each class."""
        return self.preference.of_users(self.users)

    @functools.cached_property
    def style_preference_UJ(self) -> np.ndarray:
        """The preference logit of each user for each style."""
        return self.style_preference.of_users(self.users)

    @functools.cached_property
    def favourite_UG(self) -> np.ndarray:
        """The distribution of a user's history over classes: popularity times exp(preference).

        It is also the user's part in World.ADDITIVE. Styles have no effect, because all classes
        have the same distribution of styles. World.EVERYTHING has no preferences.
        """
        if self.config.world is World.EVERYTHING:
            return np.broadcast_to(self.popularity_G, self.preference_UG.shape)
        return softmax(np.log(self.popularity_G) + self.preference_UG)

    def affinity_VO(self, user_V, objects_VO, styles_VO) -> np.ndarray:
        """Returns the preference logit of each clip's user for each of its objects."""
        user_V1 = user_V[:, None]
        return (
            self.preference_UG[user_V1, objects_VO] + self.style_preference_UJ[user_V1, styles_VO]
        )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax over the last axis."""
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def build_laws(config: SimulatorConfig) -> Laws:
    """Returns the parameters of the generative model; a pure function of `config`."""
    check(config)
    looks_G3 = names.class_looks(config, stream(config, "classes"))
    class_names = names.class_names(looks_G3)
    hashtags, class_T = names.hashtag_names(config, class_names, stream(config, "words"))
    popularity_G = np.arange(1.0, config.num_classes + 1) ** -config.zipf_exponent
    class_strength = config.taste_strength * np.sqrt(1 - config.style_share)
    style_strength = config.taste_strength * np.sqrt(config.style_share)
    class_rng, style_rng = stream(config, "preference"), stream(config, "styles")
    style_preference = draw_preference(config, style_strength, config.num_styles, style_rng)
    return Laws(
        config=config,
        hashtags=hashtags,
        class_names=class_names,
        looks_G3=looks_G3,
        popularity_G=popularity_G / popularity_G.sum(),
        users=draw_users(config, stream(config, "users")),
        preference=draw_preference(config, class_strength, config.num_classes, class_rng),
        style_preference=centred(style_preference, config),
        class_T=class_T,
        appeal_ET=word_appeal(config, class_T, stream(config, "words", 1)),
    )


def draw_users(config: SimulatorConfig, rng: np.random.Generator) -> Users:
    """Returns users with independent attributes; countries are Zipf distributed."""
    num = config.num_users
    age_U = rng.choice(len(names.AGE_PROB_A), num, p=names.AGE_PROB_A)
    edges = np.array(names.AGE_EDGES)
    return Users(
        gender_U=rng.choice(len(names.GENDERS), num, p=names.GENDER_PROB_A),
        age_U=age_U,
        years_U=rng.integers(edges[age_U], edges[age_U + 1]),
        country_U=rng.choice(config.num_countries, num, p=country_prob_A(config)),
        known_UA=rng.random((num, 3)) >= config.missing_prob,
        private_UL=rng.standard_normal((num, config.private_rank)),
    )


def country_prob_A(config: SimulatorConfig) -> np.ndarray:
    """Returns the distribution of users over countries, proportional to rank ** -0.7."""
    weight_A = np.arange(1.0, config.num_countries + 1) ** -0.7
    return weight_A / weight_A.sum()


def draw_preference(
    config: SimulatorConfig, strength: float, num_classes: int, rng: np.random.Generator
) -> Preference:
    """Draws normal effects of attribute values and private dimensions on classes (or styles).

    The sum of the four terms has the variance `strength` squared over users and draws.
    """
    explained = strength * np.sqrt((1 - config.private_share) / 3)
    private = strength * np.sqrt(config.private_share / config.private_rank)
    sizes = (len(names.GENDERS), len(names.AGE_PROB_A), config.num_countries)
    return Preference(
        *(explained * rng.standard_normal((size, num_classes)) for size in sizes),
        private_LI=private * rng.standard_normal((config.private_rank, num_classes)),
    )


def centred(preference: Preference, config: SimulatorConfig) -> Preference:
    """Returns preferences with mean 0 over users, scaled such that their expected variance is kept.

    So users have favourite styles, but no style is preferred on average. Otherwise the clip would
    be enough to predict the tagged object.
    """

    def centre(effect_AI: np.ndarray, prob_A) -> np.ndarray:
        prob_A = np.asarray(prob_A)
        own_share = max(1 - prob_A @ prob_A, 1e-9)  # fraction of the variance that remains
        return (effect_AI - prob_A @ effect_AI) / np.sqrt(own_share)

    return Preference(
        centre(preference.gender_AI, names.GENDER_PROB_A),
        centre(preference.age_AI, names.AGE_PROB_A),
        centre(preference.country_AI, country_prob_A(config)),
        preference.private_LI,
    )


def word_appeal(
    config: SimulatorConfig, class_T: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns appeal_ET, the relative rate of every hashtag in every dialect.

    The log rate decreases with the rank of a hashtag in its class; the country and the age group
    have an effect each. Generic hashtags get `generic_share` of the total on average.
    """
    rank_T = np.array([np.sum(class_T[:index] == c) for index, c in enumerate(class_T)])
    spread = config.dialect_strength / np.sqrt(2)
    country_AT = spread * rng.standard_normal((config.num_countries, len(class_T)))
    age_AT = spread * rng.standard_normal((2, len(class_T)))
    log_EAT = country_AT[:, None] + age_AT[None] - 0.4 * np.log1p(rank_T)
    appeal_ET = np.exp(log_EAT).reshape(-1, len(class_T))
    generic_T = class_T < 0
    if generic_T.any():
        per_class = appeal_ET[:, ~generic_T].sum(1).mean() / config.num_classes
        odds = config.generic_share / (1 - config.generic_share)
        appeal_ET[:, generic_T] *= odds * per_class / appeal_ET[:, generic_T].sum(1).mean()
    return appeal_ET


def speak(laws: Laws, scale: float) -> Language:
    """Returns the language with rates 1 - exp(-scale * appeal), which increase with `scale`."""
    rates_ET = np.clip(-np.expm1(-scale * laws.appeal_ET), 1e-6, 1 - 1e-6)
    return Language(laws.class_T, np.concatenate([rates_ET, rates_ET.mean(0, keepdims=True)]))


def check(config: SimulatorConfig) -> None:
    """Raises UserError if the settings are invalid or contradict each other."""
    validate(Config(simulator=config))
    names.check_names(config)
    problem = ""
    if config.num_styles > 1 and config.door is not SimulatorOutput.FEATURES:
        problem = f"num_styles must be 1 if clips are rendered, got {config.num_styles}; "
        problem += "set it, or simulator.door=features"
    elif config.style_share and config.num_styles == 1:
        problem = f"style_share must be 0 if there is one style, got {config.style_share}; "
        problem += "set it, or raise simulator.num_styles"
    elif config.num_generic and not config.generic_share:
        problem = "generic_share must be above 0 if there are generic hashtags, got 0; "
        problem += "set it, or simulator.num_generic=0"
    elif config.mean_history and config.no_history_prob == 1:
        problem = "no_history_prob must be below 1 if mean_history is not 0, got 1; "
        problem += "lower it, or set simulator.mean_history=0"
    if problem:
        raise UserError(f"simulator.{problem}")
