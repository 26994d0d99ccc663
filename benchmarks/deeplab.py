"""DeepLabV3 on a ResNet-50 of output stride 8, layer for layer as torchvision's `deeplabv3_resnet50`."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from hdc.layers import Conv


class _Unit(nnx.Module):
    """Convolution and batch normalisation; ReLU unless `relu=False`."""

    def __init__(self, ins, outs, size, *, rate=1, strides=1, rngs):
        pad = rate * (size - 1) // 2
        self.conv = Conv(
            ins, outs, size, rate=rate, strides=strides, padding=((pad, pad),) * 2, use_bias=False, rngs=rngs
        )
        self.norm = nnx.BatchNorm(outs, momentum=0.9, rngs=rngs)

    def __call__(self, x, relu=True):
        x = self.norm(self.conv(x)).astype(x.dtype)
        return nnx.relu(x) if relu else x


class _Bottleneck(nnx.Module):
    def __init__(self, ins, width, *, rate, strides, rngs):
        self.reduce = _Unit(ins, width, 1, rngs=rngs)
        self.mix = _Unit(width, width, 3, rate=rate, strides=strides, rngs=rngs)
        self.expand = _Unit(width, 4 * width, 1, rngs=rngs)
        same = ins == 4 * width and strides == 1
        self.shortcut = None if same else _Unit(ins, 4 * width, 1, strides=strides, rngs=rngs)

    def __call__(self, x):
        kept = x if self.shortcut is None else self.shortcut(x, relu=False)
        return nnx.relu(self.expand(self.mix(self.reduce(x)), relu=False) + kept)


def _max_pool(x):
    """3x3 at stride 2, as comparisons: the gradient of `lax.reduce_window` is a scatter, slow on GPUs."""
    rows, columns = (-(-n // 2) for n in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=-jnp.inf)
    parts = [padded[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] for i in range(3) for j in range(3)]
    return functools.reduce(jnp.maximum, parts)


class DeepLabV3(nnx.Module):
    """`[b, h, w, 3]` to `[b, h, w, classes]`, rates 12, 24 and 36 in the head."""

    def __init__(self, classes, *, blocks=(3, 4, 6, 3), width=64, rngs):
        self.stem = _Unit(3, width, 7, strides=2, rngs=rngs)
        stages, ins = [], width
        # Blocks, width, stride of the first block, its rate, the others' rate.
        for count, times, strides, first, rate in zip(
            blocks, (1, 2, 4, 8), (1, 2, 1, 1), (1, 1, 1, 2), (1, 1, 2, 4), strict=True
        ):
            for number in range(count):
                kind = {"rate": first, "strides": strides} if number == 0 else {"rate": rate, "strides": 1}
                stages.append(_Bottleneck(ins, times * width, **kind, rngs=rngs))
                ins = 4 * times * width
        self.stages = nnx.List(stages)
        head = 4 * width
        self.branches = nnx.List(
            [_Unit(ins, head, 1, rngs=rngs)]
            + [_Unit(ins, head, 3, rate=rate, rngs=rngs) for rate in (12, 24, 36)]
        )
        self.pooled = _Unit(ins, head, 1, rngs=rngs)
        self.project = _Unit(5 * head, head, 1, rngs=rngs)
        self.last = _Unit(head, head, 3, rngs=rngs)
        self.classify = Conv(head, classes, 1, rngs=rngs)

    def __call__(self, x):
        size = x.shape[1:3]
        x = self.stem(x)
        x = _max_pool(x)
        for stage in self.stages:
            x = stage(x)
        pooled = self.pooled(x.mean(axis=(1, 2), keepdims=True))
        pooled = jnp.broadcast_to(pooled, (*x.shape[:3], pooled.shape[-1]))
        x = self.project(jnp.concatenate([*(branch(x) for branch in self.branches), pooled], axis=-1))
        x = self.classify(self.last(x))
        return jax.image.resize(x, (len(x), *size, x.shape[-1]), "bilinear")
