"""conv2d and its gradients against explicit loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hdc.errors import InputError
from hdc.ops import conv2d

TOLERANCE = 1e-5


def draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def assert_close(actual: jax.Array, expected: np.ndarray, magnitude: np.ndarray) -> None:
    """Within 1e-5 of the sum of the magnitudes of the products that make each value up."""
    assert actual.shape == expected.shape
    assert actual.dtype == jnp.float32
    error = np.abs(np.asarray(actual, np.float64) - expected)
    worst = np.max(error - TOLERANCE * magnitude, initial=-1)
    assert np.all(error <= TOLERANCE * magnitude), f"off by {worst} more than allowed"


def check(x: np.ndarray, kernel: np.ndarray, rng: np.random.Generator, **options) -> None:
    """Forward pass and both gradients against the reference."""
    y, pullback = jax.vjp(lambda x, kernel: conv2d(x, kernel, **options), jnp.asarray(x), jnp.asarray(kernel))
    expected = reference.conv2d(x, kernel, **options)
    assert_close(y, expected, reference.conv2d(abs(x), abs(kernel), **options))
    dy = draw(rng, *y.shape)
    dx, dk = pullback(jnp.asarray(dy))
    expected_dx, expected_dk = reference.conv2d_gradients(x, kernel, dy, **options)
    size_dx, size_dk = reference.conv2d_gradients(abs(x), abs(kernel), abs(dy), **options)
    assert_close(dx, expected_dx, size_dx)
    assert_close(dk, expected_dk, size_dk)


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 3),
    size=pairs(1, 13),
    kernel_size=pairs(1, 5),
    rate=pairs(1, 9),
    strides=pairs(1, 3),
    channels=st.sampled_from([(1, 1, 1), (3, 2, 1), (2, 4, 2), (4, 2, 2), (3, 3, 3), (2, 6, 2), (4, 4, 4)]),
    padding=st.sampled_from(["SAME", "VALID", "explicit"]),
    explicit=st.tuples(pairs(0, 6), pairs(0, 6)),
)
def test_forward_and_gradients_equal_the_loops(
    seed, batch, size, kernel_size, rate, strides, channels, padding, explicit
) -> None:
    ins, outs, groups = channels
    if padding == "explicit":
        padding = explicit
    if padding != "SAME":
        # Grow the map where the kernel would not fit: the refusal has a test of its own.
        added = (0, 0) if padding == "VALID" else (sum(padding[0]), sum(padding[1]))
        size = tuple(
            max(n, (k - 1) * r + 1 - extra)
            for n, k, r, extra in zip(size, kernel_size, rate, added, strict=True)
        )
        assume(max(size) <= 24)
    rng = np.random.default_rng(seed)
    x, kernel = draw(rng, batch, *size, ins), draw(rng, *kernel_size, ins // groups, outs)
    check(x, kernel, rng, rate=rate, groups=groups, strides=strides, padding=padding)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((3, 1), (0, 4))])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize(("ins", "outs", "groups"), [(3, 2, 1), (4, 6, 2), (3, 3, 3)])
def test_each_way_of_padding_striding_and_grouping(padding, strides, ins, outs, groups) -> None:
    rng = np.random.default_rng(5)
    x, kernel = draw(rng, 2, 11, 14, ins), draw(rng, 3, 2, ins // groups, outs)
    check(x, kernel, rng, rate=(2, 3), groups=groups, strides=strides, padding=padding)


def test_the_first_rate_is_the_height() -> None:
    x = np.zeros((1, 9, 9, 1), np.float32)
    x[0, 4, 4, 0] = 1
    y = conv2d(jnp.asarray(x), jnp.ones((3, 3, 1, 1)), rate=(1, 3))
    rows, columns = np.nonzero(np.asarray(y)[0, :, :, 0])
    assert set(rows.tolist()) == {3, 4, 5}
    assert set(columns.tolist()) == {1, 4, 7}


def test_one_number_means_both_axes() -> None:
    rng = np.random.default_rng(1)
    x, kernel = jnp.asarray(draw(rng, 1, 12, 9, 2)), jnp.asarray(draw(rng, 3, 3, 2, 3))
    one = conv2d(x, kernel, rate=2, strides=2)
    both = conv2d(x, kernel, rate=[2, 2], strides=(2, 2))
    assert np.array_equal(one, both)


def test_it_is_a_cross_correlation_the_kernel_is_not_flipped() -> None:
    x = jnp.arange(5.0).reshape(1, 1, 5, 1)
    kernel = jnp.array([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    assert np.asarray(conv2d(x, kernel)).ravel().tolist() == [0, 0, 1, 2, 3]


def test_valid_just_fits_and_one_pixel_less_does_not() -> None:
    kernel = jnp.ones((3, 3, 1, 1))
    assert conv2d(jnp.ones((1, 9, 7, 1)), kernel, rate=(4, 3), padding="VALID").shape == (1, 1, 1, 1)
    with pytest.raises(InputError, match="height 8 is smaller than the extent 9"):
        conv2d(jnp.ones((1, 8, 7, 1)), kernel, rate=(4, 3), padding="VALID")
    with pytest.raises(InputError, match="width 6 is smaller than the extent 7"):
        conv2d(jnp.ones((1, 9, 6, 1)), kernel, rate=(4, 3), padding="VALID")
    assert conv2d(jnp.ones((1, 8, 6, 1)), kernel, rate=(4, 3), padding=((1, 0), (0, 1))).shape == (1, 1, 1, 1)
    with pytest.raises(InputError, match="leaves no pixel"):
        conv2d(jnp.ones((1, 8, 6, 1)), kernel, rate=(4, 3), padding=((1, 0), (0, 0)))


@pytest.mark.parametrize(
    ("change", "mentions"),
    [
        ({"x": (8, 8, 4)}, "(8, 8, 4)"),
        ({"kernel": (3, 3, 4)}, "(3, 3, 4)"),
        ({"kernel": (3, 3, 3, 4)}, "x has 4"),
        ({"rate": 0}, "rate must be a positive integer or two of them, got 0"),
        ({"rate": -2}, "got -2"),
        ({"rate": True}, "rate"),
        ({"rate": (1, 0)}, "got (1, 0)"),
        ({"rate": (1, 1.5)}, "got (1, 1.5)"),
        ({"rate": (1,)}, "got (1,)"),
        ({"rate": (1, 2, 3)}, "got (1, 2, 3)"),
        ({"rate": "2"}, "got '2'"),
        ({"strides": 0}, "strides must be a positive integer or two of them, got 0"),
        ({"strides": (1, -1)}, "strides"),
        ({"groups": 0}, "groups=0"),
        ({"groups": -1}, "groups=-1"),
        ({"groups": 3}, "groups=3 must divide the 4 input and 4 output channels"),
        ({"groups": 2}, "kernel (3, 3, 4, 4) with groups=2 takes 8 channels, x has 4"),
        ({"groups": 4, "kernel": (3, 3, 1, 6)}, "groups=4 must divide the 4 input and 6 output channels"),
        ({"padding": "same"}, "'same'"),
        ({"padding": "REFLECT"}, "'REFLECT'"),
        ({"padding": ((1, 1),)}, "((1, 1),)"),
        ({"padding": ((1, 1), (1, -1))}, "not negative"),
        ({"padding": ((1,), (1, 1))}, "explicit padding"),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_one_line_that_names_it(change: dict, mentions: str) -> None:
    options = {"x": (1, 8, 8, 4), "kernel": (3, 3, 4, 4)} | change
    x, kernel = jnp.ones(options.pop("x")), jnp.ones(options.pop("kernel"))
    with pytest.raises(InputError) as caught:
        conv2d(x, kernel, **options)
    assert mentions in str(caught.value)
    assert "\n" not in str(caught.value)
