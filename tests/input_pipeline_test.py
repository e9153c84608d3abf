import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from small_store import (
    HISTORY,
    MAX_FRAMES,
    MAX_HISTORY,
    MAX_POSITIVES,
    POSITIVES,
    C,
    M,
    V,
    features,
    write_store,
)
from small_view import ragged

from uhman_jax import input_pipeline
from uhman_jax.dataset.view import TRAIN
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards import quantize, store, tfrecord


def assert_same(got, want):
    for a, b in zip(leaves(got), leaves(want), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)


def leaves(batch):
    return jax.tree.leaves(batch)


def train(view, frames, batch_size=3, seed=5, **kwargs):
    order = input_pipeline.TrainOrder(view.rows(TRAIN), batch_size, seed)
    return input_pipeline.train_batches(view, frames, order, **kwargs)


@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float32"])
def test_batch_holds_the_rows_asked_for(tmp_path, view, storage):
    frames = store.FrameStore(write_store(tmp_path / "shards", storage))
    rows = [7, 0, -1, 3]
    batch = input_pipeline.Join(view, frames)(np.array(rows))
    assert batch.video.codes_BFMC.shape == (4, MAX_FRAMES, M, C)
    assert batch.user.history_BR.shape == (4, MAX_HISTORY)
    assert batch.positives_BP.shape == (4, MAX_POSITIVES)
    assert batch.row_B.tolist() == rows and batch.mask_B.tolist() == [True, True, False, True]
    for slot, row in enumerate(rows):
        got = jax.tree.map(lambda leaf, slot=slot: leaf[slot], batch)
        video, user = got.video, got.user
        if row == -1:
            others = video._replace(slot_B=np.int32(0)), user, *got[2:4]
            assert not any(leaf.astype(float).any() for leaf in leaves(others))
            continue
        codes_FMC, scale_C, offset_C = quantize.pack(features(row), storage)
        n = len(codes_FMC)
        np.testing.assert_array_equal(video.codes_VFMC[:n], codes_FMC)
        assert video.codes_VFMC.dtype == codes_FMC.dtype
        assert not video.codes_VFMC[n:].astype(float).any() and video.slot_B == slot
        np.testing.assert_array_equal(video.scale_BC, scale_C)
        np.testing.assert_array_equal(video.offset_BC, offset_C)
        assert video.mask_BF.tolist() == [True] * n + [False] * (MAX_FRAMES - n)
        assert user[:3] == (view.gender_V[row], view.age_V[row], view.country_V[row])
        for ids, mask, expected in (
            (user.history_BR, user.history_mask_BR, HISTORY),
            (got.positives_BP, got.positives_mask_BP, POSITIVES),
        ):
            assert ids[mask].tolist() == expected[row] and not ids[~mask].any()
    types = [leaf.dtype.name for leaf in leaves(batch)[1:]]
    assert types == (
        ["float32", "float32", "bool", "int32", "int32", "int32", "int32", "int32", "bool"]
        + ["int32", "bool", "int32", "bool"]
    )


def test_training_batches_have_the_parts_of_histories(view, frames):
    batch = train(view, frames, history_parts=True)[0]
    user = batch.user
    assert user.history_parts_BR.dtype == np.int32
    np.testing.assert_array_equal(user.history_parts_BR != 0, user.history_mask_BR)
    for b, row in enumerate(batch.row_B):
        start, end = view.history.offsets[row : row + 2]
        expected = view.history_parts[start:end].tolist()
        assert user.history_parts_BR[b][user.history_mask_BR[b]].tolist() == expected
    assert input_pipeline.Join(view, frames)(np.array([0])).user.history_parts_BR is None


def test_a_part_of_a_batch_that_processes_share_has_its_slots_of_the_whole(view, frames):
    slots = np.array([1, 2])
    whole, part = train(view, frames)[1], train(view, frames, slots=slots)[1]
    assert part.video.slot_B.tolist() == [1, 2] and part.video.slot_B.dtype == np.int32
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[slots]), part, whole)


def test_max_frames_only_adds_padding(view, frames):
    rows = np.array([3, 1])
    short = input_pipeline.Join(view, frames)(rows)
    long = input_pipeline.Join(view, frames, max_frames=6)(rows)
    assert long.video.codes_BFMC.shape == (2, 6, M, C)
    np.testing.assert_array_equal(long.video.codes_BFMC[:, :MAX_FRAMES], short.video.codes_BFMC)
    np.testing.assert_array_equal(long.video.mask_BF[:, :MAX_FRAMES], short.video.mask_BF)
    assert not long.video.mask_BF[:, MAX_FRAMES:].any()


