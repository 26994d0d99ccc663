"""Tracing: every array operation of a model between its input and its output, in order."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from hdc import equations
from hdc.equations import Function, Parameters, Scan
from hdc.errors import InputError
from hdc.receptive import models
from hdc.receptive.outputs import Output, find_output
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


def trace(model: models.Model, output: Output = None) -> Trace:
    """The steps of a model's evaluation (no dropout, running statistics) that lead to one of its outputs.

    Args:
        model: what `models.adapt` returns.
        output: see `hdc.analyse`.

    Raises:
        InputError: for a model that does not take the shape, or does not return that output.
    """
    image = jax.ShapeDtypeStruct(model.layout.standard, jnp.float32)
    try:
        closed, returned = equations.jaxpr(model, model.values, image)
    except InputError:
        raise
    except Exception as error:  # whatever a model of anybody's raises
        raise models.fails(model.name, model.layout.shape, error, model.hint) from error
    arguments = []
    for one in model.parameters:
        value = Value(
            one.value.shape, one.value.dtype, parameter=one.name, weight=one.weight, unmasked=one.weight
        )
        value.constant = None if one.is_abstract else one.value
        arguments.append(value)
    flat = _Flat()
    entry = Value(image.shape, jnp.float32, depends=True)
    found = flat.inline(Function.of(closed), [*arguments, entry])
    chosen = find_output(model.name, returned, found, flat.steps, output)
    result = found.index(chosen) if chosen in found else None
    shape = chosen.shape if result is None else model.layout.own(chosen.shape)
    return Trace(entry, chosen, _leading_to(chosen, flat.steps), shape, arguments, result)


def _leading_to(output: Value, steps: Sequence[Step]) -> list[Step]:
    needed, kept = {output}, []
    for step in reversed(steps):
        if not needed.isdisjoint(step.outputs):
            needed.update(step.inputs)
            kept.append(step)
    return kept[::-1]


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
