import numpy as np
import pytest
from small_store import C, M, features, write_store

from uhman_jax import channel_statistics
from uhman_jax.dataset.view import TEST, TRAIN, VALIDATION
from uhman_jax.shards import quantize, store


@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float32"])
def test_statistics_are_those_of_the_decoded_training_clips(tmp_path, view, storage):
    frames = store.FrameStore(write_store(tmp_path / "shards", storage))
    mean_C, std_C = channel_statistics.measure(view, frames)
    values_NC = np.concatenate(
        [
            quantize.decode(quantize.pack(features(row), storage)).reshape(-1, C)
            for row in view.rows(TRAIN)
        ]
    ).astype(np.float64)
    want_C = values_NC.std(axis=0)
    assert want_C[2] < 1e-6
    want_C[2] = 1e-3 * np.sqrt(np.mean(want_C**2))  # the floor of a constant channel
    assert mean_C.dtype == std_C.dtype == np.float32
    np.testing.assert_allclose(mean_C, values_NC.mean(axis=0), rtol=1e-6, atol=1e-7)
    # decode rounds to float32: around 1000 that is 1e-5 of the deviation of 1
    np.testing.assert_allclose(std_C, want_C, rtol=2e-6)


def test_statistics_of_many_frames_stay_exact():
    """The largest codes, over several blocks of 256: float32 would round their squares."""
    codes_FMC = np.full((9, M, 1), 255, np.uint8)
    codes_FMC[0, 0] = 254
    size, mean_C, square_C = channel_statistics._moments(codes_FMC)
    values = codes_FMC.astype(np.float64)
    assert size == 9 * M
    np.testing.assert_allclose(mean_C, values.mean(), rtol=1e-15)
    np.testing.assert_allclose(square_C, np.square(values - values.mean()).sum(), rtol=1e-7)


def test_a_deviation_is_1_if_no_channel_varies(tmp_path, view):
    same = np.full((1, M, C), 2.5, np.float32)
    directory = write_store(tmp_path / "shards", features=lambda number: same)
    mean_C, std_C = channel_statistics.measure(view, store.FrameStore(directory))
    np.testing.assert_array_equal(mean_C, np.full(C, 2.5, np.float32))
    np.testing.assert_array_equal(std_C, np.ones(C, np.float32))


def test_only_training_clips_are_read(view, frames):
    """Damage in the record of every other row goes unseen."""
    want = channel_statistics.measure(view, frames)
    others = [*view.rows(VALIDATION), *view.rows(TEST)]
    for index in frames.rows([view.video_ids[row] for row in others]):
        path = frames._paths[frames._facts["shard"][index]]
        data = bytearray(path.read_bytes())
        data[int(frames._facts["offset"][index]) + 500] ^= 1
        path.write_bytes(data)
    reopened = store.FrameStore(frames.directory)
    got = channel_statistics.measure(view, reopened)
    np.testing.assert_array_equal(got, want)
