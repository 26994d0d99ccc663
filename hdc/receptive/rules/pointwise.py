"""Operations entry by entry: the output at a place depends on the inputs at that place alone."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from hdc.errors import InputError
from hdc.receptive.axes import Annotation, Axes, unified
from hdc.receptive.masks import MOST, NOTHING, Given, Masked, small
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
        masks = [(one or NOTHING).each(small) for one in given]
        if step.name == "select_n" and len(given) == 3:
            return _selected(step.inputs[0], given[0], *masks[1:])
        return _MASKS[step.name](masks[0], masks[-1]) if step.name in _MASKS else NOTHING

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
        for value in to.sources[step.outputs[0]]:
            to.add(value, window)


class Either(Pointwise):
    """One of several arrays, chosen by a condition that does not depend on the model's input."""

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        for value in step.inputs[1:]:
            if not to.is_coupling(step, value):
                to.add(value, window)


def _selected(predicate: Value, chosen: Masked | None, no: Masked, yes: Masked) -> Masked:
    """`where`: what is `no` at the entries where the predicate is zero."""
    if not predicate.depends and chosen is not None:
        here = small(chosen.zero)
        return Masked(np.where(here, no.zero, yes.zero), np.where(here, no.low, yes.low))
    masks = (no.zero != yes.zero).any() or (no.low != yes.low).any()
    if masks and not predicate.depends and not predicate.is_drawn:
        for one in predicate.sources:
            if one.step is None:
                _ = one.value  # raises an error of its own where it is not known
        raise InputError(f"a mask of the model, of shape {predicate.shape}, is too large to be followed")
    return Masked(no.zero & yes.zero, no.low & yes.low)


RULES: dict[str, Rule] = {**dict.fromkeys(POINTWISE, Pointwise()), "either": Either()}
