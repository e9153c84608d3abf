"""A view that a test writes down."""

import numpy as np

from uhman_jax.dataset.rules import CURRENT
from uhman_jax.dataset.view import TRAIN, Ragged, View


def ragged(rows):
    offsets = np.cumsum([0] + [len(row) for row in rows])
    return Ragged(np.array([t for row in rows for t in row], np.int32), offsets)


def small_view(attributes_V, tags_V, splits_V, *, history=None, num_hashtags):
    """A view of a few videos; its hashtags are letters of the alphabet.

    Args:
        attributes_V: gender, age and country of each video.
        tags_V: hashtag ids of each video.
        splits_V: TRAIN, VALIDATION or TEST.
        history: of each video.
        num_hashtags: T.
    """
    history = history or [()] * len(tags_V)
    gender_V, age_V, country_V = np.array(attributes_V, np.int32).T
    train = [
        t for tags, split in zip(tags_V, splits_V, strict=True) if split == TRAIN for t in tags
    ]
    names = tuple("unknown" for _ in range(9))
    return View(
        hashtags=tuple("abcdefgh"[:num_hashtags]),
        spellings=tuple("abcdefgh"[:num_hashtags]),
        counts_T=np.bincount(np.array(train, int), minlength=num_hashtags),
        kept_T=np.ones(num_hashtags),
        genders=names,
        ages=names,
        countries=names,
        video_ids=tuple(f"v{v}" for v in range(len(tags_V))),
        user_ids=tuple(f"user{v}" for v in range(len(tags_V))),
        split_V=np.array(splits_V, np.int8),
        gender_V=gender_V,
        age_V=age_V,
        country_V=country_V,
        history=ragged(history),
        positives=ragged(tags_V),
        max_positives=max(len(tags) for tags in tags_V),
        max_history=max(1, *(len(row) for row in history)),
        report={},
        rules=CURRENT,
        fingerprint="",
    )
