"""Operations over whole axes: sums, maxima, cumulative sums, sorting, Fourier transforms."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hdc.receptive.axes import Annotation, Axes
from hdc.receptive.masks import NOTHING, Given, Masked, small
from hdc.receptive.rules.base import Reached, Rule
from hdc.receptive.steps import Step
from hdc.receptive.window import Window, inserted, mass

if TYPE_CHECKING:
    from hdc.receptive.pullback import Pullback


class Reduction(Rule):
    """The axes in the parameter `axes` vanish."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        """Where blocks of a map are put on one another, the place within them becomes the map."""
        axes, places = found.axes[step.operand], step.params["axes"]
        gone = {axis.space for place, axis in enumerate(axes) if place in places and axis.kind == "space"}
        kept = []
        for axis in (axis for place, axis in enumerate(axes) if place not in places):
            if axis.phase and axis.space in gone:
                gone.remove(axis.space)
                axis = replace(axis, kind="space", phase=False)
            kept.append(axis)
        return tuple(kept)

    def masked(self, step: Step, given: Given) -> Masked:
        if step.name not in ("reduce_sum", "reduce_max"):
            return NOTHING
        axes = tuple(int(axis) for axis in step.params["axes"])
        first = (given[0] or NOTHING).each(small)
        first = first if step.name == "reduce_max" else Masked(first.zero)
        return first.each(lambda mask: np.asarray(mask.all(axis=axes)) if mask.ndim else mask)

    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        window = next(window for window in reached if window is not None)
        axes = step.params["axes"]
        for value in [value for value in step.inputs if value.depends]:
            found = inserted(Window(window.counts * to.spread(window, value, axes), window.starts), axes)
            masked = to.annotation.masked.get(value)
            if masked is not None and step.name in ("reduce_sum", "reduce_max"):
                found = to.without(found, masked.zero if step.name == "reduce_sum" else masked.low)
            to.add(value, found)


class Cumulative(Rule):
    """Every position reads all before it, or with `reverse` all after it."""

    def back(self, step: Step, window: Window, to: "Pullback") -> Window:
        axis, reverse = step.params["axis"], step.params["reverse"]
        window = to.inside(window, axis, step.inputs[0].shape[axis])
        counts = window.counts if reverse else np.flip(window.counts, axis + 1)
        counts = np.cumsum(counts, axis=axis + 1)
        to.note(mass(window.counts) > 0)
        return window.with_axis(axis, counts if reverse else np.flip(counts, axis + 1), 0)


class Mixing(Rule):
    """Every output along some axes depends on every input along them."""

    def mixed(self, step: Step) -> Sequence[int]:
        """The axes."""
        raise NotImplementedError

    def pull(self, step: Step, reached: Reached, to: "Pullback") -> None:
        for found in [found for found in reached if found is not None]:
            for value in [value for value in step.inputs if value.depends]:
                places = [axis % len(value.shape) for axis in self.mixed(step)]
                window = found
                for axis in places:
                    window = window.with_axis(axis, window.total(axis, step.outputs[0].shape[axis]), None)
                to.add(value, Window(window.counts * to.spread(window, value, places), window.starts))


class Sort(Mixing):
    def mixed(self, step: Step) -> Sequence[int]:
        return [step.params["dimension"]]


class TopK(Mixing):
    def mixed(self, step: Step) -> Sequence[int]:
        return [step.params.get("axis", -1)]


class Fourier(Mixing):
    def mixed(self, step: Step) -> Sequence[int]:
        return range(-len(step.params["fft_lengths"]), 0)


REDUCTIONS = frozenset(f"reduce_{of}" for of in ("sum", "prod", "max", "min", "and", "or", "xor"))

RULES: dict[str, Rule] = {
    **dict.fromkeys([*REDUCTIONS, "argmax", "argmin"], Reduction()),
    **dict.fromkeys(["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"], Cumulative()),
    "sort": Sort(),
    "top_k": TopK(),
    "fft": Fourier(),
}
