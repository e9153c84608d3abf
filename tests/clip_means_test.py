"""Mean features of clips."""

import numpy as np
import pytest
from small_store import SPLIT_V, features, write_store

from uhman_jax import clip_means
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION
from uhman_jax.shards import quantize, store


@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float32"])
def test_they_are_the_means_of_the_decoded_features(tmp_path, view, storage):
    frames = store.FrameStore(write_store(tmp_path / "shards", storage))
    found = clip_means.measure(view, frames)
    assert found.rows_V.tolist() == list(range(len(SPLIT_V)))
    assert found.means_VC.dtype == np.float32
    for row, mean_C in zip(found.rows_V, found.means_VC, strict=True):
        decoded_FMC = quantize.decode(quantize.pack(features(row), storage)).astype(np.float64)
        np.testing.assert_allclose(mean_C, decoded_FMC.mean(axis=(0, 1)), rtol=1e-5, atol=1e-5)


def test_a_large_split_is_sampled_and_only_its_sample_is_read(view, frames, monkeypatch):
    monkeypatch.setattr(clip_means, "MAX_CLIPS", {TRAIN: 3, VALIDATION: 5, TEST: 1})
    rows_V = clip_means.rows_of(view)
    assert [np.sum(view.split_V[rows_V] == split) for split in (TRAIN, VALIDATION, TEST)] == [
        3, 2, 1,
    ]  # fmt: skip
    assert (np.diff(rows_V) > 0).all() and np.array_equal(rows_V, clip_means.rows_of(view))
    read = []
    monkeypatch.setattr(
        store.FrameStore,
        "__getitem__",
        lambda self, index, get=store.FrameStore.__getitem__: (
            read.append(index) or get(self, index)
        ),
    )
    found = clip_means.measure(view, frames)
    assert sorted(frames.video_ids[index] for index in read) == sorted(
        view.video_ids[row] for row in rows_V
    )
    assert np.array_equal(found.rows_V, rows_V) and len(found.means_VC) == 6
