"""Gridding measured in a trained network: the effective receptive field and its ripple, and the
ripple of the last feature maps. Ripples are in dB; above 0 a period stands out of its surroundings.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from hdc.errors import InputError
from hdc.receptive import analyse

# The power is kept within this of the spectrum's maximum, well above float32 noise, so that the
# ratio of two powers that are both zero is 0 dB and not a number made of rounding errors.
_FLOOR = 1e-10

_ERF_BATCH = 4  # images a call; each is as many backward passes as the features have channels


@dataclass(frozen=True)
class Ripple:
    """The contrast of each frequency against its surroundings.

    Attributes:
        frequencies: `[f]` cycles per pixel, every m/q with 2 <= q <= the largest period and
            gcd(m, q) = 1, up to 1/2.
        decibels: `[f]`.
    """

    frequencies: np.ndarray
    decibels: np.ndarray

    @property
    def peak(self) -> float:
        """The strongest contrast in dB; NaN where the map is too small for any period, or empty."""
        return float(np.max(self.decibels)) if len(self.decibels) else math.nan

    @property
    def frequency(self) -> float:
        """Where it is, in cycles per pixel; NaN where there is none."""
        return float(self.frequencies[np.argmax(self.decibels)]) if len(self.decibels) else math.nan


def ripple(maps: np.ndarray, max_period: int = 8) -> Ripple:
    """The periodic ripple of maps, along both axes.

    The power P(f) of a map is that of its lines' discrete-time Fourier transform (mean removed,
    Hann window), averaged over lines, maps and the two axes. The contrast of f = m/q is
    10 log10(P(m/q) / mean(P((m - 1/2)/q), P((m + 1/2)/q))): a comb with period q has its teeth
    at m/q and its valleys half-way between.

    Args:
        maps: `[..., height, width]`.
        max_period: the longest period, in pixels; cut to a quarter of the shorter side, below
            which the window cannot tell a tooth from a valley.
    """
    period = min(max_period, min(maps.shape[-2:]) // 4)
    pairs = [(m, q) for q in range(2, period + 1) for m in range(1, q // 2 + 1) if math.gcd(m, q) == 1]
    teeth = np.array([m / q for m, q in pairs])
    sides = [np.array([(m + half) / q for m, q in pairs]) for half in (-0.5, 0.5)]
    powers = _power(maps, np.concatenate([teeth, *sides])).reshape(3, -1)
    top = powers.max(initial=0.0)
    if not top > 0:
        return Ripple(teeth, np.full(len(teeth), np.nan))
    powers = powers + _FLOOR * top
    return Ripple(teeth, 10 * np.log10(powers[0] / powers[1:].mean(axis=0)))


def _power(maps: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Mean power at `frequencies`, `[f]`, over the lines along both axes."""
    maps = maps.astype(np.float64)
    maps = maps - maps.mean(axis=(-2, -1), keepdims=True)
    total = np.zeros(len(frequencies))
    for lines in (maps, maps.swapaxes(-2, -1)):
        size = lines.shape[-1]
        position = np.arange(size)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * (position + 0.5) / size)
        waves = window[:, None] * np.exp(-2j * np.pi * np.outer(position, frequencies))
        total += np.mean(np.abs(lines @ waves) ** 2, axis=tuple(range(lines.ndim - 1)))
    return total / 2


