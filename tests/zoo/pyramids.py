"""Maps of several strides that meet again.

Stacked hourglass (Newell et al., ECCV 2016; arXiv:1603.06937), FPN (Lin et al., CVPR 2017; arXiv:1612.03144).
"""

from flax import nnx
from jax import Array

from zoo.parts import ConvNorm, conv, max_pool, nearest
from zoo.resnet import ResNet


class Residual(nnx.Module):
    """1 x 1, 3 x 3, 1 x 1, each normalised and activated before, added."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        half = max(1, width // 2)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.reduce = ConvNorm(width, half, 1, rngs=rngs)
        self.middle = ConvNorm(half, half, 3, rngs=rngs)
        self.widen = conv(half, width, 1, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return x + self.widen(self.middle(self.reduce(nnx.relu(self.norm(x)))))


class Hourglass(nnx.Module):
    """Down `levels` times and back, with a residual block beside each level."""

    def __init__(self, width: int = 256, levels: int = 4, *, rngs: nnx.Rngs):
        self.beside = nnx.List([Residual(width, rngs=rngs) for _ in range(levels)])
        self.down = nnx.List([Residual(width, rngs=rngs) for _ in range(levels)])
        self.up = nnx.List([Residual(width, rngs=rngs) for _ in range(levels)])
        self.middle = Residual(width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        kept = []
        for beside, down in zip(self.beside, self.down, strict=True):
            kept.append(beside(x))
            x = down(max_pool(x, 2, 2, 0))
        x = self.middle(x)
        for up in self.up:
            x = nearest(up(x)) + kept.pop()
        return x


class StackedHourglass(nnx.Module):
    def __init__(self, width: int = 256, levels: int = 4, stacks: int = 2, *, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, width, 7, 2, rngs=rngs)
        self.enter = Residual(width, rngs=rngs)
        self.glasses = nnx.List([Hourglass(width, levels, rngs=rngs) for _ in range(stacks)])
        self.after = nnx.List([ConvNorm(width, width, 1, rngs=rngs) for _ in range(stacks)])

    def __call__(self, x: Array) -> Array:
        x = max_pool(self.enter(self.stem(x)), 2, 2, 0)
        for glass, after in zip(self.glasses, self.after, strict=True):
            x = x + after(glass(x))
        return x


class FPN(nnx.Module):
    """The finest map of the pyramid: coarser ones come down by nearest neighbours."""

    def __init__(self, encoder: ResNet, width: int = 256, *, rngs: nnx.Rngs):
        self.encoder = encoder
        self.lateral = nnx.List([conv(ins, width, 1, bias=True, rngs=rngs) for ins in encoder.widths])
        self.smooth = conv(width, width, 3, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        maps = [lateral(y) for lateral, y in zip(self.lateral, self.encoder.maps(x), strict=True)]
        total = maps.pop()
        while maps:
            total = nearest(total) + maps.pop()
        return self.smooth(total)
