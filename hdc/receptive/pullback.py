"""From an output back to the input: how many paths lead to each input pixel, exactly.

Every operation is replaced by its structure: taps count one each, whatever their weight, pointwise functions
pass what they get, additions and concatenations join paths, channels are averaged. That map is linear, and
its transpose, applied to one output pixel, counts the paths from there to each input pixel. Counts are never
negative, so none cancel, and what is zero at the end is out of sight.

Maps are kept as windows that may reach beyond the array, as the theoretical receptive field does.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hdc.receptive.axes import Annotation
from hdc.receptive.masks import NOTHING, Masked, small
from hdc.receptive.steps import Step, Trace, Value
from hdc.receptive.window import Window, mass
from hdc.receptive.zeros import find_zeros

Sources = dict[Value, dict[Value, np.ndarray]]

_LEAST = 1e-300
_MOST = 1e200  # counts beyond it are scaled down, before a double would overflow
_FEW = 2**18  # entries of windows in which rows that are alike are looked for
_TURNS = 8  # steps from one look at the counts to the next: one step does not multiply them by 1e13


class Pullback:
    """Path counts from chosen outputs of a trace to its input.

    Attributes:
        sources: the arrays that a run of pointwise operations starts from, by its last array, and where the
            run hides them.
        beyond: whether windows continue beyond the edge of a map, as if it had none, wherever an operation
            allows that; otherwise every map ends where it ends and paths through the padding are lost.
        bounded: `[rows]`, whether the edge of some map took part even so: a head over the whole map.
        logs: `[rows]`, the logarithm of the factor by which the counts were divided.
        rows: `[outputs]`, the row of each output: those that see the same from some step on share one.
    """

    def __init__(self, trace: Trace, annotation: Annotation, sources: Sources, *, beyond: bool):
        self.trace, self.annotation, self.sources, self.beyond = trace, annotation, sources, beyond
        self.bounded, self.logs, self.rows = np.zeros(0, bool), np.zeros(0), np.zeros(0, int)
        self._windows: dict[Value, Window] = {}
        self._most = np.zeros(0)  # `[outputs]`, the largest count so far
        self._scaled = self._only_seen = False

    def run(self, places: Sequence[tuple[Value, Mapping[int, int | range]]]) -> Window:
        """The counts at the input, in `rows` for the places.

        Args:
            places: an array of the trace and an index, or a range, for some of its axes; all of the others.
        """
        self._scaled = False
        found = self._run(places)
        if self._scaled:
            # What is small beside the rest may have vanished: where something is seen is found again.
            found, logs = found.rows(self.rows), self.logs[self.rows]
            total = mass(found.counts)
            self._only_seen = True
            seen = self._run(places)
            self._only_seen = False
            seen, self.bounded = seen.rows(self.rows), self.bounded[self.rows]
            self.rows = np.arange(len(places))
            total[total == 0] = 1
            self.logs = logs + np.log(total)
            shares = found.counts / total.reshape(-1, *(1 for _ in found.starts))
            found = Window(np.where(seen.counts > 0, np.maximum(shares, _LEAST), 0.0), found.starts)
        return found

    def _run(self, places: Sequence[tuple[Value, Mapping[int, int | range]]]) -> Window:
        self.bounded = np.zeros(len(places), bool)
        self._windows, self._most, self.logs = {}, np.zeros(len(places)), np.zeros(len(places))
        self.rows = np.arange(len(places))
        for row, (value, index) in enumerate(places):
            given = [index.get(axis) for axis in range(len(value.shape))]
            lengths = [len(one) if isinstance(one, range) else 1 for one in given]
            counts = np.zeros((len(places), *lengths))
            counts[row] = 1
            self.add(value, Window(counts, tuple(o.start if isinstance(o, range) else o for o in given)))
        for turn, step in enumerate(reversed(self.trace.steps)):
            for number, window in enumerate([self._windows.pop(output, None) for output in step.outputs]):
                if window is not None:
                    step.rule.pull(step, number, window, self)
            if turn % _TURNS == 0:
                self._share()
                for window in self._windows.values():
                    most = window.counts.reshape(len(window.counts), -1).max(axis=1, initial=0.0)
                    self._most = np.maximum(self._most, most)
            if self._most.max() > _MOST:
                # Only the ratios within a row matter, in all that it has reached.
                self._scaled = True
                factor = np.where(self._most > _MOST, 1 / _MOST, 1.0)
                for value, window in self._windows.items():
                    self._windows[value] = window.scaled(factor.reshape(-1, *(1 for _ in value.shape)))
                self._most *= factor
                self.logs -= np.log(factor)
        rank = len(self.trace.input.shape)
        nothing = Window(np.zeros((len(self.bounded), *(1,) * rank)), (None,) * rank)
        return self._windows.get(self.trace.input, nothing)

    def _share(self) -> None:
        """Let rows that are alike in all windows become one."""
        windows = self._windows
        if len(self.bounded) == 1 or sum(window.counts.size for window in windows.values()) > _FEW:
            return
        rows = zip(self.bounded, self.logs, *(window.counts for window in windows.values()), strict=True)
        first: dict[tuple, int] = {}
        keys = [(bounded, log, *(one.tobytes() for one in counts)) for bounded, log, *counts in rows]
        same = [first.setdefault(key, len(first)) for key in keys]
        if len(first) < len(keys):
            kept = np.unique(same, return_index=True)[1]
            self.rows = np.array(same)[self.rows]
            self.bounded, self.logs, self._most = self.bounded[kept], self.logs[kept], self._most[kept]
            self._windows = {value: window.rows(kept) for value, window in windows.items()}

    def is_coupling(self, step: Step, value: Value) -> bool:
        """Whether a summary returns to the map by this operand of a step; such paths are left out."""
        return (step, value) in self.annotation.couplings

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

    def present(self, value: Value) -> np.ndarray | None:
        """1 where a constant kernel or matrix has an entry, 0 where it is zero; None if none is zero."""
        if value not in self.annotation.zeros:
            self.annotation.zeros[value] = find_zeros(value)
        zeros = self.annotation.zeros[value]
        return None if zeros is None else (~zeros).astype(np.float64)

    def spread(self, window: Window, value: Value, axes: Sequence[int]) -> float:
        """The factor for reading all positions along `axes`; channels are averaged, space is counted."""
        factor = 1.0
        for axis in axes:
            one, length = self.annotation.axes[value][axis], value.shape[axis]
            if one.kind == "channel" and not one.phase:
                factor *= 1 / length
            elif one.kind in ("space", "flat") and length > 1:
                self.note(window)
        return factor

    def without(self, window: Window, masked: np.ndarray) -> Window:
        """A window without what is masked out, bool `[axes of the array...]`."""
        if not masked.any():
            return window
        for axis, stride in enumerate(masked.strides):
            if stride != 0 and masked.shape[axis] > 1:
                window = self.inside(window, axis, masked.shape[axis])
        return window.scaled(~small(masked))
