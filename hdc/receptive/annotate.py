"""From the input on, step by step: what each axis of each array stands for, and what is masked out."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from hdc.receptive.axes import CHANNEL, Annotation, Axes, Axis
from hdc.receptive.masks import LOW, NONE, NOTHING, Masked, small
from hdc.receptive.rules import rule_of
from hdc.receptive.rules.movement import Movement
from hdc.receptive.rules.pointwise import MASKING, Pointwise
from hdc.receptive.steps import Step, Trace, Value

_FEW, _MOST = 2**12, 2**26  # entries of a mask that are found at once, and that are followed at all


def annotate(trace: Trace) -> Annotation:
    """The axes of the input are `[batch, space..., channel]`; the rest follows step by step.

    Raises:
        InputError: for a mask whose values are not known, or that has more than 2^26 entries.
    """
    found = Annotation(masked=_find_masks(trace))
    spaces = len(trace.input.shape) - 2
    found.axes[trace.input] = (Axis("batch"), *(Axis("space", k) for k in range(spaces)), CHANNEL)
    found.spread[trace.input] = 1
    for step in trace.steps:
        rule = rule_of(step)
        spread = max(found.spread[value] for value in step.inputs if value.depends)
        before = found.axes.get(step.inputs[0])
        if before is not None:
            for taps in rule.taps(step):
                if taps.count > 1:
                    spread = max(spread, math.ceil(taps.distance * before[taps.axis].stride))
        axes = rule.axes(step, found)
        for output in step.outputs:
            rank = len(output.shape)
            found.axes[output] = axes if len(axes) == rank else (CHANNEL,) * rank
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


def _find_masks(trace: Trace) -> dict[Value, Masked]:
    """What is masked out of the arrays that depend on the input; arrays without any are left out."""
    found: dict[Value, Masked] = {}
    constants = _Constants()
    for step in trace.steps:
        if step.name in MASKING or any(value in found for value in step.inputs):
            given = [
                found.get(value, NOTHING) if value.depends else constants.masked(value)
                for value in step.inputs
            ]
            masked = rule_of(step).masked(step, given)
            if masked.zero.any() or masked.low.any():
                found[step.outputs[0]] = masked.stretched(step.outputs[0].shape)
    return found


class _Constants:
    """The entries of arrays that do not depend on the input, each found once."""

    def __init__(self) -> None:
        self._known: dict[Value, np.ndarray | None] = {}
        self._masked: dict[Value, Masked | None] = {}

    def masked(self, value: Value) -> Masked | None:
        """None where the values are not known, or are not the same in every copy of the model."""
        if value not in self._masked:
            entries = self._entries(value) if _is_fixed(value) else None
            if entries is None:
                self._masked[value] = None
            else:
                few = small(entries)
                low = NONE if few.dtype == bool else few <= LOW
                self._masked[value] = Masked(few == 0, low).stretched(value.shape)
        return self._masked[value]

    def _entries(self, value: Value) -> np.ndarray | None:
        """None where there are too many; what is repeated is held once."""
        if value not in self._known:
            self._known[value] = self._found(value)
        return self._known[value]

    def _found(self, value: Value) -> np.ndarray | None:
        if math.prod(value.shape) <= _FEW:
            return np.asarray(value.value)
        step = value.step
        rule = rule_of(step) if step is not None else None
        if step is not None and isinstance(rule, Movement):
            source = self._entries(step.inputs[0])
            return None if source is None else rule.moved(step, source)
        if step is not None and isinstance(rule, Pointwise):
            return self._pointwise(step)
        return np.asarray(value.value) if math.prod(value.shape) <= _MOST else None

    def _pointwise(self, step: Step) -> np.ndarray | None:
        shape = step.outputs[0].shape
        given = []
        for value in step.inputs:
            entries = self._entries(value)
            if entries is None:
                return None
            given.append(entries)
        arrays = [entries for entries in given if entries.ndim]
        cut = tuple(
            slice(0, 1 if all(one.strides[axis] == 0 for one in arrays) else None)
            for axis in range(len(shape))
        )
        if arrays and arrays[0][cut].size > _MOST:
            return None
        operands = [jnp.asarray(one[cut] if one.ndim else one) for one in given]
        return np.broadcast_to(np.asarray(step.primitive.bind(*operands, **step.params)), shape)


def _is_fixed(value: Value) -> bool:
    given = all(one.step is not None or one.constant is not None for one in value.sources)
    return given and not jnp.issubdtype(value.dtype, jax.dtypes.extended) and not value.is_drawn
