"""Operations entry by entry: the output at a place depends on the inputs at that place alone."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hdc.errors import InputError
from hdc.receptive.axes import Annotation, Axes, unified
from hdc.receptive.masks import NOTHING, Given, Masked, small
from hdc.receptive.rules.base import Reached, Rule
from hdc.receptive.steps import Step, Value

if TYPE_CHECKING:
    from hdc.receptive.pullback import Pullback

POINTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz
    conj convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    imag integer_pow is_finite le lgamma log log1p logistic lt max min mul name ne neg nextafter not or
    population_count pow pvary real reduce_precision rem round rsqrt select_n sharding_constraint
    shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan
    tanh xor""".split()
)
MASKING = frozenset(["select_n", "mul", "add", "add_any"])  # operations by which a constant masks an array

_KEEPING = ("convert_element_type", "stop_gradient", "copy", "copy_p", "reduce_precision")
_ZERO_AT_ZERO = ("neg", "abs", "sign", "sqrt", "square", "tanh", "erf", "div")
_Mask = Callable[[Masked, Masked], Masked]  # from the masks of the first and the last operand

_MASKS: dict[str, _Mask] = {
    **dict.fromkeys(_KEEPING, lambda first, _: first),
    **dict.fromkeys(_ZERO_AT_ZERO, lambda first, _: Masked(first.zero)),
    **dict.fromkeys(["exp", "exp2", "logistic"], lambda first, _: Masked(first.low)),
    **dict.fromkeys(["add", "add_any"], lambda a, b: Masked(a.zero & b.zero, a.low | b.low)),
    "mul": lambda first, last: Masked(first.zero | last.zero),
    # In a row that is masked out as a whole, nothing is low beside the largest.
    "sub": lambda first, last: Masked(first.zero & last.zero, first.low & ~last.low),
    "max": lambda first, last: Masked(first.zero & last.zero, first.low & last.low),
}


class Pointwise(Rule):
    """A function of the entries at each place; a run of such functions is one path, not several."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        return unified(step, found)

    def masked(self, step: Step, given: Given) -> Masked:
        if step.name == "select_n" and len(given) == 3:
            return _selected(step.inputs[0], *given)
        if step.name not in _MASKS:
            return NOTHING
        first, last = ((one or NOTHING).each(small) for one in (given[0], given[-1]))
        return _MASKS[step.name](first, last)

    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        assert reached[0] is not None
        for value in to.sources[step.outputs[0]]:
            to.add(value, reached[0])


class Either(Rule):
    """One of several arrays, chosen by a condition that does not depend on the model's input."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        return unified(step, found)

    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        assert reached[0] is not None
        for value in step.inputs[1:]:
            if not to.is_coupling(step, value):
                to.add(value, reached[0])


def _selected(predicate: Value, chosen: Masked | None, no: Masked | None, yes: Masked | None) -> Masked:
    """`where`: what is `no` at the entries where the predicate is zero."""
    no, yes = (no or NOTHING).each(small), (yes or NOTHING).each(small)
    if predicate.depends or chosen is None:
        masks = (no.zero != yes.zero).any() or (no.low != yes.low).any()
        if masks and not predicate.depends and not predicate.is_drawn:
            _refuse(predicate)
        return Masked(no.zero & yes.zero, no.low & yes.low)
    here = small(chosen.zero)
    return Masked(np.where(here, no.zero, yes.zero), np.where(here, no.low, yes.low))


def _refuse(mask: Value) -> None:
    for one in mask.sources:
        if one.step is None:
            _ = one.value  # raises an error of its own where it is not known
    raise InputError(f"a mask of the model, of shape {mask.shape}, is too large to be followed")


RULES: dict[str, Rule] = {**dict.fromkeys(POINTWISE, Pointwise()), "either": Either()}
