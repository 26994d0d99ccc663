"""DRN-A, DRN-C and DRN-D (Yu et al., Dilated Residual Networks, CVPR 2017; arXiv:1705.09914)."""

from collections.abc import Sequence

from flax import nnx
from jax import Array

from zoo.parts import ConvNorm, max_pool
from zoo.resnet import Basic

_RATES = (1, 1, 1, 1, 2, 4)  # of levels 1 to 6


class DRNA(nnx.Module):
    """ResNet-18 whose last two stages have rates 2 and 4 in place of strides."""

    def __init__(self, depths: Sequence[int] = (2, 2, 2, 2), width: int = 64, *, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, width, 7, 2, rngs=rngs)
        self.blocks = nnx.List()
        ins = width
        for stage, (depth, stride, rate) in enumerate(zip(depths, (1, 2, 1, 1), (1, 1, 2, 4), strict=True)):
            for number in range(depth):
                self.blocks.append(Basic(ins, width << stage, stride if number == 0 else 1, rate, rngs=rngs))
                ins = width << stage

    def __call__(self, x: Array) -> Array:
        x = max_pool(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return x


class DRNC(nnx.Module):
    """DRN-C-26: convolutions for the max pooling, and two levels of falling rates without residuals.

    Args:
        plain: whether the first two levels and the last two are convolutions alone, as in DRN-D.
    """

    def __init__(
        self,
        depths: Sequence[int] = (1, 1, 2, 2, 2, 2, 1, 1),
        width: int = 16,
        *,
        plain: bool = False,
        rngs: nnx.Rngs,
    ):
        widths = [width * times for times in (1, 2, 4, 8, 16, 32, 32, 32)]
        self.stem = ConvNorm(3, width, 7, rngs=rngs)
        self.levels = nnx.List()
        ins = width
        strides, rates = (1, 2, 2, 2, 1, 1, 1, 1), (*_RATES, 2, 1)
        for level, (depth, outs, stride, rate) in enumerate(
            zip(depths, widths, strides, rates, strict=True), 1
        ):
            for number in range(depth):
                step = stride if number == 0 else 1
                if level in (1, 2, 7, 8) and plain:
                    self.levels.append(ConvNorm(ins, outs, 3, step, rate, rngs=rngs))
                elif level in (7, 8):
                    self.levels.append(ConvNorm(ins, outs, 3, step, rate, rngs=rngs))
                    self.levels.append(ConvNorm(outs, outs, 3, 1, rate, rngs=rngs))
                else:
                    self.levels.append(Basic(ins, outs, step, rate, rngs=rngs))
                ins = outs

    def __call__(self, x: Array) -> Array:
        x = self.stem(x)
        for level in self.levels:
            x = level(x)
        return x
