"""Operations whose outputs read several entries: convolution, pooling, matrix products, reductions.

Slice and pad are among them: convolutions of one tap.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from hdc.errors import InputError
from hdc.receptive.axes import CHANNEL, Annotation, Axes, Axis, resampled, scaled, uneven, unified
from hdc.receptive.masks import NOTHING, Given, Masked, small
from hdc.receptive.pullback import Pullback
from hdc.receptive.rules.base import Rule, Sides, Taps
from hdc.receptive.steps import Step, Value
from hdc.receptive.window import Window

_Side = tuple[Value, list[int]]  # an operand of a product, and numbers for its axes
_ROW = 51  # np.einsum's number of the axis of outputs in question; it knows axes 0 to 51


class AlongBatch(InputError):
    """A convolution takes the batch for a side of an image."""


class Tapped(Rule):
    """Taps along every axis, each of which stays in its place."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        before = found.axes[step.operand]
        return tuple(scaled(before[taps.axis], taps.step) for taps in self.taps(step))

    def back(self, step: Step, window: Window, to: Pullback) -> Window:
        for taps in self.taps(step):
            if not taps.is_identity:
                window = taps.back(window, taps.axis, step.outputs[0].shape[taps.place])
        return window


class Pooling(Tapped):
    def taps(self, step: Step) -> list[Taps]:
        names = ("window_dimensions", "window_strides", "window_dilation", "base_dilation", "padding")
        columns = zip(*(step.params[name] for name in names), strict=True)
        return [Taps(axis, axis, *column, *sides) for axis, (*column, sides) in enumerate(columns)]

    def kind(self, step: Step) -> str:
        return f"{step.name.removeprefix('reduce_window').removeprefix('_')} pool".strip()

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        # Pooling that also returns the places of its values: every output depends on every array.
        for value in step.inputs[: len(step.outputs)]:
            to.add(value, self.back(step, window, to))


class Slice(Tapped):
    def taps(self, step: Step) -> list[Taps]:
        params, before = step.params, step.inputs[0].shape
        strides = params["strides"] or (1,) * len(before)
        columns = zip(params["start_indices"], params["limit_indices"], strides, before, strict=True)
        return [
            Taps(axis, axis, stride=by, low=-first, high=last - length)
            for axis, (first, last, by, length) in enumerate(columns)
        ]


class Pad(Tapped):
    def taps(self, step: Step) -> list[Taps]:
        return [
            Taps(axis, axis, apart=interior + 1, low=low, high=high)
            for axis, (low, high, interior) in enumerate(step.params["padding_config"])
        ]

    def axes(self, step: Step, found: Annotation) -> Axes:
        return uneven(super().axes(step, found), [not taps.is_identity for taps in self.taps(step)])

    def added(self, step: Step) -> tuple[Value, Sides]:
        return step.inputs[0], {taps.axis: (taps.low, taps.high) for taps in self.taps(step)}


