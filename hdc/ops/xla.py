"""XLA's own operations: the reference for the other backends, and the source of their second derivatives."""

import jax
import jax.numpy as jnp
from jax import Array, lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    relu: bool,
    rate: Pair,
    pads: Pads,
    strides: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """See `hdc.ops.conv2d`; pads are pixels (before, after) per axis."""
    y = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=pads,
        rhs_dilation=rate,
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return finish(y, bias, relu)


def finish(y: Array, bias: Array | None, relu: bool) -> Array:
    """Add a bias `[c]` to the result `[b, h, w, c]` of a convolution, and apply ReLU; both are optional."""
    y = y if bias is None else y + jnp.expand_dims(bias, (0, 1, 2))
    return jax.nn.relu(y) if relu else y


def max_pool(x: Array, size: Pair) -> Array:
    """See `hdc.ops.max_pool`."""
    window = (1, *size, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
