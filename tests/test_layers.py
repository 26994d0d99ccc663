"""The layers against the loops, and their fields and holes proved through gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from networks import context

from hdc.errors import InputError
from hdc.layers import Conv, DepthwiseConv, PointwiseConv, SeparableConv, evaluation, normalised
from hdc.ops import backend
from hdc.schedules import DilationSchedule

RNG = np.random.default_rng(11)
X = RNG.standard_normal((2, 11, 13, 4)).astype(np.float32)


def values(parameter: nnx.Param) -> np.ndarray:
    return np.asarray(parameter[...], np.float64)


def drawn(kind: type, *arguments, positive: bool = False, **options) -> nnx.Module:
    return reference.filled(lambda: kind(*arguments, **options, rngs=nnx.Rngs(0)), positive=positive)


def seen_from_centre(function, size: tuple[int, int], channels: int) -> np.ndarray:
    """Which inputs move the output's centre, per output channel: boolean `[features, h, w, channels]`."""
    x = jnp.asarray(np.random.default_rng(3).uniform(0.5, 1.5, (1, *size, channels)), jnp.float32)

    def centre(x: jax.Array) -> jax.Array:
        y = function(x)
        return y[0, y.shape[1] // 2, y.shape[2] // 2]

    return np.asarray(jax.jit(jax.jacrev(centre))(x))[:, 0] != 0


def field(size: tuple[int, int], rows: set[int], columns: set[int]) -> np.ndarray:
    """The pixels at the given offsets from the centre of an odd map."""
    seen = np.zeros(size, bool)
    for row, column in itertools.product(rows, columns):
        seen[size[0] // 2 + row, size[1] // 2 + column] = True
    return seen


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((0, 3), (2, 1))])
@pytest.mark.parametrize(
    ("rate", "strides", "groups"), [(1, 1, 1), (3, 1, 1), ((1, 2), (2, 1), 2), (2, 3, 4)]
)
def test_conv_equals_the_loops_with_its_own_parameters(padding, rate, strides, groups) -> None:
    layer = drawn(Conv, 4, 8, (3, 2), rate=rate, strides=strides, groups=groups, padding=padding)
    both = [(value, value) if isinstance(value, int) else value for value in (rate, strides)]
    options = {"rate": both[0], "strides": both[1], "groups": groups, "padding": padding}
    expected = reference.conv2d(X, values(layer.kernel), **options) + values(layer.bias)
    np.testing.assert_allclose(layer(jnp.asarray(X)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_depthwise_equals_the_loops_one_channel_at_a_time(padding: str) -> None:
    layer = drawn(DepthwiseConv, 4, 3, rate=(2, 1), padding=padding)
    y = np.asarray(layer(jnp.asarray(X)))
    kernel, bias = values(layer.kernel), values(layer.bias)
    for channel in range(4):
        one = slice(channel, channel + 1)
        expected = reference.conv2d(X[..., one], kernel[..., one], rate=(2, 1), padding=padding) + bias[one]
        np.testing.assert_allclose(y[..., one], expected, rtol=1e-5, atol=1e-5)


def test_depthwise_is_one_grouped_convolution() -> None:
    layer = drawn(DepthwiseConv, 4, 3)
    with backend("lax"):
        jaxpr = jax.make_jaxpr(lambda x: layer(x))(jnp.asarray(X))
    convolutions = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "conv_general_dilated"]
    assert [eqn.params["feature_group_count"] for eqn in convolutions] == [4]
    assert layer.kernel[...].shape == (3, 3, 1, 4)


def test_pointwise_mixes_channels_and_no_pixels() -> None:
    layer = drawn(PointwiseConv, 4, 5)
    expected = X.astype(np.float64) @ values(layer.kernel)[0, 0] + values(layer.bias)
    np.testing.assert_allclose(layer(jnp.asarray(X)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_separable_is_depthwise_then_pointwise(padding: str) -> None:
    layer = drawn(SeparableConv, 4, 6, 3, rate=2, strides=(1, 2), padding=padding)
    assert layer.depthwise.bias is None
    options = {"rate": (2, 2), "strides": (1, 2), "padding": padding, "groups": 4}
    between = reference.conv2d(X, values(layer.depthwise.kernel), **options)
    expected = between @ values(layer.pointwise.kernel)[0, 0] + values(layer.pointwise.bias)
    np.testing.assert_allclose(layer(jnp.asarray(X)), expected, rtol=1e-5, atol=1e-5)


def test_without_bias_there_is_no_bias() -> None:
    layer = drawn(Conv, 4, 8, use_bias=False)
    assert layer.bias is None
    assert not np.any(layer(jnp.zeros((1, 5, 5, 4))))
    with_bias = drawn(Conv, 4, 8)
    with_bias.bias[...] = jnp.arange(8.0)
    assert np.array_equal(with_bias(jnp.zeros((1, 5, 5, 4)))[0, 2, 2], np.arange(8.0))


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("rate", [(1, 1), (2, 2), (3, 1), (1, 4)])
def test_a_layer_sees_its_dilated_taps_and_nothing_else(kernel_size: int, rate: tuple[int, int]) -> None:
    size = (19, 21)
    rows, columns = (reference.support([r], kernel_size) for r in rate)
    expected = field(size, rows, columns)

    dense = seen_from_centre(drawn(Conv, 2, 3, kernel_size, rate=rate, positive=True), size, 2)
    assert np.array_equal(dense, np.broadcast_to(expected[:, :, None], dense.shape))

    separable = seen_from_centre(drawn(SeparableConv, 2, 3, kernel_size, rate=rate, positive=True), size, 2)
    assert np.array_equal(separable, np.broadcast_to(expected[:, :, None], separable.shape))

    depthwise = seen_from_centre(drawn(DepthwiseConv, 2, kernel_size, rate=rate, positive=True), size, 2)
    assert np.array_equal(depthwise, expected[:, :, None] * np.eye(2, dtype=bool)[:, None, None])


def test_a_pointwise_layer_sees_one_pixel() -> None:
    seen = seen_from_centre(drawn(PointwiseConv, 2, 3, positive=True), (5, 7), 2)
    expected = field((5, 7), {0}, {0})
    assert np.array_equal(seen, np.broadcast_to(expected[:, :, None], seen.shape))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("separable", "residual"), [(False, False), (True, False), (False, True), (True, True)]
)
@pytest.mark.parametrize(
    ("rates", "repeat", "taps", "holes"),
    [
        ([1, 2, 5], 1, 3, False),
        ([4, 4], 1, 3, True),
        ([2], 3, 3, False),
        ([1, 9], 1, 3, True),
        ([3, 5], 1, 3, False),
        ([7], 1, 5, True),
    ],
)
def test_the_context_network_sees_stem_and_schedule_and_has_their_holes(
    rates, repeat, taps, holes, separable, residual, padding
) -> None:
    schedule = DilationSchedule(rates, taps, repeat)
    offsets = {
        s + o for s in reference.support([1], 3) for o in reference.support(schedule.layer_rates, taps)
    }
    reach = max(offsets)
    size = (2 * reach + 3, 2 * reach + 5)
    model = drawn(
        context,
        schedule,
        in_channels=1,
        classes=2,
        task="dense",
        width=2,
        separable=separable,
        residual=residual,
        padding=padding,
        positive=True,
    )
    seen = seen_from_centre(model, size, 1)
    expected = field(size, offsets, offsets)
    assert np.array_equal(seen, np.broadcast_to(expected[:, :, None], seen.shape))
    assert (len(offsets) < 2 * reach + 1) == holes


def parameters(kind: type, *arguments, **options) -> int:
    model = nnx.eval_shape(lambda: kind(*arguments, **options, rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(("kernel", "taps"), [(3, 9), ((1, 5), 5), (1, 1)])
def test_parameter_counts(kernel, taps: int) -> None:
    assert parameters(Conv, 4, 6, kernel) == taps * 4 * 6 + 6
    assert parameters(Conv, 4, 6, kernel, groups=2) == taps * 2 * 6 + 6
    assert parameters(Conv, 4, 6, kernel, use_bias=False) == taps * 4 * 6
    assert parameters(DepthwiseConv, 4, kernel) == taps * 4 + 4
    assert parameters(SeparableConv, 4, 6, kernel) == taps * 4 + 4 * 6 + 6
    assert parameters(SeparableConv, 4, 6, kernel, use_bias=False) == taps * 4 + 4 * 6
    assert parameters(PointwiseConv, 4, 6) == 4 * 6 + 6


def test_kernels_start_he_normal_and_biases_at_zero() -> None:
    layer = Conv(64, 64, 3, rngs=nnx.Rngs(0))
    assert np.std(layer.kernel[...]) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    assert not np.any(layer.bias[...])
    depthwise = DepthwiseConv(1024, 3, rngs=nnx.Rngs(0))
    assert np.std(depthwise.kernel[...]) == pytest.approx(np.sqrt(2 / 9), rel=0.05)


def test_the_same_seed_gives_the_same_layer_and_another_seed_another() -> None:
    kernels = [np.asarray(Conv(2, 2, rngs=nnx.Rngs(seed)).kernel[...]) for seed in (0, 0, 1)]
    assert np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


@pytest.mark.parametrize(
    ("make", "mentions"),
    [
        (lambda rngs: Conv(4, 6, groups=4, rngs=rngs), "groups=4 must divide the 4 input and 6 output"),
        (lambda rngs: Conv(4, 6, groups=0, rngs=rngs), "groups=0"),
        (lambda rngs: Conv(4, 6, rate=0, rngs=rngs), "rate must be a positive integer"),
        (lambda rngs: Conv(4, 6, rate=(1, 2, 3), rngs=rngs), "got (1, 2, 3)"),
        (lambda rngs: Conv(4, 6, strides=0, rngs=rngs), "strides must be a positive integer"),
        (lambda rngs: Conv(4, 6, 0, rngs=rngs), "kernel_size must be a positive integer"),
        (lambda rngs: DepthwiseConv(4, 3, rate=-1, rngs=rngs), "got -1"),
        (lambda rngs: SeparableConv(4, 6, rate=True, rngs=rngs), "got True"),
        (lambda rngs: SeparableConv(4, 6, (3, 0), rngs=rngs), "got (3, 0)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_constructor_refuses_what_does_not_fit(make, mentions: str) -> None:
    with pytest.raises(InputError) as caught:
        make(nnx.Rngs(0))
    assert mentions in str(caught.value)


def test_a_layer_refuses_maps_of_other_channels() -> None:
    with pytest.raises(InputError, match="takes 4 channels, x has 3"):
        drawn(Conv, 4, 6)(jnp.ones((1, 8, 8, 3)))


@pytest.mark.parametrize("shape", [(3, 6, 5, 7), (2, 9, 7)])
@pytest.mark.parametrize("relu", [False, True])
def test_normalised_is_the_norm_the_residual_and_relu_and_moves_the_running_statistics(shape, relu) -> None:
    rng = np.random.default_rng(0)
    x, residual = (jnp.asarray(rng.standard_normal(shape, np.float32)) for _ in range(2))
    ours, theirs = (nnx.BatchNorm(7, momentum=0.7, rngs=nnx.Rngs(0)) for _ in range(2))
    for added in (residual, None):
        y = normalised(ours, x, residual=added, relu=relu)
        expected = theirs(x) + (0 if added is None else added)
        np.testing.assert_allclose(y, nnx.relu(expected) if relu else expected, atol=2e-6)
        for one, other in ((ours.mean, theirs.mean), (ours.var, theirs.var)):
            np.testing.assert_allclose(one[...], other[...], rtol=1e-5, atol=1e-7)
    # In evaluation, and for other kinds, the layer itself is called.
    kept = evaluation(ours)
    np.testing.assert_array_equal(normalised(kept, x, relu=False), kept(x))
    group = nnx.GroupNorm(7, num_groups=7, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(normalised(group, x, relu=False), group(x))
