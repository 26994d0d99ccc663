"""Tracing: every array operation of a model between its input and its output, in order."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend import core

from hdc import equations
from hdc.equations import Function, Parameters, Scan
from hdc.errors import InputError
from hdc.receptive.rules import RULES
from hdc.receptive.rules.base import Rule
from hdc.receptive.rules.pointwise import POINTWISE
from hdc.receptive.steps import Step, Trace, Value

MAX_STEPS = 100_000

_UNKNOWN = Rule()

# Every entry of the result is one entry of the operand: where that is a parameter, none is masked out.
_KEEPS_ENTRIES = frozenset(
    """convert_element_type copy copy_p reduce_precision reshape transpose squeeze broadcast_in_dim rev
    scan_row""".split()
)


def trace(model: nnx.Module, input_shape: tuple[int, ...]) -> Trace:
    """The steps of a model's evaluation (no dropout, running statistics). The model is not changed.

    Raises:
        InputError: for a model that does not take the shape, or whose result is not one array.
    """
    try:
        closed, result, state = equations.program(model, input_shape)
    except Exception as error:  # whatever a model of anybody's raises
        reason = next((line for line in str(error).splitlines() if line.strip()), "no message")
        raise InputError(
            f"{type(model).__name__} does not take an input of shape {input_shape}: "
            f"{type(error).__name__}: {reason}"
        ) from error
    if len(jax.tree.leaves(result)) != 1:
        raise InputError(
            f"{type(model).__name__} returns {len(jax.tree.leaves(result))} arrays, analyse takes a model "
            "that returns one: wrap it in a module whose __call__ returns the array in question"
        )
    arguments = []
    for (path, variable), leaf in zip(nnx.to_flat_state(state), jax.tree.leaves(state), strict=True):
        abstract = isinstance(leaf, jax.ShapeDtypeStruct)
        weight = isinstance(variable, nnx.Param) or (abstract and isinstance(variable, nnx.BatchStat))
        trained = weight and jnp.issubdtype(leaf.dtype, jnp.floating)
        name = ".".join(map(str, path))  # such as stem.conv.kernel
        value = Value(leaf.shape, leaf.dtype, parameter=name, weight=trained, unmasked=trained)
        value.constant = None if abstract else leaf
        arguments.append(value)
    flat = _Flat()
    entry = Value(input_shape, jnp.float32, depends=True)
    (output,) = flat.inline(Function.of(closed), [*arguments, entry])
    return Trace(entry, output, flat.steps)


class _Flat:
    """Collects steps; functions within functions are written out."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def inline(self, function: Function, inputs: Sequence[Value]) -> list[Value]:
        jaxpr = function.jaxpr
        known: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, constant in zip(jaxpr.constvars, function.constants, strict=True):
            known[variable] = Value(jnp.shape(constant), constant.dtype, constant=constant)

        def read(variable: Any) -> Value:
            if isinstance(variable, core.Literal):
                aval: Any = variable.aval
                return Value(aval.shape, aval.dtype, constant=variable.val)
            return known[variable]

        for equation in jaxpr.eqns:
            given = [read(variable) for variable in equation.invars]
            inner = equations.called(equation)
            results = self._step(equation, given) if inner is None else self.inline(inner, given)
            known.update(zip(equation.outvars, results, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _step(self, equation: Any, given: list[Value]) -> list[Value]:
        params, name = equations.parameters(equation), equation.primitive.name
        shapes = [(v.aval.shape, v.aval.dtype) for v in equation.outvars]
        if not any(value.depends for value in given):
            return self._add(name, params, given, shapes, equation.primitive)
        if name == "scan":
            return self._scan(equations.scan(equation), given)
        if name == "cond":
            if given[0].depends:
                raise InputError(
                    "the model chooses between branches by its input (cond): its receptive field differs "
                    "from image to image"
                )
            branches = [self.inline(Function.of(branch), given[1:]) for branch in params["branches"]]
            return [
                self._add("either", {}, [given[0], *ends], [shape])[0]
                for ends, shape in zip(zip(*branches, strict=True), shapes, strict=True)
            ]
        if name == "while":
            raise InputError("the model has a while loop, whose number of turns is not known: use a scan")
        if name == "reshape" and params["dimensions"] is not None:
            order = params["dimensions"]
            shape = tuple(given[0].shape[axis] for axis in order)
            given = self._add("transpose", {"permutation": order}, given, [(shape, given[0].dtype)])
        if name in POINTWISE:
            given = [self._widened(value, shapes[0]) for value in given]
        return self._add(name, params, given, shapes, equation.primitive)

    def _widened(self, value: Value, like: tuple[tuple[int, ...], Any]) -> Value:
        """Pointwise operations stretch scalars and axes of length 1; here that is a step of its own."""
        shape = like[0]
        if not value.depends or value.shape == shape:
            return value
        places = tuple(range(len(shape) - len(value.shape), len(shape)))
        params = {"shape": shape, "broadcast_dimensions": places}
        return self._add("broadcast_in_dim", params, [value], [(shape, value.dtype)])[0]

    def _scan(self, scan: Scan, given: list[Value]) -> list[Value]:
        first = scan.constants + scan.carried
        constants, carry, rows = given[: scan.constants], given[scan.constants : first], given[first:]
        turns = range(scan.length)
        collected: dict[int, list[Value]] = {}
        for turn in reversed(turns) if scan.reverse else turns:
            params = {"position": turn, "carried": scan.carried > 0}
            now = [self._add("scan_row", params, [r], [(r.shape[1:], r.dtype)])[0] for r in rows]
            ends = self.inline(scan.body, [*constants, *carry, *now])
            carry, collected[turn] = ends[: scan.carried], ends[scan.carried :]
        stacked = []
        for column in zip(*(collected[turn] for turn in turns), strict=True):
            shape = (len(column), *column[0].shape)
            stacked += self._add("stack", {"axis": 0, "rows": rows}, list(column), [(shape, column[0].dtype)])
        return [*carry, *stacked]

    def _add(
        self,
        name: str,
        params: dict[str, Any],
        given: list[Value],
        shapes: Sequence[tuple[tuple[int, ...], Any]],
        primitive: Any = None,
    ) -> list[Value]:
        """A new step's outputs; what does not depend on the input is computed only where it is needed."""
        step = Step(name, Parameters(name, params), RULES.get(name, _UNKNOWN), given, primitive=primitive)
        first = next((value for value in given if value.parameter), None)
        for shape, dtype in shapes:
            value = Value(shape, dtype, step=step)
            if not any(operand.depends for operand in given):
                if first is not None:
                    value.parameter = first.parameter
                    value.unmasked = first.unmasked and name in _KEEPS_ENTRIES
            elif 0 in shape:  # nothing in it depends on anything
                value = Value(shape, dtype, constant=np.zeros(shape, dtype))
            else:
                value.depends = True
            step.outputs.append(value)
        if any(output.depends for output in step.outputs):
            self.steps.append(step)
        if len(self.steps) > MAX_STEPS:
            raise InputError(f"the model has more than {MAX_STEPS} operations, loops written out")
        return step.outputs
