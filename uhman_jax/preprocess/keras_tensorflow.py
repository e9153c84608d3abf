"""Keras on TensorFlow: runs, calibrates and converts the extractor's network."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

CALLS_AT_ONCE = 1  # a call uses all cores


def prepare_devices() -> None:
    """Lets GPU memory grow with its use, and makes GPU kernels deterministic."""
    devices = tf.config.list_physical_devices("GPU")
    for device in devices:
        with contextlib.suppress(RuntimeError):  # already in use
            tf.config.experimental.set_memory_growth(device, True)
    if devices:
        tf.config.experimental.enable_op_determinism()


class Compiled:
    """The network for uint8 images of one shape; returns float32. The first call traces it."""

    def __init__(self, model: Any, scale: Callable[[Any], Any], shape: tuple[int, ...]):
        self._call = _traced(model, scale, shape)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the features of images."""
        return self._call(images).numpy()


def _traced(model: Any, scale: Callable[[Any], Any], shape: tuple[int, ...]) -> Any:
    return tf.function(
        lambda images: tf.cast(
            model(scale(tf.cast(images, tf.float32)), training=False), tf.float32
        ),
        input_signature=[tf.TensorSpec(shape, tf.uint8)],
    )


def batch_statistics(
    model: Any, scale: Callable[[Any], Any], variables: Sequence[Any]
) -> Callable[[np.ndarray], list]:
    """Returns a function from uint8 images to the variables' values after a training-mode pass."""
    run = tf.function(
        lambda images: tf.reduce_mean(model(scale(tf.cast(images, tf.float32)), training=True)),
        input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)],
    )

    def after(images: np.ndarray) -> list:
        run(tf.constant(images))
        return [variable.numpy() for variable in variables]

    return after


def to_litert(model: Any, scale: Callable[[Any], Any], shape: tuple[int, ...]) -> bytes:
    """Returns the network as a LiteRT file with float32 weights, see `litert`."""
    module: Any = tf.Module()
    module.call, module.weights = _traced(model, scale, shape), [v.value for v in model.variables]
    functions = [module.call.get_concrete_function()]
    converter = tf.lite.TFLiteConverter  # type: ignore[missing-attribute]
    return converter.from_concrete_functions(functions, module).convert()
