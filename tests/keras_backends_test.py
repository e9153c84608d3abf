"""What runs the extractor's network: Keras on TensorFlow and on JAX, a process each."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from uhman_jax.config import Backend
from uhman_jax.preprocess.shard_builder import extractor_class
from uhman_jax.runtime.errors import UserError

SMALL = """
import importlib, sys
import keras, numpy as np
keras.config.set_dtype_policy(sys.argv[2])
model = keras.Sequential([
    keras.Input((9, 9, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(momentum=0.0)
])
rng = np.random.default_rng(0)
model.set_weights([np.abs(rng.standard_normal(w.shape)) for w in model.weights])
images = rng.integers(0, 256, (2, 9, 9, 3)).astype(np.uint8)
engine = importlib.import_module(f"uhman_jax.preprocess.keras_{keras.backend.backend()}")
norm = model.layers[-1]
scale = lambda images: images / 127.5 - 1.0
features = engine.Compiled(model, scale, images.shape)(images)
statistics = engine.batch_statistics(model, scale, [norm.moving_variance, norm.moving_mean])(images)
assert "tensorflow" not in sys.modules or keras.backend.backend() == "tensorflow"
np.savez(sys.argv[1], features, *statistics)
"""
WHOLE = """
import sys
import numpy as np
from uhman_jax.config import Backend, Precision
from uhman_jax.backbone import INCEPTION_V3
from uhman_jax.preprocess.shard_builder import extractor_class
images = np.load(sys.argv[2])
extractor = extractor_class(Backend(sys.argv[3])).load(
    INCEPTION_V3, "random", seed=3, calibration_images=images, batch_frames=2,
    precision=Precision(sys.argv[4]),
)
np.savez(sys.argv[1], extractor.features(images))
"""


def run(script: str, path: Path, *arguments: str, **environment: str) -> list[np.ndarray]:
    """The arrays that a script in a process of its own leaves in a file."""
    command = [sys.executable, "-c", script, str(path), *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files]


@pytest.mark.slow
def test_both_give_the_same_features_and_statistics(tmp_path):
    one, other = (
        run(SMALL, tmp_path / f"{backend}.npz", "float32", KERAS_BACKEND=backend)
        for backend in ("tensorflow", "jax")
    )
    assert [array.shape for array in one] == [(2, 7, 7, 4), (4,), (4,)]
    for got, want in zip(other, one, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert one[1].all(), "a pass in training mode leaves its statistics"
    rounded = run(SMALL, tmp_path / "b.npz", "mixed_bfloat16", KERAS_BACKEND="jax")[0]
    assert 0 < np.abs(rounded - one[0]).max() < 0.02 * np.abs(one[0]).max()


def test_a_process_has_one_of_them():
    tensorflow = extractor_class(Backend.TENSORFLOW)
    assert tensorflow is extractor_class(Backend.AUTO, "cpu") is extractor_class(Backend.AUTO)
    for choice in ((Backend.JAX,), (Backend.AUTO, "gpu")):
        with pytest.raises(UserError, match="preprocess.backend must be tensorflow .* got jax"):
            extractor_class(*choice)


@pytest.mark.slow
def test_inception_is_the_same_on_both(tmp_path):
    coarse = np.random.default_rng(0).integers(0, 256, (3, 23, 23, 3)).astype(np.uint8)
    np.save(tmp_path / "images.npy", coarse.repeat(13, 1).repeat(13, 2))
    features = [
        run(WHOLE, tmp_path / "x.npz", str(tmp_path / "images.npy"), backend, precision)[0]
        for backend, precision in (
            ("tensorflow", "float32"),
            ("jax", "float32"),
            ("jax", "bfloat16"),
        )
    ]
    most = np.abs(features[0]).max()
    np.testing.assert_allclose(features[1], features[0], atol=1e-3 * most)
    assert np.corrcoef(features[2].ravel(), features[0].ravel())[0, 1] > 0.99