class Convolution(Rule):
    """A convolution; its taps are those along the spatial axes of its operand."""

    def taps(self, step: Step) -> list[Taps]:
        params, spec = step.params, step.params["dimension_numbers"]
        counts = [step.inputs[1].shape[axis] for axis in spec.rhs_spec[2:]]
        columns = [params[name] for name in ("window_strides", "rhs_dilation", "lhs_dilation", "padding")]
        along = zip(spec.lhs_spec[2:], spec.out_spec[2:], counts, *columns, strict=True)
        return [Taps(*column, *sides) for (*column, sides) in along]

    def kind(self, step: Step) -> str:
        groups = step.params["feature_group_count"]
        channels = step.inputs[0].shape[step.params["dimension_numbers"].lhs_spec[1]]
        if max(step.params["lhs_dilation"]) > 1:
            return "transposed conv"
        if groups == 1:
            return "conv"
        return "depthwise conv" if groups == channels else "grouped conv"

    def axes(self, step: Step, found: Annotation) -> Axes:
        spec = step.params["dimension_numbers"]
        after = [CHANNEL] * len(step.outputs[0].shape)
        if not step.inputs[0].depends:  # a kernel made from the image over a constant map
            return tuple(after)
        before = found.axes[step.inputs[0]]
        after[spec.out_spec[0]] = before[spec.lhs_spec[0]]
        channels = spec.lhs_spec[1]
        along = [before[taps.axis] for taps in self.taps(step) if taps.count > 1]
        mixed = before[channels].kind == "space" and step.inputs[0].shape[channels] > 1
        if mixed and any(axis == CHANNEL for axis in along):
            raise InputError(
                "a convolution of the model takes the input's first spatial axis for the channels and runs "
                "along the last one: analyse a model that takes the channels last, such as (batch, height, "
                "width, channels), or say which axes are spatial, such as spatial=(2, 3)"
            )
        for taps in self.taps(step):
            if before[taps.axis].kind == "batch" and taps.count > 1:
                raise AlongBatch(
                    "a convolution of the model runs along the batch: give input_shape with the batch first, "
                    "such as (1, height, width, channels)"
                )
            after[taps.place] = scaled(before[taps.axis], taps.step)
        return tuple(after)

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        image, kernel = step.inputs
        if kernel.depends:
            every = window
            for axis, length in enumerate(step.outputs[0].shape):
                every = every.summed(axis, length)
            to.note(every)
            total = every.counts.reshape(-1, *(1 for _ in kernel.shape))
            to.add(kernel, Window(total, (None,) * len(kernel.shape)))
        if image.depends:
            to.add(image, self.back(step, window, to))

    def back(self, step: Step, window: Window, to: Pullback) -> Window:
        image, kernel = step.inputs
        spec, groups = step.params["dimension_numbers"], step.params["feature_group_count"]
        if step.params["batch_group_count"] != 1:
            raise InputError("analyse does not know convolutions with batch_group_count")
        # To batch, channel, space, where the rest is done, and back to the image's own order.
        window = window.transposed(spec.out_spec)
        shape = [step.outputs[0].shape[axis] for axis in spec.out_spec]
        along = list(enumerate(self.taps(step), 2))
        for axis, _ in along:
            window = window.expanded(axis, shape[axis])
        there = None if kernel.depends else to.present(kernel)
        if there is None:
            window = _ungrouped(window, shape[1], image.shape[spec.lhs_spec[1]], groups)
            for axis, taps in along:
                window = taps.back(window, axis, shape[axis])
        else:
            window = _masked(window, there.transpose(spec.rhs_spec), groups, along)
        return window.transposed(np.argsort(spec.lhs_spec))


def _ungrouped(window: Window, outputs: int, inputs: int, groups: int) -> Window:
    """Each output channel averages the `inputs / groups` input channels of its group."""
    mine, theirs = inputs // groups, outputs // groups
    if window.starts[1] is None:
        return window.scaled(theirs / mine)
    if groups == 1:
        return window.with_axis(1, window.summed(1, outputs).counts / mine, None)
    counts = window.fitted(1, 0, outputs).counts
    shape = counts.shape
    summed = counts.reshape(*shape[:2], groups, theirs, *shape[3:]).sum(axis=3) / mine
    return window.with_axis(1, np.repeat(summed, mine, axis=2), 0)


