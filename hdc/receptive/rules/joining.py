"""Operations that put arrays side by side, or take them apart: concatenate, stack, split, rows of a scan."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hdc.receptive.axes import STACK, Annotation, Axes, uneven, unified
from hdc.receptive.rules.base import Reached, Rule, Sides
from hdc.receptive.steps import Step, Value
from hdc.receptive.window import Window, inserted, mass

if TYPE_CHECKING:
    from hdc.receptive.pullback import Pullback


class Concatenate(Rule):
    def axes(self, step: Step, found: Annotation) -> Axes:
        along = step.params["dimension"]
        # What is joined along this axis stays side by side: no summary returns to a map by it.
        joined = unified(step, found, beside=(along,))
        return uneven(joined, [place == along for place in range(len(joined))])

    def added(self, step: Step) -> tuple[Value, Sides]:
        # What is joined to a map along its own axis continues it: the longest part is the map.
        axis = step.params["dimension"]
        sizes = [part.shape[axis] for part in step.inputs]
        largest = int(np.argmax(sizes))
        return step.inputs[largest], {axis: (sum(sizes[:largest]), sum(sizes[largest + 1 :]))}

    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        (window,) = reached
        assert window is not None
        axis, wrapped = step.params["dimension"], _wrapped(step) if to.beyond else None
        if wrapped is not None:
            # Beyond its edge, a map with circular padding goes on as any other.
            value, low = wrapped
            to.add(value, window.expanded(axis, step.outputs[0].shape[axis]).moved(axis, -low))
            return
        for value, part in _parts(window, step, axis, [value.shape[axis] for value in step.inputs], to):
            to.add(value, part)


class Stack(Rule):
    """The turns of a scan, or anything else, along a new axis."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        joined, place = unified(step, found), step.params["axis"]
        # What the turns of a loop over a map return lies as what they take.
        taken = [found.axes[rows][0] for rows in step.params.get("rows", ()) if rows.depends]
        along = next((axis for axis in taken if axis.kind in ("space", "flat")), STACK)
        return (*joined[:place], along, *joined[place:])

    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        assert reached[0] is not None
        axis = step.params["axis"]
        for value, part in _parts(reached[0], step, axis, [1] * len(step.inputs), to):
            to.add(value, part.without([axis]))


class Unstack(Rule):
    def axes(self, step: Step, found: Annotation) -> Axes:
        axes, gone = found.axes[step.operand], step.params["axis"]
        return (*axes[:gone], *axes[gone + 1 :])

    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        axis = step.params["axis"]
        for position, found in enumerate(reached):
            if found is not None:
                row = inserted(found, [axis])
                to.add(step.inputs[0], row.with_axis(axis, row.counts, position))


class ScanRow(Rule):
    """One row of a stack, as each turn of a scan gets it."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        return found.axes[step.operand][1:]

    def back(self, step: Step, window: Window, to: "Pullback") -> Window:
        if step.params["carried"] and to.annotation.axes[step.inputs[0]][0].kind in ("space", "flat"):
            to.note(mass(window.counts) > 0)  # a recurrence begins at the edge of the map
        row = inserted(window, [0])
        return row.with_axis(0, row.counts, step.params["position"])


class Split(Rule):
    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        start, axis = 0, step.params["axis"]
        for found, size in zip(reached, step.params["sizes"], strict=True):
            if found is not None:
                to.add(step.inputs[0], found.expanded(axis, size).moved(axis, start))
            start += size


def _parts(
    window: Window, step: Step, axis: int, sizes: list[int], to: "Pullback"
) -> Iterator[tuple[Value, Window]]:
    """What each of the joined arrays gets, from the window of the whole."""
    uniform = window.starts[axis] is None
    if not uniform:
        window = to.inside(window, axis, sum(sizes))
    start = 0
    for value, size in zip(step.inputs, sizes, strict=True):
        if value.depends and not to.is_coupling(step, value):
            yield value, window if uniform else window.fitted(axis, start, start + size).moved(axis, -start)
        start += size


def _wrapped(step: Step) -> tuple[Value, int] | None:
    """The map that a concatenation continues around its edges, and how far before it; None for any other."""
    axis = step.params["dimension"]
    whole = max(step.inputs, key=lambda value: value.shape[axis])
    low = sum(value.shape[axis] for value in step.inputs[: step.inputs.index(whole)])
    position = -low
    for value in step.inputs:
        cut = value.step
        if value is whole:
            first = 0
        elif cut is not None and cut.name == "slice" and cut.inputs[0] is whole and not _is_strided(cut):
            first = cut.params["start_indices"][axis]
        else:
            return None
        if first != position % whole.shape[axis]:
            return None
        position += value.shape[axis]
    return (whole, low) if step.inputs.count(whole) == 1 else None


def _is_strided(step: Step) -> bool:
    return max(step.params["strides"] or (1,)) > 1


RULES: dict[str, Rule] = {
    "concatenate": Concatenate(),
    "stack": Stack(),
    "unstack": Unstack(),
    "scan_row": ScanRow(),
    "split": Split(),
}
