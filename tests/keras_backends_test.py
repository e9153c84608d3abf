"""Keras on TensorFlow and on JAX, each in a process, run the extractor's network."""

import subprocess
import sys

import numpy as np
import pytest

from uhman_jax.config import Backend
from uhman_jax.preprocess.shard_builder import extractor_class
from uhman_jax.runtime.errors import UserError

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
np.save(sys.argv[1], extractor.features(images))
assert "tensorflow" not in sys.modules or sys.argv[3] == "tensorflow"
"""


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
    features = {}
    for how in (("tensorflow", "float32"), ("jax", "float32"), ("jax", "bfloat16")):
        command = [sys.executable, "-c", WHOLE, tmp_path / "x.npy", tmp_path / "images.npy", *how]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        features[how] = np.load(tmp_path / "x.npy")
    expected, exact, rounded = features.values()
    assert expected.dtype == exact.dtype == rounded.dtype == np.float32
    np.testing.assert_allclose(exact, expected, atol=1e-3 * np.abs(expected).max())
    assert 0.99 < np.corrcoef(rounded.ravel(), expected.ravel())[0, 1] < 1