def _masked(window: Window, taps: np.ndarray, groups: int, along: Sequence[tuple[int, Taps]]) -> Window:
    """Tap by tap, where not all are there: taps is `[outputs, inputs / groups, space...]`.

    Each output channel averages the input channels that any of its taps reads.
    """
    if not taps.any():
        raise InputError(
            "a convolution of the model has no taps: its kernel is zero, by construction or by the values of "
            "its parameters"
        )
    outputs = len(taps)
    read = np.maximum(taps.any(axis=tuple(range(2, taps.ndim))).sum(axis=1), 1)
    window = window.expanded(1, outputs).fitted(1, 0, outputs)
    shape = window.counts.shape
    counts = window.counts / read.reshape(-1, *(1 for _ in shape[3:]))
    grouped = counts.reshape(*shape[:2], groups, outputs // groups, *shape[3:])
    total: Window | None = None
    for place in np.ndindex(*taps.shape[2:]):
        there = taps[:, :, *place]
        if there.any():
            there = there.reshape(groups, outputs // groups, -1)
            # q outputs in question, n batch, g groups, o and i channels of a group.
            channels = np.einsum("qngo...,goi->qngi...", grouped, there)
            part = window.with_axis(1, channels.reshape(*shape[:2], -1, *shape[3:]), 0)
            for tap, (axis, of) in zip(place, along, strict=True):
                part = of.back(part, axis, shape[axis + 1], tap)
            total = part if total is None else Window(total.counts + part.counts, part.starts)
    assert total is not None
    return total


class Product(Rule):
    """`dot_general`: some axes are summed over, some run along, the free ones are put side by side."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        sides = _sides(step)
        result: list[Axis] = []
        for place in range(len(step.params["dimension_numbers"][1][0])):
            given = [
                (value, (found.axes[value][numbers.index(place)],))
                for value, numbers in sides
                if value.depends
            ]
            result += unified(step, found, given)
        for (mine, numbers), (other, theirs) in (sides, sides[::-1]):
            free = [axis for axis, number in enumerate(numbers) if number not in theirs]
            summed = [axis for axis, number in enumerate(theirs) if number >= len(step.outputs[0].shape)]
            if mine.depends:
                result += [found.axes[mine][axis] for axis in free]
            elif len(free) == len(summed) == 1:
                axis = found.axes[other][summed[0]]
                before, after = other.shape[summed[0]], mine.shape[free[0]]
                # A constant matrix along one axis resamples it: interpolation. A layer from every position
                # to as many, as in an MLP-Mixer, leaves a map.
                stays = before == after and axis.kind in ("space", "flat")
                learned = axis if stays else CHANNEL
                result.append(learned if mine.parameter else resampled(axis, before, after))
            elif (order := None if mine.parameter else _pairs(mine, numbers, other, theirs)) is not None:
                axes, shape = found.axes[other], other.shape
                result += [
                    resampled(axes[summed[place]], shape[summed[place]], mine.shape[axis])
                    for axis, place in zip(free, order, strict=True)
                ]
            else:
                result += [CHANNEL] * len(free)
        return tuple(result)

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        sides = _sides(step)
        for mine, other in (sides, sides[::-1]):
            if mine[0].depends and not to.is_coupling(step, mine[0]):
                found = self._to_one(step, window, mine, other, to)
                to.add(mine[0], to.without(found, to.masked(mine[0]).zero))

    def _to_one(self, step: Step, window: Window, one: _Side, beside: _Side, to: Pullback) -> Window:
        """What one operand gets."""
        (mine, numbers), (other, theirs) = one, beside
        shape = step.outputs[0].shape
        summed = [axis for axis, number in enumerate(numbers) if number >= len(shape)]
        if other.depends:
            hidden = to.masked(other).zero
            taps = np.broadcast_to(1.0 - small(hidden), other.shape) if hidden.any() else None
        else:
            taps = to.present(other)
        if taps is None:
            gone = [number for number in theirs if number not in numbers]
            for place in gone:
                window = window.summed(place, shape[place])
            kept = [number for number in numbers if number < len(shape)]
            factor = to.spread(window, mine, summed)
            window = window.without(gone).transposed(np.argsort(np.argsort(kept)))
            return window.scaled(factor).inserted(summed)
        # A matrix that has zeros: only the entries that are not zero are taps.
        if other.depends:
            to.note(window)  # what is masked out differs from place to place
        for axis in summed:
            along = to.annotation.axes[mine][axis]
            if along.kind == "channel" and not along.phase:
                total = taps.sum(axis=theirs.index(numbers[axis]), keepdims=True)
                taps = taps / np.maximum(total, 1)
        for place in theirs:
            if place < len(shape):
                window = to.inside(window, place, shape[place])
        counts = np.einsum(
            window.counts, [_ROW, *range(len(shape))], taps, theirs, [_ROW, *numbers], optimize=True
        )
        return Window(counts, tuple(window.starts[n] if n < len(shape) else 0 for n in numbers))


def _pairs(mine: Value, numbers: Sequence[int], other: Value, theirs: Sequence[int]) -> list[int] | None:
    """For each free axis of a constant, which of the summed axes it resamples; None where it is no product.

    The weights of an interpolation along several axes may have been multiplied beforehand.
    """
    summed = [numbers.index(number) for number in theirs if number in numbers]
    free = [axis for axis, number in enumerate(numbers) if number not in theirs]
    if not len(free) == len(summed) == len(numbers) / 2 or math.prod(mine.shape) > 2**24:
        return None
    size = np.abs(np.asarray(mine.value, np.float64).transpose(*summed, *free))
    pairs, total = len(free), size.sum()
    for order in itertools.permutations(range(pairs)):
        # Each pair's own weights, if they are a product.
        parts = [
            (
                size.sum(axis=tuple(a for a in range(2 * pairs) if a not in (place, pairs + axis))),
                [place, pairs + axis],
            )
            for axis, place in enumerate(order)
        ]
        whole = np.einsum(*itertools.chain(*parts), list(range(2 * pairs)))
        if np.allclose(whole, size * total ** (pairs - 1), rtol=1e-4, atol=1e-6 * whole.max()):
            return list(order)
    return None


def _sides(step: Step) -> list[_Side]:
    """The operands, and for each axis its place in the output; a summed one has a number after these.

    The output has the batch axes first, then the free ones of the left operand, then of the right.
    """
    rank, (sums, batches) = len(step.outputs[0].shape), step.params["dimension_numbers"]
    free = itertools.count(len(batches[0]))
    sides = []
    for value, summed, batch in zip(step.inputs, sums, batches, strict=True):
        numbers = {axis: number for number, axis in enumerate(summed, rank)}
        numbers |= {axis: place for place, axis in enumerate(batch)}
        every = range(len(value.shape))
        sides.append((value, [numbers[axis] if axis in numbers else next(free) for axis in every]))
    return sides


class Reduction(Rule):
    """The axes in the parameter `axes` vanish."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        """Where blocks of a map are put on one another, the place within them becomes the map."""
        axes, places = found.axes[step.operand], step.params["axes"]
        gone = {axis.space for place, axis in enumerate(axes) if place in places and axis.kind == "space"}
        kept = []
        for axis in (axis for place, axis in enumerate(axes) if place not in places):
            if axis.phase and not axis.parts and axis.space in gone:
                gone.remove(axis.space)
                axis = replace(axis, kind="space", phase=False)
            kept.append(axis)
        return tuple(kept)

    def masked(self, step: Step, given: Given) -> Masked:
        first = (given[0] or NOTHING).each(small)
        if step.name == "reduce_sum":
            first = Masked(first.zero, fixed=first.fixed)
        elif step.name != "reduce_max":
            first = Masked(fixed=first.fixed)
        axes = tuple(int(axis) for axis in step.params["axes"])
        return first.each(lambda mask: np.asarray(mask.all(axis=axes)) if mask.ndim else mask)

    def back(self, step: Step, window: Window, to: Pullback) -> Window:
        axes, masked = step.params["axes"], to.masked(step.inputs[0])
        window = window.scaled(to.spread(window, step.inputs[0], axes)).inserted(axes)
        if step.name == "reduce_sum":
            return to.without(window, masked.zero)
        return to.without(window, masked.low) if step.name == "reduce_max" else window


class Cumulative(Rule):
    """Every position reads all before it, or with `reverse` all after it."""

    def back(self, step: Step, window: Window, to: Pullback) -> Window:
        axis, reverse = step.params["axis"], step.params["reverse"]
        window = to.inside(window, axis, step.inputs[0].shape[axis])
        to.note(window)
        counts = window.counts if reverse else np.flip(window.counts, axis + 1)
        counts = np.cumsum(counts, axis=axis + 1)
        return window.with_axis(axis, counts if reverse else np.flip(counts, axis + 1), 0)


class Mixing(Rule):
    """Every output along some axes depends on every input along them."""

    def __init__(self, mixed: Callable[[Step], Iterable[int]]):
        self.mixed = mixed

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        places = [axis % len(step.outputs[0].shape) for axis in self.mixed(step)]
        for axis in places:
            window = window.summed(axis, step.outputs[0].shape[axis])
        for value in [value for value in step.inputs if value.depends]:
            to.add(value, window.scaled(to.spread(window, value, places)))


REDUCTIONS = frozenset(f"reduce_{of}" for of in ("sum", "prod", "max", "min", "and", "or", "xor"))

RULES: dict[str, Rule] = {
    "conv_general_dilated": Convolution(),
    **dict.fromkeys([f"reduce_window{of}" for of in ("", "_max", "_min", "_sum")], Pooling()),
    "slice": Slice(),
    "pad": Pad(),
    "dot_general": Product(),
    **dict.fromkeys([*REDUCTIONS, "argmax", "argmin"], Reduction()),
    **dict.fromkeys(["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"], Cumulative()),
    "sort": Mixing(lambda step: [step.params["dimension"]]),
    "top_k": Mixing(lambda step: [step.params.get("axis", -1)]),
    "fft": Mixing(lambda step: range(-len(step.params["fft_lengths"]), 0)),
}
