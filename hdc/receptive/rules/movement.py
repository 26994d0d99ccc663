"""Operations that put entries elsewhere, whole axes at a time: reshape, transpose, broadcast and the like."""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from hdc.receptive.axes import CHANNEL, NEW, Annotation, Axes, Axis
from hdc.receptive.masks import NOTHING, Given, Masked
from hdc.receptive.rules.base import Rule
from hdc.receptive.steps import Step
from hdc.receptive.window import Window, inserted

if TYPE_CHECKING:
    from hdc.receptive.pullback import Pullback


class Movement(Rule):
    """Operations that also move a mask: what they make of an array of their operand's shape."""

    def moved(self, step: Step, array: np.ndarray) -> np.ndarray:
        return array.reshape(step.outputs[0].shape)

    def masked(self, step: Step, given: Given) -> Masked:
        return (given[0] or NOTHING).each(lambda mask: self.moved(step, mask) if mask.ndim else mask)


class Broadcast(Movement):
    def moved(self, step: Step, array: np.ndarray) -> np.ndarray:
        after = step.outputs[0].shape
        shape = [1] * len(after)
        for axis, place in enumerate(step.params["broadcast_dimensions"]):
            shape[place] = array.shape[axis]
        return np.broadcast_to(array.reshape(shape), after)

    def axes(self, step: Step, found: Annotation) -> Axes:
        operand, shape = step.inputs[0], step.outputs[0].shape
        new = [NEW] * len(shape)
        for i, place in enumerate(step.params["broadcast_dimensions"]):
            new[place] = found.axes[operand][i] if operand.shape[i] == shape[place] else NEW
        return tuple(new)

    def back(self, step: Step, window: Window, to: "Pullback") -> Window:
        places, operand, shape = (
            step.params["broadcast_dimensions"],
            step.inputs[0].shape,
            step.outputs[0].shape,
        )
        kept = {place for i, place in enumerate(places) if operand[i] == shape[place]}
        for axis, length in enumerate(shape):
            if axis not in kept:
                window = window.with_axis(axis, window.total(axis, length), None)
        return window.without([axis for axis in range(len(shape)) if axis not in places])


class Squeeze(Movement):
    def axes(self, step: Step, found: Annotation) -> Axes:
        gone = step.params["dimensions"]
        return tuple(axis for i, axis in enumerate(found.axes[step.operand]) if i not in gone)

    def back(self, step: Step, window: Window, to: "Pullback") -> Window:
        return inserted(window, [axis % len(step.inputs[0].shape) for axis in step.params["dimensions"]])


class Transpose(Movement):
    def moved(self, step: Step, array: np.ndarray) -> np.ndarray:
        return array.transpose(step.params["permutation"])

    def axes(self, step: Step, found: Annotation) -> Axes:
        return tuple(found.axes[step.operand][i] for i in step.params["permutation"])

    def back(self, step: Step, window: Window, to: "Pullback") -> Window:
        return window.transposed(np.argsort(step.params["permutation"]))


class Reverse(Rule):
    def back(self, step: Step, window: Window, to: "Pullback") -> Window:
        for axis in step.params["dimensions"]:
            if window.starts[axis] is not None:
                start = step.inputs[0].shape[axis] - window.stop(axis)
                window = window.with_axis(axis, np.flip(window.counts, axis + 1), start)
        return window


class Tile(Rule):
    def axes(self, step: Step, found: Annotation) -> Axes:
        columns = zip(found.axes[step.operand], step.operand.shape, step.params["reps"], strict=True)
        return tuple(NEW if length == 1 < times else axis for axis, length, times in columns)

    def back(self, step: Step, window: Window, to: "Pullback") -> Window:
        for axis, times in enumerate(step.params["reps"]):
            if times > 1:
                length = step.inputs[0].shape[axis]
                whole = to.inside(window, axis, times * length).counts
                shape = (*whole.shape[: axis + 1], times, length, *whole.shape[axis + 2 :])
                window = window.with_axis(axis, whole.reshape(shape).sum(axis=axis + 1), 0)
        return window


