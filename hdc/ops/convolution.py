"""Convolution in 2-D and 1-D: `conv2d` for all kinds, `separable_conv2d` for the depthwise separable one.

Signals are computed as maps that are one pixel high, by the same backends.
"""

import operator
from collections.abc import Sequence
from typing import Any

import jax
from jax import Array

from hdc.errors import InputError
from hdc.ops import gpu, pure, xla
from hdc.ops.backends import Choice, Geometry, choose

Pair = int | Sequence[int]
Padding = str | Sequence[tuple[int, int]]
Padding1d = str | tuple[int, int]

_SHAPES = {
    1: ("conv1d", "length", "(before, after)", "step"),
    2: ("conv2d", "height, width", "((top, bottom), (left, right))", "pixel"),
}


def conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    relu: bool = False,
    rate: Pair = 1,
    groups: int = 1,
    strides: Pair = 1,
    padding: Padding = "SAME",
) -> Array:
    """2-D convolution (cross-correlation) with a dilation rate; `hdc ops` shows which backend computes it.

    Reverse-mode gradients work everywhere; forward mode (`jax.jvp`) needs `with hdc.ops.backend("lax")`.

    >>> import jax.numpy as jnp
    >>> image, kernel = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 16))
    >>> conv2d(image, kernel, rate=2).shape
    (1, 8, 8, 16)
    >>> conv2d(image, kernel, rate=2, padding="VALID").shape
    (1, 4, 4, 16)

    Args:
        x: `[batch, height, width, in_channels]`.
        kernel: `[kernel_height, kernel_width, in_channels / groups, out_channels]`.
        bias: `[out_channels]`, added to the result.
        relu: whether to apply ReLU, in the same pass.
        rate: dilation rate, for both axes or (height, width).
        groups: feature groups; `in_channels` makes the convolution depthwise.
        strides: for both axes or (height, width).
        padding: "SAME", "VALID", or ((top, bottom), (left, right)) in pixels.

    Returns:
        `[batch, out_height, out_width, out_channels]` of x's type.

    Raises:
        InputError: if shapes, groups, rates, strides and padding do not fit one another, or VALID or explicit
            padding leaves no pixel.
    """
    geometry = _geometry(x, kernel, bias, rate, groups, strides, padding)
    return _convolve(x, kernel, bias, relu, geometry, choose(geometry))


def conv1d(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    relu: bool = False,
    rate: Pair = 1,
    groups: int = 1,
    strides: Pair = 1,
    padding: Padding1d = "SAME",
) -> Array:
    """1-D convolution (cross-correlation) of signals with a dilation rate; gradients as those of `conv2d`.

    >>> import jax.numpy as jnp
    >>> signal, kernel = jnp.ones((1, 100, 2)), jnp.ones((3, 2, 16))
    >>> conv1d(signal, kernel, rate=4, padding="CAUSAL").shape
    (1, 100, 16)

    Args:
        x: `[batch, length, in_channels]`.
        kernel: `[kernel_size, in_channels / groups, out_channels]`.
        bias, relu, groups: as in `conv2d`.
        rate: dilation rate.
        strides: steps from one output to the next.
        padding: "SAME", "VALID", "CAUSAL" (all of it before the signal, so that no output sees what comes
            later), or (before, after) in steps.

    Returns:
        `[batch, out_length, out_channels]` of x's type.

    Raises:
        InputError: as `conv2d`.
    """
    geometry = _geometry(x, kernel, bias, rate, groups, strides, padding, axes=1)
    return _convolve(x[:, None], kernel[None], bias, relu, geometry, choose(geometry))[:, 0]


def _convolve(
    x: Array, kernel: Array, bias: Array | None, relu: bool, geometry: Geometry, choice: Choice
) -> Array:
    rates, pads, groups = geometry.rate, geometry.pads, geometry.groups
    match choice.backend:
        case "native":
            from hdc.ops import native

            return native.conv2d(x, kernel, bias, relu, rates, pads, geometry.strides, choice.winograd)
        case "triton" if geometry.depthwise and groups > 1:
            from hdc.ops import triton_depthwise

            return xla.finish(triton_depthwise.depthwise(x, kernel, rates, pads), bias, relu)
        case "triton":
            from hdc.ops import triton_dense

            return xla.finish(triton_dense.dense(x, kernel, rates, pads), bias, relu)
        case "jax" if geometry.depthwise and groups > 1:
            return xla.finish(pure.depthwise(x, kernel, rates, pads), bias, relu)
        case "jax" if geometry.pointwise:
            pointwise = gpu.pointwise if jax.default_backend() == "gpu" else pure.pointwise
            return xla.finish(pointwise(x, kernel), bias, relu)
        case "jax" if jax.default_backend() == "gpu":
            return xla.finish(gpu.dilated(x, kernel, rates, pads), bias, relu)
        case "jax":
            return xla.finish(pure.dense(x, kernel, rates, pads), bias, relu)
        case _:
            return xla.conv2d(x, kernel, bias, relu, rates, pads, geometry.strides, groups)


