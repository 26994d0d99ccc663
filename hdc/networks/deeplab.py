"""`net=deeplabv3` and `net=deeplabv3plus`: atrous spatial pyramid pooling behind a residual network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import InputError
from hdc.layers import Conv, PointwiseConv, dilated
from hdc.networks.blocks import ConvNorm, per_pixel, resized, scaled
from hdc.networks.resnet import Encoder, ResnetOptions, encoder_keys
from hdc.registry import Images
from hdc.schedules import DilationSchedule


@dataclass(frozen=True)
class DeepLabOptions(ResnetOptions):
    """What can be chosen, beside `ResnetOptions`.

    Attributes:
        aspp_rates: rates of the pyramid's 3x3 branches; published are 6, 12, 18 at an output stride of 16,
            and twice that at 8.
    """

    aspp_rates: tuple[int, ...] = (6, 12, 18)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.aspp_rates or min(self.aspp_rates) < 1:
            raise InputError(
                f"aspp_rates must be one or more numbers of at least 1, got {list(self.aspp_rates)}"
            )


class ASPP(nnx.Module):
    """Atrous spatial pyramid pooling: branches side by side, joined and projected.

    A 1x1 convolution, a dilated 3x3 one for each rate, and the mean over the map; each with normalisation and
    ReLU: `[b, h, w, in_features]` to `[b, h, w, features]`. The projection is followed by dropout of 0.5.

    Args:
        in_features, features: channels in, and out of every branch and the whole.
        rates: dilation rates of the 3x3 branches.
        rngs: `params` and `dropout` are used.
    """

    def __init__(self, in_features: int, features: int, rates: Sequence[int], *, rngs: nnx.Rngs):
        def pointwise(channels: int) -> ConvNorm:
            return ConvNorm(PointwiseConv(channels, features, use_bias=False, rngs=rngs), features, rngs=rngs)

        self.branches = nnx.List([pointwise(in_features)])
        for rate in rates:
            conv = dilated(in_features, features, rate=rate, use_bias=False, rngs=rngs)
            self.branches.append(ConvNorm(conv, features, rngs=rngs))
        self.image = pointwise(in_features)
        self.project = pointwise((len(rates) + 2) * features)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        maps = [*(branch(x) for branch in self.branches), self.summary(x)]
        return self.dropout(self.project(jnp.concatenate(maps, axis=-1)))

    def summary(self, x: Array) -> Array:
        """The branch of the mean over the map, at every pixel."""
        whole = self.image(x.mean(axis=(1, 2), keepdims=True))
        return jnp.broadcast_to(whole, (*x.shape[:3], whole.shape[-1]))


class DeepLabV3(nnx.Module):
    """A residual network, ASPP, a 3x3 convolution, the classes, interpolated to the size of the images.

    Chen, Papandreou, Schroff and Adam 2017 (arXiv 1706.05587), with the head that torchvision has. The
    paper's multi-grid is a matter of the schedule: unit rates times that of the last stage, such as 2, 4, 8
    for the last three layers.

    Args:
        schedule, encoder: see `hdc.networks.resnet.Encoder`.
        classes: number of logits.
        aspp_rates: see `DeepLabOptions`.
        rngs: `params` and `dropout` are used.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        classes: int,
        aspp_rates: Sequence[int] = (6, 12, 18),
        width_multiplier: float = 1.0,
        rngs: nnx.Rngs,
        **encoder: Any,
    ):
        self.backbone = Encoder(schedule, width_multiplier=width_multiplier, rngs=rngs, **encoder)
        width = scaled(256, width_multiplier)
        self.aspp = ASPP(self.backbone.widths[-1], width, aspp_rates, rngs=rngs)
        self.last = ConvNorm(Conv(width, width, use_bias=False, rngs=rngs), width, rngs=rngs)
        self.classes = PointwiseConv(width, classes, rngs=rngs)

    @property
    def torch_names(self) -> dict[str, str]:
        """What torchvision calls the modules whose names differ."""
        branches = len(self.aspp.branches)
        convs = {f"aspp.branches.{number}.conv": f"{_CONVS}.{number}.0" for number in range(branches)}
        norms = {f"aspp.branches.{number}.norm": f"{_CONVS}.{number}.1" for number in range(branches)}
        image = {"aspp.image.conv": f"{_CONVS}.{branches}.1", "aspp.image.norm": f"{_CONVS}.{branches}.2"}
        project = {
            "aspp.project.conv": "classifier.0.project.0",
            "aspp.project.norm": "classifier.0.project.1",
        }
        last = {"last.conv": "classifier.1", "last.norm": "classifier.2", "classes": "classifier.4"}
        return {**convs, **norms, **image, **project, **last}

    def features(self, x: Array) -> Array:
        """The last feature maps, at the output stride: `[b, h, w, c]` to `[b, h', w', channels]`."""
        return self.last(self.aspp(self.backbone.features(x)))

    def __call__(self, x: Array) -> Array:
        """Logits `[b, h, w, classes]`."""
        return resized(self.classes(self.features(x)), x)


