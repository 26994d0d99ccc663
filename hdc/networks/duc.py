"""`net=duc`: dense upsampling convolution behind a residual network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.layers import dilated
from hdc.networks.blocks import per_pixel
from hdc.networks.deeplab import DeepLabOptions
from hdc.networks.resnet import Encoder, encoder_keys
from hdc.registry import Images
from hdc.schedules import DilationSchedule


@dataclass(frozen=True)
class DucOptions(DeepLabOptions):
    """What can be chosen: as of `DeepLabOptions`.

    Attributes:
        aspp_rates: of the parallel convolutions; published are 6, 12, 18 and 24.
    """

    aspp_rates: tuple[int, ...] = (6, 12, 18, 24)


class DUC(nnx.Module):
    """Each pixel of the last map becomes a block of pixels: channels are laid out, nothing is interpolated.

    Wang et al. 2018, "Understanding Convolution for Semantic Segmentation" (arXiv 1702.08502): parallel 3x3
    convolutions to `output_stride`² x classes channels, added, and their channels laid out as pixels. With
    rates of the HDC rule in the schedule it is the paper's network.

    Args:
        schedule, encoder: see `hdc.networks.resnet.Encoder`.
        classes: number of logits.
        aspp_rates: see `DucOptions`.
        rngs: `params` is used.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        classes: int,
        aspp_rates: Sequence[int] = (6, 12, 18, 24),
        rngs: nnx.Rngs,
        **encoder: Any,
    ):
        self.backbone = Encoder(schedule, rngs=rngs, **encoder)
        channels, self.stride = self.backbone.widths[-1], self.backbone.output_stride
        self.branches = nnx.List(
            [dilated(channels, self.stride**2 * classes, rate=rate, rngs=rngs) for rate in aspp_rates]
        )

    def features(self, x: Array) -> Array:
        """What is laid out as pixels: `[b, h, w, c]` to `[b, h', w', stride² x classes]`."""
        maps = self.backbone.features(x)
        return jnp.stack([branch(maps) for branch in self.branches]).sum(axis=0)

    def __call__(self, x: Array) -> Array:
        """Logits `[b, h, w, classes]`."""
        return blocks_of(self.features(x), self.stride)[:, : x.shape[1], : x.shape[2]]


def blocks_of(x: Array, side: int) -> Array:
    """Channels as pixels: `[b, h, w, side * side * c]` to `[b, h * side, w * side, c]`."""
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height, width, side, side, channels // side**2)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * side, width * side, -1)


@registry.network("duc", DucOptions)
def duc(options: DucOptions, schedule: DilationSchedule, images: Images, *, rngs: nnx.Rngs) -> DUC:
    """A `DUC` for these images."""
    per_pixel("duc", images)
    keys = encoder_keys(options, images)
    return DUC(schedule, classes=images.classes, aspp_rates=options.aspp_rates, rngs=rngs, **keys)
