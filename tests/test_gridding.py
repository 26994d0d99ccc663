"""Every measure where the answer is known, and against explicit sums; broken measures give other answers."""

import importlib.util
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from hdc import gridding
from hdc.errors import InputError
from hdc.gridding import (
    Ripple,
    effective_receptive_field,
    erf_area,
    expected_ripple,
    measure,
    phase_imbalance,
    ripple,
)
from hdc.layers import Conv
from hdc.networks import ContextNetwork, Lei2019
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


@pytest.mark.parametrize("period", [3, 4, 5])
def test_the_phase_of_the_pattern_does_not_matter(period: int) -> None:
    peaks = []
    for shift in range(period):
        comb = (np.arange(60) % period == shift).astype(float)
        peaks.append(ripple(np.outer(comb, comb)).frequency)
    assert all(abs(peak * period - round(peak * period)) < 1e-9 for peak in peaks)


def test_scale_and_offset_do_not_matter() -> None:
    maps = np.random.default_rng(0).random((3, 32, 32))
    np.testing.assert_allclose(ripple(7 * maps - 100).decibels, ripple(maps).decibels, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_map_has_no_ripple_to_speak_of(value: float) -> None:
    found = ripple(np.full((2, 32, 32), value))
    assert len(found.frequencies) == len(found.decibels) > 0
    assert np.all(np.isnan(found.decibels))
    assert math.isnan(found.peak)
    assert math.isnan(found.frequency)


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


# --- phase imbalance ---


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 2), st.integers(8, 21), st.integers(8, 21)),
    max_period=st.integers(2, 5),
)
def test_phase_imbalance_equals_the_explicit_sums(
    seed: int, shape: tuple[int, int, int], max_period: int
) -> None:
    maps = np.random.default_rng(seed).standard_normal(shape) + 3
    expected = reference.phase_imbalance(maps, max_period)
    assert list(expected) == list(range(2, 2 + len(expected)))
    np.testing.assert_allclose(
        phase_imbalance(maps, max_period), list(expected.values()), rtol=1e-6, atol=1e-9
    )


def test_scale_offset_turns_and_order_do_not_matter() -> None:
    maps = np.random.default_rng(0).random((3, 24, 24))
    expected = phase_imbalance(maps)
    for other in (7 * maps - 100, maps.swapaxes(1, 2), maps[::-1], maps.reshape(3, 1, 24, 24)):
        np.testing.assert_allclose(phase_imbalance(other), expected, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_a_constant_map_has_no_phase_imbalance_to_speak_of(value: float) -> None:
    found = phase_imbalance(np.full((2, 32, 16), value))
    assert len(found) == 3
    assert np.isnan(found).all()


def test_constant_maps_among_others_do_not_matter() -> None:
    maps = np.random.default_rng(0).random((2, 32, 32))
    padded = np.concatenate([maps, np.ones_like(maps)])
    np.testing.assert_allclose(phase_imbalance(padded), phase_imbalance(maps), rtol=1e-6)


@pytest.mark.parametrize("shape", [(7, 64), (1, 64), (1, 1), (0, 8)])
def test_a_map_too_small_for_any_period_has_no_phases(shape: tuple[int, int]) -> None:
    assert len(phase_imbalance(np.zeros((2, *shape)))) == 0
    assert len(ripple(np.zeros((2, *shape))).decibels) == 0


# --- area ---


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    share=st.floats(0.01, 1),
    even=st.booleans(),
)
def test_the_area_is_that_of_the_first_square(
    seed: int, shape: tuple[int, int], share: float, even: bool
) -> None:
    rng = np.random.default_rng(seed)
    centre = tuple(int(rng.integers(side)) + even / 2 for side in shape)
    erf = rng.random(shape)
    assert erf_area(erf, share, centre) == reference.erf_area(erf, share, centre)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_nothing_has_no_area(value: float) -> None:
    assert math.isnan(erf_area(np.full((5, 5), value), 0.5, (2, 2)))


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


