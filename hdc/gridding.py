"""Measures gridding in a trained network: in its effective receptive field (ERF) and its last feature maps.

Ripples are in dB: above 0, a period stands out from its surroundings. Phase imbalance is a share of variance.

All of it is measured in images, of two axes, and in signals, of one: their steps are called pixels here.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from hdc import equations
from hdc.errors import InputError
from hdc.layers import evaluation
from hdc.receptive import Analysis, analyse

SHARES = (20, 30, 50, 99)  # of the ERF's mass, %

# Added to powers and variances, relative to the largest and well above float32 noise, so that the ratio of
# two zeros is 0 dB and not a quotient of rounding errors.
_FLOOR = 1e-10

_WINDOW = 3  # periods per axis over which phases are averaged: the smallest map has as many

_NOISE = 32  # images of an expected ripple: as many as are worth the 64 alike ones of a measurement
_ERF_BATCH = 4  # images per call; each takes one backward pass per feature channel
_ENTRIES = 2**24  # of the gradients that are computed at a time
_AT_ONCE = 256  # maps of which phases are averaged: those of 64 x 64 pixels stay in the caches


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
        """The strongest contrast in dB; NaN if the map is zero or too small for any period."""
        return float(np.max(self.decibels)) if len(self.decibels) else math.nan

    @property
    def frequency(self) -> float:
        """The frequency of the peak in cycles per pixel; NaN without a peak."""
        return math.nan if math.isnan(self.peak) else float(self.frequencies[np.argmax(self.decibels)])


def _longest(sides: Sequence[int], max_period: int) -> int:
    """The longest period that is measured: at most a quarter of the shorter side."""
    return min(max_period, min(sides) // 4)


def ripple(maps: np.ndarray, max_period: int = 8, axes: int = 2) -> Ripple:
    """The periodic ripple of maps, along their axes.

    The power P(f) of a map is that of its lines' discrete-time Fourier transform (mean removed,
    Hann window), averaged over lines, maps and axes. The contrast of f = m/q is
    10 log10(P(m/q) / mean(P((m - 1/2)/q), P((m + 1/2)/q))): a comb with period q has its teeth
    at m/q and its valleys half-way between.

    >>> stripes = np.tile([0.0, 1.0], (32, 16))
    >>> found = ripple(stripes)
    >>> found.frequency, found.peak > 50
    (0.5, True)

    Args:
        maps: `[..., height, width]`, or with one axis `[..., length]`.
        max_period: the longest period in pixels, limited to a quarter of the shorter side: with fewer
            periods, the window cannot tell a tooth from a valley.
        axes: 2 for maps, 1 for signals.
    """
    periods = range(2, _longest(maps.shape[-axes:], max_period) + 1)
    pairs = [(m, q) for q in periods for m in range(1, q // 2 + 1) if math.gcd(m, q) == 1]
    if not pairs:
        return Ripple(np.empty(0), np.empty(0))
    teeth = np.array([m / q for m, q in pairs])
    sides = [np.array([(m + half) / q for m, q in pairs]) for half in (-0.5, 0.5)]
    powers = _power(maps, np.concatenate([teeth, *sides]), axes).reshape(3, -1)
    top = powers.max(initial=0.0)
    if not top > 0:
        return Ripple(teeth, np.full(len(teeth), np.nan))
    powers = powers + _FLOOR * top
    return Ripple(teeth, 10 * np.log10(powers[0] / powers[1:].mean(axis=0)))


def _power(maps: np.ndarray, frequencies: np.ndarray, axes: int) -> np.ndarray:
    """Mean power at `frequencies`, `[f]`, over the lines along the last `axes` axes."""
    maps = maps.astype(np.float64)
    maps -= maps.mean(axis=tuple(range(-axes, 0)), keepdims=True)
    total = np.zeros(len(frequencies))
    for axis in range(-1, -axes - 1, -1):
        lines = maps.swapaxes(axis, -1)
        size = lines.shape[-1]
        position = np.arange(size)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * (position + 0.5) / size)
        angles = 2 * np.pi * np.outer(position, frequencies)
        # Real products: with complex waves, NumPy would make the lines complex as well.
        waves = window[:, None] * np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
        parts = (lines @ waves).reshape(-1, 2, len(frequencies))
        total += np.einsum("lpf,lpf->f", parts, parts) / len(parts)
    return total / axes


def phase_imbalance(maps: np.ndarray, max_period: int = 8, axes: int = 2) -> np.ndarray:
    """How much of the maps' local variance is explained by a pixel's position (phase) within an r x r cell.

    The maps are divided into windows of 3r x 3r pixels, in which each phase has 3 x 3 values. The moving
    average of the r x r pixels around each pixel is subtracted (for even r of r + 1 pixels, the outer two
    weighted by half), the trend of the classical seasonal decomposition (Macaulay 1931), and slopes with it.
    Then the mean of each r x r block is subtracted. With d_p(i, j) the rest at phase p in block i, j:

        sum over windows and p of mean(d_p(i, j) d_p(k, l): i != k, j != l)
            / sum over windows and p of mean((x_p(i, j) - window's mean)^2)

    The mean product is an unbiased estimate of the variance of the phases' local means: the square of a mean
    of nine values would include a ninth of white noise (compare the intraclass correlation, Fisher 1925), and
    blocks in the same row or column share an edge. The result is 1 for a pattern of period r, whose phase may
    change from window to window; 0 for slopes and for white noise (within 0.003 over a thousand maps of
    64 x 64, 0.05 for a single map); below 0 if neighbouring periods have opposite signs.

    A signal has windows of 3r steps and blocks of r, which share edges. White noise would therefore give
    more than 0: a share c of the mean d_p(i)^2 that is known exactly (0.2 for r = 2, 0.011 for r = 8). This
    part is subtracted from the mean product, and the result is divided by 1 - c: a pattern still gives 1.

    >>> stripes = np.tile([0.0, 1.0], (32, 16))
    >>> phase_imbalance(stripes, max_period=2).round(3).tolist()
    [1.0]

    Args:
        maps: `[..., height, width]`, or with one axis `[..., length]`.
        max_period: the largest r, limited as in `ripple`.
        axes: 2 for maps, 1 for signals.

    Returns:
        `[p]`, for r = 2, 3, ...; NaN if every map is constant.
    """
    sides = maps.shape[-axes:]
    longest = _longest(sides, max_period)
    if longest < 2:
        return np.empty(0)
    maps = maps.reshape(-1, *sides)
    if not np.any(np.ptp(maps, axis=tuple(range(1, axes + 1))) > 0):
        return np.full(longest - 1, math.nan)
    periods, spatial = range(2, longest + 1), tuple(range(axes))
    inside = tuple(at for axis in spatial for at in (3 * axis + 1, 3 * axis + 2))
    power, sums = 0.0, np.zeros((longest - 1, 3))
    for start in range(0, len(maps), _AT_ONCE):
        # With the maps last, sums over pixels are sums of long rows.
        some = np.moveaxis(maps[start : start + _AT_ONCE], 0, -1).astype(np.float64, order="C")
        some -= some.mean(axis=spatial)
        power += _squares(some)
        for at, period in enumerate(periods):
            x, left = _in_windows(some, period, axes)
            chance = _chance(period) if axes == 1 else 0.0
            between = (_between(left) - chance * _squares(left)) / (1 - chance)
            sums[at] += between, _squares(x - x.mean(axis=inside, keepdims=True)), x.size
    between, variance, cells = sums.T
    return between / (variance + _FLOOR * power / maps.size * cells)


def _in_windows(maps: np.ndarray, period: int, axes: int) -> tuple[np.ndarray, np.ndarray]:
    """The centre of maps `[h, w, n]` in whole windows, `[rows, 3, period, columns, 3, period, n]`, and the
    same minus its moving average and then minus the mean of each block; of signals `[length, n]`,
    `[count, 3, period, n]`."""
    side, edge = _WINDOW * period, period // 2
    counts = [(length - 2 * edge) // side for length in maps.shape[:axes]]
    starts = [(length - n * side) // 2 for length, n in zip(maps.shape, counts, strict=False)]
    here = maps[tuple(slice(start, start + n * side) for start, n in zip(starts, counts, strict=True))]
    # The rows of the matrices that average around these pixels alone.
    averages = [
        _moving_average(length, period)[start - edge :][: n * side]
        for length, start, n in zip(maps.shape, starts, counts, strict=False)
    ]
    trend = np.tensordot(averages[0], maps, axes=1)
    if axes == 2:
        trend = np.matmul(averages[1], trend)
    cells = (*itertools.chain.from_iterable((n, _WINDOW, period) for n in counts), -1)
    left = np.subtract(here, trend, out=trend).reshape(cells)
    left -= left.mean(axis=tuple(range(2, left.ndim, 3)), keepdims=True)
    return here.reshape(cells), left


def _between(left: np.ndarray) -> float:
    """The sum over pixels of a pixel's mean product with those of its phase in blocks of the same window but
    another row and column, see `phase_imbalance`."""
    # All pairs but those in one row or one column; the squares, subtracted twice, are added back.
    pairs, blocks = 0.0, range(1, left.ndim - 1, 3)
    for summed in itertools.product((True, False), repeat=len(blocks)):
        one = left
        for axis, sum_it in zip(reversed(blocks), summed, strict=True):
            one = one.sum(axis=axis) if sum_it else one
        pairs += (-1) ** summed.count(False) * _squares(one)
    return pairs / (_WINDOW - 1) ** len(blocks)


@cache
def _chance(period: int) -> float:
    """What `_between` is of white noise in a signal, as a share of the mean square."""
    # The response to a unit impulse at each step: these add up to that to white noise.
    _, left = _in_windows(np.eye(_WINDOW * period + 2 * (period // 2)), period, 1)
    return _between(left) / _squares(left)


def _squares(values: np.ndarray) -> float:
    return float(np.vdot(values, values))


def _moving_average(size: int, period: int) -> np.ndarray:
    """The matrix that averages a period around each of `size` values, except those too near an end."""
    taps = np.full(period, 1 / period)
    if period % 2 == 0:
        taps = np.convolve(taps, [0.5, 0.5])
    width = size - len(taps) + 1
    return np.sum([tap * np.eye(width, size, shift) for shift, tap in enumerate(taps)], axis=0)


def erf_area(erf: np.ndarray, share: float, centre: Sequence[float]) -> float:
    """Area of the smallest centred square that holds a share of an ERF's mass (Ding et al. 2022, RepLKNet).

    Of a signal, it is the length of the smallest centred interval.

    >>> erf_area(np.ones((9, 9)), 0.3, centre=(4, 4))
    25.0

    Args:
        erf: `[height, width]` or `[length]`, not negative.
        share: of the sum of `erf`, above 0 and at most 1.
        centre: row and column of the square's centre, on a pixel (odd sides) or between two (even sides).

    Returns:
        The area within the map in pixels^2, of a signal in steps; NaN if `erf` is zero or not finite.
    """
    total = erf.sum()
    if not 0 < total < math.inf:
        return math.nan
    away = [np.abs(np.arange(side) - middle) for side, middle in zip(erf.shape, centre, strict=True)]
    _, ring = np.unique(reduce(np.maximum.outer, away), return_inverse=True)
    held = np.cumsum(np.bincount(ring.ravel(), weights=erf.ravel()))
    # The sum may miss the share by rounding.
    return float(np.cumsum(np.bincount(ring.ravel()))[np.argmax(held >= share * total * (1 - 1e-12))])


# Rows and columns of an image, `(start, stop)` per axis.
_Window = tuple[tuple[int, int], ...]


@partial(jax.jit, static_argnums=(0, 2, 4))
def _erf_sum(
    graph: nnx.GraphDef,
    state: nnx.State,
    normalise: Callable[[Array], Array],
    images: Array,
    window: _Window,
) -> Array:
    model = nnx.merge(graph, state)
    sides = images.shape[1:-1]

    def centre(x: Array) -> Array:
        maps = getattr(model, "features", model)(x)
        # Of a part, the maps have its size, and the centre is that of the whole.
        whole = maps.shape[1:-1] if x.shape[1:-1] == sides else sides
        return maps[:, *(side // 2 - start for side, (start, _) in zip(whole, window, strict=True))]

    part = normalise(images)[:, *(slice(*ends) for ends in window)]
    # Back in their places first, so that sums are in the order of the whole.
    around = [(start, side - stop) for side, (start, stop) in zip(sides, window, strict=True)]
    return gradient_sum(centre, part, around)


def gradient_sum(
    outputs: Callable[[Array], Array], images: Array, around: Sequence[tuple[int, int]] = ()
) -> Array:
    """Sum of |d outputs / d images| over the images and the channels of both, `[space...]`; to be traced.

    Args:
        outputs: of images `[n, space..., channels]`, the channels of one feature each, `[n, features]`.
        images: float32.
        around: pixels of zeros to add, before and after, per axis.
    """
    around = around or [(0, 0)] * (images.ndim - 2)
    values, pullback = jax.vjp(outputs, images)
    features = values.shape[1]
    step = min(features, max(1, _ENTRIES // math.prod((16, *images.shape[:-1]))))
    # One at a time, gradients stay in the caches: half the time. XLA's own convolutions are slow in loops.
    names = equations.primitives(jax.make_jaxpr(outputs)(images).jaxpr)
    if "ffi_call" in names and "conv_general_dilated" not in names:
        step = 1

    def add(total: Array, some: Array) -> tuple[Array, None]:
        one_hot = jax.nn.one_hot(some, features, dtype=values.dtype)  # nothing beyond the last feature
        (gradients,) = jax.vmap(pullback)(jnp.broadcast_to(one_hot[:, None], (step, *values.shape)))
        if any(map(any, around)):  # without fusion, so that sums are in the same order
            gradients = lax.optimization_barrier(jnp.pad(gradients, [(0, 0), (0, 0), *around, (0, 0)]))
        return total + jnp.sum(jnp.abs(gradients), axis=(0, 1, gradients.ndim - 1)), None

    turns = jnp.arange(-(-features // step) * step).reshape(-1, step)
    sides = [side + sum(more) for side, more in zip(images.shape[1:-1], around, strict=True)]
    if len(turns) == 1:  # no loop, for XLA's own
        return add(jnp.zeros(sides), turns[0])[0]
    return lax.scan(add, jnp.zeros(sides), turns)[0]


_found_windows: dict[tuple, _Window] = {}


def _window(
    graph: nnx.GraphDef, state: nnx.State, normalise: Callable[[Array], Array], images: np.ndarray
) -> _Window:
    """The part of an image that has to be computed for the gradient of the centre, found once per network.

    It is the box of the theoretical receptive field, if the network has no strides and no summaries of the
    whole map, and if the first images show the same bits as with the whole image.
    """
    key = (graph, normalise, images.shape[1:])
    if key not in _found_windows:
        sides = images.shape[1:-1]
        whole = part = tuple((0, side) for side in sides)
        seen = _seen(nnx.merge(graph, state), (1, *images.shape[1:]))
        if (
            seen is not None
            and not seen.couplings
            and seen.output_shape[1:-1] == sides
            and all(set(layer.strides) == {1} for layer in seen.layers)
        ):
            boxes = zip(seen.paths.origin, seen.paths.size, sides, strict=True)
            part = tuple((max(0, first), min(side, first + size)) for first, size, side in boxes)
        if part != whole:
            full, narrow = (_erf_sum(graph, state, normalise, images, one) for one in (whole, part))
            part = part if np.array_equal(full, narrow) else whole
        _found_windows[key] = part
    return _found_windows[key]


def effective_receptive_field(
    graph: nnx.GraphDef, state: nnx.State, normalise: Callable[[Array], Array], images: np.ndarray
) -> np.ndarray:
    """Mean |d y_centre / d x| (Luo et al. 2016), where y_centre is the centre of the last feature maps.

    Args:
        graph, state: a model in evaluation mode that has `features`.
        normalise: turns images into the network's input.
        images: `[n, height, width, channels]`, or signals `[n, length, channels]`.

    Returns:
        `[height, width]` or `[length]`, summed over input and feature channels, averaged over images.
    """
    total = np.zeros(images.shape[1:-1])
    window = _window(graph, state, normalise, images[:_ERF_BATCH])
    for start in range(0, len(images), _ERF_BATCH):
        total += np.asarray(_erf_sum(graph, state, normalise, images[start : start + _ERF_BATCH], window))
    return total / len(images)


def expected_ripple(
    model: nnx.Module, input_shape: Sequence[int], *, max_period: int = 8, draws: int = 4, seed: int = 0
) -> Ripple:
    """The ripple to be expected of a network of any build once it is trained: a prediction by simulation.

    The effective receptive field is that of networks with the model's kernels shuffled, each among its own
    values, on `_NOISE` images of 1/f noise: training changes the ripple little (see `hdc.ripple`, which
    predicts a plain stack without a network). So it takes in branches, strides, residual layers, widths and
    norms as they are.

    >>> from hdc import DilationSchedule
    >>> from hdc.networks import ContextNetwork
    >>> network = ContextNetwork(
    ...     DilationSchedule([2, 2, 2]), in_channels=3, classes=2, task="dense", rngs=nnx.Rngs(0)
    ... )
    >>> found = expected_ripple(network, (32, 32, 3))
    >>> found.frequency, found.peak > 10
    (0.5, True)

    Args:
        model: takes `[batch, height, width, channels]` or signals `[batch, length, channels]`, normalised.
            Its last maps are `model.features(x)`, or `model(x)` without that method. It is not changed.
        input_shape: height, width and channels, with or without the batch before them; of signals length and
            channels.
        max_period: the longest period in pixels, limited as in `ripple`.
        draws: networks.
        seed: of the kernels and the images.

    Returns:
        Contrasts of the networks' mean powers.

    Raises:
        InputError: if `input_shape` is not of two to four positive numbers, or the output is no map.
    """
    if len(input_shape) not in (2, 3, 4) or min(input_shape) < 1:
        raise InputError(
            f"input_shape must be (height, width, channels), got {tuple(input_shape)}; of signals it is "
            "(length, channels)"
        )
    input_shape = input_shape[-3:]  # without the batch: the images are its own
    generator = np.random.default_rng(seed)
    images = _one_over_f((_NOISE, *input_shape), generator)
    graph, kernels, rest = nnx.split(evaluation(_Features(model)), nnx.Param, ...)
    maps = jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x), nnx.merge_state(kernels, rest), images)
    if len(maps.shape) != images.ndim:
        raise InputError(
            f"{type(model).__name__} returns {maps.shape}, which is no map, and has no method features: "
            "a ripple is expected of feature maps"
        )
    fields = []
    for _ in range(draws):
        shuffled = jax.tree.map(lambda kernel: _shuffled(kernel, generator), kernels)
        field = effective_receptive_field(graph, nnx.merge_state(shuffled, rest), _as_it_is, images)
        fields.append(field / max(field.sum(), np.finfo(float).tiny))
    return ripple(np.stack(fields), max_period, len(input_shape) - 1)


def _shuffled(kernel: Array, generator: np.random.Generator) -> Array:
    """A kernel's values in another order; vectors (biases, scales) as they are."""
    return (
        kernel
        if kernel.ndim < 2
        else jnp.asarray(generator.permutation(np.ravel(kernel))).reshape(kernel.shape)
    )


def _one_over_f(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Images or signals of mean 0 and variance 1 whose power falls with frequency as that of natural ones."""
    sides, axes = shape[1:-1], tuple(range(1, len(shape) - 1))
    across = reduce(np.hypot.outer, [np.abs(np.fft.fftfreq(side)) for side in sides])
    across.flat[0] = 1 / max(sides)
    waves = np.fft.fftn(generator.standard_normal(shape), axes=axes) / across[..., None]
    images = np.fft.ifftn(waves, axes=axes).real
    images -= images.mean(axes, keepdims=True)
    return (images / images.std(axes, keepdims=True)).astype(np.float32)


def _as_it_is(images: Array) -> Array:
    return images


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
        return getattr(self.model, "features", self.model)(x)  # type: ignore[operator]


def analyse_features(model: nnx.Module, input_shape: Sequence[int]) -> Analysis:
    """What the middle pixel of a model's last feature maps sees.

    The feature maps are `model.features(x)`, or `model(x)` for a model without that method.

    Raises:
        InputError: as `hdc.receptive.analyse`.
    """
    return analyse(_Features(model), input_shape)


def _seen(model: nnx.Module, shape: tuple[int, ...]) -> Analysis | None:
    """What the feature at the centre sees; None for a model that looks elsewhere in every image, say."""
    try:
        return analyse_features(model, shape)
    except InputError:
        return None


def _feature_stride(seen: Analysis | None, shape: tuple[int, ...], maps: tuple[int, ...]) -> list[int]:
    """Image pixels from one feature to the next, per axis; at least 1."""
    strides = seen.output_stride if seen else None
    if strides is None:
        strides = [side // length for side, length in zip(shape[1:-1], maps[1:-1], strict=True)]
    return [max(1, int(stride)) for stride in strides]


def field_box(seen: Analysis | None, sides: Sequence[int]) -> tuple[list[float], float]:
    """The centre of the theoretical receptive field, and how many image pixels its box covers.

    If the field is not known: the centre of the image, and NaN.

    Args:
        seen: the analysis of the output.
        sides: of the image, in pixels.
    """
    if seen is None:
        return [(side - 1) / 2 for side in sides], math.nan
    box = list(zip(seen.paths.origin, seen.paths.size, strict=True))
    covered = [
        min(side, start + length) - max(0, start) for side, (start, length) in zip(sides, box, strict=True)
    ]
    return [start + (length - 1) / 2 for start, length in box], float(math.prod(covered))


def _averaged(images: np.ndarray, by: Sequence[int]) -> np.ndarray:
    """Means over cells of `by` pixels, without incomplete cells: `[n, h, w, c]` to `[n, h', w', c]`."""
    counts = [side // step for side, step in zip(images.shape[1:-1], by, strict=True)]
    cut = images[:, *(slice(count * step) for count, step in zip(counts, by, strict=True))]
    cells = itertools.chain.from_iterable(zip(counts, by, strict=True))
    within = tuple(range(2, 2 * len(by) + 1, 2))
    return cut.reshape(len(images), *cells, images.shape[-1]).mean(axis=within)


@dataclass(frozen=True)
class Measured:
    """Gridding metrics by name, and the arrays that they summarise."""

    metrics: Mapping[str, float]
    arrays: Mapping[str, np.ndarray]


def measure(
    graph: nnx.GraphDef,
    state: nnx.State,
    normalise: Callable[[Array], Array],
    images: np.ndarray,
    max_period: int = 8,
) -> Measured:
    """Measure the gridding of a trained model on held-out images `[n, height, width, channels]`, or signals
    `[n, length, channels]`.

    >>> from hdc import DilationSchedule
    >>> from hdc.networks import ContextNetwork
    >>> network = ContextNetwork(
    ...     DilationSchedule([1, 2]), in_channels=1, classes=2, task="dense", rngs=nnx.Rngs(0)
    ... )
    >>> images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
    >>> measured = measure(*nnx.split(network), lambda x: x / 255.0, images)
    >>> measured.arrays["erf"].shape
    (32, 32)

    A metric is NaN if the images, the features or the network are too small or too constant for it:

    - `erf_ripple` in dB and `erf_ripple_frequency` in cycles per pixel: the peak of the `ripple` of the
      effective receptive field of the feature at the centre.
    - `erf_area_20`, `_30`, `_50`, `_99`: its `erf_area` in pixels^2 (of signals in steps) at that %
      of its mass.
    - `erf_fill_20`, ...: this area divided by that of the theoretical receptive field there, the box that
      `hdc.receptive.analyse` finds, within the image; NaN if it finds none. Above 1 if a statistic of the
      whole map, such as group normalisation, sees beyond the box.
    - `feature_ripple` and `feature_ripple_frequency`: the ripple of the last feature maps minus that of the
      input averaged to their output stride, per frequency: the peak, and its frequency in cycles per feature.
    - `phase_imbalance` and `phase_imbalance_period`: the `phase_imbalance` of the last feature maps minus
      that of the same input, per period: the largest, and its period in features.
    """
    erf = effective_receptive_field(graph, state, normalise, images)
    seen = _seen(nnx.merge(graph, state), (1, *images.shape[1:]))
    maps = np.asarray(_features(graph, state, normalise, images))
    return summarised(erf, maps, np.asarray(normalise(jnp.asarray(images))), seen, max_period)


def summarised(
    erf: np.ndarray, maps: np.ndarray, inputs: np.ndarray, seen: Analysis | None, max_period: int
) -> Measured:
    """The metrics of `measure`, from what they are computed from.

    Args:
        erf: of the feature at the centre, `[height, width]` or `[length]`.
        maps: the features, `[n, height, width, channels]` or `[n, length, channels]`.
        inputs: what the network was given, of the same axes.
        seen: the analysis of the feature at the centre; None if there is none.
        max_period: the longest period, in pixels or features.
    """
    axes = erf.ndim
    of_erf = ripple(erf, max_period, axes)
    centre, field = field_box(seen, erf.shape)
    areas = {share: erf_area(erf, share / 100, centre) for share in SHARES}
    inputs = _averaged(inputs, _feature_stride(seen, inputs.shape, maps.shape))
    maps, inputs = np.moveaxis(maps, -1, 1), np.moveaxis(inputs, -1, 1)
    of_maps, of_input = (ripple(one, max_period, axes) for one in (maps, inputs))
    # Without padding, the feature maps are smaller than the averaged input and resolve fewer periods.
    shared = min(len(of_maps.frequencies), len(of_input.frequencies))
    excess = Ripple(of_maps.frequencies[:shared], of_maps.decibels[:shared] - of_input.decibels[:shared])
    phases, input_phases = (phase_imbalance(one, max_period, axes) for one in (maps, inputs))
    shared = min(len(phases), len(input_phases))
    imbalance = phases[:shared] - input_phases[:shared]
    known = shared > 0 and not np.isnan(imbalance).any()
    metrics = {
        "erf_ripple": of_erf.peak,
        "erf_ripple_frequency": of_erf.frequency,
        **{f"erf_area_{share}": area for share, area in areas.items()},
        **{f"erf_fill_{share}": area / field for share, area in areas.items()},
        "feature_ripple": excess.peak,
        "feature_ripple_frequency": excess.frequency,
        "phase_imbalance": float(imbalance.max()) if known else math.nan,
        "phase_imbalance_period": 2.0 + int(np.argmax(imbalance)) if known else math.nan,
    }
    arrays = {
        "erf": erf,
        "frequencies": of_erf.frequencies,
        "erf_ripple": of_erf.decibels,
        "feature_frequencies": of_maps.frequencies,
        "feature_ripple": of_maps.decibels,
        "input_ripple": of_input.decibels,
        "feature_phase_imbalance": phases,
        "input_phase_imbalance": input_phases,
    }
    return Measured(metrics, arrays)
