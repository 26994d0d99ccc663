"""Windows of path counts on an array."""

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

    def rows(self, chosen: np.ndarray) -> "Window":
        return Window(self.counts[chosen], self.starts)

    def scaled(self, by: np.ndarray | float) -> "Window":
        if np.ndim(by) == 0 and by == 1:
            return self
        return Window(self.counts * by, self.starts)

    def moved(self, axis: int, by: int) -> "Window":
        """Counted from another position along a written-out axis."""
        return self.with_axis(axis, self.counts, (self.starts[axis] or 0) + by)

    def without(self, axes: Sequence[int]) -> "Window":
        """Without these axes, which are of length 1."""
        starts = tuple(start for axis, start in enumerate(self.starts) if axis not in axes)
        return Window(self.counts.squeeze(tuple(1 + axis for axis in axes)), starts)

    def inserted(self, axes: Sequence[int], position: int | None = None) -> "Window":
        """New axes at these places of the result: uniform ones, or of one entry at this position."""
        starts = list(self.starts)
        for axis in sorted(axes):
            starts.insert(axis, position)
        return Window(np.expand_dims(self.counts, [1 + axis for axis in axes]), tuple(starts))

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
            counts[along(axis, first - start, last - start)] = self.counts[
                along(axis, first - low, last - low)
            ]
        return self.with_axis(axis, counts, start)

    def summed(self, axis: int, length: int) -> "Window":
        """Its sum along an axis of that length, at every position of the axis."""
        start = self.starts[axis]
        if start is None:
            return self.scaled(length)
        inside = self.counts[along(axis, max(0, -start), max(0, length - start))]
        if inside.shape[axis + 1] != 1:  # a sum would copy it
            inside = inside.sum(axis=axis + 1, keepdims=True)
        return self.with_axis(axis, inside, None)


def along(axis: int, start: int, stop: int, by: int = 1) -> tuple[slice, ...]:
    """The index of these positions along an axis of a window's counts."""
    return (*(slice(None) for _ in range(axis + 1)), slice(start, stop, by))


def mass(counts: np.ndarray) -> np.ndarray:
    """The sum over an array, for each output."""
    return counts.reshape(len(counts), -1).sum(axis=1)
