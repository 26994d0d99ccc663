"""A model as a flat list of steps: its arrays, and the operations that compute them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

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
        constant: its value where that is given.
        parameter: the path of the first parameter that it is computed from, or "".
        weight: whether it is a parameter, or a running statistic that is not known: what of it is zero may
            be so by initialisation.
        unmasked: whether it is a weight in another layout, so that no entry is zero by design.
    """

    shape: tuple[int, ...]
    dtype: Any
    depends: bool = False
    step: "Step | None" = None
    constant: Any = None
    parameter: str = ""
    weight: bool = False
    unmasked: bool = False

    @cached_property
    def value(self) -> Any:
        """The value of an array that does not depend on the input.

        Raises:
            InputError: if it is computed from a parameter whose value is not known.
        """
        if self.step is None:
            if self.constant is None:
                raise InputError(
                    f"what the model sees depends on the value of {self.parameter}, which is not known: "
                    "analyse a model with values, not an abstract one"
                )
            return self.constant
        for step in self.steps(lambda one: "value" in vars(one)):
            for output, array in zip(step.outputs, step.evaluate(), strict=True):
                vars(output)["value"] = array
        return vars(self)["value"]

    def steps(self, is_known: "Callable[[Value], bool]" = lambda _: False) -> "list[Step]":
        """The steps that compute it, in order, from constants and what is known."""
        order: dict[Step, None] = {}
        # Not by recursion: loops written out are thousands of steps deep.
        pending = [self.step] if self.step is not None else []
        while pending:
            inputs = [one for one in pending[-1].inputs if one.step and not is_known(one)]
            missing = [one.step for one in inputs if one.step and one.step not in order]
            pending += missing
            if not missing:
                order[pending.pop()] = None
        return list(order)

    @cached_property
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
    def weights(self) -> "list[Value]":
        """The weights that a constant is computed from."""
        return [one for one in self.sources if one.weight]

    @property
    def is_random(self) -> bool:
        """Whether random numbers take part in a constant."""
        steps = (one.step for one in self.sources if one.step is not None)
        return any(step.name.startswith(("random_", "threefry")) for step in steps)


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

    def evaluate(self, known: Mapping[Value, Any] | None = None) -> Sequence[Any]:
        """The outputs, of a step whose inputs do not depend on the model's input.

        Args:
            known: inputs that are given other values than their own.
        """
        values = [known[value] if known and value in known else value.value for value in self.inputs]
        match self.name:  # the steps into which loops and branches are written out
            case "scan_row":
                return [values[0][self.params["position"]]]
            case "stack":
                return [jnp.stack(values, self.params["axis"])]
            case "either":
                return [values[1 + int(values[0])]]
            case "broadcast_in_dim" if self.primitive is None:
                places = self.params["broadcast_dimensions"]
                return [jax.lax.broadcast_in_dim(values[0], self.params["shape"], places)]
        found = self.primitive.bind(*values, **self.params)
        return found if self.primitive.multiple_results else [found]


@dataclass(frozen=True)
class Trace:
    """The steps from `input` to `output`, in an order in which they can be computed.

    Attributes:
        steps: those whose result depends on the input.
        shape: the output's as the model returns it; that of `output` has the channels last.
        parameters: the model's.
        result: the place of the output among the arrays that the model returns; None for a layer's.
    """

    input: Value
    output: Value
    steps: list[Step]
    shape: tuple[int, ...]
    parameters: Sequence[Value]
    result: int | None
