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
from hdc.receptive.masks import NOTHING, Masked, small
from hdc.receptive.rules import rule_of
from hdc.receptive.rules.pointwise import POINTWISE
from hdc.receptive.rules.taps import REDUCTIONS
from hdc.receptive.steps import Step, Trace, Value
from hdc.receptive.window import Window, mass

_LONGEST = 64  # arrays that a run of pointwise operations starts from
_LEAST = 1e-300
_MOST = 1e200  # counts beyond it are scaled down, before a double would overflow


class Pullback:
    """Path counts from chosen outputs of a trace to its input.

    Attributes:
        beyond: whether windows continue beyond the edge of a map, as if it had none, wherever an operation
            allows that; otherwise every map ends where it ends and paths through the padding are lost.
        bounded: `[outputs]`, whether the edge of some map took part even so: a head over the whole map.
    """

    def __init__(self, trace: Trace, annotation: Annotation, *, beyond: bool):
        self.trace, self.annotation, self.beyond = trace, annotation, beyond
        self.bounded = np.zeros(0, bool)
        self._windows: dict[Value, Window] = {}
        self._most = np.zeros(0)  # `[outputs]`, the largest count so far
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
        self._windows, self._most = {}, np.zeros(len(places))
        for row, (value, index) in enumerate(places):
            counts = np.zeros((len(places), *(1 for _ in value.shape)))
            counts[row] = 1
            self.add(value, Window(counts, tuple(index.get(axis) for axis in range(len(value.shape)))))
        for step in reversed(self.trace.steps):
            for number, window in enumerate([self._windows.pop(output, None) for output in step.outputs]):
                if window is not None:
                    rule_of(step).pull(step, number, window, self)
            if self._most.max() > _MOST:
                # Only the ratios within a row matter, in all that it has reached.
                self._scaled = True
                factor = np.where(self._most > _MOST, 1 / _MOST, 1.0)
                for value, window in self._windows.items():
                    self._windows[value] = window.scaled(factor.reshape(-1, *(1 for _ in value.shape)))
                self._most *= factor
        rank = len(self.trace.input.shape)
        nothing = Window(np.zeros((len(places), *(1,) * rank)), (None,) * rank)
        return self._windows.get(self.trace.input, nothing)

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
            # A recurrence may take thousands of turns: a run is then cut in two.
            own = [
                some if len(some) <= _LONGEST else {value: None}
                for value, some in zip(given, known, strict=True)
            ]
            if step.name in POINTWISE:
                pairs = list(zip(given, own, strict=True))
                direct = _joined(some for value, some in pairs if value not in statistics)
                apart = [
                    some for value, some in pairs if not statistics.get(value, direct).keys() <= direct.keys()
                ]
                sources[step.outputs[0]] = _joined([direct, *apart])
                if given and all(value in statistics for value in given):
                    statistics[step.outputs[0]] = _joined(statistics[value] for value in given)
            elif step.name in REDUCTIONS:
                axes = self.annotation.axes[step.inputs[0]]
                if all(axes[axis].kind == "channel" for axis in step.params["axes"]):
                    statistics[step.outputs[0]] = _joined(own)
            elif step.name in ("broadcast_in_dim", "reshape") and given and given[0] in statistics:
                statistics[step.outputs[0]] = statistics[given[0]]
        return sources

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
        self._most = np.maximum(self._most, most)

    def inside(self, window: Window, axis: int, length: int) -> Window:
        """A window written out over exactly the map; notes where something was beyond it.

        An axis of one position may be one that was put in, beyond which there is nothing.
        """
        if window.starts[axis] is None:
            return window.expanded(axis, length)
        if length > 1:
            for start, stop in ((window.starts[axis] or 0, 0), (length, window.stop(axis))):
                if start < stop:
                    self.note(window.fitted(axis, start, stop))
        return window.fitted(axis, 0, length)

    def note(self, window: Window) -> None:
        """Where there are counts, the edge of a map took part."""
        self.bounded |= mass(window.counts) > 0

    def masked(self, value: Value) -> Masked:
        return self.annotation.masked.get(value, NOTHING)

    def spread(self, window: Window, value: Value, axes: Sequence[int]) -> float:
        """The factor for reading all positions along `axes`; channels are averaged, space is counted."""
        factor = 1.0
        for axis in axes:
            kind, length = self.annotation.axes[value][axis].kind, value.shape[axis]
            if kind == "channel":
                factor *= 1 / length
            elif kind in ("space", "flat") and length > 1:
                self.note(window)
        return factor

    def without(self, window: Window, masked: np.ndarray) -> Window:
        """A window without what is masked out, bool `[axes of the array...]`."""
        for axis, stride in enumerate(masked.strides):
            if stride != 0:
                window = self.inside(window, axis, masked.shape[axis])
        return window.scaled(~small(masked))


def _joined(some: Iterable[dict[Value, None]]) -> dict[Value, None]:
    return {value: None for one in some for value in one}
