"""PSPNet (Zhao et al., Pyramid Scene Parsing Network, CVPR 2017; arXiv:1612.01105)."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.parts import ConvNorm, ImagePooling, conv, resize
from zoo.resnet import ResNet


class PSPNet(nnx.Module):
    """The map averaged over 1 x 1, 2 x 2, 3 x 3 and 6 x 6 cells and interpolated back, beside itself."""

    def __init__(
        self,
        encoder: ResNet,
        width: int = 512,
        cells: Sequence[int] = (1, 2, 3, 6),
        classes: int = 150,
        *,
        rngs: nnx.Rngs,
    ):
        self.encoder, self.cells = encoder, tuple(cells)
        ins = encoder.widths[-1]
        self.branches = nnx.List()
        for number in self.cells:
            branch = ImagePooling if number == 1 else Cells
            self.branches.append(branch(ins, ins // len(cells), rngs=rngs))
        self.last = ConvNorm(ins + len(cells) * (ins // len(cells)), width, 3, rngs=rngs)
        self.classes = conv(width, classes, 1, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = self.encoder(x)
        branches = [
            branch(y) if number == 1 else branch(y, number)
            for branch, number in zip(self.branches, self.cells, strict=True)
        ]
        y = self.last(jnp.concatenate([y, *branches], axis=-1))
        return resize(self.classes(y), x.shape[1:3])


class Cells(nnx.Module):
    """The means of cells, interpolated back."""

    def __init__(self, ins: int, outs: int, *, rngs: nnx.Rngs):
        self.reduce = ConvNorm(ins, outs, 1, rngs=rngs)

    def __call__(self, x: Array, number: int) -> Array:
        size = (x.shape[1] // number, x.shape[2] // number)
        return resize(self.reduce(nnx.avg_pool(x, size, size)), x.shape[1:3])
