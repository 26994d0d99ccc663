"""What the networks are made of: a dilated convolution with normalisation, ReLU and shortcut."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax import Array

from hdc.errors import InputError
from hdc.layers import Conv, SeparableConv, crop, normalised
from hdc.registry import Images
from hdc.schedules import DilationSchedule

NORMS = ("none", "batch", "group")
PADDINGS = ("SAME", "VALID")
MAX_WIDTH = 65536  # channels; no network comes near it


class Block(nnx.Module):
    """Convolution, normalisation, ReLU; with `residual`, ReLU after adding the (cropped) input.

    Args:
        conv: a layer that maps `[b, h, w, c]` to `[b, h', w', features]`, or signals likewise, without bias
            where there is a norm.
        features: channels out.
        norm: one of `NORMS`.
        residual: whether the input is added.
        rngs: of the normalisation.
    """

    def __init__(self, conv: nnx.Module, features: int, *, norm: str, residual: bool = False, rngs: nnx.Rngs):
        self.conv: Any = conv
        self.norm = _norm(norm, features, rngs)
        self.residual = residual

    def __call__(self, x: Array) -> Array:
        if self.norm is None and not self.residual and isinstance(self.conv, Conv | SeparableConv):
            return self.conv(x, relu=True)  # in one pass
        y = self.conv(x)
        residual = crop(x, *y.shape[1:-1]) if self.residual else None
        if self.norm is None:
            return nnx.relu(y if residual is None else y + residual)
        return normalised(self.norm, y, residual=residual)


class ConvNorm(nnx.Module):
    """A convolution without bias, batch normalisation, ReLU.

    Args:
        conv: a layer that maps `[b, h, w, c]` to `[b, h', w', features]`.
        features: channels out.
        rngs: of the normalisation.
    """

    def __init__(self, conv: nnx.Module, features: int, *, rngs: nnx.Rngs):
        self.conv: Any = conv
        self.norm = batch_norm(features, rngs)

    def __call__(self, x: Array) -> Array:
        return normalised(self.norm, self.conv(x))


def scaled(width: int, multiplier: float) -> int:
    """A published number of channels times the width multiplier, at least 1."""
    return max(1, round(width * multiplier))


def batch_norm(features: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch normalisation with PyTorch's momentum: running statistics move by a tenth in each step."""
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=rngs)


def _norm(name: str, features: int, rngs: nnx.Rngs) -> nnx.Module | None:
    match name:
        case "none":
            return None
        case "batch":
            return nnx.BatchNorm(features, rngs=rngs)
        case "group":
            return nnx.GroupNorm(features, num_groups=math.gcd(features, 8), rngs=rngs)
        case _:
            raise InputError(f"norm must be one of {', '.join(NORMS)}, got {name!r}")


def padded(
    in_features: int,
    features: int,
    kernel_size: int = 3,
    *,
    stride: int = 1,
    use_bias: bool = False,
    rngs: nnx.Rngs,
) -> Conv:
    """A convolution padded alike on both sides, as PyTorch's models have it: `[b, h, w, in_features]` to
    `[b, h', w', features]`, sides divided by the stride and rounded up."""
    sides = (kernel_size // 2,) * 2
    return Conv(
        *(in_features, features, kernel_size),
        **{"strides": stride, "padding": (sides, sides), "use_bias": use_bias},
        rngs=rngs,
    )


def resized(x: Array, images: Array) -> Array:
    """Maps interpolated to the height and width of images: bilinear, corners not aligned."""
    if x.shape[1:3] == images.shape[1:3]:
        return x
    return jax.image.resize(x, (*x.shape[:1], *images.shape[1:3], x.shape[-1]), "bilinear")


def check_rates(schedule: DilationSchedule, usual: Sequence[int], what: str) -> None:
    """InputError unless the schedule has as many rates as the usual ones of what takes them."""
    count = len(schedule.layer_rates)
    if count != len(usual):
        raise InputError(
            f"{what} takes {len(usual)} rates, one for each dilated layer, but the "
            f"schedule {schedule.label} has {count}: give {len(usual)}, such as schedule.repeat=1 "
            f"'schedule.rates=[{','.join(map(str, usual))}]'"
        )


def refuse_small(x: Array, output_stride: int) -> None:
    """InputError for images that are smaller than the output stride."""
    height, width = x.shape[1:3]
    if min(height, width) < output_stride:
        raise InputError(
            f"images of {height} x {width} are smaller than the network's output stride of {output_stride}: "
            "nothing is left of them on the last map"
        )


def per_pixel(network: str, images: Images) -> None:
    """InputError where the data has one label per image."""
    if images.task == "classification":
        raise InputError(
            f"net={network} gives one label per pixel and the data has one per image: "
            "use a network that classifies, such as net=context or resnet"
        )
