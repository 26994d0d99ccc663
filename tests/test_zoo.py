"""`analyse` on public architectures (`tests/zoo/`) against derivatives of their linear twins, taken by JAX alone.

A model's twin is the model with each weight one, divided by the channels that it averages, and without what
`analyse` says it leaves out or passes: activations, normalisations, summaries of the map. Its derivative at a pixel
counts the paths from there.
"""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from jax import Array
from zoo import parts
from zoo.context import ContextModule
from zoo.convnext import ConvNeXt
from zoo.deeplab import DeepLabV3, DeepLabV3Plus
from zoo.deformable import Deformable
from zoo.densenet import DenseNet
from zoo.drn import DRNA, DRNC
from zoo.enet import ENet, ERFNet
from zoo.espnet import ESPNet
from zoo.hrnet import HRNet
from zoo.large import VAN, RepLKNet
from zoo.mobile import EfficientNet, MobileNet, MobileNetV2, MobileNetV3
from zoo.pspnet import PSPNet
from zoo.pyramids import FPN, StackedHourglass
from zoo.resnet import Basic, Bottleneck, ResNet
from zoo.segformer import SegFormer
from zoo.sequences import TCN, WaveNet
from zoo.spacings import DCLS, Spaced, placed
from zoo.swin import Swin
from zoo.unet import UNet
from zoo.upsampling import ESPCN, Generator
from zoo.vae import Decoder

from hdc import analyse


FIVE = 5


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, the input's shape without the batch, and what is known about it from elsewhere."""

    make: Callable[[nnx.Rngs], nnx.Module]
    shape: tuple[int, ...]
    stride: Any = 1
    couplings: int = 0


def _resnet(block: type, depths: tuple[int, ...], output_stride: int = 32, **options: Any) -> Callable:
    return lambda rngs: ResNet(block, depths, 2, output_stride, rngs=rngs, **options)


def _with(head: Callable[..., nnx.Module], output_stride: int, **options: Any) -> Callable:
    encoder = _resnet(Basic, (1, 1, 1, 1), output_stride)
    return lambda rngs: head(encoder(rngs), rngs=rngs, **options)


def _of(cls: type, *sizes: Any, **options: Any) -> Callable:
    return lambda rngs: cls(*sizes, **options, rngs=rngs)


CASES = {
    "ResNet-18": Case(_resnet(Basic, (2, 2, 2, 2)), (64, 64, 3), 32),
    "ResNet-50, output stride 16": Case(
        _resnet(Bottleneck, (1, 1, 2, 3), 16, grid=(1, 2, 4)), (64, 64, 3), 16
    ),
    "ResNet, output stride 8": Case(_resnet(Basic, (1, 1, 1, 1), 8), (64, 64, 3), 8),
    "DRN-A": Case(_of(DRNA, (1, 1, 1, 1), 2), (64, 64, 3), 8),
    "DRN-C": Case(_of(DRNC, (1,) * 8, 2), (64, 64, 3), 8),
    "DRN-D": Case(_of(DRNC, (1,) * 8, 2, plain=True), (64, 64, 3), 8),
    "DeepLabV3": Case(_with(DeepLabV3, 16, width=2, rates=(1, 2, 3), classes=2), (64, 64, 3), 1, 1),
    "DeepLabV3+": Case(
        _with(DeepLabV3Plus, 16, width=2, low=2, rates=(1, 2, 3), classes=2), (64, 64, 3), 1, 1
    ),
    "PSPNet": Case(_with(PSPNet, 8, width=2, classes=2), (48, 48, 3), 1, 1),
    "FPN": Case(_with(FPN, 32, width=2), (64, 64, 3), 4),
    "U-Net": Case(_of(UNet, 2, 2), (60, 60, 3), 1),
    "HRNet": Case(_of(HRNet, 2, 2, 1, 1, (1, 1, 1)), (64, 64, 3), 4),
    "Stacked hourglass": Case(_of(StackedHourglass, 2, 2, 2), (64, 64, 3), 4),
    "ConvNeXt": Case(_of(ConvNeXt, (1, 1, 2, 1), 2), (64, 64, 3), 32),
    "MobileNet": Case(_of(MobileNet, 2), (64, 64, 3), 32),
    "MobileNetV2": Case(
        _of(MobileNetV2, [(t, 2, min(n, 2), s) for t, _, n, s in MobileNetV2.ROWS], 2, 16), (64, 64, 3), 16
    ),
    "MobileNetV3": Case(
        _of(MobileNetV3, [(k, 4, 2, *rest) for k, _, _, *rest in MobileNetV3.ROWS[:9]], 2), (64, 64, 3), 16, 3
    ),
    "EfficientNet": Case(
        _of(EfficientNet, [(2, 2, 1, s, k) for _, _, _, s, k in EfficientNet.ROWS], 2), (64, 64, 3), 32, 7
    ),
    "DenseNet": Case(_of(DenseNet, (2, 2, 2, 2), 2, 4), (64, 64, 3), 32),
    "SegFormer": Case(_of(SegFormer, (1, 1), (2, 4), (1, 2), (4, 1), 2, 2), (32, 32, 3), 4),
    "Swin": Case(_of(Swin, (2, 2), 2, 1, 4), (64, 64, 3), 8),
    "RepLKNet": Case(_of(RepLKNet, (1, 1), 2, (9, 7)), (64, 64, 3), 8),
    "VAN": Case(_of(VAN, (1, 1), (2, 2), (2, 2)), (64, 64, 3), 8),
    "DCLS": Case(_of(DCLS, 2, 2, 5, 9), (64, 64, 3), 4),
    "WaveNet": Case(_of(WaveNet, 2, 2, 4, 2, 2), (64, 1), 1),
    "TCN": Case(_of(TCN, (2, 2, 2, 2), 3), (64, 1), 1),
    "Context module": Case(_of(ContextModule, 2), (80, 80, 2), 1),
    "ERFNet": Case(_of(ERFNet, (4, 6, 8), 1, (2, 4), 2), (64, 64, 3), 1),
    "ESPNet": Case(_of(ESPNet, (1, 1), (2, 10, 10)), (64, 64, 3), 8),
    "ESPCN": Case(_of(ESPCN, (2, 2), 3), (20, 20, 1), (1, 3)),
    "Generator": Case(_of(Generator, (2, 2), 5), (8, 8, 100), (1, 8)),
    "VAE decoder": Case(_of(Decoder, 2, (2, 1, 1), 1, 1), (12, 12, 4), (1, 4), 1),
    "VAE decoder, convolutions": Case(
        _of(Decoder, 2, (2, 1, 1), 1, 1, attention=False), (12, 12, 4), (1, 4), 1
    ),
}


