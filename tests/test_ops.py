"""The operations and their gradients against explicit loops in float64."""

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import assume, given
from hypothesis import strategies as st

from hdc.errors import InputError
from hdc.ops import (
    backend,
    backends,
    batch_norm,
    conv2d,
    gpu,
    max_pool,
    native_build,
    separable_conv2d,
    triton_dense,
    triton_depthwise,
    winograd,
    xla,
)
from hdc.ops.backends import Choice, Geometry, choose, served

TOLERANCE = 1e-5
NATIVE = pytest.param(
    "native",
    marks=pytest.mark.skipif(bool(native_build.unavailable()), reason=native_build.unavailable() or "there"),
)
BACKENDS = ("lax", "jax", NATIVE)
# The native code has most branches.
SOME_BACKEND = st.sampled_from(["lax", "jax"] + ["native"] * (0 if native_build.unavailable() else 2))


def draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def assert_close(actual: jax.Array, expected: np.ndarray, magnitude: np.ndarray) -> None:
    """Within 1e-5 of the sum of the magnitudes of the products that make each value up."""
    assert actual.shape == expected.shape
    assert actual.dtype == jnp.float32
    error = np.abs(np.asarray(actual, np.float64) - expected)
    worst = np.max(error - TOLERANCE * magnitude, initial=-1)
    assert np.all(error <= TOLERANCE * magnitude), f"off by {worst} more than allowed"


def finished(y: np.ndarray, bias: np.ndarray, relu: bool) -> np.ndarray:
    return np.maximum(y + bias, 0) if relu else y + bias


def check_finished(
    x: np.ndarray, kernels: list[np.ndarray], rng: np.random.Generator, name: str, relu: bool, **options
) -> None:
    """A convolution, or of two kernels a separable one, with bias and perhaps ReLU: all gradients.

    The values are whole numbers, so that every sum is exact and ReLU's sign is beyond doubt.
    """
    x, kernels = np.rint(2 * x), [np.rint(2 * kernel) for kernel in kernels]
    bias = np.rint(9 * draw(rng, kernels[-1].shape[3]))
    groups = options.pop("groups", 1)
    arrays = [jnp.asarray(a) for a in (x, *kernels, bias)]
    if len(kernels) == 1:
        apply = partial(conv2d, relu=relu, groups=groups, **options)
    else:
        apply = partial(separable_conv2d, relu=relu, **options)
    with backend(name):
        y, pullback = jax.vjp(apply, *arrays)
    if len(kernels) == 1:
        maps = reference.conv2d(x, kernels[0], groups=groups, **options)
    else:
        between = reference.conv2d(x, kernels[0], groups=x.shape[3], **options)
        maps = reference.conv2d(between, kernels[1])
    expected = finished(maps, bias, relu)
    np.testing.assert_array_equal(y, expected)
    dy = np.rint(2 * draw(rng, *y.shape))
    found = pullback(jnp.asarray(dy))
    before = dy * (expected > 0) if relu else dy
    if len(kernels) == 1:
        gradients = [*reference.conv2d_gradients(x, kernels[0], before, groups=groups, **options)]
    else:
        d_between, d_pointwise = reference.conv2d_gradients(between, kernels[1], before)
        dx, d_depthwise = reference.conv2d_gradients(x, kernels[0], d_between, groups=x.shape[3], **options)
        gradients = [dx, d_depthwise, d_pointwise]
    for one, other in zip(found, [*gradients, before.sum((0, 1, 2))], strict=True):
        np.testing.assert_array_equal(one, other)


def check(x: np.ndarray, kernel: np.ndarray, rng: np.random.Generator, name: str, **options) -> None:
    """Forward pass and both gradients of a backend against the reference."""
    with backend(name):
        y, pullback = jax.vjp(lambda x, k: conv2d(x, k, **options), jnp.asarray(x), jnp.asarray(kernel))
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


@pytest.mark.parametrize("name", BACKENDS)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 9),
    size=pairs(1, 13),
    kernel_size=pairs(1, 7),
    rate=pairs(1, 9),
    strides=pairs(1, 3),
    channels=st.sampled_from(
        [
            (1, 1, 1),
            (3, 2, 1),
            (2, 4, 2),
            (4, 2, 2),
            (3, 3, 3),
            (2, 6, 2),
            (5, 37, 1),
            (20, 3, 1),
            (19, 19, 19),
            (70, 130, 1),
            (68, 140, 2),
        ]
    ),
    padding=st.sampled_from(["SAME", "VALID", "explicit"]),
    explicit=st.tuples(pairs(0, 6), pairs(0, 6)),
)
def test_forward_and_gradients_equal_the_loops(
    name, seed, batch, size, kernel_size, rate, strides, channels, padding, explicit
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
    check(x, kernel, rng, name, rate=rate, groups=groups, strides=strides, padding=padding)


@given(
    name=SOME_BACKEND,
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 20),
    size=pairs(1, 9),
    kernel_size=pairs(1, 5),
    rate=pairs(1, 9),
    channels=st.sampled_from(
        [(1, 1), (1, 48), (3, 2), (3, 16), (2, 37), (4, 32), (5, 16), (17, 3), (19, 32), (33, 6)]
    ),
    kind=st.sampled_from(["dense", "depthwise", "separable"]),
    padding=st.sampled_from(["SAME", ((9, 0), (3, 20))]),
    strides=st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 1)]),
    relu=st.booleans(),
)
def test_bias_and_relu_and_separable_equal_the_loops(
    name, seed, batch, size, kernel_size, rate, channels, kind, padding, strides, relu
) -> None:
    ins, outs = channels
    added = (9, 23) if padding != "SAME" else (0, 0)
    if padding != "SAME":
        size = tuple(
            max(n, (k - 1) * r + 1 - more)
            for n, k, r, more in zip(size, kernel_size, rate, added, strict=True)
        )
        assume(max(size) <= 24)
    rng = np.random.default_rng(seed)
    x = draw(rng, batch, *size, ins)
    depthwise = draw(rng, *kernel_size, 1, ins)
    kernels = [draw(rng, *kernel_size, ins, outs)]
    options = {"rate": rate, "padding": padding, "strides": strides}
    if kind == "depthwise":
        kernels, options = [depthwise], options | {"groups": ins}
    elif kind == "separable":
        kernels = [depthwise, draw(rng, 1, 1, ins, outs)]
    check_finished(x, kernels, rng, name, relu, **options)


