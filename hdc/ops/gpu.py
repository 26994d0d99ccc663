"""Dense convolutions for GPUs, put so that XLA hands them to cuDNN and cuBLAS in forms that are fast there.

XLA computes the gradient by a dilated kernel as a convolution with dy as the filter, as large as the map.
But at rate r the pixels that lie r apart are maps of their own, r x r of them, on which the convolution has
rate 1: there cuDNN has a fast gradient.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from hdc.ops import xla
from hdc.ops.gradients import differentiable
from hdc.ops.xla import Pads, Pair


def pointwise(x: Array, kernel: Array) -> Array:
    """`[b, h, w, c]` and `[1, 1, c, f]` to `[b, h, w, f]`: under vmap one product, XLA's is one a network."""
    return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))


def _apply(x: Array, kernel: Array, rate: Pair, pads: Pads) -> Array:
    # Measured on an H200: grids of less than 4 pixels are faster, the copies for larger ones cost more.
    if 4 * max(rate) <= min(x.shape[1:3]) or not _in_grids(x, rate):
        return xla.conv2d(x, kernel, None, False, rate, pads)
    grids, inner, result = _sub_grids(x, (kernel.shape[0], kernel.shape[1]), rate, pads)
    y = xla.conv2d(grids, kernel, None, False, (1, 1), inner)
    y = y.reshape(len(x), *rate, *y.shape[1:]).transpose(0, 3, 1, 4, 2, 5)
    height, width = (n * r for n, r in zip((y.shape[1], y.shape[3]), rate, strict=True))
    return y.reshape(len(x), height, width, -1)[:, : result[0], : result[1]]


def _sums(x: Array, dy: Array, size: Pair, rate: Pair, pads: Pads) -> Array:
    if not _in_grids(x, rate):
        return _products(size, rate, pads, x, dy)

    @custom_vmap
    def gradient(x: Array, dy: Array) -> Array:
        grids, inner, _ = _sub_grids(x, size, rate, pads)
        over, _, _ = _sub_grids(dy, (1, 1), rate, ((0, 0), (0, 0)))
        given = jax.ShapeDtypeStruct((*size, x.shape[3], dy.shape[3]), x.dtype)
        by_kernel = jax.linear_transpose(partial(_at_rate_1, grids, inner), given)
        return by_kernel(over)[0]

    @gradient.def_vmap
    def several(number, batched, x, dy):  # kernels side by side would be groups, for which cuDNN is slow
        axes = tuple(0 if there else None for there in batched)
        return jax.vmap(partial(_products, size, rate, pads), axes)(x, dy), True

    return gradient(x, dy)


def _in_grids(x: Array, rate: Pair) -> bool:
    """Whether every map of pixels `rate` apart has one: else they would be mostly padding."""
    return all(r <= n for r, n in zip(rate, x.shape[1:3], strict=True))


def _at_rate_1(x: Array, pads: Pads, kernel: Array) -> Array:
    return xla.conv2d(x, kernel, None, False, (1, 1), pads)


def _sub_grids(x: Array, size: Pair, rate: Pair, pads: Pads) -> tuple[Array, Pads, Pair]:
    """The maps `[b * r * r, h / r, w / r, c]` of pixels `rate` apart, their padding, the result's size."""
    odd = [pad[0] % r for pad, r in zip(pads, rate, strict=True)]  # what no whole step of padding covers
    counts, inner, result = [], [], []
    for axis, (k, r) in enumerate(zip(size, rate, strict=True)):
        length = x.shape[1 + axis]
        result.append(length + sum(pads[axis]) - (k - 1) * r)
        counts.append(-(-(length + odd[axis]) // r))
        before = pads[axis][0] // r
        inner.append((before, -(-result[axis] // r) + k - 1 - before - counts[axis]))
    after = [n * r - first - m for n, r, first, m in zip(counts, rate, odd, x.shape[1:3], strict=True)]
    x = jnp.pad(x, ((0, 0), (odd[0], after[0]), (odd[1], after[1]), (0, 0)))
    x = x.reshape(len(x), counts[0], rate[0], counts[1], rate[1], -1).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(-1, *counts, x.shape[5]), (inner[0], inner[1]), (result[0], result[1])


def _products(size: Pair, rate: Pair, pads: Pads, x: Array, dy: Array) -> Array:
    """The gradient by the kernel as a matrix product a tap."""
    starts = [[k * r - pad[0] for k in range(n)] for n, r, pad in zip(size, rate, pads, strict=True)]
    taps = [_product(x, dy, (down, right)) for down in starts[0] for right in starts[1]]
    return jnp.stack(taps).reshape(*size, x.shape[3], dy.shape[3]).astype(x.dtype)


def _product(x: Array, dy: Array, offset: Pair) -> Array:
    """Sum over the pixels of dy of x, `offset` further, times dy: `[c, f]` in float32."""
    ends = [(max(0, -o), min(n, m - o)) for o, m, n in zip(offset, x.shape[1:3], dy.shape[1:3], strict=True)]
    if any(first >= last for first, last in ends):
        return jnp.zeros((x.shape[3], dy.shape[3]), jnp.float32)
    (top, bottom), (left, right) = ends
    seen = x[:, top + offset[0] : bottom + offset[0], left + offset[1] : right + offset[1]]
    pixels = ((0, 1, 2), (0, 1, 2))
    given = dy[:, top:bottom, left:right]
    return lax.dot_general(seen, given, (pixels, ((), ())), preferred_element_type=jnp.float32)


dilated = differentiable(_apply, _sums, depthwise=False)
