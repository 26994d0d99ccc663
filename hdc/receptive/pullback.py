"""From an output back to the input: how many paths lead to each input pixel, exactly.

Every operation is replaced by its structure: taps count one each, whatever their weight, pointwise functions
pass what they get, additions and concatenations join paths, channels are averaged. That map is linear, and
its transpose, applied to one output pixel, counts the paths from there to each input pixel. Counts are never
negative, so none cancel, and what is zero at the end is out of sight.

Maps are kept as windows that may reach beyond the array, as the theoretical receptive field does.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np

from hdc.receptive.axes import Annotation
from hdc.receptive.masks import small
from hdc.receptive.rules import rule_of
from hdc.receptive.rules.pointwise import POINTWISE
from hdc.receptive.rules.reductions import REDUCTIONS
from hdc.receptive.steps import Step, Trace, Value
from hdc.receptive.window import Window, mass

_LONGEST = 64  # arrays that a run of pointwise operations starts from
_LEAST = 1e-300
_MOST = 1e200  # counts beyond it are scaled down, before a double would overflow


class Pullback:
    """Path counts from chosen outputs of a trace to its input.

    Attributes:
        beyond: whether windows go on beyond the edge of a map, as if it had none, wherever an operation
            allows that; otherwise every map ends where it ends and paths through the padding are lost.
        bounded: `[outputs]`, whether the edge of some map took part even so: a head over the whole map.
    """

    def __init__(self, trace: Trace, annotation: Annotation, *, beyond: bool):
        self.trace, self.annotation, self.beyond = trace, annotation, beyond
        self.bounded = np.zeros(0, bool)
        self._windows: dict[Value, Window] = {}
        self._scaled = self._only_seen = False

    def run(self, places: Sequence[tuple[Value, Mapping[int, int]]]) -> Window:
        """The counts at the input, one row for each place.

        Args:
            places: an array of the trace and an index for some of its axes; all of the other axes.
        """
        self._scaled = False
        found = self._run(places)
        if self._scaled:
            # What is small beside the rest may have vanished: where something is seen is found again.
            self._only_seen = True
            seen = self._run(places)
            self._only_seen = False
            shares = found.counts / mass(found.counts).reshape(-1, *(1 for _ in found.starts))
            found = Window(np.where(seen.counts > 0, np.maximum(shares, _LEAST), 0.0), found.starts)
        return found

    def _run(self, places: Sequence[tuple[Value, Mapping[int, int]]]) -> Window:
        self.bounded = np.zeros(len(places), bool)
        seeds: dict[Value, list[tuple[int, Mapping[int, int]]]] = {}
        for row, (value, index) in enumerate(places):
            seeds.setdefault(value, []).append((row, index))
        self._windows = {}
        for value, rows in seeds.items():
            for row, index in rows:
                counts = np.zeros((len(places), *(1 for _ in value.shape)))
                counts[row] = 1
                self.add(value, Window(counts, tuple(index.get(axis) for axis in range(len(value.shape)))))
        for step in reversed(self.trace.steps):
            reached = [self._windows.pop(output, None) for output in step.outputs]
            if any(window is not None for window in reached):
                rule_of(step).pull(step, reached, self)
        found = self._windows.get(self.trace.input)
        shape = self.trace.input.shape
        return found or Window(np.zeros((len(places), *(1 for _ in shape))), (None,) * len(shape))

    def is_coupling(self, step: Step, value: Value) -> bool:
        """Whether a summary returns to the map by this operand of a step; such paths are left out."""
        return (step, value) in self.annotation.couplings

    @cached_property
    def sources(self) -> dict[Value, dict[Value, None]]:
        """The arrays that a run of pointwise operations starts from, each once.

        So `x * sigmoid(x)`, or GELU written out, is one path and not several; and so is a normalisation
        over the channels of each pixel, whose statistics are of the array that is normalised.
        """
        sources: dict[Value, dict[Value, None]] = {}
        statistics: dict[Value, dict[Value, None]] = {}  # of each pixel's channels, and of what
        for step in self.trace.steps:
            given = [v for v in step.inputs if v.depends and not self.is_coupling(step, v)]
            known = [sources.get(value, {value: None}) for value in given]
            # A recurrence may go on for thousands of turns: a run is then cut in two.
            own = [
                some if len(some) <= _LONGEST else {value: None}
                for value, some in zip(given, known, strict=True)
            ]
            if step.name in POINTWISE:
                pairs = list(zip(given, own, strict=True))
                direct = _joined(some for value, some in pairs if value not in statistics)
                extra = [
                    some
                    for value, some in pairs
                    if value in statistics and not statistics[value].keys() <= direct.keys()
                ]
                sources[step.outputs[0]] = _joined([direct, *extra])
                if given and all(value in statistics for value in given):
                    statistics[step.outputs[0]] = _joined(statistics[value] for value in given)
            elif step.name in REDUCTIONS and self._of_channels(step):
                statistics[step.outputs[0]] = _joined(own)
            elif step.name in ("broadcast_in_dim", "reshape") and given and given[0] in statistics:
                statistics[step.outputs[0]] = statistics[given[0]]
        return sources

    def _of_channels(self, step: Step) -> bool:
        axes = self.annotation.axes
        return all(
            axes[value][axis].kind == "channel"
            for value in step.inputs
            if value.depends
            for axis in step.params["axes"]
        )

    def add(self, value: Value, window: Window) -> None:
        if not value.depends:
            return
        if not self.beyond:
            for axis, length in enumerate(value.shape):
                if window.starts[axis] is not None:
                    low, high = max(0, window.starts[axis] or 0), min(length, window.stop(axis))
                    window = window.fitted(axis, min(low, length), max(low, high))
        known = self._windows.get(value)
        if known is not None:
            for axis, length in enumerate(value.shape):
                if (known.starts[axis] is None) != (window.starts[axis] is None):
                    known, window = known.expanded(axis, length), window.expanded(axis, length)
                if known.starts[axis] is not None and window.starts[axis] is not None:
                    start = min(known.starts[axis] or 0, window.starts[axis] or 0)
                    stop = max(known.stop(axis), window.stop(axis))
                    known, window = known.fitted(axis, start, stop), window.fitted(axis, start, stop)
            window = Window(known.counts + window.counts, window.starts)
        if self._only_seen:
            window = Window((window.counts > 0).astype(np.float64), window.starts)
        self._windows[value] = window
        most = window.counts.reshape(len(window.counts), -1).max(axis=1, initial=0.0)
        if most.max(initial=0.0) > _MOST:
            # Only the ratios within a row matter, in all that it has reached.
            self._scaled = True
            factor = np.where(most > _MOST, 1 / _MOST, 1.0)
            for other, reached in self._windows.items():
                shape = (-1, *(1 for _ in other.shape))
                self._windows[other] = Window(reached.counts * factor.reshape(shape), reached.starts)

    def inside(self, window: Window, axis: int, length: int) -> Window:
        """A window written out over exactly the map; notes where something was beyond it.

        An axis of one position may be one that was put in, beyond which there is nothing.
        """
        if window.starts[axis] is None:
            return window.expanded(axis, length)
        if length > 1:
            for start, stop in ((window.starts[axis] or 0, 0), (length, window.stop(axis))):
                if start < stop:
                    self.note(mass(window.fitted(axis, start, stop).counts) > 0)
        return window.fitted(axis, 0, length)

    def whole(self, window: Window, shape: Sequence[int]) -> np.ndarray:
        """The counts `[outputs, *shape]` of every entry of the array."""
        for axis, length in enumerate(shape):
            window = self.inside(window, axis, length)
        return window.counts

    def note(self, rows: np.ndarray) -> None:
        self.bounded |= rows

    def spread(self, window: Window, value: Value, axes: Sequence[int]) -> float:
        """The factor for reading all positions along `axes`; channels are averaged, space is counted."""
        kinds = [self.annotation.axes[value][axis].kind for axis in axes]
        if any(k in ("space", "flat") and value.shape[a] > 1 for k, a in zip(kinds, axes, strict=True)):
            self.note(mass(window.counts) > 0)
        return float(
            np.prod([1 / value.shape[a] for k, a in zip(kinds, axes, strict=True) if k == "channel"])
        )

    def without(self, window: Window, masked: np.ndarray) -> Window:
        """A window without what is masked out, bool `[axes of the array...]`."""
        for axis, stride in enumerate(masked.strides):
            if stride != 0:
                window = self.inside(window, axis, masked.shape[axis])
        return Window(window.counts * ~small(masked), window.starts)


def _joined(some: Iterable[dict[Value, None]]) -> dict[Value, None]:
    return {value: None for one in some for value in one}
