"""Sources of batches, microbatches and sparse updates change no result."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_world

from uhman_jax import input_pipeline, train
from uhman_jax.batch import Batch
from uhman_jax.config import Features, Loss, ModelName, RankWeight
from uhman_jax.dataset.view import TRAIN
from uhman_jax.runtime.errors import UserError
from uhman_jax.train import batch_source, device_dataset, sparse_update

SIZE = 10


def take_steps(source, state, num_steps, most):
    """State, losses of the steps, and the number of steps of each dispatch."""
    losses, counts = [], []
    while len(losses) < num_steps:
        state, metrics, count = source.advance(state, min(most, num_steps - len(losses)))
        losses += np.asarray(metrics.loss_S)[:count].tolist()
        counts.append(count)
    return state, np.array(losses), counts


def assert_close(one, other, atol):
    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=atol)

    jax.tree.map(check, one, other)


# Features on the device


def test_a_batch_on_the_device_equals_the_batch_that_is_read(world):
    view, store, *_ = world
    rows = view.rows(TRAIN)
    loaded = device_dataset.load(view, store, rows, history_parts=True)
    join = input_pipeline.Join(view, store, history_parts=True)
    row_B = np.array([rows[5], -1, rows[0], rows[-1], rows[5]])
    want = join(row_B)
    whole = len(loaded.videos.row_B)  # as many videos as codes: these must be in order
    for size in (len(row_B), whole):
        got = loaded.batch(np.resize(row_B, size))
        assert (got.video.codes_VFMC is loaded.videos.video.codes_VFMC) == (size < whole)
        in_order = input_pipeline.VideoInput.plain(got.video.codes_BFMC, *got.video[1:4])
        first = jax.tree.map(lambda part: part[: len(row_B)], got._replace(video=in_order))
        jax.tree.map(np.testing.assert_array_equal, first, want)


def test_loading_stops_when_asked(world):
    view, store, *_ = world
    checks = iter([False, True])
    assert device_dataset.load(view, store, view.rows(TRAIN), lambda: next(checks)) is None


@pytest.mark.parametrize("start", [0, 3])
def test_resident_and_streamed_features_give_the_same_training(root, world, start, monkeypatch):
    monkeypatch.setattr(batch_source, "_DISPATCH_SECONDS", 1e6)  # on slow machines too
    config = tiny_world.smooth(tiny_world.make_config(root, num_seeds=2))
    config.model.region_dropout = 0.3
    view, store, *_ = world
    rows = view.rows(TRAIN)
    ends = []
    for resident in (False, True):
        model, state = tiny_world.fresh(config, world)
        step = train.make_train_step(model, config, num_steps=100)
        order = input_pipeline.TrainOrder(rows, SIZE, 7)
        if resident:
            loaded = device_dataset.load(view, store, rows)
            source = batch_source.OnDevice(batch_source.multi_step(step), loaded, order, start)
        else:
            source = batch_source.Streamed(step, view, store, order, start)
        state, losses, counts = take_steps(source, state, 9, 4)
        assert int(state.step) == 9
        ranked = list(source.ranked(rows[:13], 8))
        row_V = np.concatenate([batch.row_B for batch in ranked])
        assert row_V.tolist() == [*rows[:13], -1, -1, -1]
        if resident:  # no batch has codes of its own
            assert all(batch.video.codes_VFMC is loaded.videos.video.codes_VFMC for batch in ranked)
        ends.append((state.params, losses))
    assert max(counts) > 1, "several steps must be taken at once here"
    assert_close(*ends, atol=1e-5)


@pytest.mark.parametrize("name", [ModelName.BL, ModelName.UA, ModelName.THREE_WAY])
def test_pooled_features_give_the_same_training(root, world, name):
    config = tiny_world.smooth(tiny_world.make_config(root, num_seeds=2))
    config.model.name = name
    view, store, *_ = world
    rows, ends = view.rows(TRAIN), []
    for condensed in (False, True):
        model, state = tiny_world.fresh(config, world)
        pool_features = model.pool_features if condensed else None
        loaded = device_dataset.load(view, store, rows, pool_features=pool_features)
        assert loaded.videos.video.codes_VFMC.shape[1:3] == ((1, 1) if condensed else (3, 64))
        step = batch_source.multi_step(train.make_train_step(model, config, num_steps=100))
        order = input_pipeline.TrainOrder(rows, SIZE, 7)
        source = batch_source.OnDevice(step, loaded, order, 0)
        state, losses, _ = take_steps(source, state, 6, 2)
        ends.append((state.params, losses))
    assert_close(*ends, atol=1e-5)
    assert tiny_world.fresh(tiny_world.make_config(root), world)[0].pool_features is None


def test_features_go_to_the_device_where_they_fit(world, monkeypatch):
    view, store, *_ = world
    rows = view.rows(TRAIN)
    needed = len(rows) * (store.max_frames * 64 * 7 + 8 * 7)

    def room(num_bytes):
        monkeypatch.setattr(device_dataset, "device_memory", lambda: num_bytes)

    room(2 * needed)
    choices = [device_dataset.fits_on_device(store, rows, choice) for choice in Features]
    assert dict(zip(Features, choices, strict=True)) == {
        Features.AUTO: True,
        Features.DEVICE: True,
        Features.STREAM: False,
    }
    room(2 * needed - 2)
    assert not device_dataset.fits_on_device(store, rows, Features.AUTO)
    with pytest.raises(UserError, match="to fit half of the device's memory.*features=stream"):
        device_dataset.fits_on_device(store, rows, Features.DEVICE)
    room(2 * len(rows) * 12 * 7)
    assert device_dataset.fits_on_device(store, rows, Features.DEVICE, lambda video: video)


def test_the_memory_of_this_device_is_known():
    assert device_dataset.device_memory() > 2**28


# Microbatches


@pytest.mark.parametrize("sampled", [False, True])
def test_microbatches_add_up_to_the_batch(root, world, sampled):
    view, store, *_ = world
    order = input_pipeline.TrainOrder(view.rows(TRAIN), SIZE, 0)
    batch = input_pipeline.train_batches(view, store, order)[0]
    real_B = np.arange(SIZE) % 4 != 1  # a microbatch of 1 is all padding, and others in part
    batch = batch._replace(mask_B=real_B)
    ends = []
    for size in (SIZE, 5, 1):
        how = {"microbatch_size": size, "num_seeds": 2 if sampled else 1}
        config = tiny_world.smooth(tiny_world.make_config(root, **how))
        config = tiny_world.sampled(config) if sampled else config
        model, state = tiny_world.fresh(config, world)
        state, metrics = train.make_train_step(model, config, num_steps=100)(state, batch)
        ends.append((state.params, metrics))
    assert_close(ends[0], ends[1], atol=1e-5)
    assert_close(ends[0], ends[2], atol=1e-5)


# Rows in use


def few_hashtags_in_use(root, world, num_hashtags=500, **settings):
    """Config, model and state of a vocabulary far larger than a batch."""
    config = tiny_world.sampled(tiny_world.make_config(root, num_seeds=2, **settings))
    tiny_world.smooth(config).model.bias = True
    model, _ = tiny_world.fresh(config, world)
    model = model.clone(num_hashtags=num_hashtags)
    return config, model, train.init_state(model, config, world[2])


def batches_of(world, num_hashtags=500):
    """Batches whose ids are spread over a large vocabulary."""
    view, store, *_ = world
    order = input_pipeline.TrainOrder(view.rows(TRAIN), SIZE, 0)
    batches = input_pipeline.train_batches(view, store, order)
    for step in range(3):
        batch = batches[step]
        stretch = num_hashtags // len(view.hashtags)
        user = batch.user._replace(history_BR=batch.user.history_BR * stretch)
        yield batch._replace(positives_BP=batch.positives_BP * stretch, user=user)


@pytest.mark.parametrize(
    "loss",
    [
        *({"rank_weight": weight} for weight in RankWeight),
        {"name": Loss.LOGISTIC, "mixture": 0.5, "num_negatives": 3},
    ],
)
def test_touching_only_the_rows_in_use_is_the_same_step(root, world, loss, monkeypatch):
    ends = []
    for sparse in (False, True):
        config, model, state = few_hashtags_in_use(root, world, clip_norm=0.5)
        config.loss = dataclasses.replace(config.loss, **loss)
        config.model.history_dropout = 0.3
        before = jax.tree.map(np.asarray, state.params)
        with monkeypatch.context() as patch:
            if not sparse:
                patch.setattr(sparse_update, "few", lambda *_: False)
            step = train.make_train_step(model, config, num_steps=100)
            text = str(jax.make_jaxpr(step)(state, next(batches_of(world))))
            assert sparse != ("f32[2,500,7]" in text), "vectors of all hashtags are not made"
            metrics = []
            for batch in batches_of(world):
                state, figures = step(state, batch)
                metrics.append(figures)
        ends.append((state.params, metrics))
    assert_close(*ends, atol=1e-5)
    for name in ("hashtag_TK", "bias_T"):
        moved = np.abs(np.asarray(ends[1][0][name]) - before[name]).reshape(2, 500, -1)
        assert 10 < (moved.max(axis=(0, 2)) > 0).sum() < 400


def test_an_update_of_every_row_is_dense(root, world):
    batch = next(batches_of(world))
    negatives_BPN = np.zeros((*batch.positives_BP.shape, 4), np.int32)
    plain = tiny_world.make_config(root).train
    assert sparse_update.few(batch, negatives_BPN, 500, plain)
    assert not sparse_update.few(batch, None, 500, plain)
    assert not sparse_update.few(batch, negatives_BPN, 100, plain)
    for change in ({"momentum": 0.9}, {"weight_decay": 0.1}, {"ema": 0.9}):
        changed = tiny_world.make_config(root, **change).train
        assert not sparse_update.few(batch, negatives_BPN, 500, changed)


def test_used_rows_are_listed_once_and_found_again():
    user = train_user = input_pipeline.UserInput(
        *np.zeros((3, 2), np.int32),
        history_BR=np.int32([[9, 4], [70, 70]]),
        history_mask_BR=np.array([[True, True], [False, False]]),
    )
    batch = Batch(
        None, user, np.int32([[4, 9], [2, 55]]), np.array([[1, 1], [1, 0]], bool), None, None
    )
    negatives_BPN = np.int32([[[7], [4]], [[0], [7]]])
    ids_R, small, small_negatives_BPN = sparse_update.find(batch, negatives_BPN, 80)
    # 12 slots; a masked slot stands for hashtag 0.
    assert ids_R.tolist() == [0, 2, 4, 7, 9, *range(80, 87)]
    np.testing.assert_array_equal(ids_R[small.positives_BP], [[4, 9], [2, 0]])
    np.testing.assert_array_equal(ids_R[small.user.history_BR], [[9, 4], [0, 0]])
    np.testing.assert_array_equal(ids_R[small_negatives_BPN], negatives_BPN)
    np.testing.assert_array_equal(small.user.gender_B, train_user.gender_B)

    tables = {"hashtag_TK": jnp.arange(160.0).reshape(80, 2), "dense": jnp.ones(3)}
    rows = sparse_update.gather(tables, ids_R)
    np.testing.assert_array_equal(rows["hashtag_TK"][2], [8, 9])
    np.testing.assert_array_equal(rows["hashtag_TK"][5:], 0)
    changed = sparse_update.add(tables, {"hashtag_TK": rows["hashtag_TK"] + 1, "dense": 1.0}, ids_R)
    expected = np.arange(160.0).reshape(80, 2)
    expected[[0, 2, 4, 7, 9]] = 2 * expected[[0, 2, 4, 7, 9]] + 1
    np.testing.assert_array_equal(changed["hashtag_TK"], expected)
    np.testing.assert_array_equal(changed["dense"], 2)