@pytest.mark.parametrize("batch_size", [1, 3, 20, 32])
def test_every_epoch_has_every_row_once_in_an_order_of_its_own(batch_size):
    rows, num_epochs, epochs = np.arange(10, 30), 4, set()
    for seed in range(3):
        order = input_pipeline.TrainOrder(rows, batch_size, seed)
        steps = -(-num_epochs * len(rows) // batch_size)
        got = np.concatenate([order[step] for step in range(steps)])[: num_epochs * len(rows)]
        for epoch in got.reshape(num_epochs, -1).tolist():
            assert sorted(epoch) == rows.tolist()
            epochs.add(tuple(epoch))
    assert len(epochs) == 3 * num_epochs


def test_order_depends_only_on_the_seed():
    code = (
        "from uhman_jax.input_pipeline import TrainOrder; import numpy as np; "
        "order = TrainOrder(np.arange(7), 3, 0); print([order[s].tolist() for s in range(9)])"
    )
    other_process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "JAX_PLATFORMS": "cpu"},
    )
    order = input_pipeline.TrainOrder(np.arange(7), 3, 0)
    assert other_process.stdout.strip() == str([order[s].tolist() for s in range(9)])


@pytest.mark.parametrize("start", [1, 2, 5, 8, 100])
def test_a_fresh_iterator_goes_on_where_another_stopped(tmp_path, view, frames, start):
    unbroken = input_pipeline.iterate(train(view, frames))
    for _ in range(start):
        next(unbroken)
    reopened = store.FrameStore(frames.directory)
    fresh = input_pipeline.iterate(train(view, reopened), start, num_threads=1)
    for step in range(start, start + 6):  # over the border of an epoch
        batch = next(fresh)
        assert_same(batch, next(unbroken))
        assert_same(batch, train(view, frames)[step])


@pytest.mark.parametrize("batch_size", [1, 2, 4, 16])
def test_eval_batches_hold_every_row_once_in_order(view, frames, batch_size):
    rows = np.array([9, 4, 0, 7, 2])
    batches = input_pipeline.eval_batches(view, frames, rows=rows, batch_size=batch_size)
    batches = list(input_pipeline.iterate(batches))
    assert len(batches) == -(-5 // batch_size)
    assert all(batch.video.codes_BFMC.shape[0] == batch_size for batch in batches)
    got = np.concatenate([batch.row_B[batch.mask_B] for batch in batches])
    assert got.tolist() == rows.tolist()
    masks = np.concatenate([batch.mask_B for batch in batches])
    assert masks.tolist() == [True] * 5 + [False] * (len(masks) - 5)
    assert len(input_pipeline.eval_batches(view, frames, rows=rows[:0], batch_size=3)) == 0


def test_a_damaged_record_stops_the_iterator_and_is_named(view, frames):
    path = store.shard_path(frames.directory, 1, 2)
    offset = list(tfrecord.records(tfrecord.map_file(path), path))[2][0]
    data = bytearray(path.read_bytes())
    data[offset + 500] ^= 4
    path.write_bytes(data)
    reopened = store.FrameStore(frames.directory)
    batches = input_pipeline.eval_batches(view, reopened, rows=np.arange(V), batch_size=2)
    with pytest.raises(tfrecord.DamagedRecordError) as caught:
        list(input_pipeline.iterate(batches))
    assert (caught.value.path, caught.value.offset) == (path, offset)


def test_a_video_without_features_is_named(tmp_path, view):
    frames = store.FrameStore(write_store(tmp_path / "shards", numbers=range(V - 1)))
    with pytest.raises(UserError, match="needs features in .*, v10 is missing"):
        input_pipeline.Join(view, frames)


def test_batches_keep_their_values_while_held(view, frames):
    batches = train(view, frames)
    held = [batches[step] for step in range(20)]
    for step, batch in enumerate(held):
        assert_same(batch, batches[step])


def test_rows_wider_than_the_padding_are_refused():
    with pytest.raises(ValueError, match="must fit the width 1, got a row of 2 values"):
        input_pipeline.pad(ragged([[1], [2, 3]]), np.array([0, 1]), 1)
