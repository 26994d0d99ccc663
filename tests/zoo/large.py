"""RepLKNet (Ding et al., CVPR 2022; arXiv:2203.06717) and VAN (Guo et al. 2022; arXiv:2202.09741)."""

from collections.abc import Sequence

from flax import nnx
from jax import Array

from zoo import parts
from zoo.parts import ConvNorm, conv


class LargeKernel(nnx.Module):
    """A large depthwise kernel beside a small one, between 1 x 1 convolutions, added."""

    def __init__(self, width: int, kernel: int, *, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.enter = ConvNorm(width, width, 1, rngs=rngs)
        self.large = ConvNorm(width, width, kernel, groups=width, act=None, rngs=rngs)
        self.small = ConvNorm(width, width, 5, groups=width, act=None, rngs=rngs)
        self.leave = ConvNorm(width, width, 1, act=None, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = self.enter(self.norm(x))
        return x + self.leave(nnx.relu(self.large(y) + self.small(y)))


class Feed(nnx.Module):
    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.widen = ConvNorm(width, 4 * width, 1, act=nnx.gelu, rngs=rngs)
        self.narrow = ConvNorm(4 * width, width, 1, act=None, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return x + self.narrow(self.widen(self.norm(x)))


class RepLKNet(nnx.Module):
    """RepLKNet-31B."""

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 18, 2),
        width: int = 128,
        kernels: Sequence[int] = (31, 29, 27, 13),
        *,
        rngs: nnx.Rngs,
    ):
        self.layers = nnx.List(
            [
                ConvNorm(3, width, 3, 2, rngs=rngs),
                ConvNorm(width, width, 3, groups=width, rngs=rngs),
                ConvNorm(width, width, 1, rngs=rngs),
                ConvNorm(width, width, 3, 2, groups=width, rngs=rngs),
            ]
        )
        for stage, (depth, kernel) in enumerate(zip(depths, kernels, strict=True)):
            wide = width << stage
            if stage:
                self.layers.append(ConvNorm(wide // 2, wide, 1, rngs=rngs))
                self.layers.append(ConvNorm(wide, wide, 3, 2, groups=wide, rngs=rngs))
            for _ in range(depth):
                self.layers += [LargeKernel(wide, kernel, rngs=rngs), Feed(wide, rngs=rngs)]

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x


class LargeAttention(nnx.Module):
    """The map times what a 5 x 5 and a dilated 7 x 7 depthwise convolution make of it."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.enter = conv(width, width, 1, bias=True, rngs=rngs)
        self.near = conv(width, width, 5, groups=width, bias=True, rngs=rngs)
        self.far = conv(width, width, 7, rate=3, groups=width, bias=True, rngs=rngs)
        self.mix = conv(width, width, 1, bias=True, rngs=rngs)
        self.leave = conv(width, width, 1, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = self.norm(x)
        u = nnx.gelu(self.enter(y))
        return x + self.leave(parts.gated(u, self.mix(self.far(self.near(u))))) + parts.again(y)


class Mixed(nnx.Module):
    """An MLP with a depthwise 3 x 3 convolution inside."""

    def __init__(self, width: int, times: int, *, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.widen = conv(width, times * width, 1, bias=True, rngs=rngs)
        self.depthwise = conv(times * width, times * width, 3, groups=times * width, bias=True, rngs=rngs)
        self.narrow = conv(times * width, width, 1, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return x + self.narrow(nnx.gelu(self.depthwise(self.widen(self.norm(x)))))


class VAN(nnx.Module):
    """VAN-B0."""

    def __init__(
        self,
        depths: Sequence[int] = (3, 3, 5, 2),
        widths: Sequence[int] = (32, 64, 160, 256),
        times: Sequence[int] = (8, 8, 4, 4),
        *,
        rngs: nnx.Rngs,
    ):
        self.layers = nnx.List()
        ins = 3
        for stage, (depth, width, by) in enumerate(zip(depths, widths, times, strict=True)):
            kernel, stride = (3, 2) if stage else (7, 4)
            self.layers.append(ConvNorm(ins, width, kernel, stride, act=None, rngs=rngs))
            for _ in range(depth):
                self.layers += [LargeAttention(width, rngs=rngs), Mixed(width, by, rngs=rngs)]
            self.layers.append(nnx.LayerNorm(width, rngs=rngs))
            ins = width

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x
