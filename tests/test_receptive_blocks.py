"""`analyse` of maps that are cut into blocks, windows or grids: what meets within each is seen."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array
from test_receptive import Model, of, reached


def blocks(x: Array, size: int) -> Array:
    """`[batch, blocks, size * size, channels]`."""
    batch, height, width, channels = x.shape
    cut = x.reshape(batch, height // size, size, width // size, size, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, size * size, channels)


def whole(x: Array, shape: tuple[int, ...], size: int) -> Array:
    batch, height, width, channels = shape
    cut = x.reshape(batch, height // size, width // size, size, size, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(shape)


def within(change: Callable[[Array], Array], size: int = 4) -> Callable:
    """A function of `[..., places, channels]`, in every block."""
    return lambda model, x: whole(change(blocks(x, size)), x.shape, size)


def grid(x: Array, by: int = 4) -> Array:
    """Attention among every third pixel, as on a grid (MaxViT)."""
    batch, height, width, channels = x.shape
    cut = x.reshape(batch, by, height // by, by, width // by, channels).transpose(0, 2, 4, 1, 3, 5)
    y = attend(cut.reshape(batch, -1, by * by, channels)).reshape(cut.shape)
    return y.transpose(0, 3, 1, 4, 2, 5).reshape(x.shape)


def attend(x: Array) -> Array:
    weights = nnx.softmax(jnp.einsum("...qc,...kc->...qk", x, x))
    return jnp.einsum("...qk,...kc->...qc", weights, x)


def normal(x: Array) -> Array:
    return (x - x.mean(axis=-2, keepdims=True)) / jnp.sqrt(x.var(axis=(-2, -1), keepdims=True) + 1)


def scaled(x: Array) -> Array:
    """Each 2 x 2 block times its size."""
    batch, height, width, channels = x.shape
    cut = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return (cut * jnp.square(cut).mean(axis=(2, 4), keepdims=True)).reshape(x.shape)


def rows(x: Array) -> Array:
    """Attention among the four pixels of a piece of a row."""
    batch, height, width, channels = x.shape
    return attend(x.reshape(batch, height, width // 4, 4, channels)).reshape(x.shape)


def mixed(x: Array) -> Array:
    """Every place of a window from all, by fixed weights."""
    weights = np.random.default_rng(0).uniform(1, 2, (x.shape[-2],) * 2).astype(np.float32)
    return jnp.einsum("...kc,kq->...qc", x, weights)


def by_rows(x: Array) -> Array:
    """The rows of a window beside their mean."""
    rows = x.reshape(*x.shape[:-2], 4, 4, x.shape[-1])
    return (rows + rows.mean(axis=-3, keepdims=True)).reshape(x.shape)


BLOCKS = {
    "attention in windows": within(attend),
    "attention in pieces of rows": lambda model, x: rows(x),
    "attention on a grid": lambda model, x: grid(x),
    "a normalisation of windows": within(normal),
    "a softmax in windows": within(lambda x: nnx.softmax(x, axis=-2)),
    "the mean of windows beside them": within(lambda x: x + x.mean(axis=-2, keepdims=True)),
    "blocks times their size": lambda model, x: scaled(x),
    "the mean of the rows of windows": within(by_rows),
    "a matrix on windows": within(mixed),
    "windows, shifted": lambda model, x: jnp.roll(
        within(attend)(model, jnp.roll(x, (2, 2), axis=(1, 2))), (-2, -2), axis=(1, 2)
    ),
}


@pytest.mark.parametrize("at", [(0, 0), (5, 6)])
@pytest.mark.parametrize("name", list(BLOCKS))
def test_all_of_a_block_that_meets_is_seen(name: str, at: tuple[int, int]) -> None:
    model = Model(BLOCKS[name])
    found = of(BLOCKS[name], (1, 12, 12, 2), at)
    seen = reached(model, (1, 12, 12, 2), at)
    assert found.couplings == ()
    np.testing.assert_array_equal(found.support, seen)


def test_the_sum_of_all_windows_is_no_map() -> None:
    found = of(lambda model, x: blocks(x, 4).reshape(1, 3, 3, 16, 2).sum(axis=(1, 2)), (1, 12, 12, 2))
    assert (found.output_shape, found.at, found.output_stride) == ((1, 16, 2), (), None)
    assert found.support.all()