@partial(jax.jit, static_argnums=(0, 2))
def _erf_sum(
    graph: nnx.GraphDef, state: nnx.State, normalise: Callable[[Array], Array], images: Array
) -> Array:
    model = nnx.merge(graph, state)

    def centre(x: Array) -> Array:
        maps = model.features(x)
        return maps[:, maps.shape[1] // 2, maps.shape[2] // 2]

    outputs, pullback = jax.vjp(centre, normalise(images))
    channels = outputs.shape[1]
    one_hot = jnp.broadcast_to(jnp.eye(channels)[:, None], (channels, *outputs.shape))
    (gradients,) = jax.vmap(pullback)(one_hot)
    return jnp.sum(jnp.abs(gradients), axis=(0, 1, 4))


def effective_receptive_field(
    graph: nnx.GraphDef, state: nnx.State, normalise: Callable[[Array], Array], images: np.ndarray
) -> np.ndarray:
    """Mean |d y_centre / d x| (Luo et al. 2016), y the last feature maps at their centre.

    Args:
        graph, state: a model in evaluation, with `features`.
        normalise: uint8 images to the network's input.
        images: `[n, height, width, channels]` uint8.

    Returns:
        `[height, width]`, summed over input and feature channels, averaged over images.
    """
    total = np.zeros(images.shape[1:3])
    for start in range(0, len(images), _ERF_BATCH):
        total += np.asarray(_erf_sum(graph, state, normalise, images[start : start + _ERF_BATCH]))
    return total / len(images)


@partial(jax.jit, static_argnums=(0, 2))
def _features(
    graph: nnx.GraphDef, state: nnx.State, normalise: Callable[[Array], Array], images: Array
) -> Array:
    return nnx.merge(graph, state).features(normalise(images))


class _Features(nnx.Module):
    """A model that returns its features, for `analyse`."""

    def __init__(self, model: nnx.Module):
        self.model = model

    def __call__(self, x: Array) -> Array:
        return self.model.features(x)  # type: ignore[attr-defined]


def _feature_stride(model: nnx.Module, shape: tuple[int, ...], maps: tuple[int, ...]) -> tuple[int, int]:
    """Image pixels from one feature to the next, per axis; 1 where features are closer than pixels."""
    try:
        strides = analyse(_Features(model), shape).output_stride
    except InputError:  # such as a model that looks elsewhere in every image
        strides = None
    if strides is None:
        strides = (shape[1] // maps[1], shape[2] // maps[2])
    return max(1, int(strides[0])), max(1, int(strides[1]))


def _averaged(images: np.ndarray, by: tuple[int, int]) -> np.ndarray:
    """Means over `by` pixels, what does not fill one left out: `[n, h, w, c]` to `[n, h', w', c]`."""
    n, height, width, channels = images.shape
    rows, columns = height // by[0], width // by[1]
    cut = images[:, : rows * by[0], : columns * by[1]]
    return cut.reshape(n, rows, by[0], columns, by[1], channels).mean(axis=(2, 4))


@dataclass(frozen=True)
class Measured:
    """Gridding numbers by name, and the arrays behind them."""

    metrics: Mapping[str, float]
    arrays: Mapping[str, np.ndarray]


def measure(
    graph: nnx.GraphDef,
    state: nnx.State,
    normalise: Callable[[Array], Array],
    images: np.ndarray,
    max_period: int = 8,
) -> Measured:
    """Gridding of a trained model, on held-out images `[n, height, width, channels]` uint8.

    Metrics: `erf_ripple` and `erf_ripple_frequency`, the ripple of the effective receptive
    field; `feature_ripple` and `feature_ripple_frequency`, the ripple of the last feature maps
    minus that of the input, frequency by frequency. dB, and cycles per pixel: of the image for the
    field, of the feature maps for these, to whose output stride the input is averaged.
    """
    erf = effective_receptive_field(graph, state, normalise, images)
    of_erf = ripple(erf, max_period)
    maps = np.asarray(_features(graph, state, normalise, images))
    of_maps = ripple(np.moveaxis(maps, -1, 1), max_period)
    stride = _feature_stride(nnx.merge(graph, state), (1, *images.shape[1:]), maps.shape)
    inputs = _averaged(np.asarray(normalise(jnp.asarray(images))), stride)
    of_input = ripple(np.moveaxis(inputs, -1, 1), max_period)
    # Without padding the features are fewer than the averaged pixels, and resolve fewer periods.
    shared = min(len(of_maps.frequencies), len(of_input.frequencies))
    excess = Ripple(of_maps.frequencies[:shared], of_maps.decibels[:shared] - of_input.decibels[:shared])
    metrics = {
        "erf_ripple": of_erf.peak,
        "erf_ripple_frequency": of_erf.frequency,
        "feature_ripple": excess.peak,
        "feature_ripple_frequency": excess.frequency,
    }
    arrays = {
        "erf": erf,
        "frequencies": of_erf.frequencies,
        "erf_ripple": of_erf.decibels,
        "feature_frequencies": of_maps.frequencies,
        "feature_ripple": of_maps.decibels,
        "input_ripple": of_input.decibels,
    }
    return Measured(metrics, arrays)
