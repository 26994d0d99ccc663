"""The operations as array operations that XLA compiles to faster programs on CPUs.

Depthwise: one shifted multiply-add per tap, forward and for the input's gradient; elementwise sums for the
kernel's gradient. 1x1: a matrix product; the kernel's gradient is summed image by image. Dense: the kernel's
gradient is a convolution in the layout that XLA is fast for. Max pooling: comparisons for the gradient.
"""

import math
import os
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, custom_vjp, lax

from hdc.ops import xla
from hdc.ops.xla import Pads, Pair

_ROWS = 16  # products added elementwise before they are summed
_LARGE = 10**9  # multiply-adds
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_IMAGES, _PIECES = 4, 32  # a kernel's gradient is summed in pieces: at least 4 images each, at most 32 pieces


@partial(custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x: Array, kernel: Array, rate: Pair, pads: Pads) -> Array:
    """`[b, h, w, c]` and `[kh, kw, 1, c]` to `[b, h', w', c]`, stride 1; pads as in `xla.conv2d`."""
    return _depthwise(x, kernel, rate, pads)


def _depthwise(x: Array, kernel: Array, rate: Pair, pads: Pads) -> Array:
    total = None
    for (i, j), seen in _shifted(x, kernel.shape, rate, pads):
        product = seen * jnp.expand_dims(kernel[i, j, 0], (0, 1, 2))
        total = product if total is None else total + product
    assert total is not None
    return total


def _shifted(x: Array, kernel: tuple[int, ...], rate: Pair, pads: Pads) -> list[tuple[Pair, Array]]:
    """The part of x that each tap reads, in the result's shape."""
    padded = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)))
    batch, height, width, channels = padded.shape
    rows, columns = height - (kernel[0] - 1) * rate[0], width - (kernel[1] - 1) * rate[1]
    found = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * rate[0], j * rate[1]
            seen = lax.slice(padded, (0, top, left, 0), (batch, top + rows, left + columns, channels))
            found.append(((i, j), seen))
    return found


def _depthwise_forward(x: Array, kernel: Array, rate: Pair, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernel, rate, pads), (x, kernel)


def _depthwise_backward(rate: Pair, pads: Pads, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = kept
    down, right = ((size - 1) * step for size, step in zip(kernel.shape[:2], rate, strict=True))
    (top, bottom), (left, last) = pads
    turned = ((down - top, down - bottom), (right - left, right - last))
    dx = _depthwise(dy, jnp.flip(kernel, (0, 1)), rate, turned)
    sums = [_summed(seen * 1, dy) for _, seen in _shifted(x, kernel.shape, rate, pads)]
    return dx, jnp.stack(sums).reshape(kernel.shape)


def _summed(x: Array, dy: Array) -> Array:
    """The sum of x * dy over all axes but the channels.

    XLA reduces leading axes slowly on a CPU: a part is added elementwise in one pass, and the rest is
    multiplied by a vector of ones.
    """
    batch, height, width, channels = x.shape
    axis = 0 if _parts(batch) >= 4 else 1
    parts = _parts((batch, height)[axis])
    split = (parts, batch // parts, height) if axis == 0 else (batch, parts, height // parts)
    x, dy = (a.reshape(*split, width, channels) for a in (x, dy))
    total = sum(jnp.take(x, i, axis) * jnp.take(dy, i, axis) for i in range(parts))
    flat = jnp.reshape(total, (-1, channels))
    return lax.dot_general(jnp.ones(len(flat), x.dtype), flat, (((0,), (0,)), ((), ())))


def _parts(length: int) -> int:
    """The largest divisor of `length` up to `_ROWS`."""
    return max(n for n in range(1, _ROWS + 1) if length % n == 0)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


@custom_vjp
def pointwise(x: Array, kernel: Array) -> Array:
    """`[b, h, w, c]` and `[1, 1, c, f]` to `[b, h, w, f]`."""
    return _pointwise(x, kernel)


def _pointwise(x: Array, kernel: Array) -> Array:
    return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))


def _pointwise_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _pointwise(x, kernel), (x, kernel)


