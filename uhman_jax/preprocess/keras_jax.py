"""Keras on JAX: how the extractor's network is run and calibrated on an accelerator."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CALLS_AT_ONCE = 3  # images on their way, in the network, and features on theirs


def prepare_devices() -> None:
    """JAX needs nothing."""


class Compiled:
    """The network as a function of uint8 images of one shape; float32.

    Attributes:
        on_device: the same from images on the device to features left there.
    """

    def __init__(self, model: Any, shape: tuple[int, ...]):
        """Compiles it."""
        weights = _weights(model)

        def features(weights: Any, images: Any) -> Any:
            return _apply(model, weights, images, training=False)[0]

        program = jax.jit(features).lower(weights, jax.ShapeDtypeStruct(shape, jnp.uint8)).compile()
        self.on_device = functools.partial(program, weights)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features of images on the host, for it."""
        # In the type of the activations half as much travels, and nothing is lost.
        return np.asarray(self.on_device(images)).astype(np.float32)


def batch_statistics(model: Any, variables: Sequence[Any]) -> Callable[[np.ndarray], list]:
    """What a pass over uint8 images in training mode leaves in these variables."""
    places = [id(variable) for variable in model.non_trainable_variables]
    wanted = [places.index(id(variable)) for variable in variables]

    @jax.jit
    def after(weights: Any, images: Any) -> list:
        updated = _apply(model, weights, images, training=True)[1]
        return [updated[place] for place in wanted]

    return lambda images: [np.asarray(value) for value in after(_weights(model), images)]


def _weights(model: Any) -> tuple[list, list]:
    trainable = [variable.value for variable in model.trainable_variables]
    return trainable, [variable.value for variable in model.non_trainable_variables]


def _apply(model: Any, weights: tuple[list, list], images: Any, training: bool) -> Any:
    """The output, and the non-trainable variables after it."""
    scaled = images.astype(jnp.float32) / 127.5 - 1.0  # Inception's range, [-1, 1]
    return model.stateless_call(*weights, scaled, training=training)
