"""Converts images to region features with a backbone and its weights (paper, section 2.2).

Importing this module takes seconds: it imports Keras on TensorFlow or JAX. The environment
variable KERAS_BACKEND selects one of the two before the import, for the whole process.
"""

import hashlib
import importlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from uhman_jax.backbone import Backbone
from uhman_jax.config import Precision
from uhman_jax.preprocess.extract_features import in_batches
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError
from uhman_jax.runtime.streams import quiet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if os.environ.get("KERAS_BACKEND") != "jax":
    os.environ["KERAS_BACKEND"] = "tensorflow"


with quiet():
    import h5py
    import keras

    engine = importlib.import_module(f"uhman_jax.preprocess.keras_{keras.backend.backend()}")

_CHOICES = 'use "random" (no download), "imagenet" (downloads) or the path of a Keras .h5 file'
_POLICIES = {Precision.FLOAT32: "float32", Precision.BFLOAT16: "mixed_bfloat16"}
_WINDOW_TAPS = 0.6  # standard deviation of the window of a random kernel, in taps
_CALIBRATION_CHUNK = 32  # frames per pass in training mode: bounds memory
_LOAD_ERRORS = (ValueError, OSError, KeyError, TypeError, AttributeError, IndexError, RuntimeError)


class Extractor:
    """A backbone, its weights and a compiled program.

    Attributes:
        backbone: the network.
        fingerprint: SHA-256 of the network's name and all weights.
        description: names the weights in reports.
        batch_frames: images per call of the network. It is fixed, so on one machine the features of
            an image are bit-identical for any other images in the batch. They may depend on its
            index in the batch by rounding: some processors split a batch unevenly.
        calls_at_once: useful number of concurrent calls of `features`: an accelerator computes a
            batch while another is copied.
    """

    calls_at_once = engine.CALLS_AT_ONCE

    def __init__(
        self, backbone: Backbone, model: "keras.Model", description: str, batch_frames: int
    ):
        self.backbone = backbone
        self.description = description
        self.batch_frames = batch_frames
        self._model = model
        self.fingerprint = _fingerprint(backbone, model)
        self._shape = (batch_frames, backbone.image_size, backbone.image_size, 3)
        self._call = engine.Compiled(model, backbone.scale, self._shape)

    @classmethod
    def load(
        cls,
        backbone: Backbone,
        weights: str,
        *,
        seed: int = 0,
        calibration_images: np.ndarray | None = None,
        batch_frames: int = 16,
        precision: Precision = Precision.FLOAT32,
    ) -> "Extractor":
        """Builds the network with the given weights.

        Args:
            backbone: the network.
            weights: "imagenet" (Keras' download), "random", or the path of a Keras .h5 file of the
                network without its top layers. Only numbers are read from it, no code.
            seed: of random weights.
            calibration_images: uint8 [N, size, size, 3] from which the batch-norm statistics of a
                random network are set; without them (None or N = 0: mean 0, variance 1) its
                features are tiny.
            batch_frames: images per call of the network.
            precision: of the activations; weights stay float32.

        Raises:
            UserError: the weights cannot be loaded.
        """
        if weights == "imagenet":
            try:
                model = _network(backbone, precision, "imagenet")
            except Exception as error:  # Keras raises bare Exception when a download fails
                raise UserError(
                    "weights=imagenet needs Keras' download or its copy in ~/.keras/models, which "
                    f'failed ({error}); use "random" (no download) or the path of a Keras .h5 file'
                ) from error
            return cls(backbone, model, "ImageNet weights of Keras", batch_frames)
        if weights != "random":
            description = f"weights of {Path(weights).name}"
            path = storage.cached_copy(weights)
            return cls.restore(backbone, path, description, batch_frames, precision)
        model = _network(backbone, precision)
        _randomise(model, seed)
        calibrated = "not calibrated"
        if calibration_images is not None and len(calibration_images):
            calibrate(backbone, model, calibration_images)
            calibrated = f"calibrated on {len(calibration_images)} frames"
        description = f"random weights (seed {seed}), {calibrated}"
        return cls(backbone, model, description, batch_frames)

    @classmethod
    def restore(
        cls,
        backbone: Backbone,
        path: str | os.PathLike,
        description: str,
        batch_frames: int,
        precision: Precision = Precision.FLOAT32,
    ) -> "Extractor":
        """Returns the extractor with the weights in a file, e.g. one that `save` wrote.

        Raises:
            UserError: the file is damaged or missing.
        """
        _require_hdf5(os.fspath(path))
        model = _network(backbone, precision)
        load_weights(backbone, model, os.fspath(path))
        return cls(backbone, model, description, batch_frames)

    def save(self, path: str | os.PathLike) -> None:
        """Writes all weights atomically; the name must end in `.weights.h5`."""
        with storage.atomic_path(path) as temporary:
            self._model.save_weights(temporary)

    def to_litert(self) -> bytes:
        """Returns the network as a LiteRT file, see `litert`; needs Keras on TensorFlow."""
        with quiet():
            return engine.to_litert(self._model, self.backbone.scale, self._shape)

    def on_device(self, images: Any) -> Any:
        """Returns the features of a batch without copying to or from the host; needs Keras on JAX.

        Args:
            images: uint8 [batch_frames, size, size, 3] on the device.
        """
        return self._call.on_device(images)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns region features, float32 [N, M, C], regions row by row.

        Args:
            images: uint8 [N, size, size, 3] RGB; the last batch is padded with zeros.
        """
        return in_batches(self._call, images, self)


def _require_hdf5(path: str) -> None:
    if not os.path.isfile(path):
        raise UserError(f"weights must name a file, got {path!r}, which does not exist; {_CHOICES}")
    if not path.endswith(".h5") or not h5py.is_hdf5(path):
        raise UserError(
            f"weights must be a Keras .h5 file, got {path!r}, which is not one; {_CHOICES}"
        )


def load_weights(backbone: Backbone, model: "keras.Model", path: str) -> None:
    """Fills the model from a Keras .h5 file.

    Raises:
        UserError: the weights belong to another network, are damaged or are not finite.
    """
    for weight in model.weights:
        weight.assign(np.full(weight.shape, np.nan, np.float32))  # Keras only warns of missing ones
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.load_weights(path)
        bad = [w.path for w in model.weights if not np.isfinite(w.numpy()).all()]
        problem = f"{bad[0]} is missing or not finite" if bad else ""
    except _LOAD_ERRORS as error:
        problem = next(iter(str(error).splitlines()), type(error).__name__)
    if problem:
        raise UserError(
            f"weights must fit {backbone.name} of keras.applications with include_top=False, "
            f"{path!r} does not ({problem}); {_CHOICES}"
        )


def _network(
    backbone: Backbone, precision: Precision = Precision.FLOAT32, weights: str | None = None
) -> "keras.Model":
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[precision])
    try:
        with quiet():
            engine.prepare_devices()
            return backbone.build(weights)
    finally:
        keras.config.set_dtype_policy(before)


def _randomise(model: "keras.Model", seed: int) -> None:
    """Sets random kernels that mix channels at random and average neighbours smoothly.

    A kernel is a Gaussian window over its taps, of sum 1, times a He-normal matrix over channels
    (ReLU follows). NumPy draws it, so no Keras release changes it. With independent random taps, a
    network of this depth scrambles the content of a region. With a centred window, colour and
    coarse shape can still be read at their position (the idea of delta-orthogonal initialisation,
    Xiao et al. 2018; measured in experiments/recipe/random_features.py). A depthwise kernel is only
    the window: the convolutions around it mix the channels. A kernel over a pooled map (squeeze and
    excitation) is 0, so its gate is 1/2. With random gates, a relative change of the image by 1e-6
    changes features of EfficientNet by more than their standard deviation; with gates of 1/2, by
    1e-4 of it.
    """
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            height, width, inputs, outputs = layer.kernel.shape
            mix = rng.standard_normal((inputs, outputs), np.float32) * np.sqrt(2 / inputs)
            window = np.outer(_window(height), _window(width))[:, :, None, None]
            pooled = layer.input.shape[1:3] == (1, 1)
            layer.kernel.assign((window * mix * (not pooled)).astype(np.float32))
        elif isinstance(layer, keras.layers.DepthwiseConv2D):
            height, width, *channels = layer.kernel.shape
            window = np.outer(_window(height), _window(width))[:, :, None, None]
            layer.kernel.assign(np.tile(window, (1, 1, *channels)).astype(np.float32))


def _window(size: int) -> np.ndarray:
    """Returns Gaussian weights of a kernel's taps along one axis; their sum is 1."""
    taps = np.exp(-(((np.arange(size) - (size - 1) / 2) / _WINDOW_TAPS) ** 2) / 2)
    return taps / taps.sum()


