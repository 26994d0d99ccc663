"""Path counts over the pixels of a receptive field, of any shape: what is seen, where the holes are.

A stack of convolutions is a product of axes and has closed forms in `hdc.schedules`; a network with
branches has none, and its numbers are read off the counts themselves.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hdc.schedules import Gridding, coprime, first_largest


@dataclass(frozen=True, eq=False)
class PathCounts:
    """How many paths lead from one output to each input pixel.

    Attributes:
        counts: `[h, w]`, or one axis for signals, three for volumes: not negative, up to a common factor.
            The receptive field is the smallest box that holds all that is not zero.
        origin: the input pixel of `counts[0, 0]`; may be negative, outside the map.
    """

    counts: np.ndarray
    origin: tuple[int, ...]

    @classmethod
    def of(cls, counts: np.ndarray, origin: Sequence[int]) -> "PathCounts":
        """The counts cut to their receptive field, and as shares of all paths.

        Raises:
            ValueError: where all counts are zero.
        """
        if not counts.any():
            raise ValueError("all counts are zero")
        places = [np.flatnonzero(counts.any(axis=_others(counts.ndim, axis))) for axis in range(counts.ndim)]
        box = tuple(slice(int(found[0]), int(found[-1]) + 1) for found in places)
        corner = tuple(start + cut.start for start, cut in zip(origin, box, strict=True))
        return cls(counts[box] / counts.sum(), corner)

    @classmethod
    def of_layers(cls, layers: Iterable[Sequence[int]], kernel_size: int, axes: int = 2) -> "PathCounts":
        """A stack of layers, each with parallel branches that are added or concatenated.

        Args:
            layers: the dilation rates of each layer's branches; 0 is a 1x1 convolution or an identity.
            kernel_size: taps per axis.
            axes: 1 for signals, 2 for images.
        """
        counts, reach = np.ones((1,) * axes), 0
        for rates in layers:
            before = (kernel_size - 1) * max(rates) // 2  # as SAME padding has it for even kernels
            after = (kernel_size - 1) * max(rates) - before
            total = np.zeros([length + before + after for length in counts.shape])
            for rate in rates:
                branch = counts
                for axis in range(axes):
                    branch = _tapped(branch, axis, rate, kernel_size)
                # Branches of one layer have the same centre.
                low = before - (kernel_size - 1) * rate // 2
                total[tuple(slice(low, low + length) for length in branch.shape)] += branch
            counts, reach = total, reach + before
        return cls.of(counts, (-reach,) * axes)

    @property
    def size(self) -> tuple[int, ...]:
        """The receptive field, in pixels per axis."""
        return self.counts.shape

    @cached_property
    def seen(self) -> np.ndarray:
        """Which pixels of the field some path reaches, bool."""
        return self.counts > 0

    @property
    def holes(self) -> np.ndarray:
        """Which pixels of the field no path reaches, bool."""
        return ~self.seen

    @property
    def gap_free(self) -> bool:
        """Whether every pixel of the field is seen."""
        return bool(self.seen.all())

    @property
    def first_hole(self) -> tuple[int, ...] | None:
        """The first pixel that is not seen, counted from the field's corner, row by row; None without one."""
        if self.gap_free:
            return None
        return tuple(int(i) for i in np.unravel_index(int(np.argmax(self.holes)), self.size))

    @property
    def coverage(self) -> float:
        """The share of the field's pixels that is seen."""
        return float(self.seen.mean())

    def along(self, axis: int) -> np.ndarray:
        """The counts summed over the other axes."""
        return self.counts.sum(axis=_others(self.counts.ndim, axis))

    def axis_coverage(self, axis: int) -> float:
        """The share of the positions along `axis` at which anything is seen."""
        return float(np.mean(self.along(axis) > 0))

    def effective_width(self, axis: int) -> float:
        """sigma, the standard deviation of the path counts along `axis`, in pixels."""
        weights, position = self.along(axis), np.arange(self.size[axis])
        mean = np.average(position, weights=weights)
        return math.sqrt(np.average((position - mean) ** 2, weights=weights))

    def neighbour_overlap(self, axis: int, shift: int = 1) -> float:
        """Jaccard index of what two outputs see whose fields lie `shift` pixels apart along `axis`."""
        seen = np.moveaxis(self.seen, axis, 0)
        shared = np.count_nonzero(seen[shift:] & seen[: max(0, len(seen) - shift)])
        return shared / (2 * np.count_nonzero(seen) - shared)

    def gridding(self, max_period: int) -> Gridding:
        """Gridding index G: the strongest periodic ripple in the counts along any axis.

        The formula is that of `DilationSchedule.gridding`: the largest |sum_x p(x) e^(-2 pi i f x)|
        over sum p, p the counts along an axis, f = m/q with gcd(m, q) = 1 and 2 <= q <= max_period.

        Args:
            max_period: the widest distance between the taps of one layer, in input pixels.
        """
        best, frequency = 0.0, None
        lines = [self.along(axis) for axis in range(self.counts.ndim)]
        for period in range(2, max_period + 1):
            numerators = coprime(period)
            for line in lines:
                # Only the position within the period matters, so the fold's transform is exact at m/q.
                folded = np.bincount(np.arange(len(line)) % period, weights=line, minlength=period)
                # Over the sum of the fold, so that a comb, all in one place of it, has exactly 1.
                ripple = np.abs(np.fft.rfft(folded))[numerators] / folded.sum()
                peak = first_largest(ripple)
                if ripple[peak] > best + 1e-12:
                    best, frequency = float(ripple[peak]), int(numerators[peak]) / period
        return Gridding(min(best, 1.0), frequency)


def _others(axes: int, axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(axes) if other != axis)


def _tapped(counts: np.ndarray, axis: int, rate: int, kernel_size: int) -> np.ndarray:
    """`counts` seen through one row of taps along `axis`."""
    if rate == 0:
        return counts
    lines = np.moveaxis(counts, axis, 0)
    wider = np.zeros((len(lines) + (kernel_size - 1) * rate, *lines.shape[1:]))
    for tap in range(kernel_size):
        wider[tap * rate : tap * rate + len(lines)] += lines
    return np.moveaxis(wider, 0, axis)
