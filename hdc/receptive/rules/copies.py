"""Operations that copy single entries to places given by numbers: gather, scatter, dynamic slices."""

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from hdc.errors import InputError
from hdc.receptive.axes import CHANNEL, Annotation, Axes, Axis, resampled, scaled, uneven, unified
from hdc.receptive.rules.base import Reached, Rule
from hdc.receptive.steps import Step
from hdc.receptive.window import Window

if TYPE_CHECKING:
    from hdc.receptive.pullback import Pullback


class Copy(Rule):
    """Operations that copy entries of the operands at the positions `data`; the other operands say where."""

    def __init__(self, *data: int):
        self.data = data

    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        """Runs the operation once on the entries' own numbers, to see where each goes."""
        (window,) = reached
        assert window is not None
        moved = [(step.inputs[i], int(np.prod(step.inputs[i].shape))) for i in self.data]
        moved = [(value, size) for value, size in moved if value.depends]
        numbers, total = [], 1  # the number 0 is a constant
        for position, value in enumerate(step.inputs):
            if position not in self.data:
                if value.depends:
                    raise InputError(
                        f"the model reads at places that depend on its input ({step.name}): "
                        "its receptive field differs from image to image"
                    )
                numbers.append(value.value)
            elif value.depends:
                size = int(np.prod(value.shape))
                numbers.append(jnp.arange(total, total + size, dtype=jnp.int32).reshape(value.shape))
                total += size
            else:
                numbers.append(jnp.zeros(value.shape, jnp.int32))
        source = np.asarray(step.primitive.bind(*numbers, **step.params)).ravel()
        flat = to.whole(window, step.outputs[0].shape).reshape(len(window.counts), -1)
        kept = source > 0  # what is negative was read out of bounds
        gathered = np.zeros((len(flat), total))
        for row, counts in zip(gathered, flat, strict=True):
            row += np.bincount(source[kept], weights=counts[kept], minlength=len(row))
        first = 1
        for value, size in moved:
            counts = gathered[:, first : first + size].reshape(-1, *value.shape)
            to.add(value, Window(counts, (0,) * len(value.shape)))
            first += size


class Gather(Copy):
    def axes(self, step: Step, found: Annotation) -> Axes:
        """Taking places along one axis, as repeating and nearest-neighbour interpolation do."""
        axes, shape = found.axes[step.operand], step.outputs[0].shape
        numbers = step.params["dimension_numbers"]
        taken, kept = numbers.start_index_map, numbers.offset_dims
        if len(taken) != 1 or numbers.collapsed_slice_dims != taken or len(shape) != len(axes):
            return (CHANNEL,) * len(shape)
        others = iter(axis for i, axis in enumerate(axes) if i != taken[0])
        return tuple(
            next(others) if place in kept else _picked(axes[taken[0]], step, length)
            for place, length in enumerate(shape)
        )


class Update(Copy):
    """`dynamic_update_slice`."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        base, update = step.inputs[:2]
        given = [(value, found.axes[value]) for value in (base, update) if value.depends]
        axes = unified(step, found, given, beside=range(len(base.shape)))
        return uneven(axes, [n != m for n, m in zip(base.shape, update.shape, strict=True)])


def _picked(axis: Axis, step: Step, length: int) -> Axis:
    """The axis at chosen places: evenly spaced ones, or all of them, each several times."""
    operand, places = step.inputs[0].shape, step.inputs[1]
    before = operand[step.params["dimension_numbers"].start_index_map[0]]
    if axis.kind != "space" or places.depends or length == 1 or before == 1:
        return resampled(axis, before, length)
    steps = np.unique(np.diff(np.asarray(places.value).ravel()))
    if len(steps) == 1 and steps[0] > 0:
        return scaled(axis, int(steps[0]))
    return resampled(axis, before, length)


RULES: dict[str, Rule] = {
    "gather": Gather(0),
    "dynamic_slice": Copy(0),
    "dynamic_update_slice": Update(0, 1),
    "scatter": Copy(0, 2),
}