class Rows(nnx.Module):
    """A convolution times the square of each row's number, which `analyse` takes for the same everywhere."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv = Conv(1, 2, rate=2, rngs=rngs)

    def features(self, x: jax.Array) -> jax.Array:
        return self.conv(x) * jnp.arange(x.shape[1])[None, :, None, None] ** 2


@pytest.mark.parametrize("side", [32, 45])
def test_the_erf_is_the_gradient_of_the_whole_image_bit_for_bit(side: int) -> None:
    models = [network([1, 2], width=4), network([9, 9], width=4), Rows(rngs=nnx.Rngs(0))]
    for model, narrow in zip(models, (True, side > 39, False), strict=True):
        graph, state = nnx.split(model)
        images = photos(6, (side, side))
        found = effective_receptive_field(graph, state, normalise, images)
        whole, total = ((0, side),) * 2, np.zeros((side, side))
        for part in (images[:4], images[4:]):
            total += np.asarray(gridding._erf_sum(graph, state, normalise, part, whole))
        np.testing.assert_array_equal(found, total / 6)
        assert (gridding._window(graph, state, normalise, images) != whole) == narrow


class Linear(nnx.Module):
    """Convolutions alone, from one channel over four to one."""

    def __init__(self, rates: list[int], *, rngs: nnx.Rngs):
        widths = [1, *[4] * (len(rates) - 1), 1]
        self.layers = nnx.List(
            Conv(widths[i], widths[i + 1], rate=rate, use_bias=False, rngs=rngs)
            for i, rate in enumerate(rates)
        )

    def features(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("rates", [[2, 2, 2], [1, 2, 4]])
def test_the_squared_erf_of_random_linear_networks_is_their_path_counts_on_average(rates: list[int]) -> None:
    draws = 2000
    graph = nnx.graphdef(nnx.eval_shape(lambda: Linear(rates, rngs=nnx.Rngs(0))))
    starts = jax.vmap(lambda seed: nnx.state(Linear(rates, rngs=nnx.Rngs(jax.random.key(seed)))))(
        jnp.arange(draws)
    )
    counts = path_map(rates)
    image = np.ones((1, *counts.shape, 1), np.uint8)
    states = (jax.tree.map(lambda leaf, at=at: leaf[at], starts) for at in range(draws))
    squares = np.array([effective_receptive_field(graph, state, normalise, image) for state in states]) ** 2
    # Each tap of He-normal kernels has the variance 2 / (9 channels in), and paths do not mix on average.
    expected = (2 / 9) ** len(rates) * counts
    error = squares.std(axis=0, ddof=1) / math.sqrt(draws)
    assert np.all(squares[:, counts == 0] == 0)
    seen = counts > 0
    deviation = (squares.mean(axis=0)[seen] - expected[seen]) / error[seen]
    assert np.max(np.abs(deviation)) < 4
    assert np.mean(np.abs(deviation)) < 1.2
    assert np.corrcoef(squares.mean(axis=0).ravel(), counts.ravel())[0, 1] > 0.95


# --- answers that are known, asked of a measure ---


def _stripes(axis: int, period: int, shape: tuple[int, int] = (40, 52)) -> np.ndarray:
    place = np.arange(shape[axis]) % period == 1
    return np.broadcast_to((place if axis == 1 else place[:, None]).astype(float), shape)


def _pattern(period: int, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A random period x period tile, repeated."""
    tile = np.random.default_rng(seed).standard_normal((period, period))
    return np.tile(tile, (shape[0] // period + 1, shape[1] // period + 1))[: shape[0], : shape[1]]


def stripes_ripple_along_either_axis(of: ModuleType) -> None:
    for axis, period in itertools.product((0, 1), (2, 3)):
        found = of.ripple(_stripes(axis, period))
        assert found.frequency == 1 / period
        assert found.peak > 20


def white_noise_has_no_ripple(of: ModuleType) -> None:
    noise = np.random.default_rng(0).standard_normal((40, 64, 64))
    assert np.max(np.abs(of.ripple(noise).decibels)) < 0.5


def a_pattern_is_all_phase(of: ModuleType) -> None:
    for period in range(2, 9):
        found = of.phase_imbalance(_pattern(period, (64, 70)), 8)
        others = [r for r in range(2, 9) if r % period]
        np.testing.assert_allclose(found[period - 2 :: period], 1, atol=1e-8)
        assert np.max(found[np.array(others, int) - 2], initial=0) < 0.3


def stripes_are_all_phase_along_either_axis(of: ModuleType) -> None:
    for axis in (0, 1):
        np.testing.assert_allclose(of.phase_imbalance(_stripes(axis, 3), 3)[1], 1, atol=1e-8)


def a_pattern_whose_phase_changes_from_place_to_place_is_seen(of: ModuleType) -> None:
    # Over the whole map, its sub-grids have equal means.
    row = np.hstack([_pattern(2, (48, 48)), -_pattern(2, (48, 48))])
    maps = np.vstack([row, -row])
    assert abs(maps[::2, ::2].mean()) < 1e-12
    assert of.phase_imbalance(maps, 2)[0] > 0.75


def half_pattern_and_half_noise_is_half_phase(of: ModuleType) -> None:
    pattern = _pattern(3, (64, 64))
    noise = pattern.std() * np.random.default_rng(1).standard_normal((40, 64, 64))
    assert abs(of.phase_imbalance(pattern + noise, 3)[1] - 0.5) < 0.02


def white_noise_has_no_phase(of: ModuleType) -> None:
    noise = np.random.default_rng(0).standard_normal((200, 64, 64))
    assert np.max(np.abs(of.phase_imbalance(noise, 8))) < 0.005


def slopes_have_no_phase(of: ModuleType) -> None:
    down, right = np.mgrid[:64, :48] / 10
    for slope in (3 * down + right - 7, down * right, right**2):
        assert np.max(np.abs(of.phase_imbalance(slope, 8))) < 1e-9


def smooth_maps_have_no_phase(of: ModuleType) -> None:
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    frequency[0, 0] = 1
    for power in (1, 2, 3):  # the spectra of natural images have 2
        noise = np.random.default_rng(power).standard_normal((100, 64, 64))
        maps = np.fft.ifft2(np.fft.fft2(noise) / frequency ** (power / 2)).real
        assert np.max(np.abs(of.phase_imbalance(maps, 8))) < 0.006


def an_edge_has_no_phase(of: ModuleType) -> None:
    # Wherever it is: a straight edge repeats itself along its length alone.
    steps = np.array([np.broadcast_to(np.arange(64) > place, (64, 64)) for place in range(20, 44)], float)
    for maps in (steps, steps.swapaxes(1, 2)):
        assert np.max(np.abs(of.phase_imbalance(maps, 8))) < 0.015


def a_point_has_the_area_of_one_pixel(of: ModuleType) -> None:
    point = np.zeros((9, 12))
    point[4, 3] = 5
    assert [of.erf_area(point, share, (4, 3)) for share in (0.2, 1.0)] == [1, 1]
    assert of.erf_area(point, 0.5, (4, 5)) == 5 * 5
    assert of.erf_area(point, 0.5, (3.5, 3.5)) == 2 * 2


def a_uniform_square_has_the_area_of_its_share(of: ModuleType) -> None:
    square = np.zeros((40, 40))
    square[9:30, 11:32] = 1  # 21 x 21
    found = [of.erf_area(square, share, (19, 21)) for share in (25 / 441, 26 / 441, 0.2, 0.5, 0.99, 1.0)]
    assert found == [5**2, 7**2, 11**2, 15**2, 21**2, 21**2]


def a_gaussian_has_the_area_of_its_quantiles(of: ModuleType) -> None:
    sigma = 12.0
    line = np.exp(-((np.arange(141) - 70) ** 2) / (2 * sigma**2))
    for share in (0.2, 0.3, 0.5, 0.99):
        # A square |x|, |y| < h holds erf(h / (sigma sqrt 2))^2.
        half = next(h for h in np.arange(0, 70, 0.01) if math.erf(h / (sigma * math.sqrt(2))) ** 2 >= share)
        side = math.sqrt(of.erf_area(np.outer(line, line), share, (70, 70)))
        assert 2 * half <= side < 2 * half + 2


def ones_have_the_erf_of_their_path_counts(of: ModuleType) -> None:
    graph, state = nnx.split(positive(network([2, 2]), 1.0))
    erf = of.effective_receptive_field(graph, state, normalise, photos(1, (13, 13)))
    np.testing.assert_allclose(erf, path_map([1, 2, 2], 13), rtol=1e-5)


class Identity(nnx.Module):
    """Features that are the input itself, or half of its pixels per axis."""

    def __init__(self, step: int = 1):
        self.scale, self.step = nnx.Param(jnp.ones(())), step

    def features(self, x: jax.Array) -> jax.Array:
        return self.scale[...] * x[:, :: self.step, :: self.step]


class Mixed(nnx.Module):
    """Two features, a pixel less its left neighbour and the opposite: every sum of gradients is zero."""

    def features(self, x: jax.Array) -> jax.Array:
        difference = x - jnp.roll(x, 1, axis=2)
        return jnp.concatenate([difference, -difference], axis=-1)


def a_gradient_counts_by_its_magnitude(of: ModuleType) -> None:
    graph, state = nnx.split(Mixed())
    erf = of.effective_receptive_field(graph, state, normalise, photos(1, (3, 5)))
    np.testing.assert_allclose(erf, [[0] * 5, [0, 2, 2, 0, 0], [0] * 5])


def what_the_input_has_is_not_the_networks(of: ModuleType) -> None:
    images = photos(2, (32, 32))
    images[:, ::4] //= 3
    graph, state = nnx.split(Identity())
    found = of.measure(graph, state, normalise, images)
    assert np.max(found.arrays["input_ripple"]) > 3
    assert np.max(found.arrays["input_phase_imbalance"]) > 0.1
    assert found.metrics["feature_ripple"] == pytest.approx(0, abs=1e-9)
    assert found.metrics["phase_imbalance"] == pytest.approx(0, abs=1e-9)


KNOWN: list[Callable[[ModuleType], None]] = [
    stripes_ripple_along_either_axis,
    white_noise_has_no_ripple,
    a_pattern_is_all_phase,
    stripes_are_all_phase_along_either_axis,
    a_pattern_whose_phase_changes_from_place_to_place_is_seen,
    half_pattern_and_half_noise_is_half_phase,
    white_noise_has_no_phase,
    slopes_have_no_phase,
    smooth_maps_have_no_phase,
    an_edge_has_no_phase,
    a_point_has_the_area_of_one_pixel,
    a_uniform_square_has_the_area_of_its_share,
    a_gaussian_has_the_area_of_its_quantiles,
    ones_have_the_erf_of_their_path_counts,
    a_gradient_counts_by_its_magnitude,
    what_the_input_has_is_not_the_networks,
]


@pytest.mark.parametrize("check", KNOWN, ids=lambda check: check.__name__)
def test_the_known_answers(check: Callable[[ModuleType], None]) -> None:
    check(gridding)


# What is broken: what of the source is replaced by what.
BROKEN: dict[str, dict[str, str]] = {
    "ripple of one axis alone": {"maps.swapaxes(axis, -1)": "maps"},
    "ripple at other frequencies": {"np.array([m / q for": "np.array([m / (q + 1) for"},
    "ripple of a shifted spectrum": {
        "np.outer(position, frequencies)": "np.outer(position, frequencies + 0.03)"
    },
    "ripple against other teeth": {"(-0.5, 0.5)": "(-1, 1)"},
    "ripple with one valley too low": {"(-0.5, 0.5)": "(-0.5, -0.5)", "].mean(axis=0)": "].min(axis=0) / 2"},
    "no trend removed": {"np.subtract(here, trend, out=trend)": "here.copy()"},
    "trend half a pixel off": {"[0.5, 0.5]": "[1.0, 0.0]"},
    "trend a pixel off": {"slice(start, start + n * side)": "slice(start - 1, start + n * side - 1)"},
    "trend of the rows alone": {
        "np.matmul(averages[1], trend)": "trend[:, starts[1] : starts[1] + counts[1] * side]"
    },
    "means of blocks kept": {"left -= left.mean(axis=tuple(range(2, left.ndim, 3)), keepdims=True)": "pass"},
    "chance not removed": {
        "(-1) ** summed.count(False) *": "all(summed) *",
        "(_WINDOW - 1) ** len(blocks)": "_WINDOW**len(blocks)",
    },
    "chance of one row not removed": {
        "(-1) ** summed.count(False) *": "{(True, True): 1, (True, False): -1}.get(summed, 0) *",
        "(_WINDOW - 1) ** len(blocks)": "_WINDOW * (_WINDOW - 1)",
    },
    "axes mixed up": {"zip(reversed(blocks), summed": "zip(blocks, summed"},
    "blocks in place of sub-grids": {"(n, _WINDOW, period) for n": "(n, period, _WINDOW) for n"},
    "one window as large as the map": {
        "side, edge = _WINDOW * period": "side, edge = (maps.shape[0] // period - 1) * period"
    },
    "a period too long": {"range(2, longest + 1)": "range(3, longest + 2)"},
    "a disc in place of a square": {"np.maximum.outer": "np.hypot.outer"},
    "a square too small": {"np.argmax(held >=": "np.argmax(held[1:] >="},
    "another share": {"held >= share * total": "held >= share**2 * total"},
    "another centre": {"np.arange(side) - middle": "np.arange(side) - side // 2"},
    "centre's axes swapped": {"zip(erf.shape, centre,": "zip(erf.shape, centre[::-1],"},
    "gradient of another feature": {"(side // 2 - start for": "(side // 2 - 1 - start for"},
    "gradients with their sign": {"jnp.abs(gradients)": "gradients"},
    "magnitude of the sum": {
        "jnp.sum(jnp.abs(gradients), axis=(0, 1, gradients.ndim - 1))": "jnp.abs(gradients.sum((0, 1, 4)))"
    },
    "the input's phases kept": {"phases[:shared] - input_phases[:shared]": "phases[:shared]"},
    "the input's ripple kept": {" - of_input.decibels[:shared]": ""},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_measure_fails_a_known_answer(broken: str, tmp_path: Path) -> None:
    source = Path(gridding.__file__).read_text()
    for old, new in BROKEN[broken].items():
        assert source.count(old) == 1, f"the source no longer has one {old!r}"
        source = source.replace(old, new)
    path = tmp_path / "broken.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("broken", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def fails(check: Callable[[ModuleType], None]) -> bool:
        try:
            check(module)
        except (AssertionError, ValueError, IndexError):
            return True
        return False

    assert any(map(fails, KNOWN))


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
    imbalance = found.arrays["feature_phase_imbalance"] - found.arrays["input_phase_imbalance"]
    assert found.metrics["phase_imbalance"] == np.max(imbalance)
    assert found.metrics["phase_imbalance_period"] == 2 + np.argmax(imbalance)
    for share in (20, 30, 50, 99):
        area = reference.erf_area(found.arrays["erf"], share / 100, (12, 12))
        assert found.metrics[f"erf_area_{share}"] == area
        assert found.metrics[f"erf_fill_{share}"] == area / 11**2


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
        phases = found.arrays[name.replace("ripple", "phase_imbalance")]
        np.testing.assert_allclose(phases, list(reference.phase_imbalance(maps, 3).values()), atol=1e-6)


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
    assert np.max(found.arrays["input_phase_imbalance"]) > 0.1
    assert found.metrics["feature_ripple"] == pytest.approx(0, abs=1e-3)
    assert found.metrics["phase_imbalance"] == pytest.approx(0, abs=1e-5)


def test_features_resolve_fewer_periods_than_a_larger_input() -> None:
    graph, state = nnx.split(Identity(2))
    found = measure(graph, state, normalise, photos(2, (32, 32)))
    assert found.arrays["feature_frequencies"].tolist() == [1 / 2, 1 / 3, 1 / 4]
    excess = found.arrays["feature_ripple"] - found.arrays["input_ripple"]
    assert found.metrics["feature_ripple"] == np.max(excess)
    assert len(found.arrays["feature_phase_imbalance"]) == 3


def test_the_fill_is_of_the_field_within_the_image() -> None:
    graph, state = nnx.split(positive(network([2, 2]), 1.0))
    for size in ((11, 11), (8, 15), (1, 40)):  # the field is 11 x 11
        found = measure(graph, state, normalise, photos(1, size))
        rows, columns = (min(11, side) for side in size)
        for share in (20, 99):
            centre = size[0] // 2, size[1] // 2
            area = reference.erf_area(found.arrays["erf"], share / 100, centre)
            assert found.metrics[f"erf_fill_{share}"] == area / (rows * columns)


@pytest.mark.parametrize(("padding", "centre"), [("SAME", 13.5), ("VALID", 12.5)])
def test_a_classifier_is_measured_around_the_middle_of_its_field(padding: str, centre: float) -> None:
    def make() -> nnx.Module:
        shape = (28, 28, 1)
        rngs = nnx.Rngs(0)
        schedule = DilationSchedule([1, 1])
        return Lei2019(schedule, image_shape=shape, classes=3, width=2, padding=padding, hidden=4, rngs=rngs)

    model = nnx.view(reference.filled(make, positive=True), deterministic=True)
    graph, state = nnx.split(model)
    found = measure(graph, state, normalise, photos(3, (28, 28)))
    field = np.pad(np.ones((10, 10)), ((int(centre - 4.5), 28 - int(centre + 5.5)),) * 2)
    assert np.all(found.arrays["erf"][field == 0] == 0)
    for share in (20, 99):
        area = reference.erf_area(found.arrays["erf"], share / 100, (centre, centre))
        assert found.metrics[f"erf_area_{share}"] == area
        assert found.metrics[f"erf_fill_{share}"] == area / 100
    assert np.isfinite(found.metrics["erf_ripple"])
    # Features of 7 x 7 or 5 x 5 are too few for a period of 2.
    for name in ("feature_ripple", "phase_imbalance", "phase_imbalance_period"):
        assert math.isnan(found.metrics[name])


def test_a_network_without_padding_has_its_field_in_the_middle() -> None:
    def make() -> nnx.Module:
        options = {"in_channels": 1, "classes": 2, "task": "dense", "width": 2, "padding": "VALID"}
        return ContextNetwork(DilationSchedule([1, 2]), **options, rngs=nnx.Rngs(0))

    graph, state = nnx.split(reference.filled(make, positive=True))
    found = measure(graph, state, normalise, photos(2, (25, 31)))
    assert found.metrics["erf_fill_99"] <= 1
    area = reference.erf_area(found.arrays["erf"], 0.5, (12, 15))
    assert found.metrics["erf_area_50"] == area
    assert found.metrics["erf_fill_50"] == area / 9**2
    features, inputs = (found.arrays[f"{name}_phase_imbalance"] for name in ("feature", "input"))
    assert (len(features), len(inputs)) == (3, 5)  # features are 17 x 23
    assert found.metrics["phase_imbalance"] == np.max(features - inputs[:3])


class Wandering(Identity):
    """Features whose field differs from image to image."""

    def features(self, x: jax.Array) -> jax.Array:
        return jnp.roll(x, jnp.argmax(x[0, :, 0, 0]), axis=1)


def test_a_field_that_is_not_known_is_not_filled() -> None:
    graph, state = nnx.split(Wandering())
    found = measure(graph, state, normalise, photos(2, (12, 12)))
    assert found.metrics["erf_area_99"] > 0
    assert math.isnan(found.metrics["erf_fill_99"])


class Blind(Identity):
    """Features that are all zero."""

    def features(self, x: jax.Array) -> jax.Array:
        return 0 * x


def test_what_is_not_defined_is_not_a_number() -> None:
    graph, state = nnx.split(Blind())
    found = measure(graph, state, normalise, photos(2, (16, 16)))
    assert all(math.isnan(value) for value in found.metrics.values())


NUMBERS = ("erf_ripple", "feature_ripple", "phase_imbalance")


def _numbers(rates: list[int], seeds: range, positive: bool) -> np.ndarray:
    """The gridding numbers of new networks on white noise, `[seeds, 3]`."""
    images = photos(8, (48, 48))

    def of(seed: int) -> list[float]:
        model = reference.filled(lambda: network(rates, width=8), seed, positive=positive)
        found = measure(*nnx.split(model), normalise if positive else centred, images, 4)
        return [found.metrics[name] for name in NUMBERS]

    return np.array([of(seed) for seed in seeds])


def centred(x: jax.Array) -> jax.Array:
    return 2 * normalise(x) - 1


def test_the_null_of_smoothing_networks_is_near_zero_and_of_dilated_ones_is_not() -> None:
    # All weights positive, drawn at random: every sub-grid is smooth by itself.
    plain, dilated = (_numbers([rate] * 6, range(4), positive=True) for rate in (1, 2))
    assert np.all(plain.max(axis=0) < [2, 0, 0.005])
    assert np.all(dilated.min(axis=0) > [15, 30, 0.05])


def test_the_null_of_new_networks_is_near_zero_and_of_dilated_ones_is_not() -> None:
    # Random signs blur the picture from seed to seed; their mean does not.
    plain, dilated = (_numbers([rate] * 6, range(8), positive=False).mean(axis=0) for rate in (1, 2))
    assert np.all(plain < [2, 1, 0.02])
    assert np.all(dilated > [10, 1.5, 0.03])
    assert np.all(dilated > 2 * plain)


class Strided(nnx.Module):
    """Two branches behind a convolution of stride 2; it has no `features`."""

    def __init__(self, rates: tuple[int, int], rngs: nnx.Rngs):
        self.first = Conv(1, 8, 3, strides=2, rngs=rngs)
        self.branches = nnx.List([Conv(8, 8, 3, rate=rate, rngs=rngs) for rate in rates])

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.first(x))
        return sum((branch(x) for branch in self.branches), start=jnp.zeros(()))


def test_a_ripple_is_expected_of_a_network_of_any_build_before_it_is_trained() -> None:
    model = network([2, 2], width=4)
    before = jax.tree.map(np.asarray, nnx.state(model))
    comb = expected_ripple(model, (24, 24, 1), draws=1)
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(nnx.state(model)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert comb.frequency == 0.5
    # With the batch first, as `analyse` takes it, it is the same.
    np.testing.assert_array_equal(expected_ripple(model, (1, 24, 24, 1), draws=1).decibels, comb.decibels)
    assert expected_ripple(model, (24, 24, 1), draws=1, seed=1).peak != comb.peak
    # Three taps at stride 2 overlap in every second pixel.
    assert expected_ripple(Strided((1, 3), nnx.Rngs(0)), (24, 24, 1), draws=1).frequency == 0.5


def test_shuffling_keeps_the_values_of_kernels_and_the_order_of_vectors() -> None:
    kernel = jnp.arange(90.0).reshape(3, 3, 2, 5)
    shuffled = gridding._shuffled(kernel, np.random.default_rng(0))
    assert shuffled.shape == kernel.shape
    assert (shuffled != kernel).any()
    np.testing.assert_array_equal(np.sort(shuffled, axis=None), np.ravel(kernel))
    np.testing.assert_array_equal(
        gridding._shuffled(kernel[0, 0, 0], np.random.default_rng(0)), kernel[0, 0, 0]
    )


@pytest.mark.parametrize("shape", [(32,), (32, 0, 1), (1, 1, 32, 32, 1)])
def test_a_shape_that_is_not_an_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"input_shape must be \(height, width, channels\), got"):
        expected_ripple(network([1]), shape)


def test_the_shape_of_a_signal_is_refused_by_a_network_for_images() -> None:
    with pytest.raises(InputError, match=r"conv2d takes x \[batch, height, width, channels\]"):
        expected_ripple(network([1]), (32, 32))


def test_phase_imbalance_in_parts_is_that_of_all_maps(monkeypatch) -> None:
    maps = np.random.default_rng(0).standard_normal((5, 40, 32)).cumsum(axis=-1)
    whole = gridding.phase_imbalance(maps)
    monkeypatch.setattr(gridding, "_AT_ONCE", 2)
    np.testing.assert_allclose(gridding.phase_imbalance(maps), whole, rtol=1e-12)