def separable_conv2d(
    x: Array,
    depthwise: Array,
    pointwise: Array,
    bias: Array | None = None,
    *,
    relu: bool = False,
    rate: Pair = 1,
    strides: Pair = 1,
    padding: Padding = "SAME",
) -> Array:
    """Depthwise separable convolution: `conv2d` with one filter per channel, then a 1 x 1 `conv2d`.

    >>> import jax.numpy as jnp
    >>> image = jnp.ones((1, 8, 8, 3))
    >>> separable_conv2d(image, jnp.ones((3, 3, 1, 3)), jnp.ones((1, 1, 3, 16)), rate=2).shape
    (1, 8, 8, 16)

    Args:
        x: `[batch, height, width, in_channels]`.
        depthwise: `[kernel_height, kernel_width, 1, in_channels]`.
        pointwise: `[1, 1, in_channels, out_channels]`.
        bias, relu: of the pointwise convolution.
        rate, strides, padding: of the depthwise one, see `conv2d`.

    Returns:
        `[batch, out_height, out_width, out_channels]` of x's type.

    Raises:
        InputError: as `conv2d`.
    """
    return _separable(x, depthwise, pointwise, bias, relu, rate, strides, padding, axes=2)


def separable_conv1d(
    x: Array,
    depthwise: Array,
    pointwise: Array,
    bias: Array | None = None,
    *,
    relu: bool = False,
    rate: Pair = 1,
    strides: Pair = 1,
    padding: Padding1d = "SAME",
) -> Array:
    """Depthwise separable convolution of signals: `conv1d` with one filter per channel, then one of size 1.

    >>> import jax.numpy as jnp
    >>> signal = jnp.ones((1, 100, 2))
    >>> separable_conv1d(signal, jnp.ones((3, 1, 2)), jnp.ones((1, 2, 16)), rate=4).shape
    (1, 100, 16)

    Args:
        x: `[batch, length, in_channels]`.
        depthwise: `[kernel_size, 1, in_channels]`.
        pointwise: `[1, in_channels, out_channels]`.
        bias, relu: of the pointwise convolution.
        rate, strides, padding: of the depthwise one, see `conv1d`.

    Returns:
        `[batch, out_length, out_channels]` of x's type.

    Raises:
        InputError: as `conv1d`.
    """
    return _separable(x, depthwise, pointwise, bias, relu, rate, strides, padding, axes=1)


def _separable(
    x: Array,
    depthwise: Array,
    pointwise: Array,
    bias: Array | None,
    relu: bool,
    rate: Pair,
    strides: Pair,
    padding: Padding | Padding1d,
    axes: int,
) -> Array:
    _, sides, _, _ = _SHAPES[axes]
    if x.ndim != axes + 2 or pointwise.ndim != axes + 2 or x.shape[-1] == 0:
        ones = "1, " * axes
        raise InputError(
            f"separable_conv{axes}d takes x [batch, {sides}, channels] and kernels [{sides}, 1, "
            f"channels] and [{ones}channels, out], got x {x.shape} and pointwise {pointwise.shape}"
        )
    channels, features = x.shape[-1], pointwise.shape[-1]
    geometry = _geometry(x, depthwise, bias, rate, channels, strides, padding, features, axes)
    if pointwise.shape[:-1] != (*(1,) * axes, channels):
        raise InputError(
            f"the pointwise kernel must be [{'1, ' * axes}{channels}, out_channels], got {pointwise.shape}"
        )
    choice = choose(geometry, then=f", then 1x1 to {features}")
    if axes == 1:
        x, depthwise, pointwise = x[:, None], depthwise[None], pointwise[None]
    if choice.backend == "native" and features and pointwise.dtype == x.dtype:
        from hdc.ops import native

        numbers = (geometry.rate, geometry.pads, geometry.strides)
        y = native.separable_conv2d(x, depthwise, pointwise, bias, relu, *numbers)
    else:
        y = conv2d(_convolve(x, depthwise, None, False, geometry, choice), pointwise, bias, relu=relu)
    return y if axes == 2 else y[:, 0]


