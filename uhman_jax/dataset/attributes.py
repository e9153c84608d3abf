"""Gender, age and country as numbers; 0 is "unknown"."""

import collections
from collections.abc import Sequence

import numpy as np

UNKNOWN = "unknown"
AGE_BUCKETS = ("<13", "13-17", "18-24", "25-34", "35-44", "45+")
_AGE_STARTS = (13, 18, 25, 35, 45)  # first year of each bucket but the first


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
    """Numbers the values of an attribute; a value that no train row has is unknown.

    >>> encode_attribute(["no", "br", "", "br", "se"], np.array([1, 1, 1, 1, 0], bool))
    (('unknown', 'br', 'no'), array([2, 1, 0, 1, 0], dtype=int32))

    Args:
        values: of each row; "" and "unknown" mean unknown.
        is_train_V: bool.
        order: of the values; without it the most frequent in train comes first, then by name.

    Returns:
        names, of which the first is "unknown", and value_V, int32 indices into them.
    """
    train = [value for value, known in zip(values, is_train_V, strict=True) if known]
    count = collections.Counter(train)
    ranked = order or sorted(count, key=lambda value: (-count[value], value))
    known = [value for value in ranked if value not in ("", UNKNOWN) and count[value]]
    names = (UNKNOWN, *known)
    index = {name: i for i, name in enumerate(names)}
    return names, np.array([index.get(value, 0) for value in values], dtype=np.int32)
