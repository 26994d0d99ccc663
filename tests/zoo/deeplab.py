"""DeepLabV3 (Chen et al. 2017; arXiv:1706.05587), DeepLabV3+ (Chen et al., ECCV 2018; arXiv:1802.02611)."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.parts import ConvNorm, ImagePooling, conv, resize
from zoo.resnet import ResNet


class ASPP(nnx.Module):
    """Atrous spatial pyramid pooling: a 1 x 1 branch, one for each rate, and image pooling."""

    def __init__(self, ins: int, outs: int = 256, rates: Sequence[int] = (6, 12, 18), *, rngs: nnx.Rngs):
        self.branches = nnx.List([ConvNorm(ins, outs, 1, rngs=rngs)])
        for rate in rates:
            self.branches.append(ConvNorm(ins, outs, 3, rate=rate, rngs=rngs))
        self.image = ImagePooling(ins, outs, rngs=rngs)
        self.project = ConvNorm((len(rates) + 2) * outs, outs, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        branches = [branch(x) for branch in self.branches]
        return self.project(jnp.concatenate([*branches, self.image(x)], axis=-1))


class DeepLabV3(nnx.Module):
    """The encoder, ASPP, a 3 x 3 convolution, the classes, interpolated to the image's size."""

    def __init__(
        self,
        encoder: ResNet,
        width: int = 256,
        rates: Sequence[int] = (12, 24, 36),
        classes: int = 21,
        *,
        rngs: nnx.Rngs,
    ):
        self.encoder = encoder
        self.aspp = ASPP(encoder.widths[-1], width, rates, rngs=rngs)
        self.last = ConvNorm(width, width, 3, rngs=rngs)
        self.classes = conv(width, classes, 1, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return resize(self.classes(self.last(self.aspp(self.encoder(x)))), x.shape[1:3])


class DeepLabV3Plus(nnx.Module):
    """DeepLabV3 with a decoder: the map of stride 4 beside the interpolated one, two 3 x 3 convolutions."""

    def __init__(
        self,
        encoder: ResNet,
        width: int = 256,
        low: int = 48,
        rates: Sequence[int] = (6, 12, 18),
        classes: int = 21,
        *,
        rngs: nnx.Rngs,
    ):
        self.encoder = encoder
        self.aspp = ASPP(encoder.widths[-1], width, rates, rngs=rngs)
        self.low = ConvNorm(encoder.widths[0], low, 1, rngs=rngs)
        self.first = ConvNorm(width + low, width, 3, rngs=rngs)
        self.second = ConvNorm(width, width, 3, rngs=rngs)
        self.classes = conv(width, classes, 1, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        fine, *_, coarse = self.encoder.maps(x)
        wide = resize(self.aspp(coarse), fine.shape[1:3])
        joined = jnp.concatenate([wide, self.low(fine)], axis=-1)
        return resize(self.classes(self.second(self.first(joined))), x.shape[1:3])
