"""Reads gender, age and country, and encodes them as numbers; 0 is "unknown".

Case, width, spaces and invisible characters do not change a value. Synonyms get one name:

- Genders: "female", "male" or "nonbinary".
- Countries: the two-letter ISO code. Synonyms are the two- and three-letter codes, the flags and
  the English names of ISO 3166-1 (pycountry), and the common names in `_COUNTRY_NAMES`. Namibia is
  "NAM", because "NA" means a missing value in many programs.

`is_unknown` defines the values that mean "unknown". `fold_text` folds all other values.
"""

import collections
import functools
import itertools
import unicodedata
from collections.abc import Sequence

import numpy as np

from uhman_jax.dataset.spelling import normalise_hashtag

UNKNOWN = "unknown"
_NOTHING = frozenset(
    "unknown unk nan na null none nil undefined missing unspecified undisclosed notspecified "
    "notstated notgiven notprovided notavailable notapplicable notdisclosed prefernottosay "
    "prefernottodisclose prefernottoanswer rathernotsay donotknow dontknow".split()
)
_GENDERS = {
    "female": "f female fem femme feminine femenino feminino woman women girl lady w weiblich frau "
    "mujer mulher donna 女 女性 女の子 여 여성 여자 ж жен женский женщина",
    "male": "m male masc masculine masculino man men boy guy gentleman männlich mann hombre homem "
    "homme uomo 男 男性 男の子 남 남성 남자 м муж мужской мужчина",
    "nonbinary": "nonbinary nonbinaire nobinario nb enby genderqueer divers",
}
# Common names that are not in ISO 3166-1, by code; parts of the United Kingdom count as GB.
_COUNTRY_NAMES = {
    "AE": "UAE|Emirates", "BN": "Brunei", "BO": "Bolivia",
    "CD": "DRC|DR Congo|Democratic Republic of the Congo|Congo Kinshasa", "CG": "Congo Brazzaville",
    "CI": "Ivory Coast", "CN": "PRC|Mainland China", "CV": "Cape Verde", "CZ": "Czech Republic",
    "FM": "Micronesia", "GB": "UK|Great Britain|Britain|England|Scotland|Wales|Northern Ireland",
    "KR": "Korea|S Korea|Republic of Korea", "KP": "N Korea|DPRK", "LA": "Laos", "MK": "Macedonia",
    "MM": "Burma", "MO": "Macau", "NL": "Holland", "PS": "Palestine", "RU": "Russia",
    "SH": "Saint Helena", "SX": "Sint Maarten", "SZ": "Swaziland", "TL": "East Timor",
    "TR": "Turkey", "TW": "Taiwan", "US": "US|USA|America", "VA": "Vatican|Vatican City|Holy See",
    "VI": "US Virgin Islands",
}  # fmt: skip
_NAMIBIA = "NAM"
_MAX_LENGTH = 200  # characters of a value
_MAX_READ = 1000  # characters; Unicode normalisation of many combining marks is quadratic
# Symbols that are read as text: the letters of flags, and the signs of Venus and Mars.
_SIGNS = {0x1F1E6 + i: chr(ord("a") + i) for i in range(26)} | {0x2640: "female", 0x2642: "male"}
AGE_BUCKETS = ("<13", "13-17", "18-24", "25-34", "35-44", "45+")
_AGE_STARTS = (13, 18, 25, 35, 45)  # first year of each bucket but the first


def is_unknown(text: str) -> bool:
    """Returns whether a value means "unknown", as people or programs write it.

    >>> [is_unknown(text) for text in ("", "-", "?", "N/A", "NaN", "Not specified", "US", "0")]
    [True, True, True, True, True, True, False, False]
    """
    squeezed = squeeze(text)
    return not squeezed or squeezed in _NOTHING


@functools.lru_cache(maxsize=2**12)
def fold_gender(text: str) -> str:
    """Returns the standard name of a gender, "" if unknown.

    >>> fold_gender("F"), fold_gender(" WOMAN "), fold_gender("Agender"), fold_gender("n/a")
    ('female', 'female', 'agender', '')
    """
    return _name_of(text, gender_names())


