"""From the input on, step by step: what each axis of each array stands for, and what is masked out."""

import math
from collections.abc import Iterable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from hdc.errors import InputError
from hdc.receptive.axes import CHANNEL, Annotation, Axes, Axis
from hdc.receptive.masks import ALL, CONSTANT, LOW, MOST, NONE, NOTHING, Masked, small
from hdc.receptive.pullback import Sources
from hdc.receptive.rules.layout import Movement
from hdc.receptive.rules.pointwise import DECIDING, MASKING, POINTWISE, Pointwise
from hdc.receptive.rules.taps import REDUCTIONS
from hdc.receptive.steps import Step, Trace, Value
from hdc.receptive.zeros import find_zeros, generic, has_none

_FEW = 2**12  # entries of a mask that are found at once
_LONGEST = 64  # arrays that a run of pointwise operations starts from


def annotate(trace: Trace) -> Annotation:
    """The axes of the input are `[batch, space..., channel]`; the rest follows step by step.

    Raises:
        InputError: for a mask whose values are not known, or that has more than 2^26 entries.
    """
    found = Annotation(softmaxes=_softmaxes(trace))
    _find_masks(trace, found)
    spaces = len(trace.input.shape) - 2
    found.axes[trace.input] = (Axis("batch"), *(Axis("space", k) for k in range(spaces)), CHANNEL)
    found.spread[trace.input] = 1
    for step in trace.steps:
        rule = step.rule
        spread = max(found.spread[value] for value in step.inputs if value.depends)
        before = found.axes.get(step.inputs[0])
        if before is not None:
            for taps in rule.taps(step):
                if taps.count > 1:
                    spread = max(spread, math.ceil(before[taps.axis].stride * taps.rate / taps.apart))
        axes = rule.axes(step, found)
        for output in step.outputs:
            rank = len(output.shape)
            found.axes[output] = axes if len(axes) == rank else (CHANNEL,) * rank
            found.spread[output] = spread
    found.axes[trace.output] = _as_input(trace, found.axes[trace.output], found.axes[trace.input])
    return found


def _softmaxes(trace: Trace) -> set[Step]:
    exponents = {step.inputs[0] for step in trace.steps if step.name == "exp"}

    def returns(step: Step) -> bool:
        divided = step.inputs[0].step
        of_exponentials = step.name == "div" and divided is not None and divided.name == "exp"
        return of_exponentials or (step.name == "sub" and step.outputs[0] in exponents)

    return {step for step in trace.steps if returns(step)}


def _as_input(trace: Trace, axes: Axes, given: Axes) -> Axes:
    """An output of the input's height and width is a map like it, even if what lies between hides it."""
    like = len(axes) == len(given) and trace.output.shape[1:-1] == trace.input.shape[1:-1]
    known = [place for place, axis in enumerate(axes) if axis.kind == "space"]
    if not like or any(axes[place].space != given[place].space for place in known):
        return axes
    return tuple(axes[i] if i in known or axis.kind != "space" else axis for i, axis in enumerate(given))


def _find_masks(trace: Trace, annotation: Annotation) -> None:
    """What is masked out of the arrays that depend on the input; arrays without any are left out."""

    @cache
    def entries(value: Value) -> np.ndarray | None:
        """Of a constant; None where there are too many. What is repeated is held once."""
        step, size = value.step, math.prod(value.shape)
        rule = step.rule if step is not None else None
        if step is None or size <= _FEW or not isinstance(rule, Movement | Pointwise):
            return np.asarray(value.value) if size <= MOST else None
        given = [known for one in step.inputs if (known := entries(one)) is not None]
        return rule.entries(step, given) if len(given) == len(step.inputs) else None

    @cache
    def constant(value: Value) -> Masked | None:
        """None where the entries are not known, or are not the same in every copy of the model."""
        if jnp.issubdtype(value.dtype, jax.dtypes.extended) or value.is_random:
            return None
        if value.weights:
            return _masked_by_weights(value)
        known = all(one.step is not None or one.constant is not None for one in value.sources)
        array = entries(value) if known else None
        if array is None:
            return None
        few = small(array)
        if few.dtype == bool:
            return Masked(few == 0, fixed=ALL).stretched(value.shape)
        return Masked(few == 0, few <= LOW, few >= -LOW, ALL).stretched(value.shape)

    found = annotation.masked
    for step in trace.steps:
        if step.name in MASKING or any(value in found for value in step.inputs):
            given = [found.get(value, NOTHING) if value.depends else constant(value) for value in step.inputs]
            if step.name in DECIDING:
                unknown = [value for value, one in zip(step.inputs, given, strict=True) if one is None]
                annotation.assumed |= _without_values(unknown)
            masked = step.rule.masked(step, given)
            if masked.any():
                found[step.outputs[0]] = masked.stretched(step.outputs[0].shape)
            for value, hidden in step.rule.hidden(step, given):
                annotation.hidden[step, value] = hidden


