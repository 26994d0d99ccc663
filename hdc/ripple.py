"""The predicted ripple: how strong gridding will be in a trained network, from its layers in their order.

The ripple of an effective receptive field is the power of its strongest tooth over that of the valleys
beside it (`hdc.gridding.ripple` measures it). The prediction is the ripple to be expected of mean |dy/dx| in
a network of C channels whose kernels are independent draws, as before training, which changes it little:

- **Paths.** (dy/dx)^2 is on average proportional to the number of paths M between the two pixels, whatever
  the order of the layers: M is the convolution of the layers' taps. So mean |dy/dx| goes as sqrt(M).
- **Chance, layer by layer.** At each pixel, the energy that a layer passes on is a sum over its C channels.
  Kernels are drawn by chance, so this sum varies from pixel to pixel, with a relative variance of 2 / C for
  each image channel; the image channels are averaged. Only the layers after it smooth this, so the order
  counts. With M_l the paths of the first l layers and B the paths of those after them, the power at
  frequency f is 1/4 * 2 / (C * channels of the image) * s^2 * sum(B^2) * |B(f)|^2. s = sum(M_l^2 / M), for
  normal curves of their variances v_l and v, is (2 v_l / v - (v_l / v)^2)^(-1/2).
- **Chance at the end.** |dy/dx| is a mean over C * channels of the image absolute values of normal numbers,
  of relative variance pi/2 - 1 each: white, and smaller the more images with other active ReLUs are averaged.
- **Residual layers** (ReLU, variance kept) pass half of the energy on as it is.

The derivation is ours. One constant was chosen, on the 28 schedules of `study=schedules`: how many
independent images the 64 of a measurement are worth. How well it holds: experiments/README.md, ripple.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hdc.errors import InputError
from hdc.schedules import coprime

SPREAD_DB = 2.8
"""The prediction's root mean square error in dB on the 58 configurations of `study=ripple`, which were
predicted before they were trained. Predictions that differ by less are ties."""

WIDTH, CHANNELS = 16, 3  # of a network and of its images, unless they are given

_IMAGES = 5  # independent ones
_SHORTEST = 16  # periods to this many pixels are looked at in any case, as `study=ripple` measured
_MAP = 64  # pixels per side that are looked at, more if a period or the field is longer


class Layer(NamedTuple):
    """A convolution of stride 1 along one axis."""

    kernel_size: int
    rate: int


STEM = Layer(3, 1)


@dataclass(frozen=True)
class PredictedRipple:
    """The predicted ripple of an effective receptive field.

    Attributes:
        db: the strongest tooth over its valleys, in dB; 0 and below is no gridding.
        frequency: of the tooth, in cycles per pixel.
        tried: whether the schedule is like those that predictions were compared with trained networks on.
            Elsewhere the prediction is an extrapolation.
    """

    db: float
    frequency: float
    tried: bool


def predict(
    layers: Sequence[tuple[int, int]],
    *,
    width: int = WIDTH,
    channels: int = CHANNELS,
    residual: bool = False,
    max_period: int | None = None,
) -> PredictedRipple:
    """The ripple to be expected of a trained stack of stride-1 convolutions.

    >>> round(predict([STEM, (3, 1), (3, 3), (3, 3), (3, 3)]).db, 1)
    5.9
    >>> round(predict([STEM, (3, 3), (3, 3), (3, 3), (3, 1)]).db, 1)
    3.7

    Args:
        layers: kernel size and rate of each, the first layer first, the stem included.
        width: channels of every layer.
        channels: channels of the image.
        residual: whether every layer but the first adds its input to its output.
        max_period: the longest period in pixels; None for 16 or the largest rate, whichever is larger.

    Raises:
        InputError: if there is no layer, or a number is not positive; a period is at least 2.
    """
    if not layers or any(size < 1 or rate < 1 for size, rate in layers):
        raise InputError(f"layers must be pairs of kernel size and rate, at least 1 each, got {layers!r}")
    largest = max(rate for _, rate in layers)
    longest = longest_period(largest) if max_period is None else max_period
    for name, value, least in (("width", width, 1), ("channels", channels, 1), ("max_period", longest, 2)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    taps = [_taps(*layer, residual and number > 0) for number, layer in enumerate(layers)]
    power = _power(taps, longest, width * channels)
    found = [_strongest(power(period), period) for period in range(2, longest + 1)]
    db, frequency = max(found, key=lambda one: round(one[0], 9))
    return PredictedRipple(db, frequency, tried(layers))


TRIED = "3 to 8 layers of kernel size 3 or 5 and rates to 16, on images"
"""What `tried` accepts, in words: what `study=ripple` trained, after `STEM`."""


def tried(layers: Sequence[tuple[int, int]]) -> bool:
    """See `PredictedRipple.tried`."""
    sizes, rates = {size for size, _ in layers[1:]}, [rate for _, rate in layers[1:]]
    return layers[0] == STEM and sizes in ({3}, {5}) and 3 <= len(rates) <= 8 and max(rates) <= 16


def longest_period(largest_rate: int) -> int:
    """The longest period in pixels at which layers of such rates may have a ripple."""
    return max(_SHORTEST, largest_rate)


def teeth(period: int) -> np.ndarray:
    """`[3, t]`: the frequencies m / period, and the valleys below and above them, in 1 / (2 period)."""
    return 2 * coprime(period) + np.array([[0], [-1], [1]], dtype=np.int32)


def contrast(power: np.ndarray) -> np.ndarray:
    """`[..., t]`: the powers at teeth over those at the valleys beside them, from `[..., 3, t]`."""
    return 2 * power[..., 0, :] / (power[..., 1, :] + power[..., 2, :])


def spectrum(values: np.ndarray, period: int) -> np.ndarray:
    """`[..., 2 period]`: the power at 0, 1 / (2 period), ..., below 1, of `[..., pixels]`."""
    *rows, pixels = values.shape
    padded = np.zeros((*rows, pixels - pixels % (-2 * period)))
    padded[..., :pixels] = values
    return np.abs(np.fft.fft(padded.reshape(*rows, -1, 2 * period).sum(axis=-2))) ** 2


def expected(
    paths: np.ndarray, field: int | np.ndarray, longest: int | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The expected mean |dy/dx| by pixel, within the window, and the power of the chance at the end.

    Args:
        paths: `[..., pixels]` shares of the paths; zeros may follow the field.
        field: in pixels, a number or `[..., 1]`.
        longest: the longest period that is looked at, as `field`.
    """
    side = np.maximum(np.maximum(_MAP, 4 * longest), field)
    window = 0.5 + 0.5 * np.cos(2 * np.pi * (np.arange(paths.shape[-1]) - (field - 1) / 2) / side)
    white = (np.pi / 2 - 1) / _IMAGES * (paths * window**2).sum(axis=-1)
    return np.sqrt(paths) * window, white