@pytest.mark.skipif(bool(native_build.unavailable()), reason="not available")
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 20),
    size=pairs(1, 13),
    rate=st.integers(1, 7),
    channels=st.sampled_from([(16, 16), (16, 48), (32, 64), (64, 32), (128, 64), (64, 192), (192, 128)]),
    relu=st.booleans(),
)
def test_winograds_way_equals_the_loops(seed, batch, size, rate, channels, relu) -> None:
    ins, outs = channels
    rng = np.random.default_rng(seed)
    x, kernel, bias = draw(rng, batch, *size, ins), draw(rng, 3, 3, ins, outs), draw(rng, outs)
    maps = reference.conv2d(x, kernel, rate=(rate, rate)) + bias
    dy = draw(rng, *maps.shape)
    with mock.patch.object(backends, "winograd_pays", lambda geometry: True), winograd():
        y, pullback = jax.vjp(partial(conv2d, relu=relu, rate=rate), *map(jnp.asarray, (x, kernel, bias)))
    sure = abs(maps) > 1e-4 * abs(maps).max()  # where ReLU's side is beyond doubt
    dy = dy * sure if relu else dy
    found = pullback(jnp.asarray(dy, jnp.float32))
    before = dy * (maps > 0) if relu else dy
    gradients = reference.conv2d_gradients(x, kernel, before, rate=(rate, rate))
    expected = [np.maximum(maps, 0) if relu else maps, *gradients, before.sum((0, 1, 2))]
    for one, other in zip((y, *found), expected, strict=True):
        assert np.abs(one - other).max() <= TOLERANCE * np.abs(other).max()


@pytest.mark.parametrize(
    ("changes", "pays"),
    [
        ({"x": (2, 28, 28, 64), "kernel": (3, 3, 64, 64)}, True),
        ({"x": (2, 28, 28, 64), "kernel": (3, 3, 64, 64), "strides": (2, 2)}, False),
        ({"x": (2, 28, 28, 64), "kernel": (3, 3, 64, 64), "pads": ((0, 0), (0, 0))}, False),
        ({"x": (2, 28, 28, 64), "kernel": (3, 3, 64, 40)}, False),
        ({"x": (2, 28, 28, 128), "kernel": (3, 3, 128, 256)}, False),
        ({"x": (2, 28, 28, 4), "kernel": (3, 3, 4, 64)}, False),
        ({"x": (2, 28, 28, 64), "kernel": (3, 3, 64, 64), "rate": (1, 2), "pads": ((1, 1), (2, 2))}, False),
        ({"x": (2, 8, 8, 64), "kernel": (3, 3, 64, 64), "rate": (4, 4), "pads": ((4, 4), (4, 4))}, False),
    ],
)
def test_where_winograds_way_is_taken(changes: dict, pays: bool, monkeypatch) -> None:
    monkeypatch.setattr(native_build, "unavailable", lambda: "")
    assert not choose(geometry(**changes)).winograd  # only where it is allowed
    with winograd():
        assert choose(geometry(**changes)).winograd == pays
        with backend("jax"):
            assert not choose(geometry(**changes)).winograd


