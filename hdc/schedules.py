"""The exact mathematics of a dilation schedule: what a stack of dilated convolutions can see.

Everything here is per axis, for a stride-1 stack of n layers with kernel size K and dilation
rates r_1..r_n. A 2-D network with the same rates on both axes sees the outer product.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Literal

import numpy as np

from hdc.errors import InputError

Kind = Literal["plain", "dilated", "hdc"]

# Bounds of what is computed exactly in a moment; no network comes near them.
MAX_LAYERS = 256
MAX_RATE = 4096
MAX_FIELD = 65536


@dataclass(frozen=True)
class HdcRule:
    """The rule of Wang et al. 2018 (arXiv 1702.08502, section 3.2), a heuristic.

    Attributes:
        m2: M_2 of the recursion M_n = r_n, M_i = max(M_{i+1} - 2 r_i, 2 r_i - M_{i+1}, r_i);
            None for a single layer, where the recursion does not reach it.
        common_factor: greatest common divisor of the rates.
        accepts: whether M_2 <= K and the rates have no common factor above 1.
    """

    m2: int | None
    common_factor: int
    accepts: bool


@dataclass(frozen=True)
class Gridding:
    """The predicted gridding index and the frequency (cycles per pixel) where it peaks.

    `frequency` is None where the index has no frequency to look at (all rates 1).
    """

    index: float
    frequency: float | None


@dataclass(frozen=True)
class DilationSchedule:
    """The dilation rates of consecutive layers, `rates` taken `repeat` times over.

    Args:
        rates: dilation rates, positive integers, first layer first.
        kernel_size: K, taps per axis, at least 2.
        repeat: how many times the rates follow one another, at least 1.

    Raises:
        InputError: for an empty schedule, a rate, kernel size or repeat that is out of range, more than
            `MAX_LAYERS` layers, or a receptive field of more than `MAX_FIELD` pixels.
    """

    rates: tuple[int, ...]
    kernel_size: int = 3
    repeat: int = field(default=1)

    def __post_init__(self) -> None:
        rates = self.rates
        if isinstance(rates, str | bytes) or not isinstance(rates, Sequence | np.ndarray):
            raise InputError(f"rates must be a list of positive integers such as [1, 2, 5], got {rates!r}")
        if len(rates) == 0:
            raise InputError("rates is empty: a schedule needs at least one dilation rate, such as [1, 2, 5]")
        for position, rate in enumerate(rates, start=1):
            if not _is_integer(rate) or not 1 <= rate <= MAX_RATE:
                raise InputError(
                    f"rates {_short(rates)}: rate {rate!r} at position {position} is not a positive integer "
                    f"up to {MAX_RATE}"
                )
        if not _is_integer(self.kernel_size) or self.kernel_size < 2:
            raise InputError(f"kernel_size must be an integer of at least 2, got {self.kernel_size!r}")
        if not _is_integer(self.repeat) or self.repeat < 1:
            raise InputError(f"repeat must be an integer of at least 1, got {self.repeat!r}")
        object.__setattr__(self, "rates", tuple(int(rate) for rate in rates))
        layers = len(self.rates) * int(self.repeat)
        if layers > MAX_LAYERS:
            often = "" if self.repeat == 1 else f", {len(self.rates)} taken {self.repeat} times"
            raise InputError(f"the schedule has {layers} layers{often}, at most {MAX_LAYERS} are allowed")
        if self.receptive_field > MAX_FIELD:
            raise InputError(
                f"rates {_short(rates)} with kernel_size {self.kernel_size} have a receptive field of "
                f"{self.receptive_field} pixels, at most {MAX_FIELD} are allowed"
            )

    def __len__(self) -> int:
        """The number of layers."""
        return len(self.rates) * self.repeat

    @property
    def layer_rates(self) -> tuple[int, ...]:
        """The rate of every layer, repeats written out."""
        return self.rates * self.repeat

    @property
    def label(self) -> str:
        """Short name: the rates joined by '-', then 'x' and the repeat: `1-2-5x2`."""
        joined = "-".join(map(str, self.rates))
        return joined if self.repeat == 1 else f"{joined}x{self.repeat}"

    @property
    def kind(self) -> Kind:
        """`plain` (all rates 1), `dilated` (one fixed rate) or `hdc` (mixed rates)."""
        distinct = set(self.rates)
        if len(distinct) > 1:
            return "hdc"
        return "plain" if distinct == {1} else "dilated"

    @property
    def receptive_field(self) -> int:
        """R = 1 + (K - 1) sum r_i, in pixels per axis."""
        return 1 + (self.kernel_size - 1) * sum(self.layer_rates)

    @cached_property
    def path_counts(self) -> np.ndarray:
        """How many paths lead to each input offset: coefficients of prod_i sum_{j<K} z^(j r_i).

        Returns:
            `[R]` integers, int64, or exact Python integers (dtype object) where K^n exceeds int64.
        """
        exact = self.kernel_size ** len(self)
        counts = np.ones(1, dtype=np.int64 if exact < 2**63 else object)
        for rate in self.layer_rates:
            wider = np.zeros(len(counts) + (self.kernel_size - 1) * rate, dtype=counts.dtype)
            for tap in range(self.kernel_size):
                wider[tap * rate : tap * rate + len(counts)] += counts
            counts = wider
        return counts

    @property
    def coverage(self) -> float:
        """The share of the receptive field, per axis, that some path reaches; 1 without holes."""
        return np.count_nonzero(self.path_counts) / self.receptive_field

    @property
    def first_hole(self) -> int | None:
        """Offset of the first hole counted from the field's edge, or None where there is none.

        With the rates sorted ascending the field is gap-free exactly when every rate r_(i) is at
        most 1 + (K - 1) sum_{j<i} r_(j); the first rate that breaks this leaves that offset out.
        The certificate needs no path counts, whatever the order of the layers.
        """
        reach = 1
        for rate in sorted(self.layer_rates):
            if rate > reach:
                return reach
            reach += (self.kernel_size - 1) * rate
        return None

    @property
    def gap_free(self) -> bool:
        """Whether every pixel of the receptive field is seen."""
        return self.first_hole is None

    @cached_property
    def gridding(self) -> Gridding:
        """Predicted gridding index G: the strongest periodic ripple in the path counts.

        G = max over f = m/q with 2 <= q <= max r and gcd(m, q) = 1 of prod_i |D(2 pi f r_i)| / K,
        D(t) = sin(K t / 2) / sin(t / 2). 0 is best, 1 (a pure comb) is worst.
        """
        best, frequency = 0.0, None
        rates, multiplicity = np.unique(self.layer_rates, return_counts=True)
        for period in range(2, int(rates[-1]) + 1):
            response, numerators = responses(period, self.kernel_size), coprime(period)
            product = np.ones(len(numerators))
            for rate, times in zip(rates.tolist(), multiplicity.tolist(), strict=True):
                product = product * response[numerators * rate % period] ** times
                # No factor is above 1: what is not above the best by now will not be.
                above = product > best + 1e-12
                numerators, product = numerators[above], product[above]
            if numerators.size:
                peak = first_largest(product)
                best, frequency = float(product[peak]), int(numerators[peak]) / period
        return Gridding(best, frequency)

    @property
    def effective_width(self) -> float:
        """sigma = sqrt(sum r_i^2 (K^2 - 1) / 12) pixels: the standard deviation of the path counts."""
        squares = sum(rate**2 for rate in self.layer_rates)
        return math.sqrt(squares * (self.kernel_size**2 - 1) / 12)

    @property
    def neighbour_overlap(self) -> float:
        """Jaccard index of the input pixels of two adjacent outputs, along one axis: 0 shares none."""
        seen = self.path_counts > 0
        shared = np.count_nonzero(seen[1:] & seen[:-1])
        return float(shared / (2 * np.count_nonzero(seen) - shared))

    @property
    def hdc_rule(self) -> HdcRule:
        """The heuristic of Wang et al. 2018; show it only beside the exact `gap_free`."""
        rates = self.layer_rates
        maximum = rates[-1]
        for rate in reversed(rates[1:-1]):
            maximum = max(maximum - 2 * rate, 2 * rate - maximum, rate)
        m2 = maximum if len(rates) > 1 else None
        factor = math.gcd(*rates)
        return HdcRule(m2, factor, accepts=factor == 1 and (m2 is None or m2 <= self.kernel_size))


@cache
def coprime(period: int) -> np.ndarray:
    """The m <= q / 2 without a factor in common with the period q, ascending, int32.

    The response at m/q has period 1 and is even, so that no others are needed.
    """
    numerators = np.arange(1, period // 2 + 1, dtype=np.int32)
    return numerators[np.gcd(numerators, period) == 1]


def first_largest(ripple: np.ndarray) -> int:
    """Where the largest of `[m]` is; the first of equals, whatever their rounding."""
    return int(np.argmax(ripple >= (1 - 1e-9) * ripple.max()))


def responses(period: int, kernel_size: int) -> np.ndarray:
    """|D(2 pi j / q)| / K of the period q, `[q]`, where D(t) = sin(K t / 2) / sin(t / 2)."""
    steps = np.arange(1, period)
    response = np.ones(period)
    # The integers are reduced first, so that a zero is a zero.
    response[1:] = np.sin(np.pi * (kernel_size * steps % period) / period)
    response[1:] /= kernel_size * np.sin(np.pi * steps / period)
    return response


def padding_share(rate: int, kernel_size: int, size: Sequence[int], causal: bool = False) -> float:
    """The share of a layer's taps that fall into the padding of a map that keeps its size.

    Args:
        rate: dilation rate of the layer.
        kernel_size: taps per axis.
        size: of the map, in pixels, one per axis.
        causal: whether all padding lies before the map; SAME has half of it after the map.

    Returns:
        Between 0 and 1, over all positions of the map and all taps.
    """
    # SAME puts the odd pixel of an even kernel after the map.
    padding = (kernel_size - 1) * rate
    offsets = rate * np.arange(kernel_size) - (padding if causal else padding // 2)
    inside = [np.mean(np.maximum(0, length - np.abs(offsets)) / length) for length in size]
    return float(1 - math.prod(inside))


def _short(rates: Sequence[object]) -> str:
    """The rates for a message of one line."""
    return str(list(rates)) if len(rates) <= 32 else f"[{rates[0]}, {rates[1]}, ... {len(rates)} rates]"


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
