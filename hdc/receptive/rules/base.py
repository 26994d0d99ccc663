"""The questions that a rule answers about one kind of operation."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from hdc.errors import InputError
from hdc.receptive.axes import Annotation, Axes
from hdc.receptive.masks import NOTHING, Given, Masked
from hdc.receptive.steps import Step, Value
from hdc.receptive.window import Window, spaced, widened

if TYPE_CHECKING:
    from hdc.receptive.pullback import Pullback

Reached = Sequence[Window | None]  # the windows of a step's outputs; None where an output leads nowhere
Sides = dict[int, tuple[int, int]]  # by axis: the positions added before and after


@dataclass(frozen=True)
class Taps:
    """Where the positions of an output along one axis read.

    Position o reads o * stride + tap * rate - low, of an operand with apart - 1 zeros between its entries.

    Attributes:
        axis, place: the axis of the operand and that of the output.
        count: the number of taps.
        high: like `low`, what is added after the last position.
    """

    axis: int
    place: int
    count: int = 1
    stride: int = 1
    rate: int = 1
    apart: int = 1
    low: int = 0
    high: int = 0

    @property
    def is_identity(self) -> bool:
        return (self.count, self.stride, self.apart, self.low, self.high) == (1, 1, 1, 0, 0)

    @property
    def step(self) -> Fraction:
        """Positions of the operand from one of the output to the next."""
        return Fraction(self.stride, self.apart)

    @property
    def distance(self) -> Fraction:
        """Positions of the operand from one tap to the next."""
        return Fraction(self.rate, self.apart)

    def back(self, window: Window, axis: int, length: int) -> Window:
        """What the taps read, for a window along an axis on which the output has that length."""
        window = window.expanded(axis, length)
        window = widened(window, axis, range(self.count), self.stride, self.rate, self.low)
        return spaced(window, axis, self.apart)


class Rule:
    """One kind of operation: its axes, masks, taps and paths. The defaults are for unknown operations."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        """What the axes of every output stand for; for an output with another number, they are channels."""
        return found.axes[step.operand]

    def masked(self, step: Step, given: Given) -> Masked:
        """What is masked out of the output."""
        return NOTHING

    def taps(self, step: Step) -> list[Taps]:
        """The taps along each axis, of operations that have any."""
        return []

    def kind(self, step: Step) -> str:
        """What kind of layer it is; "" for an operation that is none."""
        return ""

    def added(self, step: Step) -> tuple[Value, Sides] | None:
        """The map that the operation only pads, and by how much; None where it does anything else."""
        return None

    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        """Adds to the operands the paths from the outputs."""
        window = next(window for window in reached if window is not None)
        to.add(step.inputs[0], self.back(step, window, to))

    def back(self, step: Step, window: Window, to: "Pullback") -> Window:
        """The paths to the first operand, for operations whose other operands have none."""
        raise InputError(f"analyse does not know the operation {step.name!r}, which the model uses")


def present(value: Value) -> np.ndarray | None:
    """1 where a kernel or matrix has an entry, 0 where it has none by construction; None if it has all."""
    if value.depends or value.unmasked:
        return None
    size = np.abs(np.asarray(value.value, np.float64))
    # The weights of an interpolation are rounded: a millionth is nothing.
    there = size > 1e-6 * size.max(initial=0.0)
    return None if there.all() else there.astype(np.float64)