def chance(squares: np.ndarray | float, share: np.ndarray | float) -> np.ndarray | float:
    """The power of a layer's chance before the layers after it smooth it.

    Args:
        squares: the sum of squares of the paths of those layers.
        share: the variance of the paths so far over that of all paths.
    """
    return squares / (2 * share - share**2) / 2


def _taps(size: int, rate: int, residual: bool) -> np.ndarray:
    """The shares of a layer's energy by pixel."""
    taps = np.zeros((size - 1) * rate + 1)
    taps[::rate] = 1 / size
    if residual:
        taps /= 2
        taps[(len(taps) - 1) // 2] += 1 / 2
    return taps


def _power(taps: Sequence[np.ndarray], longest: int, numbers: int) -> Callable[[int], np.ndarray]:
    """The power of mean |dy/dx|, a mean of so many `numbers`, as a function of the period: see `spectrum`."""
    variances = np.cumsum([_variance(layer) for layer in taps])
    after, smoothed = np.ones(1), []
    for layer, variance in zip(taps[:0:-1], variances[-2::-1], strict=True):
        after = np.convolve(after, layer)
        share = variance / variances[-1] if variances[-1] else 0.0
        if share:
            smoothed.append((chance((after**2).sum(), share), after))
    paths = np.convolve(after, taps[0])
    middle, white = expected(paths, len(paths), longest)

    def power(period: int) -> np.ndarray:
        by_chance = sum((strength * spectrum(by, period) for strength, by in smoothed), start=white)
        return spectrum(middle, period) + by_chance / numbers

    return power


def _strongest(power: np.ndarray, period: int) -> tuple[float, float]:
    """The ripple in dB at the strongest tooth m / period, and its frequency."""
    db = 10 * np.log10(contrast(power[teeth(period)]))
    at = int(np.argmax(np.round(db, 9)))
    return float(db[at]), int(coprime(period)[at]) / period


def _variance(taps: np.ndarray) -> float:
    positions = np.arange(len(taps))
    return float((taps * positions**2).sum() - (taps * positions).sum() ** 2)
