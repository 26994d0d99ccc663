"""Max pooling."""

from jax import Array

from hdc.errors import InputError
from hdc.ops import pure, xla
from hdc.ops.backends import choose_pool
from hdc.ops.convolution import Pair, per_axis


def max_pool(x: Array, size: Pair = 2) -> Array:
    """The maximum of each window; windows do not overlap.

    The gradient goes to the first of several equal maxima, row by row.

    >>> import jax.numpy as jnp
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, ..., 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]

    Args:
        x: `[batch, height, width, channels]`.
        size: of a window in pixels, for both axes or (height, width).

    Returns:
        `[batch, height // rows, width // columns, channels]`; pixels that fill no window are dropped.

    Raises:
        InputError: if a size is not positive, or larger than the map.
    """
    if x.ndim != 4:
        raise InputError(f"max_pool takes x [batch, height, width, channels], got shape {x.shape}")
    rows, columns = per_axis("size", size)
    if rows > x.shape[1] or columns > x.shape[2]:
        raise InputError(f"size {rows} x {columns} is larger than the {x.shape[1]} x {x.shape[2]} map")
    match choose_pool(x.shape, x.dtype.name, (rows, columns)).backend:
        case "native":
            from hdc.ops import native

            return native.max_pool(x, (rows, columns))
        case "jax":
            return pure.max_pool(x, (rows, columns))
        case _:
            return xla.max_pool(x, (rows, columns))
