"""What a network costs: parameters and floating-point operations, by exact counting."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from hdc.ops import backend


def count_parameters(model: nnx.Module) -> int:
    """The number of trained values of `model`."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def flops_per_image(model: nnx.Module, image_shape: tuple[int, int, int]) -> int:
    """Floating-point operations of one image's forward pass in evaluation.

    The model may be abstract (shapes in place of values); only its evaluation is traced.
    Counts two per multiply-add of every convolution and matrix product, taps in the padding
    included (the hardware computes them too); leaves out biases, activations and pooling.
    """
    graph, state = nnx.split(
        nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)
    )
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with backend("lax"):  # in which every convolution is one operation
        jaxpr = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, image)  # type: ignore[operator]
    return 2 * _multiply_adds(jaxpr.jaxpr)


def _multiply_adds(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        output, *inputs = (_shape(variable) for variable in (equation.outvars[0], *equation.invars))
        match equation.primitive.name:
            case "conv_general_dilated":
                kernel = inputs[1]
                features = equation.params["dimension_numbers"].rhs_spec[0]
                total += math.prod(output) * (math.prod(kernel) // kernel[features])
            case "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                total += math.prod(output) * math.prod(inputs[0][axis] for axis in contracted)
        total += sum(_multiply_adds(inner) for inner in _inner(equation.params))
    return total


def _shape(variable: Any) -> tuple[int, ...]:
    return getattr(variable.aval, "shape", ())


def _inner(params: dict[str, Any]) -> list[core.Jaxpr]:
    """The functions that an equation calls. A loop's body counts once: the networks have none."""
    values = [
        item for value in params.values() for item in (value if isinstance(value, tuple | list) else [value])
    ]
    return [
        value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
        for value in values
        if isinstance(value, core.ClosedJaxpr | core.Jaxpr)
    ]
