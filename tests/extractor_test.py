"""The backbones with their weights, and the extractor around a small network."""

import dataclasses

import numpy as np
import pytest

from uhman_jax.backbone import BACKBONES, EFFICIENTNET_V2_B0, INCEPTION_V3
from uhman_jax.preprocess import litert
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards import quantize

pytest.importorskip("tensorflow")
extractor = pytest.importorskip("uhman_jax.preprocess.extractor")
Extractor, keras = extractor.Extractor, extractor.keras


def small_application(applications, include_top, weights, input_shape):
    inputs = keras.Input(input_shape)
    outputs = keras.layers.Conv2D(5, 3, strides=4, padding="same", name="first")(inputs)
    outputs = keras.layers.BatchNormalization()(outputs)
    outputs = keras.layers.Conv2D(7, 3, padding="same", activation="relu", name="last")(outputs)
    return keras.Model(inputs, outputs)


SMALL = dataclasses.replace(
    INCEPTION_V3, image_size=16, grid=4, num_channels=7, layer="last", calibrate_after="first",
    application=small_application,
)  # fmt: skip


def images(backbone, count, seed=0):
    """Smooth pictures: coarse noise, enlarged."""
    size = backbone.image_size
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 23, 23, 3)).astype(np.uint8)
    return np.ascontiguousarray(coarse.repeat(13, 1).repeat(13, 2)[:, :size, :size])


@pytest.fixture(scope="module", params=BACKBONES.values(), ids=BACKBONES)
def calibrated(request):
    few = images(request.param, 5)
    return Extractor.load(request.param, "random", seed=3, calibration_images=few, batch_frames=3)


def test_features_are_the_map_of_keras(calibrated):
    """The graph of Keras, run eagerly on the scaled images, is the reference."""
    backbone = calibrated.backbone
    batch = images(backbone, 4, seed=1)
    features = calibrated.features(batch)
    grid, channels = backbone.grid, backbone.num_channels
    assert features.shape == (4, grid**2, channels) and features.dtype == np.float32
    scaled = backbone.scale(batch[:2].astype(np.float32))
    expected = calibrated._model(scaled, training=False).numpy()
    assert expected.shape == (2, grid, grid, channels)
    np.testing.assert_allclose(
        features[:2].reshape(expected.shape), expected, atol=1e-3 * expected.max()
    )
    assert calibrated._model.layers[-1].name == backbone.layer
    assert (features.std(axis=(0, 1)) > 0.01 * features.std()).all(), "a constant channel"


def test_images_are_scaled_as_by_keras():
    values = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    expected = keras.applications.inception_v3.preprocess_input(values.copy())
    np.testing.assert_allclose(INCEPTION_V3.scale(values), expected, atol=1e-6)
    whole = keras.applications.EfficientNetV2B0(
        include_top=False, weights=None, include_preprocessing=True, input_shape=(224, 224, 3)
    )
    normalised = keras.Model(whole.input, whole.get_layer("normalization").output)
    found = EFFICIENTNET_V2_B0.scale(values)
    np.testing.assert_allclose(found, normalised(values).numpy(), atol=1e-5)


def test_features_of_an_image_do_not_depend_on_its_batch(calibrated):
    batch = images(calibrated.backbone, 7, seed=2)
    features = calibrated.features(batch)
    others = images(calibrated.backbone, 7, seed=5)
    others[4] = batch[4]
    np.testing.assert_array_equal(calibrated.features(others)[4], features[4])
    np.testing.assert_array_equal(calibrated.features(batch[3:4]), features[3:4])  # and padding
    order = np.random.default_rng(0).permutation(7)  # its index in the batch may change rounding
    atol = 1e-5 * features.max()
    np.testing.assert_allclose(calibrated.features(batch[order]), features[order], atol=atol)
    assert calibrated.features(batch[:0]).shape == (0, *features.shape[1:])


def test_calibration_gives_the_last_block_the_statistics_of_its_input(calibrated):
    """With them, inference on the calibration frames equals training mode of that block."""
    model, backbone = calibrated._model, calibrated.backbone
    names = [layer.name for layer in model.layers]
    norms = [layer for layer in model.layers if hasattr(layer, "moving_mean")]
    last_block = names.index(backbone.calibrate_after)
    before_last = [norm for norm in norms if names.index(norm.name) < last_block]
    assert len(before_last) < len(norms)
    assert (len(before_last), len(norms)) == (85, 94) or backbone is not INCEPTION_V3
    for norm in before_last:
        assert not norm.moving_mean.numpy().any() and (norm.moving_variance.numpy() == 1).all()
        norm.trainable = False
    scaled = backbone.scale(images(backbone, 5).astype(np.float32))
    inference = model(scaled, training=False).numpy()
    before = [weight.numpy() for weight in model.weights]
    training = model(scaled, training=True).numpy()
    for weight, value in zip(model.weights, before, strict=True):
        weight.assign(value)
    for norm in before_last:
        norm.trainable = True
    np.testing.assert_allclose(inference, training, atol=2e-2 * training.max())
    assert 0.1 < inference.std() < 10


