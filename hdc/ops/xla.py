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


def normalise(
    x: Array, scale: Array, bias: Array, residual: Array | None, relu: bool, epsilon: float
) -> Array:
    """The first result of `hdc.ops.batch_norm`."""
    axes = tuple(range(x.ndim - 1))
    mean, variance = moments(x)
    normal = (x - jnp.expand_dims(mean, axes)) * jnp.expand_dims(lax.rsqrt(variance + epsilon) * scale, axes)
    y = (normal + jnp.expand_dims(bias, axes)).astype(x.dtype)
    y = y if residual is None else y + residual
    return jax.nn.relu(y) if relu else y


def moments(x: Array) -> tuple[Array, Array]:
    """The mean and the variance of each channel, in float32 at least, as Flax computes them."""
    axes, x = tuple(range(x.ndim - 1)), x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = x.mean(axes)
    return mean, jnp.maximum(0.0, jnp.square(x).mean(axes) - jnp.square(mean))


def max_pool(x: Array, size: Pair, strides: Pair, pads: Pads) -> Array:
    """See `hdc.ops.max_pool`; pads are pixels (before, after) per axis."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *size, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)))
