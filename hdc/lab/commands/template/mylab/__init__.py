"""A network and a data set for hdc.

hdc train net=mylab_tower net.width=32 data=mylab_discs data.noise=60
"""

from dataclasses import dataclass

import numpy as np
from flax import nnx
from hdc import registry
from hdc.lab.data import Dataset, Split
from hdc.layers import Conv, dilated


@dataclass(frozen=True)
class TowerOptions:
    """Options of the network: `net.width=32`.

    Attributes:
        width: channels of every layer but the last.
    """

    width: int = 16

    def __post_init__(self):
        if not 1 <= self.width <= 256:
            raise ValueError(f"width must be between 1 and 256, got {self.width}")


class Tower(nnx.Module):
    """A 3x3 layer, one dilated layer for each rate of the schedule, and a 1x1 layer."""

    def __init__(self, options, schedule, images, rngs):
        width = options.width
        self.stem = Conv(images.channels, width, 3, rngs=rngs)
        self.layers = nnx.List(
            dilated(width, width, schedule.kernel_size, rate=rate, rngs=rngs) for rate in schedule.layer_rates
        )
        self.head = Conv(width, images.classes, 1, rngs=rngs)

    def features(self, x):
        """The last feature maps, in which hdc measures gridding."""
        x = nnx.relu(self.stem(x))
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x

    def __call__(self, x):
        """Images `[batch, height, width, channels]` to logits `[batch, height, width, classes]`."""
        return self.head(self.features(x))


@registry.network("mylab_tower", TowerOptions)
def tower(options, schedule, images, *, rngs):
    """The network for `images`, which has height, width, channels, classes and task."""
    return Tower(options, schedule, images, rngs)


@dataclass(frozen=True)
class DiscsOptions:
    """Options of the data set: `data.noise=60`.

    Attributes:
        side: of the images, in pixels.
        noise: standard deviation of the noise; the discs are 60 brighter than the background.
    """

    side: int = 24
    noise: float = 40.0

    def __post_init__(self):
        if not 8 <= self.side <= 256:
            raise ValueError(f"side must be between 8 and 256, got {self.side}")
        if not 0 <= self.noise <= 255:
            raise ValueError(f"noise must be between 0 and 255, got {self.noise}")


@registry.dataset("mylab_discs", DiscsOptions)
def discs(options):
    """A bright disc on a noisy background in every image."""
    generator = np.random.default_rng(0)
    train, validation, test = (_draw(generator, count, options) for count in (120, 30, 30))
    return Dataset("mylab_discs", "dense", ("background", "disc"), train, validation, test)


def _draw(generator, count, options):
    side = options.side
    y, x = np.mgrid[:side, :side]
    center_y, center_x = generator.uniform(0, side, (2, count, 1, 1))
    radius = generator.uniform(3, 7, (count, 1, 1))
    inside = (y - center_y) ** 2 + (x - center_x) ** 2 < radius**2
    images = 100 + 60 * inside + generator.normal(0, options.noise, inside.shape)
    return Split(images.clip(0, 255).astype(np.uint8)[..., None], inside.astype(np.int32))
