"""Batch normalisation with what mostly follows it: a residual added, and ReLU."""

from jax import Array, lax

from hdc.errors import InputError
from hdc.ops import xla
from hdc.ops.backends import choose_norm


def batch_norm(
    x: Array,
    scale: Array,
    bias: Array,
    residual: Array | None = None,
    *,
    relu: bool = False,
    epsilon: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Normalise each channel over the batch and all pixels, scale and shift it; add a residual, apply ReLU.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    >>> y, mean, variance = batch_norm(x, jnp.ones(2), jnp.zeros(2))
    >>> mean.tolist(), variance.tolist(), round(float(y.std()), 3)
    ([3.0, 4.0], [5.0, 5.0], 1.0)

    Args:
        x: maps `[batch, height, width, channels]` or signals `[batch, length, channels]`.
        scale, bias: `[channels]`.
        residual: of x's shape, added after the bias.
        relu: whether to apply ReLU at last.
        epsilon: added to the variance.

    Returns:
        What x becomes, of its shape and type; the mean and the variance (divided by the number of pixels) of
        each channel, `[channels]`, through which no gradient flows.

    Raises:
        InputError: for other shapes, and for an x without pixels.
    """
    if x.ndim not in (3, 4) or scale.shape != x.shape[-1:] or bias.shape != x.shape[-1:] or 0 in x.shape:
        raise InputError(
            "batch_norm takes x [batch, height, width, channels] or [batch, length, channels], not empty, "
            f"and scale and bias [channels], got {x.shape}, {scale.shape} and {bias.shape}"
        )
    if residual is not None and residual.shape != x.shape:
        raise InputError(f"the residual must have x's shape {x.shape}, got {residual.shape}")
    arrays = (x, scale, bias, *(() if residual is None else (residual,)))
    if choose_norm(x.shape, frozenset(a.dtype.name for a in arrays)).backend == "native":
        from hdc.ops import native

        mean, variance = native.moments(lax.stop_gradient(x))
        return native.normalise(x, scale, bias, residual, mean, variance, relu, epsilon), mean, variance
    mean, variance = xla.moments(lax.stop_gradient(x))
    return xla.normalise(x, scale, bias, residual, relu, epsilon), mean, variance
