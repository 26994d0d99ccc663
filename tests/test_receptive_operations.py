"""Operations that few models use: sorting, Fourier transforms, unstacking, and masks that they compute."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array
from test_receptive import Model, of, pixels, reached

from hdc.errors import InputError


def attended(x: Array, mask: Array) -> Array:
    scores = jnp.where(mask, jnp.einsum("bqc,bkc->bqk", x, x), -jnp.inf)
    return jnp.einsum("bqk,bkc->bqc", nnx.softmax(scores), x)


def banded(model: Model, x: Array) -> Array:
    """Attention to every third of the places before, by a mask of more entries than are held one by one."""
    place = jnp.arange(x.shape[1])
    apart = place[:, None] - place[None]
    return attended(x, ((apart >= 0) & (apart % 3 == 0))[None])


def turned(model: Model, x: Array) -> Array:
    """The same with the mask's axes exchanged: to the places after."""
    place = jnp.arange(x.shape[1])
    apart = jnp.transpose(place[:, None] - place[None])
    return attended(x, ((apart >= 0) & (apart % 3 == 0))[None])


@pytest.mark.parametrize(("call", "seen"), [(banded, range(1, 41, 3)), (turned, range(40, 100, 3))])
def test_masks_that_are_computed_hide_what_they_hide(call: Callable, seen: range) -> None:
    assert pixels(of(call, (1, 100, 2), (40,)).support) == {(place,) for place in seen}


MOVED: dict[str, Callable] = {
    "rows apart": lambda model, x: jnp.stack(jnp.unstack(x, axis=1)[::-1], axis=1),
    "channels apart": lambda model, x: jnp.stack(jnp.unstack(model.conv(x), axis=3)[1:], axis=3),
    "columns transformed": lambda model, x: jnp.abs(jnp.fft.fft(model.conv(x), axis=1)),
    "both axes transformed": lambda model, x: (
        jnp.fft.ifft2(jnp.fft.fft2(x, axes=(1, 2)) ** 2, axes=(1, 2)).real
    ),
}


@pytest.mark.parametrize("name", list(MOVED))
def test_what_is_taken_apart_or_transformed_is_seen(name: str) -> None:
    layer = nnx.Conv(2, 2, (1, 3), rngs=nnx.Rngs(0))
    found = of(MOVED[name], (1, 6, 5, 2), (2, 1), conv=layer)
    np.testing.assert_array_equal(
        found.support, reached(Model(MOVED[name], conv=layer), (1, 6, 5, 2), (2, 1))
    )


@pytest.mark.parametrize(
    ("call", "paths"),
    [
        (lambda model, x: jnp.sort(x, axis=1), np.eye(5)[1] * np.ones((6, 1)) / 6),
        (lambda model, x: jax.lax.top_k(x, 3)[0], np.eye(5)[1] * np.eye(6)[[2]].T),  # among the channels
        (lambda model, x: jax.lax.top_k(x[..., 0], 2)[0][..., None], np.eye(6)[[2]].T * np.ones((1, 5)) / 5),
    ],
    ids=["a column", "channels", "a row"],
)
def test_each_of_those_that_are_sorted_may_be_the_one(call: Callable, paths: np.ndarray) -> None:
    found = of(call, (1, 6, 5, 4), (2, 1))
    np.testing.assert_allclose(found.paths_inside, paths, atol=1e-12)


def test_groups_of_the_batch_are_refused() -> None:
    def call(model: Model, x: Array) -> Array:
        names = ("NHWC", "HWIO", "NHWC")
        kernel = jnp.ones((3, 3, 2, 4))
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=names, batch_group_count=2
        )

    with pytest.raises(InputError, match="analyse does not know convolutions with batch_group_count"):
        of(call, (2, 8, 8, 2))


