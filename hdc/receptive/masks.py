"""What the constants of a model mask out: entries of its arrays that are zero, or far below all others."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from hdc.errors import InputError
from hdc.receptive.trace import POINTWISE, Step, Trace, Value

# Beside a score this low, no other is small: its exponential is zero. Masks hold -1e4 to -infinity.
_LOW = -1e4
_FEW, _MOST = 2**12, 2**26  # entries of a mask that are found at once, and that are followed at all

_KEEPING = {"convert_element_type", "stop_gradient", "copy", "copy_p", "reduce_precision"}
_ZERO_AT_ZERO = {"neg", "abs", "sign", "sqrt", "square", "tanh", "erf"}
_MASKING = {"select_n", "mul", "add", "add_any"}  # by a constant
_MOVING = {"broadcast_in_dim", "reshape", "transpose", "squeeze"}


@dataclass(frozen=True)
class Masked:
    """Which entries of an array are masked out whatever the model's input.

    Both are bool of its shape, or of no axes where there are none.

    Attributes:
        zero: those that are zero.
        low: those so far below zero that their exponential is.
    """

    zero: np.ndarray
    low: np.ndarray


_NONE = np.zeros((), bool)
_NOTHING = Masked(_NONE, _NONE)


def find_masks(trace: Trace) -> dict[Value, Masked]:
    """What is masked out, of the arrays that depend on the input; those of which nothing is are left out.

    Along axes where a mask is the same, as for all heads, it is held once.

    Raises:
        InputError: for a mask whose values are not known, or that has more than 2^26 entries.
    """
    found: dict[Value, Masked] = {}
    constants = _Constants()
    for step in trace.steps:
        if step.name in _MASKING or any(value in found for value in step.inputs):
            given = [
                found.get(value, _NOTHING) if value.depends else constants.masked(value)
                for value in step.inputs
            ]
            masked = _after(step, given)
            if masked.zero.any() or masked.low.any():
                shape = step.outputs[0].shape
                found[step.outputs[0]] = _each(lambda mask, shape=shape: _stretched(mask, shape), masked)
    return found


def small(array: np.ndarray) -> np.ndarray:
    """Axes along which an array is repeated, cut to length 1."""
    return array[tuple(slice(0, 1 if stride == 0 else None) for stride in array.strides)]


class _Constants:
    """The entries of arrays that do not depend on the input, each found once."""

    def __init__(self) -> None:
        self._known: dict[Value, np.ndarray | None] = {}
        self._masked: dict[Value, Masked | None] = {}

    def masked(self, value: Value) -> Masked | None:
        """None where the values are not known, or are not the same in every copy of the model."""
        if value not in self._masked:
            entries = self._entries(value) if _fixed(value) else None
            if entries is None:
                self._masked[value] = None
            else:
                few = small(entries)
                low = _NONE if few.dtype == bool else few <= _LOW
                self._masked[value] = _each(lambda mask: _stretched(mask, value.shape), Masked(few == 0, low))
        return self._masked[value]

    def _entries(self, value: Value) -> np.ndarray | None:
        """None where there are too many; what is repeated is held once."""
        if value not in self._known:
            step = value.step
            if math.prod(value.shape) <= _FEW:
                self._known[value] = np.asarray(value.value)
            elif step is not None and step.name in _MOVING and len(step.inputs) == 1:
                source = self._entries(step.inputs[0])
                self._known[value] = None if source is None else _moved(step, source)
            elif step is not None and step.name in POINTWISE:
                self._known[value] = self._pointwise(step)
            else:
                few = math.prod(value.shape) <= _MOST
                self._known[value] = np.asarray(value.value) if few else None
        return self._known[value]

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


def _sources(value: Value) -> list[Value]:
    """A constant and all that it is computed from."""
    found = [value]
    seen = set(found)
    for one in found:
        new = [source for source in (one.step.inputs if one.step else ()) if source not in seen]
        seen.update(new)
        found += new
    return found


def _drawn(value: Value) -> bool:
    """Whether weights, or what is drawn at random, take part in a constant."""
    return any(
        one.unmasked or (one.step is not None and one.step.name.startswith(("random_", "threefry")))
        for one in _sources(value)
    )


def _fixed(value: Value) -> bool:
    given = all(one.step is not None or one.constant is not None for one in _sources(value))
    return given and not jnp.issubdtype(value.dtype, jax.dtypes.extended) and not _drawn(value)


def _each(change: Callable[[np.ndarray], np.ndarray], masked: Masked) -> Masked:
    return Masked(change(masked.zero), change(masked.low))


def _stretched(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return np.broadcast_to(mask, shape) if mask.any() else _NONE


def _after(step: Step, given: Sequence[Masked | None]) -> Masked:
    """What is masked out of the output of a step."""
    name = step.name
    if name == "select_n" and len(given) == 3:
        return _selected(step, *given)
    first, last = given[0] or _NOTHING, given[-1] or _NOTHING
    if name in _MOVING and len(given) == 1:
        return _each(lambda mask: _moved(step, mask) if mask.ndim else mask, first)
    first, last = _each(small, first), _each(small, last)
    match name:
        case _ if name in _KEEPING:
            return first
        case _ if name in _ZERO_AT_ZERO:
            return Masked(first.zero, _NONE)
        case "exp" | "exp2" | "logistic":
            return Masked(first.low, _NONE)
        case "mul":
            return Masked(first.zero | last.zero, _NONE)
        case "div":
            return Masked(first.zero, _NONE)
        case "add" | "add_any":
            return Masked(first.zero & last.zero, first.low | last.low)
        case "sub":
            # Of a row that is masked out as a whole, nothing is low beside the largest.
            return Masked(first.zero & last.zero, first.low & ~last.low)
        case "max":
            return Masked(first.zero & last.zero, first.low & last.low)
        case "reduce_sum" | "reduce_max":
            axes = tuple(int(axis) for axis in step.params["axes"])
            low = first.low if name == "reduce_max" else _NONE
            return _each(
                lambda mask: np.asarray(mask.all(axis=axes)) if mask.ndim else mask, Masked(first.zero, low)
            )
    return _NOTHING


def _selected(step: Step, chosen: Masked | None, no: Masked | None, yes: Masked | None) -> Masked:
    """`where`: what is `no` at the entries where the first operand is zero."""
    no, yes = _each(small, no or _NOTHING), _each(small, yes or _NOTHING)
    predicate = step.inputs[0]
    if predicate.depends or chosen is None:
        masks = (no.zero != yes.zero).any() or (no.low != yes.low).any()
        if masks and not predicate.depends and not _drawn(predicate):
            _refuse(predicate)
        return Masked(no.zero & yes.zero, no.low & yes.low)
    here = small(chosen.zero)
    return Masked(np.where(here, no.zero, yes.zero), np.where(here, no.low, yes.low))


def _refuse(mask: Value) -> None:
    for one in _sources(mask):
        if one.step is None:
            _ = one.value  # says so where it is not known
    raise InputError(f"a mask of the model, of shape {mask.shape}, is too large to be followed")


def _moved(step: Step, array: np.ndarray) -> np.ndarray:
    """What a step that moves entries makes of an array of its operand's shape."""
    params, after = step.params, step.outputs[0].shape
    match step.name:
        case "broadcast_in_dim":
            shape = [1] * len(after)
            for axis, place in enumerate(params["broadcast_dimensions"]):
                shape[place] = array.shape[axis]
            return np.broadcast_to(array.reshape(shape), after)
        case "transpose":
            return array.transpose(params["permutation"])
        case _:
            return array.reshape(after)
