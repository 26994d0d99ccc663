"""Max pooling."""

from jax import Array

from hdc.errors import InputError
from hdc.ops import pure, xla
from hdc.ops.backends import choose_pool
from hdc.ops.convolution import Padding, Pair, pads_of, per_axis


def max_pool(x: Array, size: Pair = 2, *, strides: Pair | None = None, padding: Padding = "VALID") -> Array:
    """The maximum of each window.

    The gradient goes to the first of several equal maxima, row by row.

    >>> import jax.numpy as jnp
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, ..., 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    >>> max_pool(jnp.ones((1, 32, 32, 3)), 3, strides=2, padding=((1, 1), (1, 1))).shape
    (1, 16, 16, 3)

    Args:
        x: `[batch, height, width, channels]`.
        size: of a window in pixels, for both axes or (height, width).
        strides: from one window to the next; the size if None.
        padding: "SAME", "VALID" or ((top, bottom), (left, right)) in pixels, less than the size; what is
            added is never the maximum.

    Returns:
        `[batch, height', width', channels]`; pixels that fill no window are dropped.

    Raises:
        InputError: if a size or stride is not positive, or a size larger than the padded map or not larger
            than the padding.
    """
    if x.ndim != 4:
        raise InputError(f"max_pool takes x [batch, height, width, channels], got shape {x.shape}")
    rows, columns = per_axis("size", size)
    steps = (rows, columns) if strides is None else per_axis("strides", strides)
    pads = pads_of(x.shape[1:3], (rows, columns), (1, 1), steps, padding)
    if padding != "SAME" and (rows > x.shape[1] + sum(pads[0]) or columns > x.shape[2] + sum(pads[1])):
        raise InputError(f"size {rows} x {columns} is larger than the {x.shape[1]} x {x.shape[2]} map")
    if max(pads[0]) >= rows or max(pads[1]) >= columns:
        raise InputError(f"padding={padding!r} must be less than the size, {rows} x {columns}")
    match choose_pool(x.shape, x.dtype.name, (rows, columns), steps).backend:
        case "native":
            from hdc.ops import native

            return native.max_pool(x, (rows, columns), steps, pads)
        case "jax":
            return pure.max_pool(x, (rows, columns), steps, pads)
        case _:
            return xla.max_pool(x, (rows, columns), steps, pads)