@functools.lru_cache(maxsize=2**12)
def fold_country(text: str) -> str:
    """Returns the standard name of a country, "" if unknown.

    >>> fold_country("usa"), fold_country("United States"), fold_country("Atlantis")
    ('US', 'US', 'atlantis')
    """
    return _name_of(text, country_names())


def _name_of(text: str, names: dict[str, str]) -> str:
    """Returns the standard name of a value; the folded text without one, "" if unknown."""
    return "" if is_unknown(text) else names.get(squeeze(text)) or fold_text(text)


def fold_text(text: str) -> str:
    """Returns a text in NFKC, case-folded, with single spaces and without invisible characters.

    A text of more than 200 characters becomes "".
    """
    words = unicodedata.normalize("NFKC", text[:_MAX_READ]).split()
    folded = " ".join(filter(None, map(normalise_hashtag, words)))
    return folded if len(text) <= _MAX_READ and len(folded) <= _MAX_LENGTH else ""


def squeeze(text: str) -> str:
    """Returns the letters and digits of a text, folded and without accents; flags become letters.

    >>> squeeze("Côte d'Ivoire"), squeeze("U.S.A."), squeeze("🇸🇪")
    ('cotedivoire', 'usa', 'se')
    """
    text = unicodedata.normalize("NFKD", fold_text(text).translate(_SIGNS))
    return "".join(filter(str.isalnum, text))


@functools.cache
def gender_names() -> dict[str, str]:
    """Returns the names of genders by squeezed spelling; cached, so do not modify it."""
    return {squeeze(word): name for name, words in _GENDERS.items() for word in words.split()}


@functools.cache
def country_names() -> dict[str, str]:
    """Returns the codes of countries by squeezed spelling; cached, so do not modify it."""
    import pycountry  # here, since the import takes 0.1 s

    codes: dict[str, str] = {"xk": "XK", "xkx": "XK"}  # in use, though not in ISO 3166-1
    names: dict[str, str] = {"kosovo": "XK"}
    for country in pycountry.countries:
        code = country.alpha_2 if country.alpha_2 != "NA" else _NAMIBIA
        codes |= dict.fromkeys((squeeze(country.alpha_2), squeeze(country.alpha_3)), code)
        fields = ("name", "common_name", "official_name")
        spellings = [getattr(country, field, "") for field in fields]
        for spelling in filter(None, spellings + _COUNTRY_NAMES.get(code, "").split("|")):
            before, _, behind = spelling.partition(", ")  # "Moldova, Republic of"
            for text in (spelling, f"{behind} {before}", spelling.partition(" (")[0]):
                for variant in (text, text.replace("Saint ", "St "), text.replace(" and ", " ")):
                    names |= dict.fromkeys((squeeze(variant), squeeze(f"the {variant}")), code)
    return names | codes


def age_bucket(age: int | None) -> str:
    """Returns the bucket of an age in years, "unknown" for None.

    >>> age_bucket(12), age_bucket(13), age_bucket(60), age_bucket(None)
    ('<13', '13-17', '45+', 'unknown')
    """
    if age is None:
        return UNKNOWN
    return AGE_BUCKETS[sum(age >= start for start in _AGE_STARTS)]


def encode_attribute(
    values: Sequence[str], is_train_V: np.ndarray, order: Sequence[str] = ()
) -> tuple[tuple[str, ...], np.ndarray]:
    """Encodes the values of an attribute as indices; values that do not occur in train are unknown.

    >>> encode_attribute(["no", "br", "", "br", "se"], np.array([1, 1, 1, 1, 0], bool))
    (('unknown', 'br', 'no'), array([2, 1, 0, 1, 0], dtype=int32))

    Args:
        values: value of each row; "" and "unknown" mean unknown.
        is_train_V: bool, whether the row is in train.
        order: all values, in order of index; by default most frequent in train first, then by name.

    Returns:
        The names, the first of which is "unknown", and value_V, int32 indices into them.
    """
    count = collections.Counter(itertools.compress(values, is_train_V))
    ranked = order or sorted(count, key=lambda value: (-count[value], value))
    known = [value for value in ranked if value not in ("", UNKNOWN) and count[value]]
    names = (UNKNOWN, *known)
    index = {name: i for i, name in enumerate(names)}
    return names, np.array([index.get(value, 0) for value in values], dtype=np.int32)
