"""2-D convolution: one function, one contract."""

from collections.abc import Sequence

from jax import Array, lax

from hdc.errors import InputError

Pair = int | Sequence[int]
Padding = str | Sequence[tuple[int, int]]


def conv2d(
    x: Array,
    kernel: Array,
    *,
    rate: Pair = 1,
    groups: int = 1,
    strides: Pair = 1,
    padding: Padding = "SAME",
) -> Array:
    """2-D cross-correlation, dilated by `rate`.

    Args:
        x: `[batch, height, width, in_channels]`.
        kernel: `[kernel_height, kernel_width, in_channels / groups, out_channels]`.
        rate: dilation rate, one for both axes or (height, width).
        groups: feature groups; `in_channels` makes the convolution depthwise.
        strides: one for both axes or (height, width).
        padding: "SAME", "VALID", or ((top, bottom), (left, right)) in pixels.

    Returns:
        `[batch, out_height, out_width, out_channels]` of x's type.

    Raises:
        InputError: for shapes, groups, rates, strides or a padding that do not fit one another,
            and for VALID or explicit padding that leaves no pixel.
    """
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
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise InputError(f"padding must be 'SAME', 'VALID' or two pairs, got {padding!r}")
        added = (0, 0)
    else:
        if len(padding) != 2 or any(len(side) != 2 or min(side) < 0 for side in padding):
            raise InputError(
                f"explicit padding is ((top, bottom), (left, right)), not negative, got {padding!r}"
            )
        added = tuple(before + after for before, after in padding)
    if padding != "SAME":
        for axis, name in enumerate(("height", "width")):
            extent = 1 + (kernel.shape[axis] - 1) * rates[axis]
            if x.shape[1 + axis] + added[axis] < extent:
                raise InputError(
                    f"padding={padding!r} leaves no pixel: {name} {x.shape[1 + axis]} is smaller than the "
                    f"extent {extent} of kernel size {kernel.shape[axis]} at rate {rates[axis]}"
                )
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=steps,
        padding=padding,
        rhs_dilation=rates,
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def pair(name: str, value: Pair) -> tuple[int, int]:
    """`value` for both axes as two positive integers; InputError with `name` where it is not."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in both):
        raise InputError(f"{name} must be a positive integer or two of them, got {value!r}")
    return both[0], both[1]


def check_groups(groups: int, in_channels: int, out_channels: int) -> None:
    """InputError where `groups` does not divide both numbers of channels."""
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise InputError(
            f"groups={groups} must divide the {in_channels} input and {out_channels} output channels"
        )
