"""What a network costs: parameters, floating-point operations and bytes, by exact counting."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jax.extend import core

from hdc import equations


def count_parameters(model: nnx.Module) -> int:
    """The number of trained values of `model`."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@dataclass(frozen=True)
class Cost:
    """What one image costs in a forward pass.

    Attributes:
        flops: floating-point operations, two per multiply-add of every convolution and matrix product. Taps
            in the padding count (most hardware computes them too); biases, activations and pooling do not.
        bytes: what these operations read and write, each operand and result once.
    """

    flops: int
    bytes: int


def per_image(model: nnx.Module, image_shape: tuple[int, ...]) -> Cost:
    """The cost of one image's forward pass in evaluation.

    The model may be abstract (shapes in place of values); only its evaluation is traced.
    """
    operations = list(_operations(equations.program(model, (1, *image_shape))[0].jaxpr))
    return Cost(2 * sum(adds for adds, _ in operations), sum(size for _, size in operations))


def _operations(jaxpr: core.Jaxpr) -> Iterator[tuple[int, int]]:
    """Multiply-adds and bytes of every convolution and matrix product.

    A loop's body counts once: the networks have none.
    """
    for equation in jaxpr.eqns:
        output, *inputs = (_shape(variable) for variable in (equation.outvars[0], *equation.invars))
        moved = sum(_bytes(variable) for variable in (equation.outvars[0], *equation.invars))
        match equation.primitive.name:
            case "conv_general_dilated":
                kernel = inputs[1]
                features = equations.parameters(equation)["dimension_numbers"].rhs_spec[0]
                yield math.prod(output) * (math.prod(kernel) // kernel[features]), moved
            case "dot_general":
                (contracted, _), _ = equations.parameters(equation)["dimension_numbers"]
                yield math.prod(output) * math.prod(inputs[0][axis] for axis in contracted), moved
        for function in equations.functions(equation):
            yield from _operations(function.jaxpr)


def _bytes(variable: Any) -> int:
    return math.prod(_shape(variable)) * getattr(getattr(variable.aval, "dtype", None), "itemsize", 0)


def _shape(variable: Any) -> tuple[int, ...]:
    return getattr(variable.aval, "shape", ())
