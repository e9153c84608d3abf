"""Computes the mean feature of each clip: the input of rankings that need no network."""

from typing import NamedTuple

import numpy as np

from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION, View
from uhman_jax.runtime.progress import progress_bar
from uhman_jax.shards.record import FrameRecord
from uhman_jax.shards.store import FrameStore

# Maximum number of clips of each split. 75,000 clips of 2,048 channels are 614 MB.
MAX_CLIPS = {TRAIN: 50_000, VALIDATION: 5_000, TEST: 20_000}


class ClipMeans(NamedTuple):
    """Mean features of some clips of a view; V is the axis of these clips.

    Attributes:
        rows_V: int64, view rows, ascending.
        means_VC: float32, decoded features, averaged over regions and frames.
    """

    rows_V: np.ndarray
    means_VC: np.ndarray


def rows_of(view: View) -> np.ndarray:
    """Returns the rows of all clips; of a split above its `MAX_CLIPS`, rows drawn at random.

    They depend only on the view.
    """
    rng = np.random.default_rng(0)
    parts = []
    for split, most in MAX_CLIPS.items():
        rows_V = view.rows(split)
        few = len(rows_V) <= most
        parts.append(rows_V if few else rng.choice(rows_V, most, replace=False))
    return np.sort(np.concatenate(parts))


def mean_of(clip: FrameRecord) -> np.ndarray:
    """Returns the decoded features of a clip, averaged over regions and frames, float32 (C,)."""
    codes_NC = clip.codes_FMC.reshape(-1, clip.codes_FMC.shape[-1])
    return codes_NC.mean(axis=0, dtype=np.float32) * clip.scale_C + clip.offset_C


def measure(view: View, store: FrameStore) -> ClipMeans:
    """Returns the mean features of the clips of `rows_of`; reads each of these clips once."""
    rows_V = rows_of(view)
    record_V = store.rows([view.video_ids[row] for row in rows_V])
    means_VC = np.empty((len(rows_V), store.num_channels), np.float32)
    for mean_C, record in zip(
        means_VC, progress_bar(record_V, desc="mean features", unit="clip"), strict=True
    ):
        mean_C[:] = mean_of(store[record])
    return ClipMeans(rows_V, means_VC)
