import os
import shutil

import numpy as np
import pytest

from uhman_jax.errors import UserError
from uhman_jax.preprocess import saved_model_cache, tensorflow_c

tensorflow = pytest.importorskip("tensorflow")
extractor = pytest.importorskip("uhman_jax.preprocess.extractor")
Extractor = extractor.Extractor


def images(count, seed=0):
    """Smooth pictures: coarse noise, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 23, 23, 3)).astype(np.uint8)
    return np.ascontiguousarray(coarse.repeat(13, 1).repeat(13, 2))


@pytest.fixture(scope="module")
def calibrated():
    return Extractor.load("random", seed=3, calibration_images=images(5), batch_frames=3)


def test_features_are_mixed10_of_keras(calibrated):
    """The graph of Keras, run eagerly on the scaled images, is the reference."""
    batch = images(4, seed=1)
    features = calibrated.features(batch)
    assert features.shape == (4, 64, 2048) and features.dtype == np.float32
    scaled = extractor.keras.applications.inception_v3.preprocess_input(batch.astype(np.float32))
    expected = calibrated._model(scaled[:2], training=False).numpy()
    assert expected.shape == (2, 8, 8, 2048)
    np.testing.assert_allclose(
        features[:2].reshape(expected.shape), expected, atol=1e-3 * expected.max()
    )
    assert calibrated._model.layers[-1].name == "mixed10"


def test_features_of_an_image_do_not_depend_on_its_batch(calibrated):
    batch = images(7, seed=2)
    features = calibrated.features(batch)
    others = images(7, seed=5)
    others[4] = batch[4]
    np.testing.assert_array_equal(calibrated.features(others)[4], features[4])
    np.testing.assert_array_equal(calibrated.features(batch[3:4]), features[3:4])  # and padding
    order = np.random.default_rng(0).permutation(7)  # its place in the batch may change rounding
    atol = 1e-5 * features.max()
    np.testing.assert_allclose(calibrated.features(batch[order]), features[order], atol=atol)
    assert calibrated.features(batch[:0]).shape == (0, 64, 2048)


def test_calibration_gives_the_last_block_the_statistics_of_its_input(calibrated):
    """With them, inference on the calibration frames equals training mode of that block."""
    model = calibrated._model
    names = [layer.name for layer in model.layers]
    norms = [layer for layer in model.layers if hasattr(layer, "moving_mean")]
    before_last = [norm for norm in norms if names.index(norm.name) < names.index("mixed9")]
    assert len(norms) == 94 and len(before_last) == 85
    for norm in before_last:
        assert not norm.moving_mean.numpy().any() and (norm.moving_variance.numpy() == 1).all()
        norm.trainable = False
    scaled = images(5).astype(np.float32) / 127.5 - 1
    inference = model(scaled, training=False).numpy()
    before = [weight.numpy() for weight in model.weights]
    training = model(scaled, training=True).numpy()
    for weight, value in zip(model.weights, before, strict=True):
        weight.assign(value)
    for norm in before_last:
        norm.trainable = True
    np.testing.assert_allclose(inference, training, atol=2e-2 * training.max())
    assert 0.1 < inference.std() < 10


def test_saved_weights_give_the_same_features(calibrated, tmp_path):
    path = tmp_path / "x.weights.h5"
    calibrated.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.weights.h5"]
    again = Extractor.restore(path, "again", 3)
    assert again.fingerprint == calibrated.fingerprint and len(again.fingerprint) == 64
    batch = images(2, seed=4)
    np.testing.assert_array_equal(again.features(batch), calibrated.features(batch))
    assert calibrated.description == "random weights (seed 3), calibrated on 5 frames"


@pytest.fixture(scope="module")
def kept(calibrated, tmp_path_factory):
    """A cache with the frozen network."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        saved_model_cache.keep(calibrated)
    return folder