def calibrate(
    backbone: Backbone, model: "keras.Model", images: np.ndarray, after: str = ""
) -> None:
    """Sets the mean and variance of the last batch norms to the statistics of their input.

    Only the batch norms after the layer `after` (default: `backbone.calibrate_after`) are set. If
    all are set, a random network of this depth is so chaotic that a linear model predicts the
    content of a region less well (experiments/recipe/random_features.py). The images make one pass
    in training mode with momentum 0, in interleaved chunks; the chunks' statistics are averaged.
    """
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    last_block = model.layers.index(model.get_layer(after or backbone.calibrate_after))
    frozen = [norm for norm in norms if model.layers.index(norm) < last_block]
    norms = norms[len(frozen) :]
    momenta = [norm.momentum for norm in norms]
    for norm in frozen:
        norm.trainable = False  # keeps its statistics in training mode too
    for norm in norms:
        norm.momentum = 0.0
    variables: list = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
    statistics = engine.batch_statistics(model, backbone.scale, variables)
    totals = [np.zeros(v.shape, np.float64) for v in variables]
    num_chunks = -(-len(images) // _CALIBRATION_CHUNK)
    for chunk in range(num_chunks):
        batch = images[chunk::num_chunks]
        for total, value in zip(totals, statistics(batch), strict=True):
            total += value * (len(batch) / len(images))
    for total, variable in zip(totals, variables, strict=True):
        variable.assign(total.astype(np.float32))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for norm in frozen:
        norm.trainable = True


def _fingerprint(backbone: Backbone, model: "keras.Model") -> str:
    facts = {"network": backbone.name, "layer": backbone.layer, "size": backbone.image_size}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for weight in model.weights:  # without names: they depend on earlier networks of the process
        values = np.ascontiguousarray(weight.numpy())
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
