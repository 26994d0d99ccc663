"""The predicted ripple: how strong gridding will be in a trained network, from its layers in their order.

The ripple of an effective receptive field is the power of its strongest tooth over that of the valleys beside
it (`hdc.gridding.ripple` measures it). The prediction follows the power spectrum P of mean |dy/dx| along one
axis through the layers, the first one first, under these assumptions:

- Trained kernels keep equal tap energies, as they start with. A layer of kernel size K and rate r then
  multiplies P(f) by |D(2 pi f r) / K|^2, with D(t) = sin(K t / 2) / sin(t / 2).
- Taps differ by chance, so that nothing is cancelled entirely: e^2 is added to each such factor.
- In every layer the paths of a finite number of channels and images leave white irregularities of k / (N F),
  with N the number of layers and F the field so far. Only the layers after it filter them: the order counts.

The mechanism and the constants are ours: k and e were chosen on the 28 schedules of `study=schedules` (four
layers of kernel size 3, rates to 8, after a 3x3 stem, width 16).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hdc.errors import InputError
from hdc.schedules import coprime, responses

_CHANCE, _SPREAD = 0.05, 0.2  # k and e
_SHORTEST = 8  # periods to this many pixels are looked at in any case, as the measured ripple does


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
        tried: whether the schedule is like those that the constants were chosen on. Elsewhere the prediction
            is an extrapolation.
    """

    db: float
    frequency: float
    tried: bool


def predict(layers: Sequence[tuple[int, int]]) -> PredictedRipple:
    """The ripple to be expected of a trained stack of stride-1 convolutions.

    >>> round(predict([STEM, (3, 1), (3, 3), (3, 3), (3, 3)]).db, 1)
    7.8
    >>> round(predict([STEM, (3, 3), (3, 3), (3, 3), (3, 1)]).db, 1)
    3.3

    Args:
        layers: kernel size and rate of each, the first layer first, the stem included.

    Raises:
        InputError: if there is no layer, or a kernel size or rate is not positive.
    """
    if not layers or any(size < 1 or rate < 1 for size, rate in layers):
        raise InputError(f"layers must be pairs of kernel size and rate, at least 1 each, got {layers!r}")
    found = [_strongest(layers, period) for period in range(2, max(_SHORTEST, *(r for _, r in layers)) + 1)]
    db, frequency = max(found, key=lambda one: round(one[0], 9))
    rates = [rate for _, rate in layers[1:]]
    tried = {size for size, _ in layers} == {3} and layers[0][1] == 1 and len(rates) == 4 and max(rates) <= 8
    return PredictedRipple(db, frequency, tried)


def _strongest(layers: Sequence[tuple[int, int]], period: int) -> tuple[float, float]:
    """The ripple in dB at the strongest tooth m / period, and its frequency."""
    numerators = coprime(period)
    tooth, below, above = (_power(layers, 2 * numerators + half, 2 * period) for half in (0, -1, 1))
    contrast = 10 * np.log10(2 * tooth / (below + above))
    at = int(np.argmax(np.round(contrast, 9)))
    return float(contrast[at]), int(numerators[at]) / period


def _power(layers: Sequence[tuple[int, int]], numerators: np.ndarray, period: int) -> np.ndarray:
    """P at the frequencies numerators / period."""
    power, field = np.ones(len(numerators)), 1
    for size, rate in layers:
        field += (size - 1) * rate
        passed = responses(period, size)[numerators * rate % period] ** 2
        power = power * (passed + _SPREAD**2) / (1 + _SPREAD**2) + _CHANCE / (len(layers) * field)
    return power
