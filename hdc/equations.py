"""What the equations of a program traced by JAX hold. No other module knows which form a version of JAX uses.

JAX does not promise the parameters of its primitives: they change between versions. What can be read from
the shapes of an equation is therefore read from them, and a form that is not known is an `InputError`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from hdc.errors import InputError
from hdc.layers import evaluation
from hdc.ops import backend

# Primitives that call one function, with the parameters under which they may hold it.
_CALLS = frozenset(
    "jit pjit closed_call core_call checkpoint remat remat2 custom_jvp_call custom_vjp_call"
    " custom_vjp_call_jaxpr composite".split()
)
_FUNCTIONS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Parameters(dict[str, Any]):
    """The parameters of an operation; reading a missing one raises an `InputError`."""

    def __init__(self, operation: str, given: Mapping[str, Any] | None = None):
        super().__init__(given or {})
        self.operation = operation

    def __missing__(self, name: str) -> Any:
        raise _unknown_form(self.operation, f"it has no parameter {name!r}")


@dataclass(frozen=True)
class Function:
    """A function that an equation calls, with the values of its constants."""

    jaxpr: core.Jaxpr
    constants: Sequence[Any] = ()

    @classmethod
    def of(cls, found: Any) -> "Function":
        """From a jaxpr that carries its constants, or from one without any."""
        return cls(getattr(found, "jaxpr", found), getattr(found, "consts", ()))


@dataclass(frozen=True)
class Scan:
    """A scan: its operands are `constants`, then `carried`, then stacks with one row for each turn."""

    body: Function
    constants: int
    carried: int
    length: int
    reverse: bool


def program(model: nnx.Module, input_shape: Sequence[int]) -> tuple[core.ClosedJaxpr, Any, nnx.State]:
    """A model's evaluation for an image of that shape, the shapes that it returns, and the state it takes.

    Models may be abstract, with shapes in place of values. Every convolution is one operation.
    """
    evaluate, state = pure(model)
    return *jaxpr(evaluate, state, jax.ShapeDtypeStruct(tuple(input_shape), jnp.float32)), state


def pure(model: nnx.Module, method: str = "__call__") -> tuple[Callable[..., Any], nnx.State]:
    """A model's evaluation as a function of its state and the arguments of a method, and the state."""
    graph, state = nnx.split(evaluation(model))

    def evaluate(state: nnx.State, *args: Any, **options: Any) -> Any:
        return getattr(nnx.merge(graph, state), method)(*args, **options)

    return evaluate, state


def jaxpr(function: Callable[..., Any], *args: Any) -> tuple[core.ClosedJaxpr, Any]:
    """A function's program for arguments of these shapes, and the shapes that it returns.

    Every convolution is one operation.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype), args)
    with backend("lax"):
        return jax.make_jaxpr(function, return_shape=True)(*shapes)


def parameters(equation: Any) -> Parameters:
    """The parameters of an equation."""
    return Parameters(equation.primitive.name, equation.params)


def called(equation: Any) -> Function | None:
    """The function that an equation calls: under `jit`, with its own derivative, or checkpointed."""
    if equation.primitive.name in _CALLS:
        for name in _FUNCTIONS:
            if _is_function(equation.params.get(name)):
                return Function.of(equation.params[name])
    return None


def functions(equation: Any) -> list[Function]:
    """All functions among the parameters of an equation."""
    values = equation.params.values()
    items = [item for value in values for item in (value if isinstance(value, tuple | list) else [value])]
    return [Function.of(item) for item in items if _is_function(item)]


def primitives(jaxpr: core.Jaxpr) -> set[str]:
    """The names of all operations of a program and of the functions in it."""
    names = {equation.primitive.name for equation in jaxpr.eqns}
    return names.union(*(primitives(f.jaxpr) for equation in jaxpr.eqns for f in functions(equation)))


def scan(equation: Any) -> Scan:
    """The parts of a scan, told apart by shape: a turn takes and returns a stack without its first axis.

    Raises:
        InputError: for a scan whose shapes are not those of constants, then carried arrays, then stacks.
    """
    params = parameters(equation)
    body, length = Function.of(params["jaxpr"]), params["length"]

    def stacked(outside: Sequence[Any], inside: Sequence[Any]) -> list[bool] | None:
        """Which arrays are stacks; None where a shape fits neither, or a stack comes before another array."""
        shapes = [(one.aval.shape, other.aval.shape) for one, other in zip(outside, inside, strict=False)]
        found = [whole == (length, *turn) for whole, turn in shapes]
        known = all(stack or whole == turn for stack, (whole, turn) in zip(found, shapes, strict=True))
        return found if known and len(outside) == len(inside) and found == sorted(found) else None

    taken = stacked(equation.invars, body.jaxpr.invars)
    returned = stacked(equation.outvars, body.jaxpr.outvars)
    if taken is not None and returned is not None and taken.count(False) >= returned.count(False):
        carried = returned.count(False)
        return Scan(body, taken.count(False) - carried, carried, length, params["reverse"])
    raise _unknown_form("scan", "its operands and results are not in the known order")


def _is_function(value: Any) -> bool:
    return hasattr(value, "eqns") and hasattr(value, "outvars")


def _unknown_form(operation: str, reason: str) -> InputError:
    return InputError(
        f"hdc does not know the form that JAX {jax.__version__} gives the operation {operation!r}: {reason}"
    )
