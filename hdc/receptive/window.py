"""Windows of path counts on an array, and what taps and strides do to them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class Window:
    """Path counts to the entries of one array, for several outputs at once.

    Attributes:
        counts: `[outputs, axes of the array...]`. An axis of length 1 whose start is None stands for all
            its positions, each with that count.
        starts: the position of the first entry along each axis of the array, None for a uniform axis.
    """

    counts: np.ndarray
    starts: tuple[int | None, ...]

    def stop(self, axis: int) -> int:
        start = self.starts[axis]
        assert start is not None
        return start + self.counts.shape[axis + 1]

    def with_axis(self, axis: int, counts: np.ndarray, start: int | None) -> "Window":
        return Window(counts, (*self.starts[:axis], start, *self.starts[axis + 1 :]))

    def moved(self, axis: int, by: int) -> "Window":
        """Counted from another position along a written-out axis."""
        return self.with_axis(axis, self.counts, (self.starts[axis] or 0) + by)

    def without(self, axes: Sequence[int]) -> "Window":
        """Without these axes, which are of length 1."""
        starts = tuple(start for axis, start in enumerate(self.starts) if axis not in axes)
        return Window(self.counts.squeeze(tuple(1 + axis for axis in axes)), starts)

    def transposed(self, order: Sequence[int] | np.ndarray) -> "Window":
        counts = self.counts.transpose(0, *(1 + axis for axis in order))
        return Window(counts, tuple(self.starts[axis] for axis in order))

    def expanded(self, axis: int, length: int) -> "Window":
        """A uniform axis written out; others as they are."""
        if self.starts[axis] is not None:
            return self
        return self.with_axis(axis, np.repeat(self.counts, length, axis=axis + 1), 0)

    def fitted(self, axis: int, start: int, stop: int) -> "Window":
        """Cut, or filled up with zeros, to exactly `start` to `stop` along a written-out axis."""
        low, high = self.starts[axis], self.stop(axis)
        if (low, high) == (start, stop):
            return self
        assert low is not None
        first, last = max(low, start), min(high, stop)
        shape = list(self.counts.shape)
        shape[axis + 1] = stop - start
        counts = np.zeros(shape)
        if first < last:
            counts[_cut(axis, first - start, last - start)] = self.counts[_cut(axis, first - low, last - low)]
        return self.with_axis(axis, counts, start)

    def total(self, axis: int, length: int) -> np.ndarray:
        """The sum along an axis of that length, kept as an axis of length 1."""
        start = self.starts[axis]
        if start is None:
            return self.counts * length
        inside = _cut(axis, max(0, -start), max(0, length - start))
        return self.counts[inside].sum(axis=axis + 1, keepdims=True)


def _cut(axis: int, start: int, stop: int, by: int = 1) -> tuple[slice, ...]:
    return (*(slice(None) for _ in range(axis + 1)), slice(start, stop, by))


def mass(counts: np.ndarray) -> np.ndarray:
    """The sum over an array, for each output."""
    return counts.reshape(len(counts), -1).sum(axis=1)


def inserted(window: Window, axes: Sequence[int]) -> Window:
    """New uniform axes at these places of the result."""
    starts = list(window.starts)
    for axis in sorted(axes):
        starts.insert(axis, None)
    return Window(np.expand_dims(window.counts, [1 + axis for axis in axes]), tuple(starts))


def widened(window: Window, axis: int, taps: Sequence[int], stride: int, rate: int, low: int) -> Window:
    """What the taps of a window along one axis read: position o reads o * stride + tap * rate - low."""
    start = window.starts[axis]
    assert start is not None
    length = window.counts.shape[axis + 1]
    shape = list(window.counts.shape)
    shape[axis + 1] = (length - 1) * stride + taps[-1] * rate + 1 if length else 0
    counts = np.zeros(shape)
    for tap in taps if length else ():
        first = tap * rate
        counts[_cut(axis, first, first + (length - 1) * stride + 1, stride)] += window.counts
    return window.with_axis(axis, counts, start * stride - low)


def spaced(window: Window, axis: int, apart: int) -> Window:
    """Undo zero insertion: keep the entries, which lie `apart` positions from each other."""
    start = window.starts[axis]
    assert start is not None
    if apart == 1:
        return window
    first = -start % apart
    counts = window.counts[_cut(axis, first, window.counts.shape[axis + 1], apart)]
    return window.with_axis(axis, counts, (start + first) // apart)


def tapped(window: Window, axis: int, position: int, taps: int, stride: int, rate: int, low: int) -> Window:
    """The contribution of a single tap, placed within the extent of all taps."""
    start = window.starts[axis]
    assert start is not None
    one = widened(window, axis, [0], stride, 1, low - position * rate)
    first, length = start * stride - low, window.counts.shape[axis + 1]
    return one.fitted(axis, first, first + (length - 1) * stride + (taps - 1) * rate + 1)