class Reshape(Movement):
    def axes(self, step: Step, found: Annotation) -> Axes:
        return _reshaped(found.axes[step.operand], step.operand.shape, step.outputs[0].shape)

    def back(self, step: Step, window: Window, to: "Pullback") -> Window:
        before, after = step.inputs[0].shape, step.outputs[0].shape
        starts: list[int | None] = [None] * len(before)
        shape = [1] * len(before)
        for old, new in _groups(before, after):
            if len(old) == len(new) == 1:
                starts[old[0]], shape[old[0]] = window.starts[new[0]], window.counts.shape[1 + new[0]]
            elif any(window.starts[axis] is not None for axis in new):
                for axis in new:
                    window = to.inside(window, axis, after[axis])
                for axis in old:
                    starts[axis], shape[axis] = 0, before[axis]
        return Window(window.counts.reshape(len(window.counts), *shape), tuple(starts))


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The axes that a reshape turns into one another: pairs of places before and after, in order.

    No length is 0.
    """
    result: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        old, new, left, right = [], [], 1, 1
        while left != right or not (old or new):
            if i < len(before) and (left < right or not old):
                left *= before[i]
                old.append(i)
                i += 1
            if j < len(after) and (right < left or not new):
                right *= after[j]
                new.append(j)
                j += 1
        result.append((old, new))
    return result


def _reshaped(axes: Axes, before: Sequence[int], after: Sequence[int]) -> Axes:
    result: list[Axis] = [NEW] * len(after)
    for old, new in _groups(before, after):
        wide_old, wide_new = [i for i in old if before[i] > 1], [j for j in new if after[j] > 1]
        parts, lengths = tuple(axes[i] for i in wide_old), tuple(before[i] for i in wide_old)
        if len(wide_new) == 1:
            result[wide_new[0]] = _merged(parts, lengths, after[wide_new[0]])
        elif len(wide_old) == 1 and wide_new:
            split = _split(parts[0], tuple(after[j] for j in wide_new))
            for j, axis in zip(wide_new, split, strict=True):
                result[j] = axis
        elif wide_new:
            for j in wide_new:
                result[j] = CHANNEL
    # Axes of one position keep their meaning in order, as far as there are as many before and after.
    ones_old = [axes[i] for i in range(len(before)) if before[i] == 1]
    ones_new = [j for j in range(len(after)) if after[j] == 1]
    if len(ones_old) == len(ones_new):
        for j, axis in zip(ones_new, ones_old, strict=True):
            result[j] = axis
    return tuple(result)


def _merged(parts: Axes, lengths: tuple[int, ...], length: int) -> Axis:
    if len(parts) == 1:
        return parts[0]
    spatial = [(axis, n) for axis, n in zip(parts, lengths, strict=True) if axis.kind == "space"]
    if len(spatial) == 1 and all(axis.kind in ("space", "new", "stack", "channel") for axis in parts):
        # Repeated or shuffled into the map from the channels: so many positions where there was one.
        if parts[0].kind == "space":
            axis, before = spatial[0]
            return replace(axis, stride=axis.stride * Fraction(before, length))
    elif all(axis.kind == "channel" for axis in parts):
        return CHANNEL
    return Axis("flat", parts=parts, lengths=lengths)


def _split(axis: Axis, lengths: tuple[int, ...]) -> Axes:
    if axis.kind == "flat" and axis.lengths == lengths:
        return axis.parts
    if axis.kind == "space":
        strides = [axis.stride * math.prod(lengths[place + 1 :]) for place in range(len(lengths))]
        phases = (Axis("channel", axis.space, stride, phase=True) for stride in strides[1:])
        return (replace(axis, stride=strides[0]), *phases)
    return (CHANNEL,) * len(lengths) if axis.kind != "new" else (axis,) * len(lengths)


RULES: dict[str, Rule] = {
    "broadcast_in_dim": Broadcast(),
    "reshape": Reshape(),
    "squeeze": Squeeze(),
    "transpose": Transpose(),
    "rev": Reverse(),
    "tile": Tile(),
}
