"""What the networks are made of: a dilated convolution with normalisation, ReLU and shortcut."""

import math

from flax import nnx
from jax import Array

from hdc.errors import InputError
from hdc.layers import Conv, SeparableConv, crop


class Block(nnx.Module):
    """Dilated convolution, normalisation, ReLU; with `residual`, ReLU after adding the (cropped) input."""

    def __init__(
        self,
        in_features: int,
        features: int,
        kernel_size: int,
        *,
        rate: int,
        separable: bool,
        residual: bool,
        norm: str,
        padding: str,
        rngs: nnx.Rngs,
    ):
        kind = SeparableConv if separable else Conv
        self.conv = kind(
            in_features,
            features,
            kernel_size,
            rate=rate,
            padding=padding,
            use_bias=norm == "none",
            rngs=rngs,
        )
        self.norm = _norm(norm, features, rngs)
        self.residual = residual

    def __call__(self, x: Array) -> Array:
        if self.norm is None and not self.residual:
            return self.conv(x, relu=True)
        y = self.conv(x)
        if self.norm is not None:
            y = self.norm(y)
        if self.residual:
            y = y + crop(x, y.shape[1], y.shape[2])
        return nnx.relu(y)


def _norm(name: str, features: int, rngs: nnx.Rngs) -> nnx.Module | None:
    match name:
        case "none":
            return None
        case "batch":
            return nnx.BatchNorm(features, rngs=rngs)
        case "group":
            return nnx.GroupNorm(features, num_groups=math.gcd(features, 8), rngs=rngs)
        case _:
            raise InputError(f"norm must be none, batch or group, got {name!r}")
