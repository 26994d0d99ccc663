"""The operations in C++ for CPUs, called by XLA, in float32; bfloat16 is rounded from it.

Each pass over an image does as much as possible while the data is in the cache: bias and ReLU with the
convolution, the depthwise with the pointwise convolution, all gradients together. Gradients of gradients are
those of `hdc.ops.xla`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, custom_vjp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from hdc.ops import xla
from hdc.ops.xla import Pads, Pair

_NOTHING = (0,)  # the shape of an unwanted gradient and of a missing bias


def _call(name: str, shapes: Any, *arrays: Array, **numbers: float) -> Any:
    results = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), shapes, is_leaf=_is_shape)
    call = jax.ffi.ffi_call(name, results, vmap_method="sequential")
    return call(
        *arrays, **{k: np.float32(n) if isinstance(n, float) else np.int64(n) for k, n in numbers.items()}
    )


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(n, int) for n in value)


def _numbers(relu: bool, rate: Pair, pads: Pads, strides: Pair) -> dict[str, int]:
    (top, _), (left, _) = pads
    names = ("rate_h", "rate_w", "stride_h", "stride_w", "top", "left", "relu")
    return dict(zip(names, (*rate, *strides, top, left, int(relu)), strict=True))


def _sizes(x: Array, kernel: Array, rate: Pair, pads: Pads, strides: Pair) -> tuple[int, ...]:
    reach = [(k - 1) * r for k, r in zip(kernel.shape[:2], rate, strict=True)]
    axes = zip(x.shape[1:3], pads, reach, strides, strict=True)
    return tuple((n + sum(pad) - far - 1) // step + 1 for n, pad, far, step in axes)


def _differentiable_again(gradients: Callable, forward: Callable, count: int) -> Callable:
    """`gradients` with the reference's second derivatives.

    Args:
        gradients: `(*settings, wanted, operands, y, dy)` to the operands' gradients, None if not wanted.
        forward: `(*operands, *settings)` to y, from `hdc.ops.xla`.
        count: the number of settings.
    """
    again = custom_vjp(gradients, nondiff_argnums=tuple(range(count + 1)))

    def reference(settings: tuple, wanted: tuple, operands: tuple, dy: Array) -> list:
        found = jax.vjp(lambda *operands: forward(*operands, *settings), *operands)[1](dy)
        return [g if want else None for g, want in zip(found, wanted, strict=True)]

    def kept(*arguments: Any) -> tuple:
        *_, operands, y, dy = arguments
        return again(*arguments), (operands, y, dy)

    def pull(*arguments: Any) -> tuple:
        *settings, wanted, (operands, y, dy), cotangents = arguments
        _, pullback = jax.vjp(lambda o, d: reference(tuple(settings), wanted, o, d), operands, dy)
        d_operands, d_dy = pullback(cotangents)
        return d_operands, jnp.zeros_like(y), d_dy  # only y's sign is used

    again.defvjp(kept, pull)
    return again


def _operation(forward: Callable, gradients: Callable, reference: Callable, count: int) -> Callable:
    """`forward(*operands, *settings)`, differentiable; `count` is the number of operands."""
    settings_count = forward.__code__.co_argcount - count
    again = _differentiable_again(gradients, reference, settings_count)
    nondiff = tuple(range(count, count + settings_count))
    operation = custom_vjp(forward, nondiff_argnums=nondiff)

    def kept(*arguments: Any) -> tuple:
        # No gradient is computed for operands that nobody differentiates by, such as the images.
        primals, settings = arguments[:count], arguments[count:]
        leaves = [p if isinstance(p, CustomVJPPrimal) else None for p in primals]
        operands = tuple(None if p is None else p.value for p in leaves)
        wanted = tuple(p is not None and bool(p.perturbed) for p in leaves)
        y = operation(*operands, *settings)
        return y, (operands, y, tuple(() if want else None for want in wanted))

    def pull(*arguments: Any) -> tuple:
        settings, ((operands, y, marks), dy) = arguments[:-2], arguments[-2:]
        if isinstance(dy, SymbolicZero):
            return tuple(None for _ in operands)
        wanted = tuple(mark is not None for mark in marks)
        return tuple(again(*settings, wanted, operands, y, dy))

    operation.defvjp(kept, pull, symbolic_zeros=True)
    return operation


def _convolution_gradients(name: Callable, *arguments: Any) -> list[Array | None]:
    """A `gradients` by the native call that `name` gives for x and kernel; the last operand is the bias."""
    relu, *numbers, wanted, (x, *kernels, bias), y, dy = arguments
    computed = [wanted[0], *[any(wanted[1:-1])] * len(kernels), wanted[-1]]
    operands = (x, *kernels, bias)
    shapes = [a.shape if want else _NOTHING for a, want in zip(operands, computed, strict=True)]
    y = y if relu else _optional(None)
    call = name(x, kernels[0], "backward", *numbers[3:])
    found = _call(call, shapes, x, *kernels, y, dy, **_numbers(relu, *numbers[:3]))
    return [g if want else None for g, want in zip(found, wanted, strict=True)]


def _optional(array: Array | None) -> Array:
    return jnp.zeros(_NOTHING, jnp.float32) if array is None else array


def _groups(x: Array, kernel: Array) -> int:
    return x.shape[3] // kernel.shape[2]


def _name(x: Array, kernel: Array, way: str, winograd: bool) -> str:
    if winograd:
        return f"hdc_winograd_{way}"
    depthwise = 1 < x.shape[3] == _groups(x, kernel) == kernel.shape[3]
    return f"hdc_depthwise_{way}" if depthwise else f"hdc_{way}"


def _separable_name(x: Array, kernel: Array, way: str) -> str:
    return f"hdc_separable_{way}"


def _conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    relu: bool,
    rate: Pair,
    pads: Pads,
    strides: Pair,
    winograd: bool,
) -> Array:
    shape = (x.shape[0], *_sizes(x, kernel, rate, pads, strides), kernel.shape[3])
    numbers = _numbers(relu, rate, pads, strides)
    return _call(_name(x, kernel, "forward", winograd), shape, x, kernel, _optional(bias), **numbers)


def _xla_conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    relu: bool,
    rate: Pair,
    pads: Pads,
    strides: Pair,
    winograd: bool,
) -> Array:
    return xla.conv2d(x, kernel, bias, relu, rate, pads, strides, _groups(x, kernel))


def _separable_conv2d(
    x: Array,
    depthwise: Array,
    pointwise: Array,
    bias: Array | None,
    relu: bool,
    rate: Pair,
    pads: Pads,
    strides: Pair,
) -> Array:
    shape = (x.shape[0], *_sizes(x, depthwise, rate, pads, strides), pointwise.shape[3])
    arrays = (x, depthwise, pointwise, _optional(bias))
    return _call("hdc_separable_forward", shape, *arrays, **_numbers(relu, rate, pads, strides))


def _xla_separable(
    x: Array,
    depthwise: Array,
    pointwise: Array,
    bias: Array | None,
    relu: bool,
    rate: Pair,
    pads: Pads,
    strides: Pair,
) -> Array:
    y = xla.conv2d(x, depthwise, None, False, rate, pads, strides, x.shape[3])
    return xla.conv2d(y, pointwise, bias, relu, (1, 1), ((0, 0), (0, 0)))


def _window(size: Pair, strides: Pair, pads: Pads) -> dict[str, int]:
    (top, _), (left, _) = pads
    names = ("rows", "columns", "stride_h", "stride_w", "top", "left")
    return dict(zip(names, (*size, *strides, top, left), strict=True))


def _max_pool(x: Array, size: Pair, strides: Pair, pads: Pads) -> Array:
    axes = zip(x.shape[1:3], pads, size, strides, strict=True)
    sides = ((n + sum(pad) - window) // step + 1 for n, pad, window, step in axes)
    return _call("hdc_max_pool", (x.shape[0], *sides, x.shape[3]), x, **_window(size, strides, pads))


def _max_pool_gradients(*arguments: Any) -> list[Array]:
    *window, _, (x,), _, dy = arguments
    return [_call("hdc_max_pool_gradient", x.shape, x, dy, **_window(*window))]


def moments(x: Array) -> tuple[Array, Array]:
    """The mean and the variance of each channel, in float32; not to be differentiated."""
    channels = x.shape[-1:]
    return tuple(_call("hdc_moments", [channels, channels], x.astype(jnp.float32)))


def _normalise(
    x: Array,
    scale: Array,
    bias: Array,
    residual: Array | None,
    mean: Array,
    variance: Array,
    relu: bool,
    epsilon: float,
) -> Array:
    arrays = (x, scale, bias, _optional(residual), mean, variance)
    return _call("hdc_normalise", x.shape, *arrays, relu=int(relu), epsilon=epsilon)


def _normalise_gradients(*arguments: Any) -> list[Array | None]:
    relu, epsilon, wanted, (x, scale, bias, _, mean, variance), y, dy = arguments
    shapes = [x.shape, scale.shape, bias.shape, x.shape if wanted[3] else _NOTHING]
    arrays = (x, scale, mean, variance, y if relu else _optional(None), dy)
    found = _call("hdc_normalise_gradient", shapes, *arrays, relu=int(relu), epsilon=epsilon)
    found = (*found, jnp.zeros_like(mean), jnp.zeros_like(variance))
    return [g if want else None for g, want in zip(found, wanted, strict=True)]


def _xla_normalise(
    x: Array, scale: Array, bias: Array, residual: Array | None, mean: Array, variance: Array, *settings: Any
) -> Array:
    return xla.normalise(x, scale, bias, residual, *settings)


def _rounded(operation: Callable) -> Callable:
    """`operation` for bfloat16 as well: computed in float32, and rounded at the end."""

    def apply(x: Array, *others: Any) -> Array:
        if x.dtype == jnp.float32:
            return operation(x, *others)
        wide = [a.astype(jnp.float32) if isinstance(a, Array) else a for a in (x, *others)]
        return operation(*wide).astype(x.dtype)

    return apply


# Arguments as in `hdc.ops`, by position: arrays first, the bias may be None, then ReLU, rates, pads in pixels
# (before, after) and strides, per axis, and for `conv2d` whether by Winograd's way. Call these only if
# `hdc.ops.native_build.unavailable()` is "".
conv2d = _rounded(_operation(_conv2d, partial(_convolution_gradients, _name), _xla_conv2d, 3))
separable_conv2d = _rounded(
    _operation(_separable_conv2d, partial(_convolution_gradients, _separable_name), _xla_separable, 4)
)
max_pool = _rounded(_operation(_max_pool, _max_pool_gradients, xla.max_pool, 1))

# The mean and the variance must be those of x, and gradients flow as through them.
normalise = _rounded(_operation(_normalise, _normalise_gradients, _xla_normalise, 6))