@pytest.mark.parametrize("length", [2, 3, 5, 6, 7, 12, 13])
def test_an_associative_scan_sees_all_that_came_before(length: int) -> None:
    def call(model: Model, x: Array) -> Array:
        """A linear recurrence whose factors depend on the input, as in state space models."""

        def join(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
            return one[0] * other[0], one[1] * other[0] + other[1]

        return jax.lax.associative_scan(join, (nnx.sigmoid(model.gate(x)), x), axis=1)[1]

    at = length - 1
    found = of(call, (1, length, 2), (at,), gate=nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    assert found.support.all()
    assert of(call, (1, length, 2), (0,), gate=nnx.Linear(2, 2, rngs=nnx.Rngs(0))).support.sum() == 1


@pytest.mark.parametrize(
    ("call", "rows"),
    [
        (lambda x: jnp.take(x, 3, axis=1), 1),
        (lambda x: jnp.median(x, 1), 8),
        (lambda x: jnp.quantile(x, 0.3, axis=1), 8),
        (lambda x: jnp.take(jnp.cumsum(x, 1), jnp.int32(5), axis=1), 6),
    ],
)
def test_one_row_that_is_taken_keeps_its_columns(call: Callable[[Array], Array], rows: int) -> None:
    found = of(lambda model, x: call(x), (1, 8, 9, 2), (4,))
    assert found.support[:, 4].sum() == found.support.sum() == rows


def test_outputs_without_a_place_are_taken_together() -> None:
    found = of(lambda model, x: x[:, np.arange(3), np.arange(3)], (1, 8, 8, 2))
    np.testing.assert_array_equal(np.argwhere(found.support), [[0, 0], [1, 1], [2, 2]])
    assert "all outputs together" in str(found)


def truth(call: Callable[[Array], Array], shape: tuple[int, ...], at: tuple[int, int]) -> np.ndarray:
    """Where the derivative of an output is not zero, for positive weights."""
    slope = jax.grad(lambda x: call(x)[(0, *at)].sum())(jnp.ones(shape))
    return np.abs(np.asarray(slope)).sum((0, 3)) > 0


def blurred(x: Array) -> Array:
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, jnp.ones((3, 3, 2, 2)), (1, 1), "SAME", dimension_numbers=names)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: jnp.rot90(x, axes=(1, 2)),
        lambda x: jnp.swapaxes(x, 1, 2),
        lambda x: jnp.swapaxes(blurred(x), 1, 2)[:, :, :6],
        lambda x: jnp.einsum("bhwc,wk->bkhc", x, jnp.eye(9)),
    ],
)
def test_a_place_is_in_the_order_of_the_outputs_axes(call: Callable[[Array], Array]) -> None:
    shape = (1, 7, 9, 2)
    found = of(lambda model, x: call(x), shape, (6, 1))
    np.testing.assert_array_equal(found.support, truth(call, shape, (6, 1)))
    rows, columns = found.output_shape[1:3]
    reached = [[truth(call, shape, (i, j))[2, 5] for j in range(columns)] for i in range(rows)]
    np.testing.assert_array_equal(found.reaches((2, 5)), reached)
    assert found.output_stride == (1, 1)


def test_both_orders_of_a_sum_of_a_map_and_its_mirror_image_are_alike() -> None:
    calls = [lambda x: jnp.swapaxes(x, 1, 2) + blurred(x), lambda x: blurred(x) + jnp.swapaxes(x, 1, 2)]
    for call in calls:
        found = of(lambda model, x, call=call: call(x), (1, 8, 8, 2), (1, 6))
        np.testing.assert_array_equal(found.support, truth(call, (1, 8, 8, 2), (1, 6)))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x + x[:, :1],
        lambda x: x + x[:, 5:6, 5:6],
        lambda x: x + blurred(x)[:, 7:, 6:7],
        lambda x: x + jax.lax.dynamic_slice(x, (0, 2, 0, 0), (1, 1, 8, 2)),
    ],
)
def test_places_of_the_map_that_are_brought_to_others_are_no_summary(call: Callable[[Array], Array]) -> None:
    found = of(lambda model, x: call(x), (1, 8, 8, 2), (5, 3))
    assert found.couplings == ()
    np.testing.assert_array_equal(found.support, truth(call, (1, 8, 8, 2), (5, 3)))