_CONVS = "classifier.0.convs"  # torchvision's name of the pyramid's branches


class DeepLabV3Plus(nnx.Module):
    """DeepLabV3 with a decoder: what ASPP makes, beside the first stage's map, through two 3x3 convolutions.

    Chen, Zhu, Papandreou, Schroff and Adam 2018 (arXiv 1802.02611), with a residual network; its separable
    convolutions are `net.layer=separable`, for the dilated layers.

    Args: as of `DeepLabV3`.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        classes: int,
        aspp_rates: Sequence[int] = (6, 12, 18),
        width_multiplier: float = 1.0,
        rngs: nnx.Rngs,
        **encoder: Any,
    ):
        self.backbone = Encoder(schedule, width_multiplier=width_multiplier, rngs=rngs, **encoder)
        width, fine = scaled(256, width_multiplier), scaled(48, width_multiplier)
        self.aspp = ASPP(self.backbone.widths[-1], width, aspp_rates, rngs=rngs)
        low = PointwiseConv(self.backbone.widths[0], fine, use_bias=False, rngs=rngs)
        self.low = ConvNorm(low, fine, rngs=rngs)
        self.decoder = nnx.List(
            [
                ConvNorm(Conv(channels, width, use_bias=False, rngs=rngs), width, rngs=rngs)
                for channels in (width + fine, width)
            ]
        )
        self.classes = PointwiseConv(width, classes, rngs=rngs)

    def features(self, x: Array) -> Array:
        """The decoder's maps, at the first stage's stride: `[b, h, w, c]` to `[b, h', w', channels]`."""
        first, *_, last = self.backbone.maps(x)
        y = jnp.concatenate([resized(self.aspp(last), first), self.low(first)], axis=-1)
        for layer in self.decoder:
            y = layer(y)
        return y

    def __call__(self, x: Array) -> Array:
        """Logits `[b, h, w, classes]`."""
        return resized(self.classes(self.features(x)), x)


@registry.network("deeplabv3", DeepLabOptions)
def deeplabv3(
    options: DeepLabOptions, schedule: DilationSchedule, images: Images, *, rngs: nnx.Rngs
) -> DeepLabV3:
    """A `DeepLabV3` for these images."""
    per_pixel("deeplabv3", images)
    keys = encoder_keys(options, images)
    return DeepLabV3(schedule, classes=images.classes, aspp_rates=options.aspp_rates, rngs=rngs, **keys)


@registry.network("deeplabv3plus", DeepLabOptions)
def deeplabv3plus(
    options: DeepLabOptions, schedule: DilationSchedule, images: Images, *, rngs: nnx.Rngs
) -> DeepLabV3Plus:
    """A `DeepLabV3Plus` for these images."""
    per_pixel("deeplabv3plus", images)
    keys = encoder_keys(options, images)
    return DeepLabV3Plus(schedule, classes=images.classes, aspp_rates=options.aspp_rates, rngs=rngs, **keys)