def _masked_by_weights(value: Value) -> Masked | None:
    leaves = [one.constant for one in value.sources if one.step is None and not one.weight]
    floats = [np.asarray(one) for one in leaves if one is not None and jnp.issubdtype(one.dtype, np.floating)]
    far = any((np.abs(one) >= -LOW).any() for one in floats)
    if not far and has_none(value):
        return CONSTANT
    if math.prod(value.shape) > MOST:
        return None
    try:
        zero = find_zeros(value)
    except InputError:  # weights that have no values decide
        return None
    around = np.asarray(generic(value)) if far else NONE
    zeros = NONE if zero is None else zero
    if around.dtype == bool:
        return Masked(zeros, fixed=ALL).stretched(value.shape)
    return Masked(zeros, around <= LOW, around >= -LOW, ALL).stretched(value.shape)


def _without_values(constants: Iterable[Value]) -> set[str]:
    """The parameters without values that take part in constants."""
    weights = [weight for value in constants for weight in value.weights]
    return {weight.parameter for weight in weights if weight.constant is None}


def find_sources(trace: Trace, annotation: Annotation) -> Sources:
    """The arrays that a run of pointwise operations starts from, each once, and where it hides them.

    So `x * sigmoid(x)`, or GELU written out, is one path and not several; and so is a normalisation
    over the channels of each pixel, whose statistics are of the array that is normalised.
    """
    sources: Sources = {}
    statistics: Sources = {}  # of each pixel's channels, and of what
    for step in trace.steps:
        given = [v for v in step.inputs if v.depends and (step, v) not in annotation.couplings]
        known = [sources.get(value, {value: NONE}) for value in given]
        # A recurrence may go on for thousands of turns: a run is then cut in two.
        own = [
            some if len(some) <= _LONGEST else {value: NONE} for value, some in zip(given, known, strict=True)
        ]
        if step.name in POINTWISE:
            own = [
                _without(some, annotation.hidden.get((step, value), NONE))
                for value, some in zip(given, own, strict=True)
            ]
            pairs = list(zip(given, own, strict=True))
            direct = _joined(some for value, some in pairs if value not in statistics)
            apart = [
                some for value, some in pairs if not statistics.get(value, direct).keys() <= direct.keys()
            ]
            output = step.outputs[0]
            fixed = small(annotation.masked.get(output, NOTHING).fixed)
            sources[output] = _without(_joined([direct, *apart]), fixed)
            if given and all(value in statistics for value in given):
                statistics[step.outputs[0]] = _joined(statistics[value] for value in given)
        elif step.name in REDUCTIONS:
            axes = [annotation.axes[step.inputs[0]][axis] for axis in step.params["axes"]]
            if all(axis.kind == "channel" and not axis.phase for axis in axes):
                statistics[step.outputs[0]] = _joined(own)
        elif step.name in ("broadcast_in_dim", "reshape") and given and given[0] in statistics:
            statistics[step.outputs[0]] = statistics[given[0]]
    return sources


def _joined(some: Iterable[dict[Value, np.ndarray]]) -> dict[Value, np.ndarray]:
    """What is hidden on one way is seen on another."""
    joined: dict[Value, np.ndarray] = {}
    for one in some:
        for value, hidden in one.items():
            joined[value] = joined[value] & hidden if value in joined else hidden
    return joined


def _without(some: dict[Value, np.ndarray], hidden: np.ndarray) -> dict[Value, np.ndarray]:
    return {value: mine | hidden for value, mine in some.items()} if hidden.any() else some
