"""U-Net (Ronneberger et al., MICCAI 2015; arXiv:1505.04597): no padding, the encoder's maps are cropped."""

import itertools

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.parts import max_pool, up_conv


class Double(nnx.Module):
    """Two 3 x 3 convolutions without padding."""

    def __init__(self, ins: int, outs: int, *, rngs: nnx.Rngs):
        self.first = nnx.Conv(ins, outs, (3, 3), padding="VALID", rngs=rngs)
        self.second = nnx.Conv(outs, outs, (3, 3), padding="VALID", rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return nnx.relu(self.second(nnx.relu(self.first(x))))


class UNet(nnx.Module):
    def __init__(self, width: int = 64, levels: int = 4, classes: int = 2, *, rngs: nnx.Rngs):
        widths = [width << level for level in range(levels + 1)]
        self.down = nnx.List([Double(3, width, rngs=rngs)])
        self.up, self.joined = nnx.List(), nnx.List()
        for fine, coarse in itertools.pairwise(widths):
            self.down.append(Double(fine, coarse, rngs=rngs))
            self.up.append(up_conv(coarse, fine, rngs=rngs))
            self.joined.append(Double(coarse, fine, rngs=rngs))
        self.classes = nnx.Conv(width, classes, (1, 1), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        maps = [self.down[0](x)]
        for down in list(self.down)[1:]:
            maps.append(down(max_pool(maps[-1], 2, 2, 0)))
        x = maps.pop()
        for up, joined in reversed(list(zip(self.up, self.joined, strict=True))):
            x, fine = up(x), maps.pop()
            top, left = ((fine.shape[axis] - x.shape[axis]) // 2 for axis in (1, 2))
            fine = fine[:, top : top + x.shape[1], left : left + x.shape[2]]
            x = joined(jnp.concatenate([fine, x], axis=-1))
        return self.classes(x)
