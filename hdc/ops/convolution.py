"""2-D convolution: one function, one contract."""

from collections.abc import Sequence

from jax import Array, lax

from hdc.errors import InputError
from hdc.ops import shifted
from hdc.ops.backends import Geometry, choose

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
    """2-D cross-correlation, dilated by `rate`; `hdc.ops.backends` says by which program.

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
    geometry = Geometry(
        x.shape,
        kernel.shape,
        (x.dtype.name, kernel.dtype.name),
        rates,
        steps,
        _pads(x.shape, kernel.shape, rates, steps, padding),
        groups,
    )
    chosen, _ = choose(geometry)
    match chosen:
        case "native":
            from hdc.ops import native

            return native.conv2d(x, kernel, rates, geometry.pads)
        case "jax" if geometry.depthwise:
            return shifted.depthwise(x, kernel, rates, geometry.pads)
        case "jax":
            return shifted.pointwise(x, kernel)
        case _:
            return lax.conv_general_dilated(
                x,
                kernel,
                window_strides=steps,
                padding=padding,
                rhs_dilation=rates,
                feature_group_count=groups,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )


def _pads(
    x: tuple[int, ...],
    kernel: tuple[int, ...],
    rates: tuple[int, int],
    steps: tuple[int, int],
    padding: Padding,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixels (before, after) per axis; of SAME, as XLA and TensorFlow have it, the odd one comes after."""
    if padding == "VALID":
        return (0, 0), (0, 0)
    if padding == "SAME":
        outputs = [-(-x[1 + axis] // steps[axis]) for axis in (0, 1)]
        extents = [1 + (kernel[axis] - 1) * rates[axis] for axis in (0, 1)]
        added = [max(0, (outputs[a] - 1) * steps[a] + extents[a] - x[1 + a]) for a in (0, 1)]
        return (added[0] // 2, added[0] - added[0] // 2), (added[1] // 2, added[1] - added[1] // 2)
    (top, bottom), (left, right) = padding  # type: ignore[misc]
    return (int(top), int(bottom)), (int(left), int(right))


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
