"""Keras on JAX: runs and calibrates the extractor's network, e.g. on an accelerator."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CALLS_AT_ONCE = 3  # one copies images, one computes, one copies features


def prepare_devices() -> None:
    """Has no effect, because JAX needs no preparation."""


class Compiled:
    """The network, compiled for uint8 images of one shape; returns float32.

    Attributes:
        on_device: the same function from images on the device to features on the device.
    """

    def __init__(self, model: Any, scale: Callable[[Any], Any], shape: tuple[int, ...]):
        weights = _weights(model)

        def features(weights: Any, images: Any) -> Any:
            images = scale(images.astype(jnp.float32))
            return model.stateless_call(*weights, images, training=False)[0]

        program = jax.jit(features).lower(weights, jax.ShapeDtypeStruct(shape, jnp.uint8)).compile()
        self.on_device = functools.partial(program, weights)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the features of images; both are on the host."""
        # Copy before the cast: bfloat16 activations are half as large.
        return np.asarray(self.on_device(images)).astype(np.float32)


def batch_statistics(
    model: Any, scale: Callable[[Any], Any], variables: Sequence[Any]
) -> Callable[[np.ndarray], list]:
    """Returns a function from uint8 images to the variables' values after a training-mode pass."""
    ids = [id(variable) for variable in model.non_trainable_variables]
    indices = [ids.index(id(variable)) for variable in variables]

    @jax.jit
    def after(weights: Any, images: Any) -> list:
        images = scale(images.astype(jnp.float32))
        updated = model.stateless_call(*weights, images, training=True)[1]
        return [updated[index] for index in indices]

    return lambda images: [np.asarray(value) for value in after(_weights(model), images)]


def _weights(model: Any) -> tuple[list, list]:
    trainable = [variable.value for variable in model.trainable_variables]
    return trainable, [variable.value for variable in model.non_trainable_variables]
