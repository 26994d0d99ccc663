"""Operations entry by entry: the output at a place depends on the inputs at that place alone."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from hdc.errors import InputError
from hdc.receptive.axes import Annotation, Axes, unified
from hdc.receptive.masks import ALL, CONSTANT, MOST, NOTHING, Given, Masked, small
from hdc.receptive.pullback import Pullback
from hdc.receptive.rules.base import Rule
from hdc.receptive.steps import Step, Value
from hdc.receptive.window import Window

POINTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz
    conj convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    imag integer_pow is_finite le lgamma log log1p logistic lt max min mul name ne neg nextafter not or
    population_count pow pvary real reduce_precision rem round rsqrt select_n sharding_constraint
    shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan
    tanh xor""".split()
)
# Operations by which a constant masks an array.
MASKING = frozenset(["select_n", "mul", "add", "add_any", "sub", "and", "min"])

DECIDING = frozenset(["select_n", "mul", "and"])  # those in which a constant may hide an array

_KEEPING = ("convert_element_type", "stop_gradient", "copy", "copy_p", "reduce_precision")
_ZERO_AT_ZERO = ("neg", "abs", "sign", "sqrt", "square", "tanh", "erf", "div")
_Mask = Callable[[Masked, Masked], Masked]  # from the masks of the first and the last operand

_MASKS: dict[str, _Mask] = {
    **dict.fromkeys(_KEEPING, lambda first, _: Masked(first.zero, first.low)),
    **dict.fromkeys(_ZERO_AT_ZERO, lambda first, _: Masked(first.zero)),
    **dict.fromkeys(["exp", "exp2", "logistic"], lambda first, _: Masked(first.low)),
    **dict.fromkeys(["add", "add_any"], lambda a, b: Masked(a.zero & b.zero, a.low | b.low)),
    **dict.fromkeys(["mul", "and"], lambda first, last: Masked(first.zero | last.zero)),
    # In a row that is masked out as a whole, nothing is low beside the largest.
    "sub": lambda a, b: Masked(a.zero & b.zero, (a.low & ~b.low) | b.high),
    "max": lambda first, last: Masked(first.zero & last.zero, first.low & last.low),
    "min": lambda first, last: Masked(first.zero & last.zero, first.low | last.low),
}


class Pointwise(Rule):
    """A function of the entries at each place; a run of such functions is one path, not several."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        return unified(step, found)

    def masked(self, step: Step, given: Given) -> Masked:
        masks = [(one or CONSTANT).each(small) for one in given]
        fixed = functools.reduce(np.logical_and, [one.fixed for one in masks])
        if step.name == "select_n" and len(given) == 3:
            no, yes = (~here for here in _chosen(step, given))
            zero, low, same = (
                # What is not chosen for certain does not matter.
                (getattr(masks[1], name) | no) & (getattr(masks[2], name) | yes)
                for name in ("zero", "low", "fixed")
            )
            return Masked(zero, low, fixed=(same & (no | yes)) | fixed | zero)
        if step.name == "mul":
            for value, one in zip(step.inputs, given, strict=True):
                if one is None:
                    _check_known(value)
        mask = _MASKS[step.name](masks[0], masks[-1]) if step.name in _MASKS else NOTHING
        return replace(mask, fixed=fixed | mask.zero)

    def hidden(self, step: Step, given: Given) -> list[tuple[Value, np.ndarray]]:
        if step.name != "select_n" or len(given) != 3:
            return []
        here = zip(step.inputs[1:], _chosen(step, given), strict=True)
        return [(value, ~chosen) for value, chosen in here if value.depends and not chosen.all()]

    def entries(self, step: Step, given: Sequence[np.ndarray]) -> np.ndarray | None:
        shape = step.outputs[0].shape
        arrays = [entries for entries in given if entries.ndim]
        repeated = [all(one.strides[axis] == 0 for one in arrays) for axis in range(len(shape))]
        cut = tuple(slice(0, 1 if here else None) for here in repeated)
        if arrays and arrays[0][cut].size > MOST:
            return None
        operands = [jnp.asarray(one[cut] if one.ndim else one) for one in given]
        return np.broadcast_to(np.asarray(step.primitive.bind(*operands, **step.params)), shape)

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        for value, hidden in to.sources[step.outputs[0]].items():
            if not hidden.all():
                to.add(value, to.without(window, hidden))


class Either(Pointwise):
    """One of several arrays, chosen by a condition that does not depend on the model's input."""

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        choice, *values = step.inputs
        unknown = {one.parameter for one in choice.weights if one.constant is None}
        to.annotation.assumed |= unknown
        if not choice.is_random and not unknown:
            values = [values[int(np.clip(np.asarray(choice.value), 0, len(values) - 1))]]
        for value in values:
            if not to.is_coupling(step, value):
                to.add(value, window)


def _chosen(step: Step, given: Given) -> tuple[np.ndarray, np.ndarray]:
    """`where`: the entries at which each of the two operands may be chosen."""
    predicate = step.inputs[0]
    if given[0] is None:
        _check_known(predicate)
        return ALL, ALL
    zero = small(given[0].zero)
    return zero | predicate.depends, ~zero


def _check_known(value: Value) -> None:
    """Raise InputError for a constant whose entries are not known though no weight takes part."""
    if not value.weights and not value.is_random:
        for one in value.sources:
            if one.step is None:
                _ = one.value  # raises an error of its own where it is not known
        raise InputError(f"a mask of the model, of shape {value.shape}, is too large to be followed")


RULES: dict[str, Rule] = {**dict.fromkeys(POINTWISE, Pointwise()), "either": Either()}
