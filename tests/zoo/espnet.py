"""ESPNet (Mehta et al., ECCV 2018; arXiv:1803.06815): an efficient spatial pyramid.

Its branches are added in turn, from the smallest rate on (hierarchical feature fusion), against gridding.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.parts import ConvNorm, conv


class ESP(nnx.Module):
    """Reduced, seen at rates 1, 2, 4, 8 and 16, fused by running sums, joined, added.

    Args:
        fused: whether the branches are added in turn (HFF).
    """

    def __init__(
        self, ins: int, outs: int, stride: int = 1, branches: int = 5, *, fused: bool = True, rngs: nnx.Rngs
    ):
        part = outs // branches
        self.reduce = conv(ins, part, 3 if stride > 1 else 1, stride, rngs=rngs)
        first = outs - (branches - 1) * part
        self.branches = nnx.List([conv(part, first, 3, rngs=rngs)])
        self.branches += [conv(part, part, 3, rate=2**n, rngs=rngs) for n in range(1, branches)]
        self.norm = nnx.BatchNorm(outs, rngs=rngs)
        self.adds, self.fused = ins == outs and stride == 1, fused

    def __call__(self, x: Array) -> Array:
        first, *others = (branch(self.reduce(x)) for branch in self.branches)
        joined, total = [first], None
        for other in others:
            total = other if total is None or not self.fused else total + other
            joined.append(total)
        y = jnp.concatenate(joined, axis=-1)
        return nnx.relu(self.norm(x + y if self.adds else y))


class ESPNet(nnx.Module):
    """The encoder (ESPNet-C) with the image, pooled, beside the maps."""

    def __init__(
        self,
        depths: Sequence[int] = (2, 3),
        widths: Sequence[int] = (16, 64, 128),
        *,
        fused: bool = True,
        rngs: nnx.Rngs,
    ):
        self.stem = ConvNorm(3, widths[0], 3, 2, rngs=rngs)
        self.down, self.levels = nnx.List(), nnx.List()
        ins = widths[0] + 3
        for depth, width, beside in zip(depths, widths[1:], (3, 0), strict=True):
            self.down.append(ESP(ins, width, 2, fused=fused, rngs=rngs))
            self.levels.append(nnx.List([ESP(width, width, fused=fused, rngs=rngs) for _ in range(depth)]))
            ins = 2 * width + beside

    def __call__(self, x: Array) -> Array:
        image = _smaller(x)
        y = jnp.concatenate([self.stem(x), image], axis=-1)
        for number, (down, level) in enumerate(zip(self.down, self.levels, strict=True)):
            first = y = down(y)
            for layer in level:
                y = layer(y)
            image = _smaller(image)
            y = jnp.concatenate([first, y, *([image] if number == 0 else [])], axis=-1)
        return y


def _smaller(x: Array) -> Array:
    return nnx.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
