"""Operations with taps at fixed distances: convolution, pooling, and their simplest cases, slice and pad."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hdc.errors import InputError
from hdc.receptive.axes import CHANNEL, Annotation, Axes, scaled, uneven
from hdc.receptive.rules.base import Reached, Rule, Sides, Taps, present
from hdc.receptive.steps import Step, Value
from hdc.receptive.window import Window, mass, spaced, tapped

if TYPE_CHECKING:
    from hdc.receptive.pullback import Pullback


class Tapped(Rule):
    """Taps along every axis, each of which stays in its place."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        before = found.axes[step.operand]
        return tuple(scaled(before[taps.axis], taps.step) for taps in self.taps(step))

    def back(self, step: Step, window: Window, to: "Pullback") -> Window:
        for taps in self.taps(step):
            if not taps.is_identity:
                window = taps.back(window, taps.axis, step.outputs[0].shape[taps.place])
        return window


class Pooling(Tapped):
    def taps(self, step: Step) -> list[Taps]:
        columns = ("window_dimensions", "window_strides", "window_dilation", "base_dilation", "padding")
        return [
            Taps(axis, axis, count, stride, rate, apart, low, high)
            for axis, (count, stride, rate, apart, (low, high)) in enumerate(
                zip(*(step.params[name] for name in columns), strict=True)
            )
        ]

    def kind(self, step: Step) -> str:
        return f"{step.name.removeprefix('reduce_window').removeprefix('_')} pool".strip()

    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        # Pooling that also returns the places of its values: every output depends on every array.
        for window in [window for window in reached if window is not None]:
            for value in step.inputs[: len(reached)]:
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
        return [
            Taps(axis, place, count, stride, rate, apart, low, high)
            for axis, place, count, stride, rate, apart, (low, high) in zip(
                spec.lhs_spec[2:], spec.out_spec[2:], counts, *columns, strict=True
            )
        ]

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
        for taps in self.taps(step):
            if before[taps.axis].kind == "batch" and taps.count > 1:
                raise InputError(
                    "a convolution of the model runs along the batch: give input_shape with the batch first, "
                    "such as (1, height, width, channels)"
                )
            after[taps.place] = scaled(before[taps.axis], taps.step)
        return tuple(after)

    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        assert reached[0] is not None
        image, kernel = step.inputs
        if kernel.depends:
            every = reached[0]
            for axis, length in enumerate(step.outputs[0].shape):
                every = every.with_axis(axis, every.total(axis, length), None)
            to.note(mass(every.counts) > 0)
            total = every.counts.reshape(-1, *(1 for _ in kernel.shape))
            to.add(kernel, Window(total, (None,) * len(kernel.shape)))
        if image.depends:
            to.add(image, self.back(step, reached[0], to))

    def back(self, step: Step, window: Window, to: "Pullback") -> Window:
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
        there = present(kernel)
        if there is None:
            window = _ungrouped(window, shape[1], image.shape[spec.lhs_spec[1]], groups)
            for axis, taps in along:
                window = taps.back(window, axis, shape[axis])
        else:
            window = _masked(window, there.transpose(spec.rhs_spec), shape[1], groups, along)
        return window.transposed(np.argsort(spec.lhs_spec))


def _ungrouped(window: Window, outputs: int, inputs: int, groups: int) -> Window:
    """Each output channel averages the `inputs / groups` input channels of its group."""
    mine, theirs = inputs // groups, outputs // groups
    if window.starts[1] is None:
        return Window(window.counts * (theirs / mine), window.starts)
    if groups == 1:
        return window.with_axis(1, window.total(1, outputs) / mine, None)
    counts = window.fitted(1, 0, outputs).counts
    shape = counts.shape
    summed = counts.reshape(*shape[:2], groups, theirs, *shape[3:]).sum(axis=3) / mine
    return window.with_axis(1, np.repeat(summed, mine, axis=2), 0)


def _masked(
    window: Window, taps: np.ndarray, outputs: int, groups: int, along: Sequence[tuple[int, Taps]]
) -> Window:
    """Tap by tap, where not all are there: taps is `[outputs, inputs / groups, space...]`.

    Each output channel averages the input channels that any of its taps reads.
    """
    read = np.maximum(taps.any(axis=tuple(range(2, taps.ndim))).sum(axis=1), 1)
    window = window.expanded(1, outputs).fitted(1, 0, outputs)
    shape = window.counts.shape
    counts = window.counts / read.reshape(-1, *(1 for _ in shape[3:]))
    grouped = counts.reshape(*shape[:2], groups, outputs // groups, *shape[3:])
    total: Window | None = None
    for place in np.ndindex(*taps.shape[2:]):
        there = taps[(slice(None), slice(None), *place)]
        if not there.any():
            continue
        there = there.reshape(groups, outputs // groups, -1)
        # q outputs in question, n batch, g groups, o and i channels of a group.
        channels = np.einsum("qngo...,goi->qngi...", grouped, there)
        part = window.with_axis(1, channels.reshape(*shape[:2], -1, *shape[3:]), 0)
        for tap, (axis, of) in zip(place, along, strict=True):
            part = tapped(part, axis, tap, of.count, of.stride, of.rate, of.low)
        total = part if total is None else Window(total.counts + part.counts, part.starts)
    if total is None:
        raise InputError("a convolution of the model has no taps: its kernel is zero by construction")
    for axis, of in along:
        total = spaced(total, axis, of.apart)
    return total


RULES: dict[str, Rule] = {
    "conv_general_dilated": Convolution(),
    **dict.fromkeys([f"reduce_window{of}" for of in ("", "_max", "_min", "_sum")], Pooling()),
    "slice": Slice(),
    "pad": Pad(),
}
