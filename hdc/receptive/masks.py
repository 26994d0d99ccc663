"""Which entries of a model's arrays constants mask out: zero, far below all others, or always the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

# The exponential of what lies this far below the largest score is zero in float32. Swin's masks hold -100,
# those of others -1e4 to -infinity.
LOW = -88.0
MOST = 2**26  # entries of a mask that are followed at all
NONE, ALL = np.zeros((), bool), np.ones((), bool)


@dataclass(frozen=True)
class Masked:
    """Which entries of an array are masked out whatever the model's input.

    All are bool of its shape, or of no axes where all entries are alike.

    Attributes:
        zero: those that are zero.
        low: those so far below zero that their exponential is.
        high: those of a constant that are as far above zero.
        fixed: those that are the same whatever the input.
    """

    zero: np.ndarray = field(default_factory=NONE.copy)
    low: np.ndarray = field(default_factory=NONE.copy)
    high: np.ndarray = field(default_factory=NONE.copy)
    fixed: np.ndarray = field(default_factory=NONE.copy)

    def each(self, change: Callable[[np.ndarray], np.ndarray]) -> "Masked":
        """All of them, changed."""
        return Masked(change(self.zero), change(self.low), change(self.high), change(self.fixed))

    def any(self) -> bool:
        return bool(self.zero.any() or self.low.any() or self.fixed.any())

    def stretched(self, shape: Sequence[int]) -> "Masked":
        """For an array of this shape; what is the same along an axis is held once."""
        return self.each(lambda mask: np.broadcast_to(mask, shape) if mask.any() else NONE)


NOTHING = Masked()
CONSTANT = Masked(fixed=ALL)  # of which nothing else is known
Given = Sequence[Masked | None]  # of the inputs of a step; None for constants whose entries are not known


def small(array: np.ndarray) -> np.ndarray:
    """Axes along which an array is repeated, cut to length 1."""
    return array[tuple(slice(0, 1 if stride == 0 else None) for stride in array.strides)]