def _pointwise_backward(kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = kept
    dx = lax.dot_general(dy, kernel[0, 0], (((3,), (1,)), ((), ())))
    # Image by image: for a single product XLA would transpose x and recompute it, far slower.
    x, dy = (a.reshape(len(a), -1, a.shape[3]) for a in (x, dy))
    dk = lax.dot_general(x, dy, (((1,), (1,)), ((0,), (0,)))).sum(0)
    return dx, dk.reshape(kernel.shape)


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


@partial(custom_vjp, nondiff_argnums=(2, 3))
def dense(x: Array, kernel: Array, rate: Pair, pads: Pads) -> Array:
    """`[b, h, w, c]` and `[kh, kw, c, f]` to `[b, h', w', f]`, stride 1."""
    return _in_pieces(x, kernel, rate, pads)


def _in_pieces(x: Array, kernel: Array, rate: Pair, pads: Pads) -> Array:
    """The convolution, a large one in quarters of the batch: XLA computes each on one core, in parallel."""
    products = math.prod(x.shape[:3]) * kernel.size
    some = -(-len(x) // 4) if products > _LARGE and _CORES > 1 else len(x)
    return jnp.concatenate(
        [xla.conv2d(x[n : n + some], kernel, None, False, rate, pads) for n in range(0, len(x), some)]
    )


def _dense_forward(x: Array, kernel: Array, rate: Pair, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return dense(x, kernel, rate, pads), (x, kernel)


def _dense_backward(rate: Pair, pads: Pads, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = kept
    _, pullback = jax.vjp(lambda x: _in_pieces(x, kernel, rate, pads), x)
    # Swapping batch and channels gives the layout that XLA is fast for: dy is the kernel, and the rate the
    # stride. A few images at a time stay in the cache.
    some = max(_IMAGES, -(-len(x) // _PIECES))
    dk = sum(
        xla.conv2d(
            jnp.transpose(x[n : n + some], (3, 1, 2, 0)),
            jnp.transpose(dy[n : n + some], (1, 2, 0, 3)),
            None, False, (1, 1), pads, strides=rate,
        )
        for n in range(0, len(x), some)
    )  # fmt: skip
    return *pullback(dy), jnp.transpose(dk, (1, 2, 0, 3))


dense.defvjp(_dense_forward, _dense_backward)


@partial(custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: Array, size: Pair, strides: Pair, pads: Pads) -> Array:
    """`[b, h, w, c]` to `[b, h', w', c]`, as `xla.max_pool`."""
    return reduce(jnp.maximum, (seen for _, seen in _windows(x, size, strides, pads)))


def _windows(x: Array, size: Pair, strides: Pair, pads: Pads) -> list[tuple[Pair, Array]]:
    """For each place in a window, what lies there in all of them, `[b, h', w', c]`."""
    batch, *sides, channels = x.shape
    sides = [n + sum(pad) for n, pad in zip(sides, pads, strict=True)]
    padded = lax.pad(x, -jnp.inf, ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)))
    found = []
    for i in range(size[0]):
        for j in range(size[1]):
            lasts = (n - k + at + 1 for n, k, at in zip(sides, size, (i, j), strict=True))
            seen = lax.slice(padded, (0, i, j, 0), (batch, *lasts, channels), (1, *strides, 1))
            found.append(((i, j), seen))
    return found


def _max_pool_forward(x: Array, size: Pair, strides: Pair, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    y: Any = max_pool(x, size, strides, pads)
    return y, (x, y)


def _max_pool_backward(
    size: Pair, strides: Pair, pads: Pads, kept: tuple[Array, Array], dy: Array
) -> tuple[Array]:
    x, y = kept
    open_ = jnp.ones_like(y, dtype=bool)
    total = jnp.zeros_like(x)
    for place, seen in _windows(x, size, strides, pads):
        here = open_ & ((seen == y) | (seen != seen))  # the first of equal maxima
        open_ &= ~here
        # Back to its pixels: strides between them, others before and after them, the padding cut off.
        sides = []
        for axis, at in enumerate(place):
            low = at - pads[axis][0]
            reached = low + (y.shape[1 + axis] - 1) * strides[axis] + 1
            sides.append((low, x.shape[1 + axis] - reached, strides[axis] - 1))
        total += lax.pad(jnp.where(here, dy, 0), jnp.zeros((), dy.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
    return (total,)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)
