"""What the steps of a traced model cost."""

import math
from collections.abc import Iterable

from hdc.receptive.steps import Step


def multiply_adds(steps: Iterable[Step]) -> int:
    """Of every convolution and matrix product, taps in the padding included."""
    total = 0
    for step in steps:
        left, kernel, *_ = (value.shape for value in [*step.inputs, *step.outputs])
        size = math.prod(step.outputs[0].shape)
        if step.name == "conv_general_dilated":
            features = step.params["dimension_numbers"].rhs_spec[0]
            total += size * (math.prod(kernel) // kernel[features])
        elif step.name == "dot_general":
            (contracted, _), _ = step.params["dimension_numbers"]
            total += size * math.prod(left[axis] for axis in contracted)
    return total


def count_parameters(steps: Iterable[Step]) -> int:
    """The trained values that the steps read; running statistics of an abstract model are among them."""
    weights = {
        weight for step in steps for value in step.inputs if not value.depends for weight in value.weights
    }
    return sum(math.prod(weight.shape) for weight in weights)
