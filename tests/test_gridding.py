"""Ripple and effective receptive field where the answer is known, and against explicit sums."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from hdc.gridding import Ripple, effective_receptive_field, measure, ripple
from hdc.networks import ContextNetwork
from hdc.schedules import DilationSchedule


def normalise(x: jax.Array) -> jax.Array:
    return jnp.asarray(x).astype(jnp.float32) / 255


def photos(count: int, size: tuple[int, int], channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (count, *size, channels), dtype=np.uint8)


def network(rates: list[int], repeat: int = 1, width: int = 1, channels: int = 1) -> nnx.Module:
    return ContextNetwork(
        DilationSchedule(rates, 3, repeat),
        in_channels=channels,
        classes=2,
        task="dense",
        width=width,
        rngs=nnx.Rngs(0),
    )


def positive(model: nnx.Module, value: float | None = None) -> nnx.Module:
    """Every parameter positive (or `value`; biases 0), so that with positive images every ReLU is open."""

    def change(leaf: jax.Array) -> jax.Array:
        if leaf.ndim == 1:
            return jnp.zeros_like(leaf)
        return jnp.abs(leaf) + 0.1 if value is None else jnp.full_like(leaf, value)

    nnx.update(model, jax.tree.map(change, nnx.state(model, nnx.Param)))
    return model


def path_map(rates: list[int], size: int | None = None) -> np.ndarray:
    """The path counts in 2-D, in the middle of a larger map."""
    counts = reference.path_counts(rates, 3).astype(float)
    margin = ((size or len(counts)) - len(counts)) // 2
    counts = np.pad(counts, margin)
    return np.outer(counts, counts)


def at(found: Ripple, frequency: float) -> float:
    return float(found.decibels[np.argmin(np.abs(found.frequencies - frequency))])


# --- ripple ---


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 2), st.integers(8, 21), st.integers(8, 21)),
    max_period=st.integers(2, 5),
)
def test_ripple_equals_the_explicit_sums(seed: int, shape: tuple[int, int, int], max_period: int) -> None:
    maps = np.random.default_rng(seed).standard_normal(shape) + 3
    found, expected = ripple(maps, max_period), reference.ripple(maps, max_period)
    np.testing.assert_allclose(found.frequencies, list(expected), rtol=1e-12)
    np.testing.assert_allclose(found.decibels, list(expected.values()), atol=1e-6)


def test_the_frequencies_are_every_fraction_once() -> None:
    found = ripple(np.random.default_rng(0).random((40, 40)), 6)
    assert found.frequencies.tolist() == [1 / 2, 1 / 3, 1 / 4, 1 / 5, 2 / 5, 1 / 6]


@pytest.mark.parametrize("period", [2, 3, 4, 5, 6, 7, 8])
def test_a_periodic_pattern_peaks_at_its_own_frequencies(period: int) -> None:
    comb = (np.arange(64) % period == 1).astype(float)
    found = ripple(np.outer(comb, comb) + 0.1 * np.random.default_rng(period).standard_normal((64, 64)))
    teeth = [m / period for m in range(1, period // 2 + 1) if math.gcd(m, period) == 1]
    assert min(at(found, tooth) for tooth in teeth) > 8
    # 1/7 and 1/6 lie closer together than the window tells apart on 64 pixels.
    every = [m / period for m in range(1, period // 2 + 1)]
    assert min(abs(found.frequency - tooth) for tooth in every) < 2.5 / 64
    assert found.peak == max(found.decibels)
    # Frequencies further from every multiple of 1 / period than the window blurs have no tooth.
    others = [f for f in found.frequencies if abs(f * period - round(f * period)) / period > 2.5 / 64]
    assert max((at(found, f) for f in others), default=-1) < 6


@pytest.mark.parametrize("axis", [0, 1])
def test_stripes_along_either_axis_are_found(axis: int) -> None:
    stripes = np.broadcast_to((np.arange(48) % 3 == 0).astype(float), (48, 48))
    found = ripple(stripes if axis == 1 else stripes.T)
    assert found.frequency == pytest.approx(1 / 3)
    assert found.peak > 20


@pytest.mark.parametrize("period", [3, 4, 5])
def test_the_phase_of_the_pattern_does_not_matter(period: int) -> None:
    peaks = []
    for shift in range(period):
        comb = (np.arange(60) % period == shift).astype(float)
        peaks.append(ripple(np.outer(comb, comb)).frequency)
    assert all(abs(peak * period - round(peak * period)) < 1e-9 for peak in peaks)


def test_white_noise_has_no_ripple() -> None:
    noise = np.random.default_rng(0).standard_normal((40, 64, 64))
    assert np.max(np.abs(ripple(noise).decibels)) < 0.5


def test_scale_and_offset_do_not_matter() -> None:
    maps = np.random.default_rng(0).random((3, 32, 32))
    np.testing.assert_allclose(ripple(7 * maps - 100).decibels, ripple(maps).decibels, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_map_has_no_ripple_to_speak_of(value: float) -> None:
    found = ripple(np.full((2, 32, 32), value))
    assert len(found.frequencies) == len(found.decibels) > 0
    assert np.all(np.isnan(found.decibels))
    assert math.isnan(found.peak)


@pytest.mark.parametrize("shape", [(7, 64), (64, 7), (3, 3), (1, 1)])
def test_a_map_too_small_for_any_period_gives_nothing(shape: tuple[int, int]) -> None:
    found = ripple(np.random.default_rng(0).random(shape))
    assert len(found.frequencies) == len(found.decibels) == 0
    assert math.isnan(found.peak)
    assert math.isnan(found.frequency)


def test_a_small_map_limits_the_period_by_its_shorter_side() -> None:
    assert ripple(np.random.default_rng(0).random((12, 64))).frequencies.tolist() == [1 / 2, 1 / 3]


def test_shuffling_the_pixels_destroys_the_ripple() -> None:
    comb = (np.arange(64) % 4 == 0).astype(float)
    pattern = np.outer(comb, comb)
    shuffled = np.random.default_rng(0).permutation(pattern.ravel()).reshape(pattern.shape)
    assert ripple(pattern).peak > 20
    assert ripple(shuffled).peak < 3


def test_the_path_counts_of_a_comb_ripple_far_above_those_of_a_mixed_schedule() -> None:
    comb, mixed, plain = (ripple(path_map(rates, 65)) for rates in ([2] * 6, [1, 2, 5] * 2, [1] * 6))
    assert comb.frequency == pytest.approx(1 / 2)
    assert at(comb, 1 / 2) > 30
    assert at(comb, 1 / 2) > at(mixed, 1 / 2) + 30
    assert at(comb, 1 / 2) > at(plain, 1 / 2) + 30


# --- effective receptive field ---


@pytest.mark.parametrize("size", [(31, 31), (30, 35)])
@pytest.mark.parametrize("rates", [[2, 2, 2], [1, 2, 5], [1, 1, 1], [4]])
def test_the_erf_of_a_network_of_ones_is_its_path_counts(rates: list[int], size: tuple[int, int]) -> None:
    graph, state = nnx.split(positive(network(rates), 1.0))
    erf = effective_receptive_field(graph, state, normalise, photos(1, size))
    counts = reference.path_counts([1, *rates], 3)
    half = len(counts) // 2
    expected = np.zeros(size)
    rows, columns = (slice(side // 2 - half, side // 2 + half + 1) for side in size)
    expected[rows, columns] = np.outer(counts, counts)
    np.testing.assert_allclose(erf, expected / 255 * 255, rtol=1e-5)


@pytest.mark.parametrize("rates", [[2, 2, 2], [1, 2, 5]])
def test_the_ripple_of_that_erf_is_that_of_the_path_counts(rates: list[int]) -> None:
    counts = path_map([1, *rates], 33)
    graph, state = nnx.split(positive(network(rates), 1.0))
    found = measure(graph, state, normalise, photos(1, (33, 33)), max_period=4)
    expected = reference.ripple(counts[None], 4)
    np.testing.assert_allclose(found.arrays["frequencies"], list(expected), rtol=1e-12)
    # The floor under the power, 1e-10 of the maximum, is part of the measure and not of the sums.
    teeth = {f: reference.power(counts[None], f) for f in expected}
    strong = [index for index, f in enumerate(expected) if teeth[f] > 1e-6 * max(teeth.values())]
    assert strong
    for index in strong:
        assert found.arrays["erf_ripple"][index] == pytest.approx(list(expected.values())[index], abs=0.1)


def test_the_erf_is_the_mean_over_images_of_sums_over_channels() -> None:
    model = positive(network([2, 1], width=3, channels=2))
    kernels = [np.asarray(block.conv.kernel[...]) for block in (model.stem, *model.blocks)]
    graph, state = nnx.split(model)
    for count in (1, 5):  # five images are two calls
        erf = effective_receptive_field(graph, state, normalise, photos(count, (13, 12), 2))
        expected = reference.linear_erf(kernels, [1, 2, 1], (13, 12))
        np.testing.assert_allclose(erf, expected, rtol=1e-4)


def test_the_erf_of_signed_kernels_adds_magnitudes_of_the_whole_gradient() -> None:
    model = network([2], width=2)
    # Large biases keep every ReLU open, so the network stays linear.
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda leaf: jnp.full_like(leaf, 50.0) if leaf.ndim == 1 else leaf, state))
    model.blocks[0].conv.bias[...] = jnp.full(2, 2000.0)
    kernels = [np.asarray(block.conv.kernel[...]) for block in (model.stem, *model.blocks)]
    graph, state = nnx.split(model)
    erf = effective_receptive_field(graph, state, normalise, photos(2, (11, 11)))
    np.testing.assert_allclose(erf, reference.linear_erf(kernels, [1, 2], (11, 11)), rtol=1e-4, atol=1e-6)


# --- measure ---


def test_measure_names_its_numbers_and_keeps_the_arrays_behind_them() -> None:
    graph, state = nnx.split(positive(network([2, 2], width=2)))
    found = measure(graph, state, normalise, photos(3, (24, 24)), max_period=4)
    assert found.metrics["erf_ripple"] == np.max(found.arrays["erf_ripple"])
    best = found.arrays["frequencies"][np.argmax(found.arrays["erf_ripple"])]
    assert found.metrics["erf_ripple_frequency"] == best
    excess = found.arrays["feature_ripple"] - found.arrays["input_ripple"]
    assert found.metrics["feature_ripple"] == np.max(excess)
    assert found.metrics["feature_ripple_frequency"] == found.arrays["feature_frequencies"][np.argmax(excess)]
    assert found.arrays["erf"].shape == (24, 24)


def test_feature_and_input_ripple_are_those_of_the_maps() -> None:
    model = positive(network([2], width=2, channels=2))
    graph, state = nnx.split(model)
    images = photos(3, (16, 17), 2)
    found = measure(graph, state, normalise, images, max_period=3)
    x = normalise(images)
    features = np.moveaxis(np.asarray(model.features(x)), -1, 1).reshape(-1, 16, 17)
    inputs = np.moveaxis(np.asarray(x), -1, 1).reshape(-1, 16, 17)
    for name, maps in (("feature_ripple", features), ("input_ripple", inputs)):
        np.testing.assert_allclose(found.arrays[name], list(reference.ripple(maps, 3).values()), atol=1e-3)


class Identity(nnx.Module):
    """Features that are the input itself, or half of its pixels per axis."""

    def __init__(self, step: int = 1):
        self.scale, self.step = nnx.Param(jnp.ones(())), step

    def features(self, x: jax.Array) -> jax.Array:
        return self.scale[...] * x[:, :: self.step, :: self.step]


def test_a_network_that_changes_nothing_has_no_ripple_of_its_own() -> None:
    images = photos(2, (32, 32))
    images[:, ::4] //= 3  # the ripple of the images is not the network's
    graph, state = nnx.split(Identity())
    found = measure(graph, state, normalise, images)
    assert np.max(found.arrays["input_ripple"]) > 3
    assert found.metrics["feature_ripple"] == pytest.approx(0, abs=1e-9)


class Pooled(Identity):
    """Features that are means of 4 x 4 pixels, and have no ripple of their own."""

    def features(self, x: jax.Array) -> jax.Array:
        return self.scale[...] * nnx.avg_pool(x, (4, 4), strides=(4, 4))


def test_features_of_longer_pixels_are_compared_with_the_input_at_their_own_pixels() -> None:
    images = photos(2, (64, 64))
    images[:, :, ::8] //= 3  # stripes of eight pixels are two features apart
    graph, state = nnx.split(Pooled())
    found = measure(graph, state, normalise, images)
    assert found.arrays["feature_frequencies"].tolist() == [1 / 2, 1 / 3, 1 / 4]
    assert np.max(found.arrays["input_ripple"]) > 3
    assert found.metrics["feature_ripple"] == pytest.approx(0, abs=1e-3)


def test_features_resolve_fewer_periods_than_a_larger_input() -> None:
    graph, state = nnx.split(Identity(2))
    found = measure(graph, state, normalise, photos(2, (32, 32)))
    assert found.arrays["feature_frequencies"].tolist() == [1 / 2, 1 / 3, 1 / 4]
    excess = found.arrays["feature_ripple"] - found.arrays["input_ripple"]
    assert found.metrics["feature_ripple"] == np.max(excess)
