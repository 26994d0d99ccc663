"""What each axis of each array of a model stands for, and how far apart its pixels lie in the input."""

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal

import numpy as np

from hdc.errors import InputError
from hdc.receptive.masks import Masked, find_masks
from hdc.receptive.trace import POINTWISE, Step, Trace, Value


@dataclass(frozen=True)
class Axis:
    """The meaning of one axis.

    Attributes:
        kind: `batch`, `space`, `channel`; `new` for one that was put in, along which all is the same, as
            when a summary is stretched over a map; `stack` for one along which arrays were put side by side;
            `flat` for several axes in one.
        space: which of the input's spatial axes, for `space` and for a phase.
        stride: input pixels from one position to the next, for the same.
        phase: whether a `channel` is the place within the blocks that a map was cut into.
        parts, lengths: the axes and lengths behind a `flat` one.
    """

    kind: Literal["batch", "space", "channel", "new", "stack", "flat"]
    space: int = 0
    stride: Fraction = Fraction(1)
    phase: bool = False
    parts: "tuple[Axis, ...]" = ()
    lengths: tuple[int, ...] = ()


CHANNEL, NEW, STACK = Axis("channel"), Axis("new"), Axis("stack")
Axes = tuple[Axis, ...]


@dataclass
class Annotation:
    """The axes of every value that depends on the input.

    Attributes:
        axes: by value.
        spread: by value, the widest distance in input pixels between neighbouring taps of any layer before.
        couplings: steps, and those of their operands, by which a summary of a map returns to its every
            pixel, as in group normalisation, batch statistics, squeeze-and-excitation or image pooling.
        masked: by value, the entries that constants mask out.
    """

    axes: dict[Value, Axes] = field(default_factory=dict)
    spread: dict[Value, int] = field(default_factory=dict)
    couplings: set[tuple[Step, Value]] = field(default_factory=set)
    masked: dict[Value, Masked] = field(default_factory=dict)


def annotate(trace: Trace) -> Annotation:
    """The axes of the input are `[batch, space..., channel]`; the rest follows step by step."""
    found = Annotation(masked=find_masks(trace))
    spaces = len(trace.input.shape) - 2
    found.axes[trace.input] = (Axis("batch"), *(Axis("space", k) for k in range(spaces)), CHANNEL)
    found.spread[trace.input] = 1
    for step in trace.steps:
        taps = tap_distances(step)
        spread = max(found.spread[value] for value in step.inputs if value.depends)
        if taps and step.inputs[0].depends:
            before = found.axes[step.inputs[0]]
            spread = max(spread, *(math.ceil(d * before[a].stride) for a, d in taps.items()))
        for output, axes in zip(step.outputs, _outputs(step, found), strict=True):
            found.axes[output] = axes
            found.spread[output] = spread
    found.axes[trace.output] = _as_input(trace, found.axes[trace.output], found.axes[trace.input])
    return found


def _as_input(trace: Trace, axes: Axes, given: Axes) -> Axes:
    """An output of the input's height and width is a map like it, even if what lies between hides it."""
    like = len(axes) == len(given) and trace.output.shape[1:-1] == trace.input.shape[1:-1]
    known = [place for place, axis in enumerate(axes) if axis.kind == "space"]
    if not like or any(axes[place].space != given[place].space for place in known):
        return axes
    return tuple(axes[i] if i in known or axis.kind != "space" else axis for i, axis in enumerate(given))


def tap_distances(step: Step) -> dict[int, Fraction]:
    """Distance between the taps of a convolution or a pool, along the operand's axes that have several."""
    params = step.params
    if step.name == "conv_general_dilated":
        spec = params["dimension_numbers"]
        kernel = step.inputs[1].shape
        return {
            axis: Fraction(rate, apart)
            for axis, tap, rate, apart in zip(
                spec.lhs_spec[2:],
                spec.rhs_spec[2:],
                params["rhs_dilation"],
                params["lhs_dilation"],
                strict=True,
            )
            if kernel[tap] > 1
        }
    if step.name.startswith("reduce_window"):
        windows = zip(
            params["window_dimensions"], params["window_dilation"], params["base_dilation"], strict=True
        )
        return {axis: Fraction(rate, apart) for axis, (k, rate, apart) in enumerate(windows) if k > 1}
    return {}