@given(
    name=SOME_BACKEND,
    seed=st.integers(0, 2**32 - 1),
    size=pairs(4, 9),
    window=pairs(1, 4),
    strides=st.none() | pairs(1, 4),
    pads=st.tuples(pairs(0, 3), pairs(0, 3)),
    channels=st.sampled_from([1, 5, 16, 21, 40]),
)
def test_max_pooling_equals_the_loops_and_its_gradient_goes_to_the_first_of_the_largest(
    name, seed, size, window, strides, pads, channels
) -> None:
    pads = tuple((min(a, k - 1), min(b, k - 1)) for (a, b), k in zip(pads, window, strict=True))
    options = {"strides": strides, "padding": pads}
    if strides is None:
        options, strides, pads = {}, window, ((0, 0), (0, 0))
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, (2, *size, channels)).astype(np.float32)  # with many ties
    with backend(name):
        y, pullback = jax.vjp(lambda x: max_pool(x, window, **options), jnp.asarray(x))
    dy, dx = rng.integers(1, 99, y.shape).astype(np.float32), np.zeros_like(x)
    expected = np.zeros(y.shape, np.float32)
    for n, i, j, c in np.ndindex(y.shape):
        seen = [
            (x[n, row, column, c], -row, -column)
            for row in range(i * strides[0] - pads[0][0], i * strides[0] - pads[0][0] + window[0])
            for column in range(j * strides[1] - pads[1][0], j * strides[1] - pads[1][0] + window[1])
            if 0 <= row < size[0] and 0 <= column < size[1]
        ]
        expected[n, i, j, c], row, column = max(seen)
        dx[n, -row, -column, c] += dy[n, i, j, c]
    outs = [(n + sum(p) - k) // s + 1 for n, p, k, s in zip(size, pads, window, strides, strict=True)]
    assert y.shape == (2, *outs, channels)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(pullback(jnp.asarray(dy))[0], dx)


@given(
    name=SOME_BACKEND,
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 1, 2, 3), (3, 5, 4, 16), (2, 30, 21), (4, 7, 9, 33), (2, 40, 30, 4)]),
    added=st.booleans(),
    relu=st.booleans(),
    large=st.sampled_from([0.0, 30.0]),
)
def test_batch_normalisation_and_its_gradients_equal_the_formula(
    name, seed, shape, added, relu, large
) -> None:
    rng = np.random.default_rng(seed)
    x = draw(rng, *shape) + np.float32(large)
    scale, bias, residual = draw(rng, shape[-1]), draw(rng, shape[-1]), draw(rng, *shape)
    arrays = [x, scale, bias, *([residual] if added else [])]
    with backend(name):
        apply = partial(batch_norm, relu=relu, epsilon=1e-3)
        y, pullback, (mean, variance) = jax.vjp(
            lambda *a: (lambda y, *moments: (y, moments))(*apply(*a)), *map(jnp.asarray, arrays), has_aux=True
        )
    axes = tuple(range(x.ndim - 1))
    x = x.astype(np.float64)
    tolerance = 1e-5 if large == 0 or name == "native" else 1e-2  # XLA subtracts the squares of large means
    expected_mean, expected_variance = x.mean(axes), x.var(axes)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(variance, expected_variance, rtol=max(1e-4, tolerance), atol=tolerance)
    inverse = 1 / np.sqrt(expected_variance + 1e-3)
    normal = (x - expected_mean) * inverse
    before = normal * scale + bias + (residual if added else 0)
    sure = abs(before) > 10 * tolerance  # where ReLU's side is beyond doubt
    expected = np.maximum(before, 0) if relu else before
    np.testing.assert_allclose(y, expected, atol=5 * tolerance, rtol=tolerance)
    dy = draw(rng, *shape) * (sure if relu else 1)
    g = dy * (before > 0) if relu else dy.astype(np.float64)
    pixels = math.prod(shape[:-1])
    d_scale, d_bias = (g * normal).sum(axes), g.sum(axes)
    dx = scale * inverse * (g - d_bias / pixels - normal * d_scale / pixels)
    wanted = [dx, d_scale, d_bias, *([g] if added else [])]
    for found, right in zip(pullback(jnp.asarray(dy, jnp.float32)), wanted, strict=True):
        bound = 10 * tolerance * max(1.0, abs(right).max())
        np.testing.assert_allclose(found, right, atol=bound, rtol=10 * tolerance)


@pytest.mark.parametrize(
    ("call", "mentions"),
    [
        (lambda x: max_pool(x, 9), "size 9 x 9 is larger than the 8 x 8 map"),
        (lambda x: max_pool(x, 2, padding=((2, 0), (0, 0))), "must be less than the size, 2 x 2"),
        (lambda x: max_pool(x, 2, strides=0), "strides must be a positive integer or two of them, got 0"),
        (lambda x: batch_norm(x, jnp.ones(3), jnp.ones(4)), "got (1, 8, 8, 4), (3,) and (4,)"),
        (
            lambda x: batch_norm(x, jnp.ones(4), jnp.ones(4), x[:, 1:]),
            "the residual must have x's shape (1, 8, 8, 4), got (1, 7, 8, 4)",
        ),
        (lambda x: max_pool(x, 0), "size must be a positive integer or two of them, got 0"),
        (lambda x: max_pool(x[0]), "(8, 8, 4)"),
        (lambda x: conv2d(x, jnp.ones((3, 3, 4, 2)), jnp.ones(3)), "bias must be [2]"),
        (
            lambda x: separable_conv2d(x, jnp.ones((3, 3, 1, 4)), jnp.ones((1, 1, 3, 2))),
            "the pointwise kernel must be [1, 1, 4, out_channels], got (1, 1, 3, 2)",
        ),
        (lambda x: separable_conv2d(x, jnp.ones((3, 3, 1, 3)), jnp.ones((1, 1, 4, 2))), "groups=4"),
    ],
)
def test_bad_shapes_are_refused(call, mentions: str) -> None:
    with pytest.raises(InputError) as caught:
        call(jnp.ones((1, 8, 8, 4)))
    assert mentions in str(caught.value)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((3, 1), (0, 4)), ((9, 9), (9, 9))])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize(("ins", "outs", "groups"), [(3, 2, 1), (4, 6, 2), (3, 3, 3)])
