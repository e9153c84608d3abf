"""Keras on TensorFlow: how the extractor's network is run, calibrated and frozen."""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from uhman_jax.preprocess.tensorflow_c import CONFIG_FILE

CALLS_AT_ONCE = 1  # a call has all cores


def prepare_devices() -> None:
    """Leaves GPU memory to others and makes kernels repeatable, where there is a GPU."""
    devices = tf.config.list_physical_devices("GPU")
    for device in devices:
        with contextlib.suppress(RuntimeError):  # already in use
            tf.config.experimental.set_memory_growth(device, True)
    if devices:
        tf.config.experimental.enable_op_determinism()


class Compiled:
    """The network as a function of uint8 images of one shape; float32."""

    def __init__(self, model: Any, shape: tuple[int, ...]):
        """Keeps the function; its first call traces it."""
        self._call = _traced(model, shape)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features of images."""
        return self._call(images).numpy()


def _traced(model: Any, shape: tuple[int, ...]) -> Any:
    return tf.function(
        lambda images: tf.cast(model(_scale(images), training=False), tf.float32),
        input_signature=[tf.TensorSpec(shape, tf.uint8)],
    )


def batch_statistics(model: Any, variables: Sequence[Any]) -> Callable[[np.ndarray], list]:
    """What a pass over uint8 images in training mode leaves in these variables."""
    run = tf.function(
        lambda images: tf.reduce_mean(model(_scale(images), training=True)),
        input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)],
    )

    def after(images: np.ndarray) -> list:
        run(tf.constant(images))
        return [variable.numpy() for variable in variables]

    return after


def freeze(model: Any, shape: tuple[int, ...], path: str | os.PathLike) -> None:
    """Writes the network as a SavedModel, see `frozen`."""
    module: Any = tf.Module()
    module.call, module.weights = _traced(model, shape), [v.value for v in model.variables]
    # TensorFlow's rewriting of graphs takes longer than it saves, and may change the rounding.
    session = tf.compat.v1.ConfigProto()
    session.graph_options.rewrite_options.disable_meta_optimizer = True
    session.gpu_options.allow_growth = True
    signature = module.call.get_concrete_function()
    tf.saved_model.save(module, path, signatures=signature)
    Path(path, CONFIG_FILE).write_bytes(session.SerializeToString())


def _scale(images: Any) -> Any:
    return tf.cast(images, tf.float32) / 127.5 - 1.0  # Inception's range, [-1, 1]