def test_random_features_say_where_an_object_of_one_colour_is(calibrated):
    """A direction fitted on four pictures with a red and a green square finds the red of others."""
    batch, grid = images(calibrated.backbone, 8, seed=7), calibrated.backbone.grid
    cell = calibrated.backbone.image_size // grid
    is_red = np.zeros((8, grid, grid), bool)
    for index, (row, column) in enumerate(np.random.default_rng(0).integers(0, grid - 2, (8, 2))):
        for colour, y in (((220, 30, 40), row), ((40, 200, 30), grid - 3 - row)):
            rows, columns = (slice(cell * i, cell * (i + 2) + 1) for i in (y, column))
            batch[index, rows, columns] = colour
        is_red[index, row : row + 2, column : column + 2] = True
    features = calibrated.features(batch)
    features = (features - features.mean((0, 1))) / (features.std((0, 1)) + 1e-6)
    red, fit = is_red.reshape(8, -1), slice(0, 4)
    direction = features[fit][red[fit]].mean(0) - features[fit][~red[fit]].mean(0)
    scores, wanted = (features[4:] @ direction).ravel(), red[4:].ravel()
    better = np.mean(scores[wanted][:, None] > scores[~wanted][None, :])
    # Over five seeds of weights and pictures and two roundings mean 0.95, sd 0.03; chance is 0.5.
    assert better > 0.75, f"area under the ROC curve on held-out pictures: {better:.3f}"


@pytest.fixture(scope="module")
def small():
    few = images(SMALL, 5)
    return Extractor.load(SMALL, "random", seed=3, calibration_images=few, batch_frames=3)


def test_saved_weights_give_the_same_features_and_damaged_ones_are_refused(small, tmp_path):
    path = tmp_path / "x.weights.h5"
    small.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.weights.h5"]
    again = Extractor.restore(SMALL, path, "again", 3)
    assert again.fingerprint == small.fingerprint and len(again.fingerprint) == 64
    batch = images(SMALL, 2, seed=4)
    np.testing.assert_array_equal(again.features(batch), small.features(batch))
    assert small.description == "random weights (seed 3), calibrated on 5 frames"
    with extractor.h5py.File(path, "r+") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        file[names[0]][...] = np.nan
    with pytest.raises(UserError, match="not finite"):
        Extractor.load(SMALL, str(path))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(UserError, match="x.weights.h5"):
        Extractor.load(SMALL, str(path))


@pytest.mark.parametrize(
    "backbone", [SMALL, pytest.param(INCEPTION_V3, marks=pytest.mark.slow)], ids=["small", "real"]
)
def test_converted_it_gives_the_same_codes_but_for_roundings(backbone, tmp_path, monkeypatch):
    """Converted, damaged, and converted again; `backbone_test` converts the other backbones.

    A network that cannot be kept costs only time.
    """

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    few, batch = images(backbone, 5), images(backbone, 4, seed=3)
    first = Extractor.load(backbone, "random", calibration_images=few, batch_frames=3)
    assert litert.load(backbone, first.fingerprint, 3) is None
    litert.keep(first)
    loaded = litert.load(backbone, first.fingerprint, 3)
    litert.keep(loaded)  # has no effect
    codes, found = (quantize.encode(one.features(batch))[0] for one in (first, loaded))
    steps = np.abs(codes.astype(int) - found)
    # Measured on Inception-v3: 0.07 % of the codes differ, by 1.
    assert steps.max() <= 1 and steps.mean() < 0.005
    (path,) = (tmp_path / "uhman_jax" / "networks").iterdir()
    whole = path.read_bytes()
    for damaged in (b"", b"\xff" * 100, whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        assert litert.load(backbone, first.fingerprint, 3) is None
        assert not path.exists()
    monkeypatch.setattr(first, "to_litert", full)
    litert.keep(first)
    assert not list(path.parent.iterdir())
    assert litert.load(backbone, first.fingerprint, 3) is None
    monkeypatch.setattr(first, "to_litert", lambda: whole)
    litert.keep(first)
    assert litert.load(backbone, first.fingerprint, 3) is not None


def test_random_weights_follow_their_seed():
    fingerprints = [Extractor.load(SMALL, "random", seed=seed).fingerprint for seed in (1, 1, 2)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_files_of_no_use_are_refused(tmp_path):
    (tmp_path / "text.h5").write_text("no weights")
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    other.save_weights(tmp_path / "other.weights.h5")
    for name, message in (
        ("text.h5", 'must be a Keras .h5 file.*text.h5.*use "random"'),
        ("nowhere.h5", "does not exist"),
        ("other.weights.h5", "must fit inception_v3 .*other.weights.h5"),
    ):
        with pytest.raises(UserError, match=message):
            Extractor.load(SMALL, str(tmp_path / name))


def test_a_failed_download_names_the_alternatives(monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure: no network")  # as Keras

    monkeypatch.setattr(keras.applications, "InceptionV3", fail)
    with pytest.raises(UserError, match="no network.*random.*Keras .h5 file"):
        Extractor.load(INCEPTION_V3, "imagenet")