def _pooled(x: Array, size: tuple[int, ...], strides: tuple[int, ...], padding: Any = "VALID") -> Array:
    ones = (1, *size, 1)
    sides = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, ones, (1, *strides, 1), sides)


def _resized(x: Array, shape: tuple[int, ...], method: str) -> Array:
    """Each entry reads those that its interpolation gives any weight, each once."""
    assert method == "bilinear"
    for axis, (before, after) in enumerate(zip(x.shape, shape, strict=True)):
        if before != after:
            centres = (2 * np.arange(after)[:, None] + 1) * before - (2 * np.arange(before) + 1) * after
            reads = np.float32(np.abs(centres) < 2 * max(before, after))
            x = jnp.moveaxis(jnp.tensordot(reads, x, ((1,), (axis,))), 0, axis)
    return x


def _same(x: Array, *_: Any, **__: Any) -> Array:
    return x


def _method(_: Any, x: Array) -> Array:
    return x


def _scores(queries: Array, keys: Array) -> Array:
    """A product is one path to either: of the mean of the channels."""
    of, to = (jnp.moveaxis(side.mean(axis=-1), -1, -2) for side in (queries, keys))
    return of[..., :, None] + to[..., None, :]


def _weighed(weights: Array, values: Array) -> Array:
    sums = values.sum(axis=-3, keepdims=True)
    return sums + jnp.moveaxis(weights.sum(axis=-1), -2, -1)[..., None]


TWIN = [
    *((nnx, name, _same) for name in ("relu", "relu6", "silu", "gelu", "tanh", "sigmoid", "hard_swish")),
    (nnx, "softmax", _same),
    (jax.nn, "softmax", _same),
    *((norm, "__call__", _method) for norm in (nnx.BatchNorm, nnx.LayerNorm, nnx.GroupNorm)),
    (nnx, "max_pool", _pooled),
    (nnx, "avg_pool", _pooled),
    (jax.image, "resize", _resized),
    (parts.SqueezeExcite, "__call__", _method),
    (parts.ImagePooling, "__call__", lambda _, x: jnp.zeros((*x.shape[:-1], _.reduce.conv.out_features))),
    (segformer, "scores", _scores),
]


def twin(case: Case, state: Any) -> Callable[[Array], Array]:
    """x to the twin's output."""


def counted(model: nnx.Module, shape: tuple[int, ...], places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a linear model: paths from each place, and from all places together: `[places, *space]`, `[*space]`."""
    graph, state = nnx.split(model)

    def pulled(state: nnx.State, x: Array, chosen: Array) -> Array:
        output, back = jax.vjp(lambda x: nnx.merge(graph, state)(x), x)
        return back(chosen)[0].sum(axis=-1)
