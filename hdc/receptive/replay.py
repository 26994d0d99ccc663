"""A model's outputs and layers as functions that can be evaluated and differentiated."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from hdc.receptive.annotate import annotate
from hdc.receptive.models import Model
from hdc.receptive.outputs import Output
from hdc.receptive.steps import Step, Value
from hdc.receptive.trace import trace


def evaluator(model: Model, output: Output = None) -> Callable[[Sequence[Any], jax.Array], jax.Array]:
    """One output of a model, or of a layer of it, as a function.

    Args:
        model: what `models.adapt` returns.
        output: see `hdc.analyse`.

    Returns:
        A function of the parameters' arrays and of an input `[batch, space..., channels]` of any batch. It
        returns `[batch, space..., channels]`, or `[batch, ...]` of an output that is no map. Like the model,
        it can be compiled and differentiated.

    Raises:
        InputError: for an output that is not there.
    """
    traced = trace(model, output)
    if traced.result is None:
        kinds = [axis.kind for axis in annotate(traced).axes[traced.output]]

    def evaluate(values: Sequence[Any], x: jax.Array) -> jax.Array:
        if model.layout.batch is None and len(x) != 1:
            return jax.vmap(lambda one: evaluate(values, one[None])[0])(x)
        if traced.result is not None:
            return jax.tree.leaves(model(values, x))[traced.result]
        here = traced if len(x) == traced.input.shape[0] else trace(model.of_batch(len(x)), output)
        known = {here.input: x} | dict(zip(here.parameters, values, strict=True))
        for step in here.steps:
            for value in step.inputs:
                for constant in value.steps(known.__contains__) if value not in known else ():
                    _run(constant, known)
            _run(step, known)
        return _channels_last(known[here.output], kinds)

    return evaluate


def _run(step: Step, known: dict[Value, Any]) -> None:
    known.update(zip(step.outputs, step.evaluate(known), strict=True))


def _channels_last(y: jax.Array, kinds: Sequence[str]) -> jax.Array:
    first = [axis for axis, kind in enumerate(kinds) if kind == "batch"]
    space = [axis for axis, kind in enumerate(kinds) if kind == "space"]
    rest = [axis for axis in range(y.ndim) if axis not in (*first, *space)]
    y = jnp.transpose(y, (*first, *space, *rest))
    y = y if first else y[None]
    return y.reshape(*y.shape[: 1 + len(space)], -1)
