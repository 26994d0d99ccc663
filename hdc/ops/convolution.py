"""2-D convolution: `conv2d` for all kinds, `separable_conv2d` for the depthwise separable one."""

import operator
from collections.abc import Sequence

import jax
from jax import Array

from hdc.errors import InputError
from hdc.ops import gpu, pure, xla
from hdc.ops.backends import Choice, Geometry, choose

Pair = int | Sequence[int]
Padding = str | Sequence[tuple[int, int]]


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


def _convolve(
    x: Array, kernel: Array, bias: Array | None, relu: bool, geometry: Geometry, choice: Choice
) -> Array:
    rates, pads, groups = geometry.rate, geometry.pads, geometry.groups
    match choice.backend:
        case "native":
            from hdc.ops import native

            return native.conv2d(x, kernel, bias, relu, rates, pads)
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
    if x.ndim != 4 or pointwise.ndim != 4 or x.shape[3] == 0:
        raise InputError(
            f"separable_conv2d takes x [batch, height, width, channels] and kernels [height, width, 1, "
            f"channels] and [1, 1, channels, out], got x {x.shape} and pointwise {pointwise.shape}"
        )
    channels = x.shape[3]
    features = pointwise.shape[-1]
    geometry = _geometry(x, depthwise, bias, rate, channels, strides, padding, out_channels=features)
    if pointwise.shape[:-1] != (1, 1, channels):
        raise InputError(
            f"the pointwise kernel must be [1, 1, {channels}, out_channels], got {pointwise.shape}"
        )
    choice = choose(geometry, then=f", then 1x1 to {features}")
    if choice.backend == "native" and features and pointwise.dtype == x.dtype:
        from hdc.ops import native

        return native.separable_conv2d(x, depthwise, pointwise, bias, relu, geometry.rate, geometry.pads)
    y = _convolve(x, depthwise, None, False, geometry, choice)
    return conv2d(y, pointwise, bias, relu=relu)


def _geometry(
    x: Array,
    kernel: Array,
    bias: Array | None,
    rate: Pair,
    groups: int,
    strides: Pair,
    padding: Padding,
    out_channels: int | None = None,
) -> Geometry:
    """Check a convolution. `out_channels` is the bias's length if it is not the kernel's."""
    if x.ndim != 4 or kernel.ndim != 4:
        raise InputError(
            f"conv2d takes x [batch, height, width, channels] and kernel [height, width, in, out], "
            f"got shapes {x.shape} and {kernel.shape}"
        )
    rates, steps = pair("rate", rate), pair("strides", strides)
    channels, features = x.shape[3], kernel.shape[3]
    check_groups(groups, channels, features)
    if kernel.shape[2] * groups != channels:
        raise InputError(
            f"kernel {kernel.shape} with groups={groups} takes {kernel.shape[2] * groups} channels, "
            f"x has {channels}"
        )
    wanted = features if out_channels is None else out_channels
    if bias is not None and bias.shape != (wanted,):
        raise InputError(f"bias must be [{wanted}], one value per output channel, got shape {bias.shape}")
    pads = _pads(x.shape, kernel.shape, rates, steps, padding)
    for axis, name in enumerate(("height", "width")):
        extent = 1 + (kernel.shape[axis] - 1) * rates[axis]
        if not 1 <= extent < 2**30:
            raise InputError(
                f"kernel size {kernel.shape[axis]} at rate {rates[axis]} has an extent of {extent} pixels, "
                f"from 1 to {2**30 - 1} are possible"
            )
        if padding != "SAME" and x.shape[1 + axis] + sum(pads[axis]) < extent:
            raise InputError(
                f"padding={padding!r} leaves no pixel: {name} {x.shape[1 + axis]} is smaller than the "
                f"extent {extent} of kernel size {kernel.shape[axis]} at rate {rates[axis]}"
            )
    dtypes = frozenset(a.dtype.name for a in (x, kernel, bias) if a is not None)
    return Geometry(x.shape, kernel.shape, dtypes, rates, steps, pads, groups)


def _pads(
    x: tuple[int, ...],
    kernel: tuple[int, ...],
    rates: tuple[int, int],
    steps: tuple[int, int],
    padding: Padding,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixels (before, after) per axis. With SAME an odd pixel comes after, as in XLA and TensorFlow."""
    if padding == "VALID":
        return (0, 0), (0, 0)
    if padding == "SAME":
        reached = [(-(-n // step) - 1) * step for n, step in zip(x[1:3], steps, strict=True)]
        extents = [1 + (k - 1) * rate for k, rate in zip(kernel[:2], rates, strict=True)]
        down, right = (max(0, r + e - n) for r, e, n in zip(reached, extents, x[1:3], strict=True))
        return (down // 2, down - down // 2), (right // 2, right - right // 2)
    if isinstance(padding, str):
        raise InputError(f"padding must be 'SAME', 'VALID' or two pairs, got {padding!r}")
    try:
        (top, bottom), (left, right) = [[operator.index(n) for n in side] for side in padding]
    except (TypeError, ValueError):
        top = bottom = left = right = -1
    if min(top, bottom, left, right) < 0:
        raise InputError(f"explicit padding is ((top, bottom), (left, right)), not negative, got {padding!r}")
    return (top, bottom), (left, right)


def pair(name: str, value: Pair) -> tuple[int, int]:
    """`value` as two positive integers, one per axis; InputError naming `name` if it is not."""
    both = tuple(value) if isinstance(value, Sequence) else (value, value)
    try:
        first, second = (operator.index(v) for v in both if not isinstance(v, bool))
    except (TypeError, ValueError):
        first = second = 0
    if min(first, second) < 1:
        raise InputError(f"{name} must be a positive integer or two of them, got {value!r}")
    return first, second


def check_groups(groups: int, in_channels: int, out_channels: int) -> None:
    """Raise InputError if `groups` does not divide both numbers of channels."""
    if not isinstance(groups, int) or groups < 1 or in_channels % groups or out_channels % groups:
        raise InputError(
            f"groups={groups} must divide the {in_channels} input and {out_channels} output channels"
        )