def _geometry(
    x: Array,
    kernel: Array,
    bias: Array | None,
    rate: Pair,
    groups: int,
    strides: Pair,
    padding: Padding | Padding1d,
    out_channels: int | None = None,
    axes: int = 2,
) -> Geometry:
    """Check a convolution. `out_channels` is the bias's length if it is not the kernel's.

    Signals, of one axis, become maps of height 1.
    """
    name, sides, _, element = _SHAPES[axes]
    if x.ndim != axes + 2 or kernel.ndim != axes + 2:
        raise InputError(
            f"{name} takes x [batch, {sides}, channels] and kernel [{sides}, in, out], "
            f"got shapes {x.shape} and {kernel.shape}"
        )
    rates, steps = per_axis("rate", rate, axes), per_axis("strides", strides, axes)
    channels, features = x.shape[-1], kernel.shape[-1]
    check_groups(groups, channels, features)
    if kernel.shape[-2] * groups != channels:
        raise InputError(
            f"kernel {kernel.shape} with groups={groups} takes {kernel.shape[-2] * groups} channels, "
            f"x has {channels}"
        )
    wanted = features if out_channels is None else out_channels
    if bias is not None and bias.shape != (wanted,):
        raise InputError(f"bias must be [{wanted}], one value per output channel, got shape {bias.shape}")
    pads = pads_of(x.shape[1:-1], kernel.shape[:-2], rates, steps, padding)
    for axis, side in enumerate(sides.split(", ")):
        extent = 1 + (kernel.shape[axis] - 1) * rates[axis]
        if not 1 <= extent < 2**30:
            raise InputError(
                f"kernel size {kernel.shape[axis]} at rate {rates[axis]} has an extent of {extent} "
                f"{element}s, from 1 to {2**30 - 1} are possible"
            )
        if padding != "SAME" and x.shape[1 + axis] + sum(pads[axis]) < extent:
            raise InputError(
                f"padding={padding!r} leaves no {element}: {side} {x.shape[1 + axis]} is smaller than the "
                f"extent {extent} of kernel size {kernel.shape[axis]} at rate {rates[axis]}"
            )
    dtypes = frozenset(a.dtype.name for a in (x, kernel, bias) if a is not None)
    if axes == 1:
        (rate_, step, pad), one = (rates[0], steps[0], pads[0]), (x.shape[0], 1, *x.shape[1:])
        return Geometry(one, (1, *kernel.shape), dtypes, (1, rate_), (1, step), ((0, 0), pad), groups)
    return Geometry(x.shape, kernel.shape, dtypes, rates, steps, pads, groups)


def pads_of(
    sizes: Sequence[int],
    kernel: Sequence[int],
    rates: Sequence[int],
    steps: Sequence[int],
    padding: Padding | Padding1d,
) -> Any:
    """Pixels (before, after) per axis. With SAME an odd pixel comes after, as in XLA and TensorFlow."""
    axes = len(sizes)
    if padding == "VALID":
        return ((0, 0),) * axes
    if padding == "SAME":
        reached = [(-(-n // step) - 1) * step for n, step in zip(sizes, steps, strict=True)]
        extents = [1 + (k - 1) * rate for k, rate in zip(kernel, rates, strict=True)]
        added = [max(0, r + e - n) for r, e, n in zip(reached, extents, sizes, strict=True)]
        return tuple((n // 2, n - n // 2) for n in added)
    if padding == "CAUSAL" and axes == 1:
        return (((kernel[0] - 1) * rates[0], 0),)
    if isinstance(padding, str):
        names = (
            "'SAME', 'VALID' or two pairs" if axes == 2 else "'SAME', 'VALID', 'CAUSAL' or (before, after)"
        )
        raise InputError(f"padding must be {names}, got {padding!r}")
    try:
        sides: Any = padding if axes == 2 else [padding]
        pads = tuple((operator.index(before), operator.index(after)) for before, after in sides)
    except (TypeError, ValueError):
        pads = ()
    if len(pads) != axes or min(map(min, pads)) < 0:
        raise InputError(f"explicit padding is {_SHAPES[axes][2]}, not negative, got {padding!r}")
    return pads


def per_axis(name: str, value: Pair, axes: int = 2) -> Any:
    """`value` as positive integers, one per axis; InputError naming `name` if it is not."""
    each = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    try:
        numbers = tuple(operator.index(one) for one in each if not isinstance(one, bool))
    except TypeError:
        numbers = ()
    if len(numbers) != axes or min(numbers) < 1:
        or_two = " or two of them" if axes == 2 else ""
        raise InputError(f"{name} must be a positive integer{or_two}, got {value!r}")
    return numbers


def check_groups(groups: int, in_channels: int, out_channels: int) -> None:
    """Raise InputError if `groups` does not divide both numbers of channels."""
    if not isinstance(groups, int) or groups < 1 or in_channels % groups or out_channels % groups:
        raise InputError(
            f"groups={groups} must divide the {in_channels} input and {out_channels} output channels"
        )
