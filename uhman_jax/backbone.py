"""The networks that turn images into region features.

To add a network of keras.applications, add a `Backbone` to `BACKBONES`: the setting
`preprocess.backbone`, the image and shard sizes and the tests are derived from it. Keras is
imported only when a network is built.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of red, green and blue in [0, 1]
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network that is cut after a layer whose output is a square map of regions.

    Attributes:
        name: value of the setting `preprocess.backbone`.
        layer: name of the layer whose output is the map.
        calibrate_after: name of the layer after which batch norms are calibrated, if weights are
            random.
        image_size: side of an image in pixels.
        grid: regions along a side of the map; a frame has `grid`**2 regions, in row-major order.
        num_channels: channels of a region.
        scale: maps float32 images with values from 0 to 255 to the network's input.
        application: builds the whole network, given the module keras.applications and the
            arguments that all its networks take.
    """

    name: str
    layer: str
    calibrate_after: str
    image_size: int
    grid: int
    num_channels: int
    scale: Callable[[Any], Any]
    application: Callable[..., Any]

    @property
    def num_regions(self) -> int:
        """Number of regions per frame."""
        return self.grid**2

    @property
    def network(self) -> str:
        """Network and layer in settings and metadata, such as `inception_v3/mixed10`."""
        return f"{self.name}/{self.layer}"

    def build(self, weights: str | None = None) -> Any:
        """Returns the Keras model, with random or ImageNet weights (`weights="imagenet"`)."""
        import keras

        shape = (self.image_size, self.image_size, 3)
        whole = self.application(
            keras.applications, include_top=False, weights=weights, input_shape=shape
        )
        for layer in whole.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0  # calibration runs in training mode and must be repeatable
        return keras.Model(whole.input, whole.get_layer(self.layer).output)


INCEPTION_V3 = Backbone(  # the paper's (section 2.2)
    name="inception_v3",
    layer="mixed10",
    calibrate_after="mixed9",
    image_size=299,
    grid=8,
    num_channels=2048,
    scale=lambda images: images / 127.5 - 1.0,
    application=lambda applications, **options: applications.InceptionV3(**options),
)
EFFICIENTNET_V2_B0 = Backbone(  # as accurate on ImageNet, an eighth of the arithmetic
    name="efficientnet_v2_b0",
    layer="top_activation",
    calibrate_after="stem_conv",  # all batch norms, or residual sums grow with depth
    image_size=224,
    grid=7,
    num_channels=1280,
    scale=lambda images: (images / 255.0 - _IMAGENET_MEAN) / _IMAGENET_STD,
    application=lambda applications, **options: applications.EfficientNetV2B0(
        include_preprocessing=False, **options
    ),
)
BACKBONES = {backbone.name: backbone for backbone in (INCEPTION_V3, EFFICIENTNET_V2_B0)}
