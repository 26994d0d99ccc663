"""A model as a flat list of steps: its arrays, and the operations that compute them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from hdc.equations import Parameters
from hdc.errors import InputError

if TYPE_CHECKING:
    from hdc.receptive.rules.base import Rule


@dataclass(eq=False)
class Value:
    """An array of the model.

    Attributes:
        shape: its shape.
        depends: whether it depends on the input.
        step: what computes it; None for the input, parameters and constants.
        constant: its value where that is given: constants, and variables that are no parameters.
        parameter: the path of the first parameter that it is computed from, or "".
        unmasked: whether it is a parameter in another layout, so that no entry is zero by design.
    """

    shape: tuple[int, ...]
    dtype: Any
    depends: bool = False
    step: "Step | None" = None
    constant: Any = None
    parameter: str = ""
    unmasked: bool = False

    @cached_property
    def value(self) -> Any:
        """The value of an array that does not depend on the input; parameters are given generic values.

        A parameter is drawn at random, away from zero, so that what is zero in the result is zero by
        construction (a mask, the weights of an interpolation) and not by initialisation.
        """
        if self.constant is not None:
            return self.constant
        if self.step is None and not self.unmasked:
            raise InputError(
                f"what the model sees depends on the value of {self.parameter}, which is not known: "
                "analyse a model with values, not an abstract one"
            )
        if self.step is None:
            drawn = np.random.default_rng(0).uniform(0.5, 1.5, self.shape)
            return jnp.asarray(drawn, self.dtype)
        # First what it is computed from, not by recursion: loops written out are thousands of steps deep.
        pending = [value for value in self.step.inputs if value.is_missing]
        while pending:
            before = pending[-1].step
            missing = [value for value in before.inputs if value.is_missing] if before is not None else []
            if missing:
                pending += missing
            else:
                _ = pending.pop().value
        return self.step.evaluate()[self.step.outputs.index(self)]

    @property
    def is_missing(self) -> bool:
        """Whether it is computed by a step and has not been yet."""
        return self.step is not None and "value" not in vars(self)

    @property
    def sources(self) -> "list[Value]":
        """A constant and all that it is computed from."""
        found: list[Value] = [self]
        seen = set(found)
        for one in found:
            new = [source for source in (one.step.inputs if one.step else ()) if source not in seen]
            seen.update(new)
            found += new
        return found

    @property
    def is_drawn(self) -> bool:
        """Whether weights or random numbers take part in a constant."""
        return any(
            one.unmasked or (one.step is not None and one.step.name.startswith(("random_", "threefry")))
            for one in self.sources
        )


@dataclass(eq=False)
class Step:
    """One operation: a primitive of JAX by name, with its parameters and what analyse knows about it."""

    name: str
    params: Parameters
    rule: "Rule"
    inputs: list[Value]
    outputs: list[Value] = field(default_factory=list)
    primitive: Any = None

    @property
    def operand(self) -> Value:
        """The first input that depends on the model's input."""
        return next(value for value in self.inputs if value.depends)

    def evaluate(self) -> Sequence[Any]:
        """The outputs, of a step whose inputs do not depend on the model's input."""
        values = [value.value for value in self.inputs]
        match self.name:  # the steps into which loops and branches are written out
            case "scan_row":
                return [values[0][self.params["position"]]]
            case "stack":
                return [jnp.stack(values, self.params["axis"])]
            case "either":
                return [values[1 + int(values[0])]]
        found = self.primitive.bind(*values, **self.params)
        return found if self.primitive.multiple_results else [found]


@dataclass(frozen=True)
class Trace:
    """The steps from `input` to `output`, in an order in which they can be computed.

    Only those steps are listed whose result depends on the input.
    """

    input: Value
    output: Value
    steps: list[Step]
