"""DenseNet (Huang et al., Densely Connected Convolutional Networks, CVPR 2017; arXiv:1608.06993)."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.parts import ConvNorm, conv, max_pool


class Layer(nnx.Module):
    """What a layer adds to the channels: normalised first, 1 x 1, then 3 x 3."""

    def __init__(self, ins: int, growth: int, *, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(ins, rngs=rngs)
        self.reduce = ConvNorm(ins, 4 * growth, 1, rngs=rngs)
        self.conv = conv(4 * growth, growth, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        new = self.conv(self.reduce(nnx.relu(self.norm(x))))
        return jnp.concatenate([x, new], axis=-1)


class Transition(nnx.Module):
    def __init__(self, ins: int, outs: int, *, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(ins, rngs=rngs)
        self.conv = conv(ins, outs, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return nnx.avg_pool(self.conv(nnx.relu(self.norm(x))), (2, 2), (2, 2))


class DenseNet(nnx.Module):
    """DenseNet-121."""

    def __init__(
        self, depths: Sequence[int] = (6, 12, 24, 16), growth: int = 32, stem: int = 64, *, rngs: nnx.Rngs
    ):
        self.stem = ConvNorm(3, stem, 7, 2, rngs=rngs)
        self.layers = nnx.List()
        ins = stem
        for block, depth in enumerate(depths):
            if block:
                self.layers.append(Transition(ins, ins // 2, rngs=rngs))
                ins //= 2
            for _ in range(depth):
                self.layers.append(Layer(ins, growth, rngs=rngs))
                ins += growth
        self.norm = nnx.BatchNorm(ins, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = max_pool(self.stem(x))
        for layer in self.layers:
            x = layer(x)
        return nnx.relu(self.norm(x))
