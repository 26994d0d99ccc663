"""What the networks are made of: a dilated convolution with normalisation, ReLU and shortcut."""

import math
from typing import Any

from flax import nnx
from jax import Array

from hdc.errors import InputError
from hdc.layers import Conv, SeparableConv, crop

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
        if self.norm is not None:
            y = self.norm(y)
        if self.residual:
            y = y + crop(x, *y.shape[1:-1])
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
            raise InputError(f"norm must be one of {', '.join(NORMS)}, got {name!r}")
