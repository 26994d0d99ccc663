"""`net=unet`: a U-Net whose bottleneck is a stack of dilated layers."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import InputError, in_range, one_of
from hdc.layers import Conv, PointwiseConv, dilated
from hdc.networks.blocks import MAX_WIDTH, NORMS, Block, per_pixel, resized
from hdc.ops import max_pool
from hdc.registry import Images
from hdc.schedules import DilationSchedule

MAX_LEVELS = 8


@dataclass(frozen=True)
class UnetOptions:
    """What can be chosen.

    Attributes:
        levels: how often the maps are halved; the bottleneck has a stride of 2 to this power.
        width: channels at the size of the images; each halving doubles them.
        norm: none, batch or group normalisation after every convolution.
    """

    levels: int = 3
    width: int = 16
    norm: str = "none"

    def __post_init__(self) -> None:
        in_range("levels", self.levels, 1, MAX_LEVELS)
        in_range("width", self.width, 1, MAX_WIDTH >> self.levels)
        one_of("norm", self.norm, NORMS)


class UNet(nnx.Module):
    """The U-Net of Ronneberger, Fischer and Brox 2015 (arXiv 1505.04597) with a dilated bottleneck.

    The encoder has two 3x3 layers at each level, then 2x2 max pooling; the bottleneck has a dilated layer for
    each rate; the decoder has the upsampled maps beside the encoder's at each level, and two 3x3 layers. In
    the paper (levels=4, width=64) the bottleneck's two layers are of rate 1, layers are not padded, and maps
    are upsampled by transposed convolutions. Here it is bilinear interpolation: transposed convolutions would
    add a checkerboard of their own to the gridding that is measured.

    Args:
        schedule: the bottleneck's rates, with their kernel size.
        in_channels, classes: channels of the images, number of logits.
        levels, width, norm: see `UnetOptions`.
        rngs: `params` is used.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        in_channels: int,
        classes: int,
        levels: int = 3,
        width: int = 16,
        norm: str = "none",
        rngs: nnx.Rngs,
    ):
        bias = norm == "none"

        def two(channels: int, features: int) -> nnx.List:
            convs = [Conv(ins, features, use_bias=bias, rngs=rngs) for ins in (channels, features)]
            return nnx.List([Block(conv, features, norm=norm, rngs=rngs) for conv in convs])

        widths = [width << level for level in range(levels + 1)]
        self.down = nnx.List([two(*pair) for pair in zip([in_channels, *widths], widths[:-1], strict=False)])
        self.bottleneck = nnx.List()
        channels = widths[-2]
        for rate in schedule.layer_rates:
            taps = schedule.kernel_size
            conv = dilated(channels, widths[-1], taps, rate=rate, use_bias=bias, rngs=rngs)
            self.bottleneck.append(Block(conv, widths[-1], norm=norm, rngs=rngs))
            channels = widths[-1]
        self.up = nnx.List([two(3 * fine, fine) for fine in reversed(widths[:-1])])
        self.head = PointwiseConv(width, classes, rngs=rngs)

    def features(self, x: Array) -> Array:
        """The decoder's last maps: `[b, h, w, channels]` to `[b, h, w, width]`.

        Raises:
            InputError: for images whose sides the bottleneck's stride does not divide.
        """
        _check_sides(x, 1 << len(self.down))
        kept = []
        for pair in self.down:
            for block in pair:
                x = block(x)
            kept.append(x)
            x = max_pool(x)
        for block in self.bottleneck:
            x = block(x)
        for pair in self.up:
            fine = kept.pop()
            x = jnp.concatenate([fine, resized(x, fine)], -1)
            for block in pair:
                x = block(x)
        return x

    def __call__(self, x: Array) -> Array:
        """Logits `[b, h, w, classes]`."""
        return self.head(self.features(x))


def _check_sides(x: Array, stride: int) -> None:
    sides = x.shape[1:3]
    if any(side % stride for side in sides):
        height, width = (max(stride, side - side % stride) for side in sides)
        raise InputError(
            f"net=unet halves maps {stride.bit_length() - 1} times and takes sides that {stride} divides, "
            f"such as {height} x {width}; the images are {sides[0]} x {sides[1]}"
        )


@registry.network("unet", UnetOptions)
def unet(options: UnetOptions, schedule: DilationSchedule, images: Images, *, rngs: nnx.Rngs) -> UNet:
    """A `UNet` for these images; InputError for one label per image."""
    per_pixel("unet", images)
    return UNet(
        schedule,
        in_channels=images.channels,
        classes=images.classes,
        levels=options.levels,
        width=options.width,
        norm=options.norm,
        rngs=rngs,
    )
