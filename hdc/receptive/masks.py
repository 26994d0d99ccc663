"""Which entries of a model's arrays are masked out: zero, or far below all others, whatever the input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

# Beside a score this low, no other is small: its exponential is zero. Masks hold -1e4 to -infinity.
LOW = -1e4
MOST = 2**26  # entries of a mask that are followed at all
NONE = np.zeros((), bool)


@dataclass(frozen=True)
class Masked:
    """Which entries of an array are masked out whatever the model's input.

    Both are bool of its shape, or of no axes where there are none.

    Attributes:
        zero: those that are zero.
        low: those so far below zero that their exponential is.
    """

    zero: np.ndarray = field(default_factory=NONE.copy)
    low: np.ndarray = field(default_factory=NONE.copy)

    def each(self, change: Callable[[np.ndarray], np.ndarray]) -> "Masked":
        """Both, changed."""
        return Masked(change(self.zero), change(self.low))

    def stretched(self, shape: Sequence[int]) -> "Masked":
        """For an array of this shape; what is the same along an axis is held once."""
        return self.each(lambda mask: np.broadcast_to(mask, shape) if mask.any() else NONE)


NOTHING = Masked()
Given = Sequence[Masked | None]  # of the inputs of a step; None where the entries are not known


def small(array: np.ndarray) -> np.ndarray:
    """Axes along which an array is repeated, cut to length 1."""
    return array[tuple(slice(0, 1 if stride == 0 else None) for stride in array.strides)]
