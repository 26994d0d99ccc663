"""Gridding measured in models of any kind: against Jacobians, and against what a trainer measures."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import hdc
from hdc import DilationSchedule, gridding
from hdc.errors import InputError
from hdc.measuring import effective_receptive_field, measure_gridding

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 12, 14, 2)).astype(np.float32)
WEIGHTS = {
    "a": {"kernel": jnp.asarray(RNG.normal(size=(3, 3, 2, 3)), jnp.float32)},
    "b": {"kernel": jnp.asarray(RNG.normal(size=(3, 3, 3, 2)), jnp.float32)},
}


def conv(x, kernel, rate=1, stride=1, first=False):
    names = ("NCHW" if first else "NHWC", "HWIO", "NCHW" if first else "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", rhs_dilation=(rate, rate), dimension_numbers=names
    )


def function(params, x, first=False):
    y = jax.nn.relu(conv(x, params["a"]["kernel"], stride=2, first=first))
    return conv(y, params["b"]["kernel"], rate=2, first=first)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        y = linen.relu(linen.Conv(3, (3, 3), strides=2, use_bias=False, name="a")(x))
        return linen.Conv(2, (3, 3), kernel_dilation=2, use_bias=False, name="b")(y)


class Network(nnx.Module):
    """With layers by name, and a head that is no map; no method `features`."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.a = nnx.Conv(2, 3, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.b = nnx.Conv(3, 2, (3, 3), kernel_dilation=2, use_bias=False, rngs=rngs)
        self.a.kernel[...], self.b.kernel[...] = WEIGHTS["a"]["kernel"], WEIGHTS["b"]["kernel"]
        self.head = nnx.Linear(2, 4, rngs=rngs)

    def __call__(self, x):
        return self.head(self.b(nnx.relu(self.a(x))).mean((1, 2)))


def by_jacobian(call, images, at, first=False) -> np.ndarray:
    """Mean over images of the sum of |dy/dx| over both channels: one image after the other, all entries."""
    total = 0
    for image in images:
        jacobian = np.asarray(jax.jacrev(lambda x: call(x[None])[0])(jnp.asarray(image)))
        of_pixel = jacobian[:, *at] if first else jacobian[at]
        total = total + np.abs(of_pixel).sum(axis=(0, 1) if first else (0, -1))
    return total / len(images)


@pytest.mark.parametrize("at", [None, (1, 5)])
@pytest.mark.parametrize("kind", ["function", "channels first", "linen", "nnx layer"])
def test_the_effective_receptive_field_is_the_mean_of_the_jacobian(kind, at, monkeypatch) -> None:
    monkeypatch.setattr(gridding, "_ENTRIES", 16 * 4 * 12 * 14)  # one channel after the other
    truth = by_jacobian(lambda x: function(WEIGHTS, x), IMAGES, at or (3, 3))
    match kind:
        case "function":
            found = effective_receptive_field(function, IMAGES, at=at, params=WEIGHTS)
        case "channels first":
            turned = np.moveaxis(IMAGES, -1, 1)
            found = effective_receptive_field(
                lambda p, x: function(p, x, first=True), turned, at=at, params=WEIGHTS, spatial=(2, 3)
            )
        case "linen":
            found = effective_receptive_field(Linen(), IMAGES, at=at, params={"params": WEIGHTS})
        case _:
            found = effective_receptive_field(Network(), IMAGES, layer="b", at=at)
    np.testing.assert_allclose(found.map, truth, rtol=1e-4, atol=1e-6)
    assert found.at == (at or (3, 3))
    np.testing.assert_array_equal(found.map > 0, found.seen.support & (truth > 0))
    assert found.seen.size == (11, 11)


def test_a_layer_on_the_way_and_an_output_that_is_no_map() -> None:
    found = effective_receptive_field(Network(), IMAGES, layer="a", at=(0, 6))
    truth = by_jacobian(lambda x: conv(x, WEIGHTS["a"]["kernel"], stride=2), IMAGES, (0, 6))
    np.testing.assert_allclose(found.map, truth, rtol=1e-4, atol=1e-6)
    whole = effective_receptive_field(Network(), IMAGES)
    model = Network()
    total = sum(
        np.abs(np.asarray(jax.jacrev(lambda x: model(x[None])[0])(jnp.asarray(one)))).sum((0, -1))
        for one in IMAGES
    )
    np.testing.assert_allclose(whole.map, total / len(IMAGES), rtol=1e-4, atol=1e-6)
    assert whole.at == ()
    with pytest.raises(InputError, match="no map in which gridding could be measured"):
        measure_gridding(Network(), IMAGES)