def _outputs(step: Step, found: Annotation) -> list[Axes]:
    """The axes of a step's outputs."""
    params, shapes = step.params, [output.shape for output in step.outputs]
    given = [(value, found.axes[value]) for value in step.inputs if value.depends]
    operand, shape = next(value for value in step.inputs if value.depends), shapes[0]
    axes = given[0][1]
    match step.name:
        case name if name in POINTWISE or name == "either":
            return [_unified(step, given, found)]
        case "conv_general_dilated":
            return [_convolved(step, found)]
        case name if name.startswith("reduce_window"):
            scaled = _scaled(axes, params["window_strides"], params["base_dilation"])
            return [scaled for _ in shapes]
        case name if name.startswith(("reduce_", "arg")):
            kept = _reduced(axes, params["axes"])
            return [kept for _ in shapes]
        case "broadcast_in_dim":
            new = [NEW] * len(shape)
            for i, place in enumerate(params["broadcast_dimensions"]):
                new[place] = axes[i] if operand.shape[i] == shape[place] else NEW
            return [tuple(new)]
        case "reshape":
            return [_reshaped(axes, operand.shape, shape)]
        case "squeeze":
            return [tuple(axis for i, axis in enumerate(axes) if i not in params["dimensions"])]
        case "transpose":
            return [tuple(axes[i] for i in params["permutation"])]
        case "slice":
            strides = params["strides"] or (1,) * len(shape)
            return [_scaled(axes, strides, (1,) * len(shape))]
        case "pad":
            apart = [interior + 1 for _, _, interior in params["padding_config"]]
            scaled = _scaled(axes, (1,) * len(shape), apart)
            return [_uneven(scaled, [any(sides) for sides in params["padding_config"]])]
        case "concatenate":
            along = params["dimension"]
            # What is joined along this axis stays side by side: no summary returns to a map by it.
            joined = _unified(step, given, found, beside=(along,))
            return [_uneven(joined, [place == along for place in range(len(shape))])]
        case "dot_general":
            return [_contracted(step, found)]
        case "gather":
            return [_gathered(step, axes)]
        case "tile":
            return [tuple(_tiled(*both) for both in zip(axes, operand.shape, params["reps"], strict=True))]
        case "scan_row":
            return [axes[1:]]
        case "unstack":
            return [(*axes[: params["axis"]], *axes[params["axis"] + 1 :]) for _ in shapes]
        case "stack":
            joined = _unified(step, given, found)
            # What the turns of a loop over a map return lies as what they take.
            taken = [found.axes[rows][0] for rows in params.get("rows", ()) if rows.depends]
            along = next((axis for axis in taken if axis.kind in ("space", "flat")), STACK)
            return [(*joined[: params["axis"]], along, *joined[params["axis"] :])]
        case "dynamic_update_slice":
            base, update = step.inputs[:2]
            known = [(value, axes) for value, axes in given if value in (base, update)]
            axes = _unified(step, known, found, beside=range(len(shape)))
            return [_uneven(axes, [n != m for n, m in zip(base.shape, update.shape, strict=True)])]
        case _:
            return [axes if len(axes) == len(s) else (CHANNEL,) * len(s) for s in shapes]


def _unified(
    step: Step, given: Sequence[tuple[Value, Axes]], found: Annotation, beside: Container[int] = ()
) -> Axes:
    """The axes of arrays that are combined place by place; notes the summaries that meet a map.

    Args:
        beside: the axes along which they are put side by side.
    """
    result = []
    for place, column in enumerate(zip(*(axes for _, axes in given), strict=True)):
        told = [axis for axis in column if axis.kind != "new"]
        spatial = [axis for axis in told if axis.kind == "space"]
        # Interpolation to a size that is no multiple has an odd stride; what it meets has a plain one.
        axis = min(spatial, key=lambda axis: axis.stride.denominator, default=told[0] if told else NEW)
        if axis.kind in ("space", "flat") and place not in beside:
            meets = zip(given, column, strict=True)
            found.couplings |= {(step, value) for (value, _), one in meets if one.kind == "new"}
        result.append(axis)
    return tuple(result)


def _uneven(axes: Axes, places: Sequence[bool]) -> Axes:
    """At these places, what was the same all along an axis that was put in no longer is."""
    return tuple(
        STACK if axis.kind == "new" and here else axis for axis, here in zip(axes, places, strict=True)
    )


def _reduced(axes: Axes, places: Container[int]) -> Axes:
    """What is left; where blocks of a map are put on one another, the place within them becomes the map."""
    gone = {axis.space for place, axis in enumerate(axes) if place in places and axis.kind == "space"}
    kept = []
    for axis in (axis for place, axis in enumerate(axes) if place not in places):
        if axis.phase and axis.space in gone:
            gone.remove(axis.space)
            axis = replace(axis, kind="space", phase=False)
        kept.append(axis)
    return tuple(kept)


