"""Max pooling."""

from jax import Array

from hdc.errors import InputError
from hdc.ops import pure, xla
from hdc.ops.backends import choose_pool
from hdc.ops.convolution import Pair, pair


def max_pool(x: Array, size: Pair = 2) -> Array:
    """Maxima of windows side by side; `hdc.ops.backends` says by which program.

    The gradient goes to the first of the largest values, by rows.

    Args:
        x: `[batch, height, width, channels]`.
        size: pixels of a window, one for both axes or (height, width).

    Returns:
        `[batch, height // rows, width // columns, channels]`; pixels that fill no window are left out.

    Raises:
        InputError: for a size that is not positive or larger than the map.
    """
    if x.ndim != 4:
        raise InputError(f"max_pool takes x [batch, height, width, channels], got shape {x.shape}")
    rows, columns = pair("size", size)
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
