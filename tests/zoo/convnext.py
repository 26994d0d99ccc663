"""ConvNeXt (Liu et al., A ConvNet for the 2020s, CVPR 2022; arXiv:2201.03545)."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.parts import conv


class Block(nnx.Module):
    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.depthwise = conv(width, width, 7, groups=width, bias=True, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.widen = nnx.Linear(width, 4 * width, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, rngs=rngs)
        self.scale = nnx.Param(jnp.full((1, 1, 1, width), 1e-6))

    def __call__(self, x: Array) -> Array:
        y = self.narrow(nnx.gelu(self.widen(self.norm(self.depthwise(x)))))
        return x + self.scale * y


class ConvNeXt(nnx.Module):
    def __init__(self, depths: Sequence[int] = (3, 3, 9, 3), width: int = 96, *, rngs: nnx.Rngs):
        self.layers = nnx.List()
        ins = 3
        for stage, depth in enumerate(depths):
            outs, size = width << stage, 2 if stage else 4
            down = nnx.Conv(ins, outs, (size, size), strides=size, padding="VALID", rngs=rngs)
            norm = [nnx.LayerNorm(outs if stage == 0 else ins, rngs=rngs)]
            self.layers += [down, *norm] if stage == 0 else [*norm, down]
            self.layers += [Block(outs, rngs=rngs) for _ in range(depth)]
            ins = outs

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x