def _scaled(axes: Axes, strides: Iterable[int], apart: Iterable[int]) -> Axes:
    return tuple(
        replace(axis, stride=axis.stride * Fraction(by, gap)) if axis.kind == "space" else axis
        for axis, by, gap in zip(axes, strides, apart, strict=True)
    )


def _convolved(step: Step, found: Annotation) -> Axes:
    spec, params = step.params["dimension_numbers"], step.params
    dependent = next(value for value in step.inputs if value.depends)
    if dependent is not step.inputs[0]:  # a kernel made from the image over a constant map
        return (CHANNEL,) * len(step.outputs[0].shape)
    before = found.axes[dependent]
    kernel = step.inputs[1].shape
    for axis, tap in zip(spec.lhs_spec[2:], spec.rhs_spec[2:], strict=True):
        if before[axis].kind == "batch" and kernel[tap] > 1:
            raise InputError(
                "a convolution of the model runs along the batch: give input_shape with the batch first, "
                "such as (1, height, width, channels)"
            )
    after = [CHANNEL] * len(before)
    after[spec.out_spec[0]] = before[spec.lhs_spec[0]]
    spatial = tuple(before[axis] for axis in spec.lhs_spec[2:])
    scaled = _scaled(spatial, params["window_strides"], params["lhs_dilation"])
    for axis, place in zip(scaled, spec.out_spec[2:], strict=True):
        after[place] = axis
    return tuple(after)


def _contracted(step: Step, found: Annotation) -> Axes:
    """Batch axes first, then what is left of the left operand, then of the right."""
    left, right = step.inputs
    (left_sum, right_sum), (left_batch, right_batch) = step.params["dimension_numbers"]
    batches = [
        _unified(
            step,
            [(v, found.axes[v][i : i + 1]) for v, i in zip((left, right), pair, strict=True) if v.depends],
            found,
        )
        for pair in zip(left_batch, right_batch, strict=True)
    ]
    result = [axis for (axis,) in batches]
    for mine, summed, batch, other, others in (
        (left, left_sum, left_batch, right, right_sum),
        (right, right_sum, right_batch, left, left_sum),
    ):
        free = [i for i in range(len(mine.shape)) if i not in (*summed, *batch)]
        if mine.depends:
            result += [found.axes[mine][i] for i in free]
        elif len(free) == len(others) == 1:
            axis, before, after = found.axes[other][others[0]], other.shape[others[0]], mine.shape[free[0]]
            if not mine.parameter:
                # A constant matrix along one axis resamples it: interpolation.
                result.append(_resampled(axis, before, after))
            else:
                # A layer from every position to as many, as in an MLP-Mixer, leaves a map.
                stays = before == after and axis.kind in ("space", "flat")
                result.append(axis if stays else CHANNEL)
        else:
            result += [CHANNEL] * len(free)
    return tuple(result)


def _resampled(axis: Axis, before: int, after: int) -> Axis:
    if axis.kind != "space":
        return axis
    return NEW if before == 1 < after else replace(axis, stride=axis.stride * Fraction(before, after))


def _tiled(axis: Axis, length: int, times: int) -> Axis:
    return NEW if length == 1 < times else axis


def _gathered(step: Step, axes: Axes) -> Axes:
    """Taking places along one axis, as repeating and nearest-neighbour interpolation do."""
    numbers, shape = step.params["dimension_numbers"], step.outputs[0].shape
    taken, kept = numbers.start_index_map, numbers.offset_dims
    if len(taken) != 1 or numbers.collapsed_slice_dims != taken or len(shape) != len(axes):
        return (CHANNEL,) * len(shape)
    others = iter(axis for i, axis in enumerate(axes) if i != taken[0])
    return tuple(
        next(others) if place in kept else _picked(axes[taken[0]], step, length)
        for place, length in enumerate(shape)
    )


def _picked(axis: Axis, step: Step, length: int) -> Axis:
    """The axis at chosen places: evenly spaced ones, or all of them, each several times."""
    operand, places = step.inputs[0].shape, step.inputs[1]
    before = operand[step.params["dimension_numbers"].start_index_map[0]]
    if axis.kind != "space" or places.depends or length == 1 or before == 1:
        return _resampled(axis, before, length)
    steps = np.unique(np.diff(np.asarray(places.value).ravel()))
    if len(steps) == 1 and steps[0] > 0:
        return replace(axis, stride=axis.stride * int(steps[0]))
    return _resampled(axis, before, length)


def groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
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
    for old, new in groups(before, after):
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
