"""What an axis of an array stands for, and how far apart its pixels lie in the input."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal

import numpy as np

from hdc.receptive.masks import Masked
from hdc.receptive.steps import Step, Value


@dataclass(frozen=True)
class Axis:
    """The meaning of one axis.

    Attributes:
        kind: `batch`, `space`, `channel`; `new` for one that was put in, along which all is the same, as
            when a summary is stretched over a map; `stack` for one along which arrays were put side by side;
            `flat` for several axes in one.
        space: which of the input's spatial axes, for `space` and for a phase.
        stride: input pixels from one position to the next, for the same.
        phase: whether a `channel` is the place within the blocks, or windows, that a map was cut into.
        parts, lengths: the axes and lengths behind a `flat` one, or behind a phase of several axes.
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
        assumed: parameters without values that may mask something out; nothing is taken for masked by them.
        zeros: by constant, where its entries are zero.
        hidden: by step and operand, where the result does not depend on that operand.
        softmaxes: the steps of softmaxes in which a summary returns: the largest score, and the sum.
        local: those of the couplings that are softmaxes within blocks or windows of a map.
        sources: those of `annotate.find_sources`, once they were looked for.
    """

    axes: dict[Value, Axes] = field(default_factory=dict)
    spread: dict[Value, int] = field(default_factory=dict)
    couplings: set[tuple[Step, Value]] = field(default_factory=set)
    masked: dict[Value, Masked] = field(default_factory=dict)
    assumed: set[str] = field(default_factory=set)
    zeros: dict[Value, np.ndarray | None] = field(default_factory=dict)
    hidden: dict[tuple[Step, Value], np.ndarray] = field(default_factory=dict)
    softmaxes: set[Step] = field(default_factory=set)
    local: set[tuple[Step, Value]] = field(default_factory=set)
    sources: "dict[Value, dict[Value, np.ndarray]] | None" = field(default=None, init=False)


def unified(
    step: Step,
    found: Annotation,
    given: Sequence[tuple[Value, Axes]] | None = None,
    beside: Container[int] = (),
) -> Axes:
    """The axes of arrays that are combined place by place; notes the summaries that meet a map.

    Args:
        given: the arrays with these axes; by default all operands of the step that depend on the input.
        beside: the axes along which they are put side by side.
    """
    if given is None:
        given = [(value, found.axes[value]) for value in step.inputs if value.depends]
    result = []
    for column in zip(*(axes for _, axes in given), strict=True):
        told = [axis for axis in column if axis.kind != "new"]
        spatial = [axis for axis in told if axis.kind == "space"]
        # Interpolation to a size that is no multiple has an odd stride; what it meets has a plain one.
        axis = min(spatial, key=lambda axis: axis.stride.denominator, default=told[0] if told else NEW)
        result.append(axis)
    for value, axes in given:
        meets = [
            axis
            for place, (axis, one) in enumerate(zip(result, axes, strict=True))
            if one.kind == "new" and place not in beside
        ]
        in_blocks = any(axis.phase for axis in meets)
        if in_blocks and step not in found.softmaxes:
            continue  # a summary of a block or window, which is counted
        if in_blocks or any(axis.kind in ("space", "flat") for axis in meets):
            found.couplings.add((step, value))
            if in_blocks:
                found.local.add((step, value))
    return tuple(result)


def uneven(axes: Axes, places: Sequence[bool]) -> Axes:
    """At these places, what was the same all along an axis that was put in no longer is."""
    return tuple(
        STACK if axis.kind == "new" and here else axis for axis, here in zip(axes, places, strict=True)
    )


def scaled(axis: Axis, by: Fraction | int) -> Axis:
    """The axis when one position in `by` is kept; only a spatial one has a stride."""
    return replace(axis, stride=axis.stride * by) if axis.kind == "space" else axis


def resampled(axis: Axis, before: int, after: int) -> Axis:
    """The axis when `before` positions become `after`, over the same extent."""
    if axis.kind == "space" and before == 1 < after:
        return NEW
    return scaled(axis, Fraction(before, after))
