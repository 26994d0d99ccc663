"""The questions that a rule answers about one kind of operation."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hdc.errors import InputError
from hdc.receptive.axes import Annotation, Axes
from hdc.receptive.masks import NOTHING, Given, Masked
from hdc.receptive.pullback import Pullback
from hdc.receptive.steps import Step, Value
from hdc.receptive.window import Window, along

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

    def back(self, window: Window, axis: int, length: int, only: int | None = None) -> Window:
        """What the taps read, or one of them, for a window of an output of that length along an axis."""
        window = window.expanded(axis, length)
        if (self.count, self.stride, self.apart) == (1, 1, 1):
            return window.moved(axis, -self.low)
        start, length = window.starts[axis], window.counts.shape[axis + 1]
        assert start is not None
        shape = list(window.counts.shape)
        shape[axis + 1] = (length - 1) * self.stride + (self.count - 1) * self.rate + 1 if length else 0
        counts = np.zeros(shape)
        for tap in range(self.count) if only is None else [only]:
            first = tap * self.rate
            if length:
                stop = first + (length - 1) * self.stride + 1
                counts[along(axis, first, stop, self.stride)] += window.counts
        # Of positions between which zeros were put, those that hold an entry.
        start = start * self.stride - self.low
        first = -start % self.apart
        entries = counts[along(axis, first, shape[axis + 1], self.apart)]
        return window.with_axis(axis, entries, (start + first) // self.apart)


class Rule:
    """What analyse knows about one kind of operation; the defaults are for operations it does not know.

    Methods:
        axes: what the axes of every output stand for; for an output with another number, they are channels.
        masked: what is masked out of the output.
        hidden: the operands that are masked out, and where.
        taps: the taps along each axis, of operations that have any.
        kind: what kind of layer it is; "" for an operation that is none.
        added: the map that the operation only pads, and by how much; None where it does anything else.
        is_circular: whether it pads by continuing the map around its edges.
        pull: adds to the operands the paths from one of the outputs, of which `number` is the place.
        back: the paths to the first operand, for operations whose other operands have none.
    """

    def axes(self, step: Step, found: Annotation) -> Axes:
        return found.axes[step.operand]

    def masked(self, step: Step, given: Given) -> Masked:
        return NOTHING

    def hidden(self, step: Step, given: Given) -> list[tuple[Value, np.ndarray]]:
        return []

    def taps(self, step: Step) -> list[Taps]:
        return []

    def kind(self, step: Step) -> str:
        return ""

    def added(self, step: Step) -> tuple[Value, Sides] | None:
        return None

    def is_circular(self, step: Step) -> bool:
        return False

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        to.add(step.inputs[0], self.back(step, window, to))

    def back(self, step: Step, window: Window, to: Pullback) -> Window:
        raise InputError(
            f"analyse does not know the operation {step.name!r}, which the model uses; "
            "output= asks about a layer before it"
        )