def test_each_way_of_padding_striding_and_grouping(name, padding, strides, ins, outs, groups) -> None:
    rng = np.random.default_rng(5)
    x, kernel = draw(rng, 2, 11, 14, ins), draw(rng, 3, 2, ins // groups, outs)
    check(x, kernel, rng, name, rate=(2, 3), groups=groups, strides=strides, padding=padding)


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
        ({"padding": 1}, "got 1"),
        ({"padding": ((1.9, 0), (0, 0))}, "explicit padding"),
        ({"rate": 1.0}, "got 1.0"),
        ({"rate": None}, "got None"),
        ({"groups": None}, "groups=None"),
        ({"kernel": (0, 3, 4, 4)}, "kernel size 0"),
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


@pytest.fixture(scope="module")
def wide() -> tuple[jax.Array, jax.Array]:
    """More channels than a vector has, and a kernel for them."""
    rng = np.random.default_rng(3)
    return jnp.asarray(draw(rng, 4, 9, 11, 33)), jnp.asarray(draw(rng, 3, 3, 33, 70))


@pytest.mark.skipif(bool(native_build.unavailable()), reason="not available")
def test_native_results_are_the_same_to_the_bit_every_time(wide) -> None:
    x, kernel = wide

    def gradients(x: jax.Array, kernel: jax.Array) -> list[np.ndarray]:
        with backend("native"):
            y, pullback = jax.vjp(lambda x, k: conv2d(x, k, rate=2), x, kernel)
        return [np.asarray(a) for a in (y, *pullback(jnp.ones_like(y)))]

    first = gradients(x, kernel)
    for _ in range(5):
        assert all(np.array_equal(a, b) for a, b in zip(first, gradients(x, kernel), strict=True))


@pytest.mark.skipif(bool(native_build.unavailable()), reason="not available")
def test_native_results_are_the_same_to_the_bit_for_any_number_of_threads() -> None:
    program = """
import hashlib, os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[1])])
import jax, jax.numpy as jnp, numpy as np
from hdc.ops import backend, batch_norm, conv2d, max_pool, separable_conv2d, winograd
def ones(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))
def network(x, small, large, one, two, some):
    x = conv2d(x, small, one, relu=True, strides=2)
    x, mean, _ = batch_norm(x, one, one, x, relu=True)
    x = conv2d(max_pool(x, 3, strides=1), large, rate=2)
    x = separable_conv2d(x, two, some, strides=(1, 2))
    x = conv2d(x, ones(3, 3, 10, 16), groups=4)
    return jnp.sin(conv2d(x, ones(3, 3, 16, 64), one)).sum() + mean.sum()
shapes = [(5, 20, 18, 3), (3, 3, 3, 64), (3, 3, 64, 230), (64,), (3, 3, 1, 230), (1, 1, 230, 40)]
arrays = [ones(*shape) for shape in shapes]
with backend("native"), winograd():
    found = jax.jit(jax.value_and_grad(network, range(6)))(*arrays)
print(hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in jax.tree.leaves(found))).hexdigest())
"""
    seen = set()
    for count in {1, len(os.sched_getaffinity(0))}:
        command = [sys.executable, "-c", program, str(count)]
        seen.add(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["jax", NATIVE])
@pytest.mark.parametrize("groups", [1, 33])
def test_backends_work_under_every_transformation(name: str, groups: int, wide) -> None:
    x, kernel = wide
    kernel = kernel[:, :, : 33 // groups, :33]

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(conv2d(x, kernel, rate=(1, 2), groups=groups)))

    def seeds(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.vmap(jax.grad(loss, argnums=1), in_axes=(None, 0))(x, jnp.stack([kernel, 2 * kernel]))

    def scanned(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda k, _: (k - 0.01 * jax.grad(loss, 1)(x, k), 0), kernel, None, length=2)[0]

    def twice(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.grad(lambda x: jnp.sum(jnp.square(jax.grad(loss)(x, kernel))))(x)

    def fused(x: jax.Array, kernel: jax.Array) -> jax.Array:
        def apply(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
            if groups == 1:
                return jnp.sum(jnp.sin(max_pool(conv2d(x, kernel, bias, relu=True), 2)))
            return jnp.sum(jnp.sin(separable_conv2d(x, kernel, jnp.ones((1, 1, 33, 5)), bias[:5], relu=True)))

        bias = jnp.linspace(-1, 1, kernel.shape[3])
        inner = jax.grad(apply, argnums=(0, 1, 2))
        return jax.grad(lambda *a: sum(jnp.sum(jnp.square(g)) for g in inner(*a)), argnums=(0, 1, 2))(
            x, kernel, bias
        )

    def normal(x: jax.Array, kernel: jax.Array) -> jax.Array:
        def apply(x: jax.Array, kernel: jax.Array) -> jax.Array:
            y = conv2d(x, kernel, groups=groups, strides=2)
            y = batch_norm(y, kernel[0, 0, 0], kernel[1, 1, 0], jnp.cos(y), relu=True)[0]
            return jnp.sum(jnp.sin(max_pool(y, 3, strides=1)))

        inner = jax.grad(apply, argnums=(0, 1))
        return jax.grad(lambda *a: sum(jnp.sum(jnp.square(g)) for g in inner(*a)), argnums=(0, 1))(x, kernel)

    for function in (loss, jax.grad(loss, argnums=(0, 1)), seeds, scanned, twice, fused, normal):
        results = []
        for chosen in (name, "lax"):
            with backend(chosen):
                results.append(jax.jit(lambda x, k, f=function: f(x, k))(x, kernel))
        for one, other in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3 * float(jnp.abs(other).max()))


@pytest.mark.skipif(bool(native_build.unavailable()), reason="not available")
@pytest.mark.parametrize("kind", ["1 channel", "2 channels", "3 channels", "dense", "depthwise", "separable"])
def test_gradients_that_nobody_asks_for_are_not_computed_and_the_others_are_the_same(kind, wide) -> None:
    x, kernel = wide
    bias = jnp.linspace(-1, 1, 70)
    if kind == "dense":
        arrays, apply = (x, kernel, bias), partial(conv2d, relu=True)
    elif "channel" in kind:  # as of a first layer: all at once where the images' gradient is not wanted
        few = int(kind[0])
        arrays = (x[..., :few], kernel[:, :, :few, :48], bias[:48])
        apply = partial(conv2d, relu=True)
    elif kind == "depthwise":
        arrays, apply = (x, kernel[:, :, :1, :33], bias[:33]), partial(conv2d, relu=True, groups=33)
    else:
        arrays, apply = (x, kernel[:, :, :1, :33], kernel[:1, :1], bias), partial(separable_conv2d, relu=True)

    def loss(*arrays: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(apply(*arrays)))

    with backend("native"):
        everything = jax.grad(loss, argnums=tuple(range(len(arrays))))(*arrays)
        for asked in range(len(arrays)):
            gradient = jax.grad(loss, argnums=asked)
            np.testing.assert_array_equal(gradient(*arrays), everything[asked])
            assert "f32[0]" in str(jax.make_jaxpr(gradient)(*arrays))  # in place of one that is not wanted


@pytest.mark.skipif(bool(native_build.unavailable()), reason="not available")
def test_several_threads_at_once_and_donated_buffers(wide) -> None:
    x, kernel = wide

    @partial(jax.jit, donate_argnums=0)
    def step(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return kernel - 0.01 * jax.grad(lambda k: jnp.sum(jnp.sin(conv2d(x, k, relu=True))))(kernel)

    def train(_: int) -> np.ndarray:
        mine = jnp.array(kernel)
        for _ in range(5):
            mine = step(mine, x)
        return np.asarray(mine)

    with backend("native"):
        step.lower(kernel, x).compile()
        expected = train(0)
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(train, range(16)):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(bool(native_build.unavailable()), reason="not available")
def test_each_of_several_devices_computes_its_part() -> None:
    program = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from hdc.ops import backend, conv2d
assert jax.device_count() == 8
mesh = jax.make_mesh((8,), ("batch",))
rng = np.random.default_rng(0)
x = jnp.asarray(rng.standard_normal((16, 9, 9, 5), np.float32))
k = jnp.asarray(rng.standard_normal((3, 3, 5, 20), np.float32))
def gradient(x, k):
    return jax.lax.psum(jax.grad(lambda k: jnp.sum(jnp.sin(conv2d(x, k, relu=True))))(k), "batch")
with backend("native"):
    apart = jax.jit(jax.shard_map(
        gradient, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P(), check_vma=False))(
            jax.device_put(x, NamedSharding(mesh, P("batch"))), jax.device_put(k, NamedSharding(mesh, P())))
    whole = jax.grad(lambda k: jnp.sum(jnp.sin(conv2d(x, k, relu=True))))(k)
np.testing.assert_allclose(apart, whole, rtol=1e-4, atol=1e-4)
print("equal")
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr


@pytest.mark.skipif(bool(native_build.unavailable()), reason="not available")
@pytest.mark.parametrize("instructions", ["", "portable"])
def test_maps_of_many_pixels(instructions: str) -> None:
    program = """
import jax, jax.numpy as jnp, numpy as np
from hdc.ops import backend, conv2d, separable_conv2d
def both(apply, *arrays):
    found = []
    for name in ("native", "lax"):
        with backend(name):
            y, pullback = jax.vjp(apply, *arrays)
        found.append((y, *pullback(jnp.ones_like(y))))
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
both(separable_conv2d, jnp.ones((1, 450, 450, 3)), jnp.ones((3, 3, 1, 3)), jnp.ones((1, 1, 3, 50)))
both(conv2d, jnp.ones((1, 1, 180_000, 5)), jnp.ones((1, 3, 5, 4)))
print("equal")
"""
    environment = os.environ | {"HDC_NATIVE_ISA": instructions}
    environment |= {"CXXFLAGS": "-O1"} if instructions else {}  # compiled in a third of the time
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("groups", [1, 3])
def test_rates_far_larger_than_the_map(name: str, groups: int) -> None:
    x, kernel = jnp.ones((2, 5, 6, 3)), jnp.ones((3, 3, 3 // groups, 3))
    with backend(name):
        y, pullback = jax.vjp(lambda x, k: conv2d(x, k, rate=100_000, groups=groups), x, kernel)
        dk = pullback(jnp.ones_like(y))[1]
    assert float(y.sum()) == 2 * 5 * 6 * 3 * 3 / groups  # the central taps alone
    assert np.count_nonzero(dk) == dk.size / 9
    with pytest.raises(InputError, match="an extent of"):
        conv2d(x, kernel, rate=2**30, groups=groups)


@pytest.mark.skipif(bool(native_build.unavailable()), reason="not available")
def test_a_library_that_was_cut_short_is_made_again(tmp_path) -> None:
    program = "from hdc.ops import native_build; print(native_build.unavailable() or 'there')"
    environment = os.environ | {
        "HDC_CACHE_DIR": str(tmp_path),
        "CXXFLAGS": "-O0",
    }  # what it computes is not asked
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True
        )
        assert done.stdout == "there\n"
        assert done.stderr.startswith("compiling")
        (library,) = tmp_path.glob("native/*.so")
        library.write_bytes(library.read_bytes()[:4096])


@pytest.mark.parametrize(
    ("variables", "mentions"),
    [
        ({"CXX": "g++ 'unbalanced"}, "No closing quotation"),
        ({"CXX": "false"}, "exit code 1"),
        ({"CXX": "true"}, "wrote no library"),
        ({"HDC_CACHE_DIR": "~nosuchuser/x"}, "home directory"),
        ({"HDC_CACHE_DIR": "/proc/nope"}, "/proc/nope"),
    ],
    ids=str,
)
def test_whatever_keeps_it_from_being_made_is_one_line(variables: dict, mentions: str, tmp_path) -> None:
    program = "from hdc.ops import native_build; print(native_build.unavailable())"
    environment = os.environ | {"HDC_CACHE_DIR": str(tmp_path)} | variables
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert mentions in done.stdout
    said = [line for line in done.stderr.splitlines() if not line.startswith("compiling")]
    assert len(said) == 1


@pytest.mark.parametrize("name", BACKENDS)
def test_what_is_not_a_number_is_passed_on(name: str) -> None:
    x = jnp.ones((1, 5, 5, 4)).at[0, 2, 2, 1].set(jnp.nan)
    with backend(name):
        assert np.isnan(conv2d(x, jnp.ones((3, 3, 4, 2)))[0, 1:4, 1:4]).all()
        depthwise = conv2d(x, jnp.ones((3, 3, 1, 4)), groups=4)
        assert np.isnan(depthwise).sum() == 9
        assert np.isnan(conv2d(x, jnp.ones((3, 3, 4, 2)), jnp.ones(2), relu=True)).sum() == 18
        assert np.isnan(max_pool(x)).sum() == 1


@pytest.mark.parametrize("name", BACKENDS)
def test_an_empty_batch_gives_an_empty_result_and_zero_gradients(name: str) -> None:
    x, kernel = jnp.ones((0, 5, 5, 4)), jnp.ones((3, 3, 4, 2))
    with backend(name):
        y, pullback = jax.vjp(conv2d, x, kernel)
    assert y.shape == (0, 5, 5, 2)
    assert not np.any(pullback(y)[1])


@pytest.mark.skipif(bool(native_build.unavailable()), reason="not available")
def test_bfloat16_is_rounded_from_float32() -> None:
    rng = np.random.default_rng(0)
    x, kernel, one = draw(rng, 2, 8, 8, 4), draw(rng, 3, 3, 4, 4), jnp.ones(4)

    def apply(x: jax.Array, kernel: jax.Array, one: jax.Array) -> jax.Array:
        y = conv2d(x, kernel, one, relu=True)
        y = separable_conv2d(y, kernel[:, :, :1], kernel[:1, :1], one)
        return max_pool(batch_norm(y, one, one)[0])

    arrays = [jnp.asarray(a, jnp.bfloat16) for a in (x, kernel, one)]
    wide = [a.astype(jnp.float32) for a in arrays]
    with backend("native"), served() as operations:
        short, pull = jax.vjp(apply, *arrays)
        gradients = pull(jnp.ones_like(short))
    assert {one.choice.backend for one in operations} == {"native"}
    with backend("lax"):
        y, pull = jax.vjp(apply, *wide)
    for a, b in zip((short, *gradients), (y, *pull(jnp.ones_like(y))), strict=True):
        assert a.dtype == jnp.bfloat16
        scale = np.abs(b).max()
        assert 0 < np.abs(a.astype(jnp.float32) - b).max() < 0.03 * max(1, scale)


def geometry(**changes) -> Geometry:
    values = {"x": (2, 8, 8, 4), "kernel": (3, 3, 4, 6), "dtypes": frozenset(["float32"])}
    values |= {"rate": (1, 1), "strides": (1, 1), "pads": ((1, 1), (1, 1)), "groups": 1}
    return Geometry(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "auto", "pure"),
    [
        ({}, "native", "lax"),
        ({"kernel": (3, 3, 4, 32)}, "native", "jax"),
        ({"groups": 4, "kernel": (3, 3, 1, 4)}, "native", "jax"),
        ({"kernel": (1, 1, 4, 6), "pads": ((0, 0), (0, 0))}, "native", "jax"),
        ({"groups": 2, "kernel": (3, 3, 2, 6)}, "native", "lax"),
        ({"strides": (2, 2)}, "native", "lax"),
        ({"dtypes": frozenset(["bfloat16"])}, "native", "lax"),
        ({"dtypes": frozenset(["bfloat16", "float32"])}, "lax", "lax"),
        ({"dtypes": frozenset(["float16"])}, "lax", "lax"),
        ({"x": (0, 8, 8, 4)}, "lax", "lax"),
    ],
)
def test_the_rule(changes: dict, auto: str, pure: str, monkeypatch) -> None:
    monkeypatch.setattr(native_build, "unavailable", lambda: "")
    assert choose(geometry(**changes)).backend == auto
    with backend("jax"):
        assert choose(geometry(**changes)).backend == pure
    with backend("lax"):
        assert choose(geometry(**changes)).backend == "lax"
    monkeypatch.setattr(native_build, "unavailable", lambda: "there is no C++ compiler")
    assert choose(geometry(**changes)).backend == pure


@pytest.mark.parametrize(
    ("changes", "auto", "pure"),
    [
        ({}, "triton", "lax"),
        ({"dtypes": frozenset(["bfloat16"])}, "triton", "lax"),
        ({"kernel": (3, 3, 4, 64)}, "lax", "lax"),
        ({"kernel": (7, 7, 4, 4)}, "lax", "lax"),
        ({"x": (2, 8, 8, 1), "kernel": (3, 3, 1, 4)}, "lax", "lax"),
        ({"x": (2**10, 2**10, 2**10, 4)}, "lax", "lax"),
        ({"kernel": (1, 1, 4, 4), "pads": ((0, 0), (0, 0))}, "jax", "jax"),
        ({"kernel": (1, 1, 4, 4), "pads": ((1, 1), (0, 0))}, "triton", "lax"),
        ({"kernel": (3, 3, 4, 64), "rate": (2, 1)}, "jax", "jax"),
        ({"kernel": (3, 3, 4, 64), "rate": (2, 2), "dtypes": frozenset(["bfloat16"])}, "jax", "jax"),
        ({"rate": (2, 2), "dtypes": frozenset(["float64"])}, "lax", "lax"),
        ({"rate": (2, 2), "strides": (2, 2)}, "lax", "lax"),
        ({"groups": 4, "kernel": (3, 3, 1, 4)}, "triton", "jax"),
        ({"groups": 4, "kernel": (3, 3, 1, 4), "dtypes": frozenset(["bfloat16"])}, "triton", "lax"),
        ({"groups": 4, "kernel": (3, 3, 1, 4), "strides": (2, 2)}, "lax", "lax"),
        ({"groups": 4, "kernel": (9, 9, 1, 4)}, "lax", "jax"),
        ({"groups": 4, "kernel": (3, 3, 1, 4), "x": (2**10, 2**10, 2**10, 4)}, "lax", "jax"),
        ({"groups": 2, "kernel": (3, 3, 2, 6)}, "lax", "lax"),
    ],
)
def test_the_rule_on_a_gpu(changes: dict, auto: str, pure: str, monkeypatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(backends, "_nvidia", lambda: True)
    assert choose(geometry(**changes)).backend == auto
    with backend("jax"):
        assert choose(geometry(**changes)).backend == pure
    with backend("lax"):
        assert choose(geometry(**changes)) == Choice("lax", "requested")
    monkeypatch.setattr(backends, "_nvidia", lambda: False)
    assert choose(geometry(**changes)).backend == ("lax" if auto == "triton" else auto)
    with pytest.raises(InputError, match="'triton' needs an NVIDIA GPU, JAX runs on gpu here"):
        backend("triton").__enter__()


GPU_CASES = [
    # maps, kernel size, rate, padding (before, after) per axis
    ((2, 9, 11, 16), (3, 3), (2, 2), ((2, 2), (2, 2))),
    ((1, 7, 5, 3), (5, 1), (1, 3), ((2, 2), (0, 0))),
    ((2, 6, 9, 20), (3, 3), (9, 9), ((9, 9), (9, 9))),
    ((1, 12, 9, 4), (3, 2), (1, 2), ((0, 0), (0, 0))),
    ((1, 6, 3, 4), (2, 2), (3, 2), ((9, 0), (0, 7))),
    ((1, 20, 9, 4), (3, 2), (4, 2), ((7, 2), (1, 0))),
]
ON_GPUS = {  # what computes there, and whether it is depthwise
    "triton depthwise": (triton_depthwise.depthwise, True),
    "triton dense": (triton_dense.dense, False),
    "dilated": (gpu.dilated, False),
}


@pytest.mark.parametrize(("shape", "size", "rate", "pads"), GPU_CASES)
@pytest.mark.parametrize("kind", ON_GPUS)
def test_what_runs_on_gpus_equals_the_loops(kind: str, shape, size, rate, pads) -> None:
    """The Triton kernels in Pallas's interpreter; all as `conv2d` calls them."""
    rng = np.random.default_rng(0)
    operation, depthwise = ON_GPUS[kind]
    x = draw(rng, *shape)
    kernel = draw(rng, *size, 1, shape[3]) if depthwise else draw(rng, *size, shape[3], 5)
    options = {"rate": rate, "padding": pads, "groups": shape[3] if depthwise else 1}
    y, pullback = jax.vjp(lambda x, k: operation(x, k, rate, pads), jnp.asarray(x), jnp.asarray(kernel))
    assert_close(y, reference.conv2d(x, kernel, **options), reference.conv2d(abs(x), abs(kernel), **options))
    dy = draw(rng, *y.shape)
    expected = reference.conv2d_gradients(x, kernel, dy, **options)
    sizes = reference.conv2d_gradients(abs(x), abs(kernel), abs(dy), **options)
    for found, right, magnitude in zip(pullback(jnp.asarray(dy)), expected, sizes, strict=True):
        assert_close(found, right, magnitude)


@pytest.mark.parametrize("kind", ON_GPUS)
def test_what_runs_on_gpus_has_second_derivatives_batches_and_short_floats(kind: str) -> None:
    rng = np.random.default_rng(0)
    operation, depthwise = ON_GPUS[kind]
    x, kernel = jnp.asarray(draw(rng, 2, 3, 2, 4)), jnp.asarray(draw(rng, 2, 1, 1 if depthwise else 4, 4))
    pads = ((1, 1), (0, 0))

    def gradients(operation, x, kernel):
        return jax.grad(lambda *a: jnp.sin(operation(*a)).sum(), (0, 1))(x, kernel)

    def twice(operation):
        return jax.grad(lambda *a: sum(jnp.sin(g).sum() for g in gradients(operation, *a)), (0, 1))(x, kernel)

    def ours(x, kernel):
        return operation(x, kernel, (2, 2), pads)

    def theirs(x, kernel):
        return xla.conv2d(x, kernel, None, False, (2, 2), pads, groups=4 if depthwise else 1)

    for one, other in zip(twice(ours), twice(theirs), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)
    kernels = jnp.stack([kernel, 2 * kernel])
    several = jax.vmap(ours, (None, 0))(x, kernels)
    np.testing.assert_allclose(several[1], 2 * several[0], rtol=1e-5)
    np.testing.assert_allclose(several[0], theirs(x, kernel), atol=1e-4)
    side_by_side = jax.vmap(lambda k: gradients(ours, x, k))(kernels)
    for number, one in enumerate(kernels):
        for found, right in zip(side_by_side, gradients(theirs, x, one), strict=True):
            np.testing.assert_allclose(found[number], right, atol=1e-4)
    short = ours(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert short.dtype == jnp.bfloat16
    np.testing.assert_allclose(short.astype(np.float32), theirs(x, kernel), atol=0.2)
    _, pullback = jax.vjp(ours, x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert {a.dtype.name for a in pullback(short)} == {"bfloat16"}


def test_a_backend_that_is_not_there_is_refused_with_the_reason(monkeypatch) -> None:
    with (
        pytest.raises(InputError, match="backend must be one of auto, lax, jax, native, triton, got 'cuda'"),
        backend("cuda"),
    ):
        pass
    monkeypatch.setattr(native_build, "unavailable", lambda: "there is no C++ compiler (c++)")
    with pytest.raises(InputError, match="no C\\+\\+ compiler"), backend("native"):
        pass


def test_without_a_compiler_it_says_so_in_one_line(tmp_path) -> None:
    program = "from hdc.ops import native_build; print(native_build.unavailable())"
    environment = os.environ | {"HDC_CACHE_DIR": str(tmp_path), "CXX": "no-such-compiler"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == "there is no C++ compiler (no-such-compiler)\n"
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(bool(native_build.unavailable()), reason="not available")
@pytest.mark.parametrize("instructions", sorted({"avx2", "portable"} - {native_build.instruction_set()}))
def test_smaller_instruction_sets_compute_the_same(instructions: str) -> None:
    program = """
import jax, jax.numpy as jnp, numpy as np
from hdc.ops import backend, batch_norm, conv2d, max_pool, native_build, separable_conv2d, winograd
assert native_build.unavailable() == ""
rng = np.random.default_rng(0)
few = [(1, 1, 24), (1, 3, 8), (1, 3, 20), (1, 4, 16)]
for groups, ins, outs in [(1, 5, 37), (19, 19, 19), (1, 33, 8), (3, 18, 60), (1, 100, 140), *few]:
    x = jnp.asarray(rng.standard_normal((3, 10, 9, ins), np.float32))
    k = jnp.asarray(rng.standard_normal((3, 5, ins // groups, outs), np.float32))
    found = []
    for name in ("native", "lax"):
        with backend(name):
            bias, depthwise, pointwise = jnp.ones(outs), jnp.ones((3, 3, 1, ins)), jnp.ones((1, 1, ins, 7))
            def apply(x, k, bias):
                y = conv2d(x, k, bias, relu=True, rate=(1, 2), groups=groups, strides=(1, 2))
                y = batch_norm(y, bias, bias, y)[0]
                return max_pool(max_pool(y, 2), 2, strides=1)
            y, pullback = jax.vjp(apply, x, k, bias)
            first = jax.vjp(lambda k, bias: apply(x, k, bias), k, bias)[1]
            z, pull = jax.vjp(lambda x: separable_conv2d(x, depthwise, pointwise, strides=2), x)
        found.append((y, z, *pullback(jnp.cos(y)), *first(jnp.cos(y)), *pull(jnp.cos(z))))
    for one, other in zip(*found):  # sums of many that cancel: in proportion to the largest
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * max(10, np.abs(other).max()))
x, k = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in ((2, 9, 10, 32), (3, 3, 32, 64)))
found = []
for name in ("native", "lax"):
    with backend(name), winograd():
        y, pullback = jax.vjp(conv2d, x, k)
        traced = jax.make_jaxpr(lambda *a: conv2d(*a))(x, k)
        assert ("winograd" in str(traced)) == (name == "native")
        found.append((y, *pullback(jnp.cos(y))))
for one, other in zip(*found):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
print(native_build.instruction_set())
"""
    environment = os.environ | {"HDC_NATIVE_ISA": instructions, "CXXFLAGS": "-O1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() in (instructions, "portable"), done.stderr