@pytest.fixture
def copy(kept, tmp_path, monkeypatch):
    """The same, to be spoilt."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_frozen_it_gives_the_same_features(calibrated, copy):
    batch = images(4, seed=3)
    loaded = saved_model_cache.load(calibrated.fingerprint, 3)
    np.testing.assert_array_equal(loaded.features(batch), calibrated.features(batch))
    saved_model_cache.keep(loaded)  # nothing to do
    saved_model_cache.keep(calibrated)  # another process was first
    assert len(list((copy / "uhman_jax" / "networks").iterdir())) == 1


def test_a_full_disk_only_costs_the_frozen_network(calibrated, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def full(path):
        path.mkdir()
        raise tensorflow.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(calibrated, "freeze", full)
    saved_model_cache.keep(calibrated)
    assert not list((tmp_path / "uhman_jax" / "networks").iterdir())
    assert saved_model_cache.load(calibrated.fingerprint, 3) is None


def test_a_damaged_frozen_network_is_forgotten(calibrated, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = saved_model_cache.cache_folder(calibrated.fingerprint, 3)
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"no graph")
    assert saved_model_cache.load(calibrated.fingerprint, 3) is None
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["missing", "garbage"])
@pytest.mark.parametrize(
    "name",
    [
        "session.pb",
        "saved_model.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
    ],
)
def test_so_is_one_with_a_damaged_file(calibrated, copy, name, damage):
    folder = saved_model_cache.cache_folder(calibrated.fingerprint, 3)
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(b"\xff" * 100)
    assert saved_model_cache.load(calibrated.fingerprint, 3) is None
    assert not folder.exists()


def test_without_the_c_api_nothing_is_kept(calibrated, copy, monkeypatch):
    monkeypatch.setattr(tensorflow_c, "LIBRARIES", ("libother.so",))
    assert saved_model_cache.load(calibrated.fingerprint, 3) is None
    saved_model_cache.keep(calibrated)
    assert not list((copy / "uhman_jax" / "networks").iterdir())


def test_what_a_killed_process_left_goes(calibrated, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = saved_model_cache.cache_folder(calibrated.fingerprint, 3)
    old, new = folder.with_name(".1.old"), folder.with_name(".2.new")
    for left in (old, new):
        left.mkdir(parents=True)
    os.utime(old, (1, 1))
    monkeypatch.setattr(calibrated, "freeze", lambda path: path.mkdir())
    saved_model_cache.keep(calibrated)
    assert sorted(folder.parent.iterdir()) == [new, folder]


@pytest.fixture(scope="module")
def spare():
    """A network to spoil."""
    return extractor._network()


def test_random_weights_follow_their_seed(spare):
    fingerprints = []
    for seed in (1, 1, 2):
        extractor._randomise(spare, seed)
        fingerprints.append(extractor._fingerprint(spare))
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_random_features_say_where_an_object_of_one_colour_is(calibrated):
    """A direction fitted on four pictures with a red and a green square finds the red of others."""
    batch = images(8, seed=7)
    is_red = np.zeros((8, 8, 8), bool)
    for index, (row, column) in enumerate(np.random.default_rng(0).integers(0, 6, (8, 2))):
        for colour, y in (((220, 30, 40), row), ((40, 200, 30), 5 - row)):
            batch[index, 37 * y : 37 * y + 75, 37 * column : 37 * column + 75] = colour
        is_red[index, row : row + 2, column : column + 2] = True
    features = calibrated.features(batch)
    features = (features - features.mean((0, 1))) / (features.std((0, 1)) + 1e-6)
    red, fit = is_red.reshape(8, 64), slice(0, 4)
    direction = features[fit][red[fit]].mean(0) - features[fit][~red[fit]].mean(0)
    scores, wanted = (features[4:] @ direction).ravel(), red[4:].ravel()
    better = np.mean(scores[wanted][:, None] > scores[~wanted][None, :])
    # Over five seeds of weights and pictures and two roundings mean 0.95, sd 0.03; chance is 0.5.
    assert better > 0.75, f"area under the ROC curve on held-out pictures: {better:.3f}"


def test_files_of_no_use_are_refused(tmp_path):
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(UserError, match='must be a Keras .h5 file.*text.h5.*use "random"'):
        Extractor.load(str(tmp_path / "text.h5"))
    with pytest.raises(UserError, match="does not exist"):
        Extractor.load(str(tmp_path / "nowhere.h5"))


def test_weights_of_another_network_are_refused(spare, tmp_path):
    keras = extractor.keras
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(UserError, match="must fit .*InceptionV3.*other.weights.h5"):
        extractor.load_weights(spare, str(tmp_path / "other.weights.h5"))


def test_damaged_weights_are_refused(calibrated, spare, tmp_path):
    path = tmp_path / "x.weights.h5"
    calibrated.save(path)
    extractor.load_weights(spare, str(path))
    assert extractor._fingerprint(spare) == calibrated.fingerprint
    with extractor.h5py.File(path, "r+") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        file[names[0]][...] = np.nan
    with pytest.raises(UserError, match="not finite"):
        extractor.load_weights(spare, str(path))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(UserError, match="x.weights.h5"):
        extractor.load_weights(spare, str(path))


def test_a_failed_download_names_the_alternatives(monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure: no network")  # what Keras raises

    monkeypatch.setattr(extractor.keras.applications, "InceptionV3", fail)
    with pytest.raises(UserError, match="no network.*random.*Keras .h5 file"):
        Extractor.load("imagenet")
