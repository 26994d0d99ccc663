"""ResNet (He et al., Deep Residual Learning for Image Recognition, CVPR 2016; arXiv:1512.03385).

The output stride, with rates in place of later strides, after Chen et al. (DeepLabV3, arXiv:1706.05587).
"""

from collections.abc import Sequence
from typing import ClassVar

from flax import nnx
from jax import Array

from zoo.parts import ConvNorm, max_pool


class Basic(nnx.Module):
    expansion: ClassVar = 1

    def __init__(self, ins: int, width: int, stride: int, rate: int, *, rngs: nnx.Rngs):
        self.first = ConvNorm(ins, width, 3, stride, rate, rngs=rngs)
        self.second = ConvNorm(width, width, 3, 1, rate, act=None, rngs=rngs)
        change = stride > 1 or ins != width
        self.shortcut = ConvNorm(ins, width, 1, stride, act=None, rngs=rngs) if change else None

    def __call__(self, x: Array) -> Array:
        short = x if self.shortcut is None else self.shortcut(x)
        return nnx.relu(short + self.second(self.first(x)))


class Bottleneck(nnx.Module):
    expansion: ClassVar = 4

    def __init__(self, ins: int, width: int, stride: int, rate: int, *, rngs: nnx.Rngs):
        outs = 4 * width
        self.reduce = ConvNorm(ins, width, 1, rngs=rngs)
        self.middle = ConvNorm(width, width, 3, stride, rate, rngs=rngs)
        self.widen = ConvNorm(width, outs, 1, act=None, rngs=rngs)
        change = stride > 1 or ins != outs
        self.shortcut = ConvNorm(ins, outs, 1, stride, act=None, rngs=rngs) if change else None

    def __call__(self, x: Array) -> Array:
        short = x if self.shortcut is None else self.shortcut(x)
        return nnx.relu(short + self.widen(self.middle(self.reduce(x))))


class ResNet(nnx.Module):
    """ResNet-18 with `Basic` and depths (2, 2, 2, 2), ResNet-50 with `Bottleneck` and (3, 4, 6, 3).

    Args:
        output_stride: that of the last stage; later ones have rates in place of strides.
        grid: rates of the last stage's blocks, times that of the stage (multi-grid).
    """

    def __init__(
        self,
        block: type[Basic] | type[Bottleneck] = Bottleneck,
        depths: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        output_stride: int = 32,
        grid: Sequence[int] = (1, 1, 1),
        *,
        rngs: nnx.Rngs,
    ):
        self.stem = ConvNorm(3, width, 7, 2, rngs=rngs)
        self.stages = nnx.List()
        self.widths: tuple[int, ...] = ()
        ins, stride, rate = width, 4, 1
        for stage, depth in enumerate(depths):
            blocks = nnx.List()
            step = 1 if stage == 0 else 2
            before = rate
            if stride * step > output_stride:
                rate, step = rate * step, 1
            stride *= step
            for number in range(depth):
                times = grid[number % len(grid)] if stage == len(depths) - 1 else 1
                here = times * (before if number == 0 and max(grid) == 1 else rate)
                blocks.append(block(ins, width << stage, step if number == 0 else 1, here, rngs=rngs))
                ins = block.expansion * (width << stage)
            self.stages.append(blocks)
            self.widths += (ins,)

    def maps(self, x: Array) -> list[Array]:
        """The last map of each stage."""
        x, found = max_pool(self.stem(x)), []
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
            found.append(x)
        return found

    def __call__(self, x: Array) -> Array:
        return self.maps(x)[-1]
