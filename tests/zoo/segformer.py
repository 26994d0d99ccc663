"""SegFormer (Xie et al., NeurIPS 2021; arXiv:2105.15203): overlapping patches, attention on a reduced map."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo import parts
from zoo.parts import ConvNorm, conv, resize


class Attention(nnx.Module):
    """Each pixel asks a map that is `reduction` times smaller."""

    def __init__(self, width: int, heads: int, reduction: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.query = nnx.Linear(width, width, rngs=rngs)
        self.pair = nnx.Linear(width, 2 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        size = (reduction, reduction)
        self.reduce = self.norm = None
        if reduction > 1:
            made = nnx.Conv(width, width, size, strides=size, padding="VALID", rngs=rngs)
            self.reduce, self.norm = nnx.data(made), nnx.data(nnx.LayerNorm(width, rngs=rngs))

    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        split = (batch, -1, self.heads, channels // self.heads)
        small = x if self.reduce is None else self.norm(self.reduce(x))
        keys, values = jnp.split(self.pair(small), 2, axis=-1)
        weights = nnx.softmax(parts.scores(self.query(x).reshape(split), keys.reshape(split)))
        return self.out(parts.weighed(weights, values.reshape(split)).reshape(batch, height, width, channels))


class Block(nnx.Module):
    """Attention, then an MLP with a depthwise 3 x 3 convolution inside (Mix-FFN)."""

    def __init__(self, width: int, heads: int, reduction: int, *, rngs: nnx.Rngs):
        self.first, self.second = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = Attention(width, heads, reduction, rngs=rngs)
        self.widen = nnx.Linear(width, 4 * width, rngs=rngs)
        self.depthwise = conv(4 * width, 4 * width, 3, groups=4 * width, bias=True, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.attention(self.first(x))
        return x + self.narrow(nnx.gelu(self.depthwise(self.widen(self.second(x)))))


class SegFormer(nnx.Module):
    """SegFormer-B0: the encoder MiT-B0 and a decoder of 1 x 1 convolutions."""

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (32, 64, 160, 256),
        heads: Sequence[int] = (1, 2, 5, 8),
        reductions: Sequence[int] = (8, 4, 2, 1),
        head: int = 256,
        classes: int = 150,
        *,
        rngs: nnx.Rngs,
    ):
        self.patches, self.norms, self.stages, self.after = nnx.List(), nnx.List(), nnx.List(), nnx.List()
        self.unify = nnx.List()
        ins = 3
        for stage, (depth, width, number, reduction) in enumerate(
            zip(depths, widths, heads, reductions, strict=True)
        ):
            kernel, stride = (3, 2) if stage else (7, 4)
            self.patches.append(conv(ins, width, kernel, stride, bias=True, rngs=rngs))
            self.norms.append(nnx.LayerNorm(width, rngs=rngs))
            self.stages.append(nnx.List([Block(width, number, reduction, rngs=rngs) for _ in range(depth)]))
            self.after.append(nnx.LayerNorm(width, rngs=rngs))
            self.unify.append(nnx.Linear(width, head, rngs=rngs))
            ins = width
        self.fuse = ConvNorm(len(depths) * head, head, 1, rngs=rngs)
        self.classes = conv(head, classes, 1, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        maps = []
        for patch, norm, blocks, after in zip(self.patches, self.norms, self.stages, self.after, strict=True):
            x = norm(patch(x))
            for block in blocks:
                x = block(x)
            x = after(x)
            maps.append(x)
        size = maps[0].shape[1:3]
        unified = [resize(unify(x), size) for unify, x in zip(self.unify, maps, strict=True)]
        return self.classes(self.fuse(jnp.concatenate(unified[::-1], axis=-1)))
