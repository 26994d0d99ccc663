"""Which entries of a constant are zero: by construction, or by the values of its parameters.

Most zeros are there by construction: those of a masked kernel, or of the weights of an interpolation. A
weight that is zero is so by initialisation, and is taken for any other number. Some parameters decide where
something lies, such as the positions of a learnable spacing: of these the real values count.
"""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from hdc.receptive.steps import Value

# Ranges of what is drawn in place of weights. A pattern of zeros that all leave is there by construction.
_RANGES = ((0.5, 1.5), (-1.5, -0.5), (2.0, 9.0), (-20.0, 20.0))

_KEEPING = frozenset(  # no entry of the result is zero if none of any operand is
    """abs broadcast_in_dim concatenate convert_element_type copy copy_p div dot_general integer_pow mul neg
    reduce_precision reduce_sum reshape rev rsqrt scan_row slice sqrt square squeeze stack
    transpose""".split()
)
_ADDING = frozenset(["add", "add_any", "sub"])


def find_zeros(value: Value) -> np.ndarray | None:
    """Where a constant is zero: bool of its shape; None where no entry is.

    Raises:
        InputError: where that depends on a parameter whose value is not known.
    """
    if value.unmasked or has_none(value):
        return None
    if not value.weights:
        size = np.abs(np.asarray(value.value, np.float64))
        # The weights of an interpolation are rounded: a millionth is nothing.
        zero = size <= 1e-6 * size.max(initial=0.0)
    else:
        zero = _by_weights(value)
    return zero if zero.any() else None


def generic(value: Value) -> Any:
    """A constant with numbers around 1 in place of its weights."""
    return _evaluated(value, _drawn(value.weights, 0))


def _by_weights(value: Value) -> np.ndarray:
    weights = value.weights
    draws = [_drawn(weights, number) for number in range(len(_RANGES))]
    first, *others = (_is_zero(value, drawn) for drawn in draws)
    if all(np.array_equal(first, other) for other in others):
        size = np.abs(np.asarray(generic(value), np.float64))
        with np.errstate(invalid="ignore"):
            return size <= 1e-6 * np.max(size, initial=0.0, where=np.isfinite(size))
    # Of these weights the values decide.
    deciding = [
        weight
        for weight in weights
        if any(not np.array_equal(first, _is_zero(value, draws[0] | {weight: d[weight]})) for d in draws[1:])
    ]
    real = {weight: weight.value for weight in deciding or weights}
    return _is_zero(value, draws[0] | real)


def _is_zero(value: Value, weights: dict[Value, Any]) -> np.ndarray:
    return np.asarray(_evaluated(value, weights)) == 0


def _drawn(weights: Iterable[Value], number: int) -> dict[Value, Any]:
    rng = np.random.default_rng(number)
    return {one: jnp.asarray(rng.uniform(*_RANGES[number], one.shape), one.dtype) for one in weights}


def _evaluated(value: Value, weights: dict[Value, Any]) -> Any:
    known = dict(weights)
    for step in value.steps():
        if any(one in known for one in step.inputs):
            known.update(zip(step.outputs, step.evaluate(known), strict=True))
    return known[value]


def has_none(value: Value) -> bool:
    """Whether the operations alone tell that no entry is zero, whatever the weights."""
    steps = value.steps()
    if any(step.name not in _KEEPING and step.name not in _ADDING for step in steps):
        return False
    known: dict[Value, bool] = {}

    def sure(one: Value) -> bool:
        if one.step is None:
            return one.weight or (one.constant is not None and bool(np.all(np.asarray(one.constant) != 0)))
        return known[one]

    for step in steps:
        inputs = [sure(one) for one in step.inputs]
        found = all(inputs)
        if step.name in _ADDING:  # weights that the other operand is not computed from do not cancel
            one, other = step.inputs
            apart = set(one.weights).isdisjoint(other.weights)
            found = apart and ((inputs[0] and bool(one.weights)) or (inputs[1] and bool(other.weights)))
        known.update(dict.fromkeys(step.outputs, found))
    return sure(value)