def test_its_ripple_and_areas() -> None:
    found = effective_receptive_field(function, IMAGES, params=WEIGHTS, max_period=3)
    np.testing.assert_array_equal(found.ripple.decibels, gridding.ripple(found.map, 3).decibels)
    assert set(found.ripple.frequencies) == {1 / 2, 1 / 3}
    top, left = (start + 5 for start in found.seen.paths.origin)  # the middle of 11 px
    for share in (0.2, 0.5, 1.0):
        for half in itertools.count():
            inside = np.zeros(found.map.shape, bool)
            for i, j in np.ndindex(*inside.shape):
                inside[i, j] = max(abs(i - top), abs(j - left)) <= half
            if found.map[inside].sum() >= share * found.map.sum() * (1 - 1e-9):
                break
        assert found.area(share) == inside.sum()
    for share in (0, 1.5, -0.1, math.nan):
        with pytest.raises(InputError, match="share must be above 0"):
            found.area(share)
    assert "ripple" in repr(found)
    assert len(found.figure().axes) == 4


def test_periods_as_long_as_the_largest_step_are_looked_at() -> None:
    layers = [nnx.Conv(1, 1, (3, 3), strides=2, rngs=nnx.Rngs(0))]
    layers += [nnx.Conv(1, 1, (3, 3), kernel_dilation=6, rngs=nnx.Rngs(n)) for n in range(2)]
    found = effective_receptive_field(nnx.Sequential(*layers), RNG.normal(size=(1, 64, 64, 1)))
    assert (found.max_period, found.ripple.frequencies.min()) == (12, 1 / 12)
    assert effective_receptive_field(function, IMAGES, params=WEIGHTS).max_period == 8


def test_signals() -> None:
    layers = [nnx.Conv(2, 2, (3,), kernel_dilation=2, use_bias=False, rngs=nnx.Rngs(n)) for n in range(3)]
    model, signals = nnx.Sequential(*layers), RNG.normal(size=(3, 32, 2)).astype(np.float32)
    found = effective_receptive_field(model, signals)
    np.testing.assert_allclose(found.map, by_jacobian(model, signals, (16,)), rtol=1e-4, atol=1e-6)
    assert (found.ripple.frequency, found.area(1.0)) == (0.5, 13)
    assert len(found.figure().axes) == 2
    assert measure_gridding(model, signals).metrics["erf_ripple"] == found.ripple.peak


def test_a_model_with_features_is_measured_as_a_trainer_measures_it() -> None:
    schedule = DilationSchedule([2, 2])
    model = hdc.ContextNetwork(schedule, in_channels=2, classes=2, task="dense", width=3, rngs=nnx.Rngs(0))
    with hdc.ops.backend("lax"):
        ours = measure_gridding(model, IMAGES)
        theirs = measure_gridding(*nnx.split(model), lambda x: x, IMAGES)
        graph, state = nnx.split(model)
        again = measure_gridding(graph=graph, state=state, normalise=jnp.asarray, images=IMAGES)
    assert again.metrics == theirs.metrics
    assert ours.metrics.keys() == theirs.metrics.keys()
    for name, value in theirs.metrics.items():
        assert ours.metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-4, nan_ok=True), name
    for name, values in theirs.arrays.items():
        np.testing.assert_allclose(ours.arrays[name], values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"images": IMAGES[0, 0]}, "images must be an array of numbers"),
        ({"images": IMAGES[:0]}, "got shape (0, 12, 14, 2)"),
        ({"images": np.full((2, 8, 8, 2), "a")}, "images must be an array of numbers"),
        ({"layer": "c"}, "no output or layer 'c'"),
        ({"layer": "b", "at": (99, 0)}, "at=(99, 0) is not a place on the output's 6x7 map"),
        ({"layer": "b", "at": (1,)}, "at=(1,) is not a place"),
        ({"at": (0, 0)}, "at=(0, 0): the output is no map"),
        ({"model": nnx.eval_shape(lambda: nnx.Conv(2, 2, (3, 3), rngs=nnx.Rngs(0)))}, "has no values"),
        ({"images": np.where(IMAGES > 2, np.nan, IMAGES)}, "some of their values are NaN or infinite"),
        ({"images": np.where(IMAGES > 2, np.inf, IMAGES)}, "some of their values are NaN or infinite"),
        ({"images": IMAGES[..., :1]}, "does not take an input of shape (1, 12, 14, 1)"),
    ],
)
def test_one_line_says_what_is_wrong(options, said) -> None:
    given = {"model": Network(), "images": IMAGES, **options}
    with pytest.raises(InputError) as error:
        effective_receptive_field(**given)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_single_image_is_not_taken_for_signals() -> None:
    model = nnx.Sequential(nnx.Conv(2, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.Conv(2, 2, (1, 1), rngs=nnx.Rngs(0)))
    for measured in (effective_receptive_field, measure_gridding):
        with pytest.raises(
            InputError, match=r"\(12, 14, 2\) are a single image, but a batch is expected: .*\]$"
        ):
            measured(model, IMAGES[0], layer="layers.0")


def test_signals_of_one_axis_is_measured_and_a_small_map_has_no_ripple() -> None:
    def blurred(x):
        return x + jnp.roll(x, 1, 1)

    found = effective_receptive_field(blurred, IMAGES[0])  # no convolution of two axes
    np.testing.assert_allclose(found.map, np.isin(np.arange(14), (6, 7)) * 2.0)
    assert "ripple 0" not in repr(effective_receptive_field(blurred, IMAGES[:, :3]))
    assert "too small for a ripple" in repr(effective_receptive_field(blurred, IMAGES[:, :3]))
