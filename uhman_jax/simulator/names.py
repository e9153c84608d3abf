"""Names the object classes, hashtags and countries of a simulated dataset."""

import numpy as np

from uhman_jax.config import SimulatorConfig
from uhman_jax.runtime.errors import UserError

SHAPES = (
    "star", "heart", "ring", "flower", "leaf", "fish", "moon", "bolt",
    "cube", "wheel", "drop", "cloud", "crown", "butterfly", "kite",
)  # fmt: skip
COLOURS = (
    "gold", "scarlet", "teal", "violet", "lime", "tangerine",
    "pink", "azure", "ivory", "mint", "navy", "cocoa",
)  # fmt: skip
TEXTURES = ("plain", "striped", "dotted", "checked", "ringed", "zigzag")

GENDERS = ("female", "male")
GENDER_PROB_A = (0.58, 0.42)
AGE_EDGES = (13, 16, 19, 25, 35, 60)  # buckets [13, 16), [16, 19), ...; the paper's users are young
AGE_PROB_A = (0.25, 0.30, 0.25, 0.13, 0.07)
NUM_YOUNG = 2  # the first two buckets use the young dialect of their country
COUNTRIES = (
    "US", "BR", "DE", "IN", "GB", "MX", "FR", "ID", "ES", "IT",
    "TR", "PH", "PL", "JP", "CA", "AR", "NL", "SE", "ZA", "KR",
)  # fmt: skip

_GENERIC = (
    "fyp", "viral", "duet", "featureme", "foryou", "trending", "mood", "weekend", "bestfriends",
    "funny", "tbt", "goals", "newvideo", "followme", "slowmo", "love", "happy", "lol", "dance",
    "repost", "vibes", "instagood", "daily", "video", "challenge", "pov", "aesthetic", "relatable",
    "edit", "blessed", "squad", "smile", "music", "school", "summer", "bored", "family", "fashion",
    "photooftheday", "comedy",
)  # fmt: skip
_PATTERNS = (
    "{}", "{}lover", "{}gram", "insta{}", "{}life", "my{}", "{}oftheday", "{}squad", "cute{}",
    "{}vibes", "love{}", "{}fan", "{}time", "{}world", "dancing{}", "{}girl", "big{}", "{}mood",
    "daily{}", "{}party", "little{}", "{}goals", "best{}", "{}dance", "magic{}", "{}club",
    "happy{}", "{}challenge", "sweet{}", "{}art",
)  # fmt: skip

MAX_CLASSES = len(SHAPES) * len(COLOURS)
MAX_GENERIC = len(_GENERIC)
MAX_WORDS = len(_PATTERNS)  # hashtags of one class


def class_looks(config: SimulatorConfig, rng: np.random.Generator) -> np.ndarray:
    """Returns int64 [num_classes, 3]: shape, colour and texture of each class.

    A shape is used again, in another colour, only after all other shapes.
    """
    shapes, colours = rng.permutation(len(SHAPES)), rng.permutation(len(COLOURS))
    index = np.arange(config.num_classes)
    shape, lap = index % len(SHAPES), index // len(SHAPES)
    colour = (5 * shape + lap) % len(COLOURS)
    texture = (shape + 2 * lap + shape // len(TEXTURES)) % len(TEXTURES)
    return np.stack([shapes[shape], colours[colour], texture], axis=1)


def class_names(looks: np.ndarray) -> tuple[str, ...]:
    """Returns names such as "goldstar", the stems of the hashtags."""
    return tuple(COLOURS[colour] + SHAPES[shape] for shape, colour, _ in looks.tolist())


def hashtag_names(
    config: SimulatorConfig, stems: tuple[str, ...], rng: np.random.Generator
) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the hashtags and the class of each, -1 for a generic one.

    The hashtags of a class are its name and compounds of it. All classes have the same number of
    hashtags, but the most popular ones have one more if the total requires it.
    """
    num_words = config.num_hashtags - config.num_generic
    share, rest = divmod(num_words, config.num_classes)
    names, classes = [], []
    for index, stem in enumerate(stems):
        others = 1 + rng.permutation(len(_PATTERNS) - 1)
        chosen = [0, *others[: share + (index < rest) - 1]]
        names += [_PATTERNS[pattern].format(stem) for pattern in chosen]
        classes += [index] * len(chosen)
    names += _GENERIC[: config.num_generic]
    classes += [-1] * config.num_generic
    return tuple(names), np.array(classes)


def check_names(config: SimulatorConfig) -> None:
    """Raises UserError if the settings need more names than there are."""
    words = config.num_hashtags - config.num_generic
    ranges = {"num_classes": (1, MAX_CLASSES), "num_generic": (0, MAX_GENERIC)}
    for name, (low, high) in (ranges | {"num_countries": (1, len(COUNTRIES))}).items():
        if not low <= (value := getattr(config, name)) <= high:
            raise UserError(
                f"simulator.{name} must lie in {low} to {high}, got {value}; "
                "use a number in that range"
            )
    if not config.num_classes <= words <= MAX_WORDS * config.num_classes:
        raise UserError(
            f"simulator.num_hashtags must leave 1 to {MAX_WORDS} words per class beside the "
            f"generic ones, got {config.num_hashtags} for {config.num_classes} classes and "
            f"{config.num_generic} generic; use {config.num_generic + config.num_classes} to "
            f"{config.num_generic + MAX_WORDS * config.num_classes}"
        )
