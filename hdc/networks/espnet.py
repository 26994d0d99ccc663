"""`net=espnet`: ESPNet-C, whose modules have parallel rates, interpolated to the size of the images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import InputError, in_range
from hdc.layers import PointwiseConv, dilated, normalised
from hdc.networks.blocks import MAX_WIDTH, Block, padded, per_pixel, refuse_small, resized, scaled
from hdc.registry import Images
from hdc.schedules import DilationSchedule

WIDTHS = (16, 64, 128)  # as published, at strides of 2, 4 and 8
MAX_MODULES = 100


@dataclass(frozen=True)
class EspnetOptions:
    """What can be chosen.

    Attributes:
        modules: how many modules follow the first one at a stride of 4, and at a stride of 8.
        width_multiplier: of the number of channels everywhere; 1 is as published, 16, 64 and 128.
        fused: whether the branches of a module are added one after the other (hierarchical feature fusion).
    """

    modules: tuple[int, ...] = (2, 3)
    width_multiplier: float = 1.0
    fused: bool = True

    def __post_init__(self) -> None:
        counts = list(self.modules)
        if len(counts) != 2 or not all(0 <= count <= MAX_MODULES for count in counts):
            raise InputError(
                f"modules must be two numbers from 0 to {MAX_MODULES}, such as [2,3], got {counts}"
            )
        in_range("width_multiplier", self.width_multiplier, 1 / 64, MAX_WIDTH / 1024)


class EspModule(nnx.Module):
    """An efficient spatial pyramid: reduce, branches of several rates, sums, all side by side.

    A convolution reduces the channels to those of one branch. Each branch is a dilated layer; with `fused`,
    each but the first is added to the sum of those between. Normalisation and ReLU follow, where channels and
    size stay the same after adding the input.

    Args:
        in_features, features: channels in and out; the first branch has what is left of an equal division.
        rates: of the branches.
        kernel_size: of the branches.
        stride: of the reduction, which is then 3x3 and not 1x1.
        fused: see above.
        rngs: `params` is used.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        rates: Sequence[int],
        *,
        kernel_size: int = 3,
        stride: int = 1,
        fused: bool = True,
        rngs: nnx.Rngs,
    ):
        share = features // len(rates)
        shares = [features - share * (len(rates) - 1), *[share] * (len(rates) - 1)]
        self.reduce = padded(in_features, share, 3 if stride > 1 else 1, stride=stride, rngs=rngs)
        self.branches = nnx.List(
            [
                dilated(share, own, kernel_size, rate=rate, use_bias=False, rngs=rngs)
                for own, rate in zip(shares, rates, strict=True)
            ]
        )
        self.norm = nnx.BatchNorm(features, rngs=rngs)
        self.fused, self.added = fused, stride == 1 and in_features == features

    def __call__(self, x: Array) -> Array:
        """`[b, h, w, in_features]` to `[b, h / stride, w / stride, features]`, rounded up."""
        reduced = self.reduce(x)
        first, *others = [branch(reduced) for branch in self.branches]
        if self.fused:
            for number in range(1, len(others)):
                others[number] = others[number] + others[number - 1]
        y = jnp.concatenate([first, *others], axis=-1)
        return normalised(self.norm, x + y if self.added else y)


class EspNet(nnx.Module):
    """ESPNet-C of Mehta et al. 2018 (arXiv 1803.06815): modules at strides of 4 and 8, a 1x1 convolution.

    Every module has a branch for each rate (published: 1, 2, 4, 8, 16). The image, averaged to the stride, is
    put beside the maps, as are a level's first maps beside its last ones. The logits are interpolated to the
    size of the images, where the paper's ESPNet has a decoder of its own; PReLU is ReLU here.

    Args:
        schedule: the rates of the branches of every module, with their kernel size.
        in_channels, classes: channels of the images, number of logits.
        modules, width_multiplier, fused: see `EspnetOptions`.
        rngs: `params` is used.

    Raises:
        InputError: for more rates than channels.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        in_channels: int,
        classes: int,
        modules: Sequence[int] = (2, 3),
        width_multiplier: float = 1.0,
        fused: bool = True,
        rngs: nnx.Rngs,
    ):
        first, *widths = (scaled(width, width_multiplier) for width in WIDTHS)
        rates = schedule.layer_rates
        if len(rates) > min(widths):
            raise InputError(
                f"net=espnet has a branch for each rate, but {len(rates)} rates for {min(widths)} channels: "
                "give fewer, such as schedule.repeat=1 'schedule.rates=[1,2,4,8,16]', or a larger "
                "net.width_multiplier"
            )
        self.stem = Block(padded(in_channels, first, stride=2, rngs=rngs), first, norm="batch", rngs=rngs)
        self.norms, self.levels = nnx.List(), nnx.List()
        channels = first + in_channels
        for count, width, beside in zip(modules, widths, (in_channels, 0), strict=True):
            self.norms.append(nnx.BatchNorm(channels, rngs=rngs))
            level = nnx.List()
            for number in range(1 + count):
                ins, stride = (width, 1) if number else (channels, 2)
                taps = schedule.kernel_size
                level.append(
                    EspModule(ins, width, rates, kernel_size=taps, stride=stride, fused=fused, rngs=rngs)
                )
            self.levels.append(level)
            channels = 2 * width + beside
        self.norms.append(nnx.BatchNorm(channels, rngs=rngs))
        self.head = PointwiseConv(channels, classes, rngs=rngs)

    def features(self, x: Array) -> Array:
        """The last feature maps: `[b, h, w, channels]` to `[b, h / 8, w / 8, 256]`, rounded up."""
        refuse_small(x, 8)
        image = _averaged(x)
        x = self._joined(0, self.stem(x), image)
        x = self._joined(1, *self._ends(0, x), _averaged(image))
        return self._joined(2, *self._ends(1, x))

    def _joined(self, place: int, *maps: Array) -> Array:
        """Maps side by side, normalised, through ReLU."""
        return normalised(self.norms[place], jnp.concatenate(maps, axis=-1))

    def _ends(self, level: int, x: Array) -> tuple[Array, Array]:
        """What the first module of a level and the last one return."""
        first, *others = self.levels[level]
        start = x = first(x)
        for module in others:
            x = module(x)
        return start, x

    def __call__(self, x: Array) -> Array:
        """Logits `[b, h, w, classes]`."""
        return resized(self.head(self.features(x)), x)


def _averaged(x: Array) -> Array:
    """Half as large: means of 3x3 pixels, those of the padding included."""
    padding: Any = ((1, 1), (1, 1))  # flax declares a text
    return nnx.avg_pool(x, (3, 3), (2, 2), padding)


@registry.network("espnet", EspnetOptions)
def espnet(options: EspnetOptions, schedule: DilationSchedule, images: Images, *, rngs: nnx.Rngs) -> EspNet:
    """An `EspNet` for these images; InputError for one label per image."""
    per_pixel("espnet", images)
    return EspNet(
        schedule,
        in_channels=images.channels,
        classes=images.classes,
        modules=options.modules,
        width_multiplier=options.width_multiplier,
        fused=options.fused,
        rngs=rngs,
    )
