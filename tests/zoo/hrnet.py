"""HRNet (Wang et al., Deep High-Resolution Representation Learning, TPAMI 2020; arXiv:1908.07919)."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.parts import ConvNorm, nearest, resize
from zoo.resnet import Basic, Bottleneck


class Fuse(nnx.Module):
    """Every branch gets the sum of all: finer ones by strides, coarser ones by nearest neighbours."""

    def __init__(self, widths: Sequence[int], *, rngs: nnx.Rngs):
        self.paths = nnx.List()
        for to, outs in enumerate(widths):
            row = nnx.List()
            for of, ins in enumerate(widths):
                if of > to:
                    row.append(nnx.List([ConvNorm(ins, outs, 1, act=None, rngs=rngs)]))
                else:
                    steps = nnx.List()
                    for step in range(to - of):
                        last = step == to - of - 1
                        act = None if last else nnx.relu
                        steps.append(ConvNorm(ins, outs if last else ins, 3, 2, act=act, rngs=rngs))
                    row.append(steps)
            self.paths.append(row)

    def __call__(self, maps: list[Array]) -> list[Array]:
        fused = []
        for to, row in enumerate(self.paths):
            total = None
            for of, (steps, x) in enumerate(zip(row, maps, strict=True)):
                for step in steps:
                    x = step(x)
                x = nearest(x, 2 ** (of - to)) if of > to else x
                total = x if total is None else total + x
            fused.append(nnx.relu(total))
        return fused


class HRNet(nnx.Module):
    """HRNet-W48 of `stages` stages, the maps of all branches joined at stride 4.

    Args:
        blocks: residual blocks of each branch in a module.
        modules: modules of stages 2, 3 and 4.
    """

    def __init__(
        self,
        width: int = 48,
        stem: int = 64,
        first: int = 4,
        blocks: int = 4,
        modules: Sequence[int] = (1, 4, 3),
        *,
        rngs: nnx.Rngs,
    ):
        self.stem = nnx.List([ConvNorm(3, stem, 3, 2, rngs=rngs), ConvNorm(stem, stem, 3, 2, rngs=rngs)])
        self.first = nnx.List()
        ins = stem
        for _ in range(first):
            self.first.append(Bottleneck(ins, stem, 1, 1, rngs=rngs))
            ins = 4 * stem
        self.stages, self.enter = nnx.List(), nnx.List()
        before = [ins]
        for stage, number in enumerate(modules, 2):
            widths = [width << branch for branch in range(stage)]
            enter = nnx.List()
            for branch, outs in enumerate(widths):
                if branch == len(before):
                    enter.append(ConvNorm(before[-1], outs, 3, 2, rngs=rngs))
                else:
                    enter.append(ConvNorm(before[branch], outs, 3, rngs=rngs) if stage == 2 else None)
            self.enter.append(enter)
            stages = nnx.List()
            for _ in range(number):
                branches = nnx.List()
                for outs in widths:
                    branches.append(nnx.List([Basic(outs, outs, 1, 1, rngs=rngs) for _ in range(blocks)]))
                stages.append(nnx.Dict(branches=branches, fuse=Fuse(widths, rngs=rngs)))
            self.stages.append(stages)
            before = widths
        self.last = ConvNorm(sum(before), sum(before), 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for layer in (*self.stem, *self.first):
            x = layer(x)
        maps = [x]
        for enter, modules in zip(self.enter, self.stages, strict=True):
            new = enter[-1](maps[-1])
            maps = [x if into is None else into(x) for into, x in zip(enter, maps, strict=False)] + [new]
            for module in modules:
                for branch, blocks in enumerate(module["branches"]):
                    for block in blocks:
                        maps[branch] = block(maps[branch])
                maps = module["fuse"](maps)
        size = maps[0].shape[1:3]
        return self.last(jnp.concatenate([maps[0], *(resize(x, size) for x in maps[1:])], axis=-1))
