"""Matrix products: dense layers, attention, and interpolation written as a product with a constant matrix."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hdc.receptive.axes import CHANNEL, Annotation, Axes, Axis, resampled, unified
from hdc.receptive.masks import small
from hdc.receptive.rules.base import Reached, Rule, present
from hdc.receptive.steps import Step, Value
from hdc.receptive.window import Window, inserted, mass

if TYPE_CHECKING:
    from hdc.receptive.pullback import Pullback

_ROW = 51  # np.einsum's number of the axis of outputs in question; it knows axes 0 to 51


@dataclass(frozen=True)
class _Side:
    """An operand of a product.

    Attributes:
        batch, summed, free: its axes of each kind.
        numbers: for each of its axes, the place in the output; a summed one has a number after these.
    """

    value: Value
    batch: tuple[int, ...]
    summed: tuple[int, ...]
    free: tuple[int, ...]
    numbers: tuple[int, ...]

    @property
    def places(self) -> list[int]:
        """Of its free axes in the output."""
        return [self.numbers[axis] for axis in self.free]


def _sides(step: Step) -> list[_Side]:
    """The output has the batch axes first, then the free ones of the left operand, then of the right."""
    rank, (sums, batches) = len(step.outputs[0].shape), step.params["dimension_numbers"]
    sides, first = [], len(batches[0])
    for value, summed, batch in zip(step.inputs, sums, batches, strict=True):
        free = tuple(axis for axis in range(len(value.shape)) if axis not in (*summed, *batch))
        numbers = {axis: place for place, axis in enumerate(batch)}
        numbers |= {axis: place for place, axis in enumerate(free, first)}
        numbers |= {axis: number for number, axis in enumerate(summed, rank)}
        first += len(free)
        sides.append(_Side(value, batch, summed, free, tuple(numbers[a] for a in range(len(value.shape)))))
    return sides


class Product(Rule):
    """`dot_general`: some axes are summed over, some run along, the free ones are put side by side."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        left, right = sides = _sides(step)
        result: list[Axis] = []
        for pair in zip(left.batch, right.batch, strict=True):
            given = [
                (side.value, found.axes[side.value][axis : axis + 1])
                for side, axis in zip(sides, pair, strict=True)
                if side.value.depends
            ]
            result += unified(step, found, given)
        for mine, other in ((left, right), (right, left)):
            if mine.value.depends:
                result += [found.axes[mine.value][axis] for axis in mine.free]
            elif len(mine.free) == len(other.summed) == 1:
                axis = found.axes[other.value][other.summed[0]]
                before, after = other.value.shape[other.summed[0]], mine.value.shape[mine.free[0]]
                if not mine.value.parameter:
                    # A constant matrix along one axis resamples it: interpolation.
                    result.append(resampled(axis, before, after))
                else:
                    # A layer from every position to as many, as in an MLP-Mixer, leaves a map.
                    stays = before == after and axis.kind in ("space", "flat")
                    result.append(axis if stays else CHANNEL)
            else:
                result += [CHANNEL] * len(mine.free)
        return tuple(result)

    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        (window,) = reached
        assert window is not None
        left, right = _sides(step)
        for mine, other in ((left, right), (right, left)):
            if mine.value.depends and not to.is_coupling(step, mine.value):
                found = _to_one(window, step, mine, other, to)
                masked = to.annotation.masked.get(mine.value)
                to.add(mine.value, found if masked is None else to.without(found, masked.zero))


def _to_one(window: Window, step: Step, mine: _Side, other: _Side, to: "Pullback") -> Window:
    """What one operand gets."""
    taps = _taps(other.value, to)
    if taps is None:
        for place, axis in zip(other.places, other.free, strict=True):
            window = window.with_axis(place, window.total(place, other.value.shape[axis]), None)
        factor = to.spread(window, mine.value, mine.summed)
        kept = [number for axis, number in enumerate(mine.numbers) if axis not in mine.summed]
        window = window.without(other.places)
        window = window.transposed([sorted(kept).index(number) for number in kept])
        return inserted(Window(window.counts * factor, window.starts), mine.summed)
    # A matrix that has zeros: only the entries that are not zero are taps.
    if other.value.depends:
        to.note(mass(window.counts) > 0)  # what is masked out differs from place to place
    for axis, theirs in zip(mine.summed, other.summed, strict=True):
        if to.annotation.axes[mine.value][axis].kind == "channel":
            taps = taps / np.maximum(taps.sum(axis=theirs, keepdims=True), 1)
    for place in (*other.places, *range(len(mine.batch))):
        window = to.inside(window, place, step.outputs[0].shape[place])
    places = range(len(window.starts))
    counts = np.einsum(
        window.counts, [_ROW, *places], taps, other.numbers, [_ROW, *mine.numbers], optimize=True
    )
    return Window(counts, tuple(window.starts[n] if n in places else 0 for n in mine.numbers))


def _taps(value: Value, to: "Pullback") -> np.ndarray | None:
    """As `present`; for an array that depends on the input, what no mask takes away."""
    if not value.depends:
        return present(value)
    masked = to.annotation.masked.get(value)
    if masked is None or not masked.zero.any():
        return None
    return np.broadcast_to((~small(masked.zero)).astype(np.float64), value.shape)


RULES: dict[str, Rule] = {"dot_general": Product()}
