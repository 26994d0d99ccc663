"""From an output back to the input: how many paths lead to each input pixel, exactly.

Every operation is replaced by its structure: taps count one each, whatever their weight, pointwise functions
pass what they get, additions and concatenations join paths, channels are averaged. That map is linear, and
its transpose, applied to one output pixel, counts the paths from there to each input pixel. Counts are never
negative, so none cancel, and what is zero at the end is out of sight.

Maps are kept as windows that may reach beyond the array, as the theoretical receptive field does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from hdc.errors import InputError
from hdc.receptive.axes import Annotation, groups
from hdc.receptive.masks import small
from hdc.receptive.trace import POINTWISE, Step, Trace, Value
from hdc.receptive.window import Window, inserted, mass, spaced, tapped, widened

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
                self._add(value, Window(counts, tuple(index.get(axis) for axis in range(len(value.shape)))))
        sources = self._sources()
        for step in reversed(self.trace.steps):
            reached = [self._windows.pop(output, None) for output in step.outputs]
            if all(window is None for window in reached):
                continue
            if step.name in POINTWISE:
                assert reached[0] is not None
                for value in sources[step.outputs[0]]:
                    self._add(value, reached[0])
            else:
                self._step(step, reached)
        found = self._windows.get(self.trace.input)
        shape = self.trace.input.shape
        return found or Window(np.zeros((len(places), *(1 for _ in shape))), (None,) * len(shape))

    def _sources(self) -> dict[Value, dict[Value, None]]:
        """The arrays that a run of pointwise operations starts from, each once.

        So `x * sigmoid(x)`, or GELU written out, is one path and not several; and so is a normalisation
        over the channels of each pixel, whose statistics are of the array that is normalised.
        """
        sources: dict[Value, dict[Value, None]] = {}
        statistics: dict[Value, dict[Value, None]] = {}  # of each pixel's channels, and of what
        for step in self.trace.steps:
            given = [v for v in step.inputs if v.depends and (step, v) not in self.annotation.couplings]
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
            elif step.name.startswith("reduce_") and self._of_channels(step):
                statistics[step.outputs[0]] = _joined(own)
            elif step.name in ("broadcast_in_dim", "reshape") and given and given[0] in statistics:
                statistics[step.outputs[0]] = statistics[given[0]]
        return sources

    def _of_channels(self, step: Step) -> bool:
        axes = self.annotation.axes
        return "axes" in step.params and all(
            axes[value][axis].kind == "channel"
            for value in step.inputs
            if value.depends
            for axis in step.params["axes"]
        )

    def _add(self, value: Value, window: Window) -> None:
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

    def _inside(self, window: Window, axis: int, length: int) -> Window:
        """A window written out over exactly the map; notes where something was beyond it.

        An axis of one position may be one that was put in, beyond which there is nothing.
        """
        if window.starts[axis] is None:
            return window.expanded(axis, length)
        if length > 1:
            for start, stop in ((window.starts[axis] or 0, 0), (length, window.stop(axis))):
                if start < stop:
                    self._note(mass(window.fitted(axis, start, stop).counts) > 0)
        return window.fitted(axis, 0, length)

    def _whole(self, window: Window, shape: Sequence[int]) -> np.ndarray:
        """The counts `[outputs, *shape]` of every entry of the array."""
        for axis, length in enumerate(shape):
            window = self._inside(window, axis, length)
        return window.counts

    def _note(self, rows: np.ndarray) -> None:
        self.bounded |= rows

    def _spread(self, window: Window, value: Value, axes: Sequence[int]) -> float:
        """The factor for reading all positions along `axes`; channels are averaged, space is counted."""
        kinds = [self.annotation.axes[value][axis].kind for axis in axes]
        if any(k in ("space", "flat") and value.shape[a] > 1 for k, a in zip(kinds, axes, strict=True)):
            self._note(mass(window.counts) > 0)
        return float(
            np.prod([1 / value.shape[a] for k, a in zip(kinds, axes, strict=True) if k == "channel"])
        )

    def _step(self, step: Step, reached: list[Window | None]) -> None:
        window = next(window for window in reached if window is not None)
        operand = step.inputs[0]
        name, params = step.name, step.params
        match name:
            case "either":
                for value in step.inputs[1:]:
                    if (step, value) not in self.annotation.couplings:
                        self._add(value, window)
            case "conv_general_dilated":
                self._convolution(step, window)
            case _ if name.startswith("reduce_window"):
                for value, found in zip(step.inputs, reached, strict=False):
                    if found is not None:
                        self._add(value, self._pool(found, value, step))
            case _ if name.startswith(("reduce_", "arg")):
                for value in [value for value in step.inputs if value.depends]:
                    found = self._reduction(window, value, params["axes"])
                    masked = self.annotation.masked.get(value)
                    if masked is not None and name in ("reduce_sum", "reduce_max"):
                        found = self._without(found, masked.zero if name == "reduce_sum" else masked.low)
                    self._add(value, found)
            case "cumsum" | "cumprod" | "cummax" | "cummin" | "cumlogsumexp":
                self._add(operand, self._cumulative(window, operand, params["axis"], params["reverse"]))
            case "sort" | "top_k" | "fft":
                axes = {"sort": [params.get("dimension")], "top_k": [params.get("axis", -1)]}.get(name)
                if axes is None:
                    axes = range(-len(params["fft_lengths"]), 0)
                for found in [found for found in reached if found is not None]:
                    for value in [value for value in step.inputs if value.depends]:
                        self._add(value, self._mixed(found, value, step.outputs[0], axes))
            case "broadcast_in_dim":
                self._add(operand, self._broadcast(window, step))
            case "reshape":
                self._add(operand, self._reshape(window, operand.shape, step.outputs[0].shape))
            case "squeeze":
                self._add(operand, inserted(window, [d % len(operand.shape) for d in params["dimensions"]]))
            case "transpose":
                order = np.argsort(params["permutation"])
                counts = window.counts.transpose(0, *(1 + order))
                self._add(operand, Window(counts, tuple(window.starts[i] for i in order)))
            case "rev":
                for axis in params["dimensions"]:
                    if window.starts[axis] is not None:
                        start = operand.shape[axis] - window.stop(axis)
                        window = window.with_axis(axis, np.flip(window.counts, axis + 1), start)
                self._add(operand, window)
            case "slice":
                self._add(operand, _sliced(window, step))
            case "pad":
                self._add(operand, _padded(window, step))
            case "concatenate" if self.beyond and (wrapped := _wrapped(step)) is not None:
                # Beyond its edge, a map with circular padding goes on as any other.
                axis, (value, low) = params["dimension"], wrapped
                whole = window.expanded(axis, step.outputs[0].shape[axis])
                self._add(value, whole.with_axis(axis, whole.counts, (whole.starts[axis] or 0) - low))
            case "concatenate":
                for value, found in self._parts(window, step, params["dimension"]):
                    self._add(value, found)
            case "split":
                start = 0
                axis = params["axis"]
                for found, size in zip(reached, params["sizes"], strict=True):
                    if found is not None:
                        low = found.expanded(axis, size)
                        self._add(operand, low.with_axis(axis, low.counts, start + (low.starts[axis] or 0)))
                    start += size
            case "dot_general":
                for side in (0, 1):
                    value = step.inputs[side]
                    if value.depends and (step, value) not in self.annotation.couplings:
                        found = self._product(window, step, side)
                        masked = self.annotation.masked.get(value)
                        self._add(value, found if masked is None else self._without(found, masked.zero))
            case "tile":
                for axis, times in enumerate(params["reps"]):
                    if times > 1:
                        length = operand.shape[axis]
                        whole = self._inside(window, axis, times * length).counts
                        shape = (*whole.shape[: axis + 1], times, length, *whole.shape[axis + 2 :])
                        window = window.with_axis(axis, whole.reshape(shape).sum(axis=axis + 1), 0)
                self._add(operand, window)
            case "scan_row":
                if params["carried"] and self.annotation.axes[operand][0].kind in ("space", "flat"):
                    self._note(mass(window.counts) > 0)  # a recurrence begins at the edge of the map
                first = inserted(window, [0])
                self._add(operand, first.with_axis(0, first.counts, params["position"]))
            case "unstack":
                for position, found in enumerate(reached):
                    if found is not None:
                        row = inserted(found, [params["axis"]])
                        self._add(operand, row.with_axis(params["axis"], row.counts, position))
            case "stack":
                axis = params["axis"]
                for value, found in self._parts(window, step, axis, stacked=True):
                    counts = found.counts.squeeze(axis + 1)
                    self._add(value, Window(counts, (*found.starts[:axis], *found.starts[axis + 1 :])))
            case "gather" | "dynamic_slice" | "dynamic_update_slice" | "scatter":
                self._moved(step, window)
            case _:
                raise InputError(f"analyse does not know the operation {name!r}, which the model uses")

    def _convolution(self, step: Step, window: Window) -> None:
        image, kernel = step.inputs
        params, spec = step.params, step.params["dimension_numbers"]
        if kernel.depends:
            every = window
            for axis, length in enumerate(step.outputs[0].shape):
                every = Window(
                    every.total(axis, length), (*every.starts[:axis], None, *every.starts[axis + 1 :])
                )
            self._note(mass(every.counts) > 0)
            total = every.counts.reshape(-1, *(1 for _ in kernel.shape))
            self._add(kernel, Window(total, (None,) * len(kernel.shape)))
        if not image.depends:
            return
        if params["batch_group_count"] != 1:
            raise InputError("analyse does not know convolutions with batch_group_count")
        # To batch, channel, space, where the rest is done, and back to the image's own order.
        order = spec.out_spec
        counts = window.counts.transpose(0, *(1 + axis for axis in order))
        window = Window(counts, tuple(window.starts[axis] for axis in order))
        shape = [step.outputs[0].shape[axis] for axis in order]
        channels, groups = image.shape[spec.lhs_spec[1]], params["feature_group_count"]
        for axis in range(2, len(shape)):
            window = window.expanded(axis, shape[axis])
        geometry = list(
            zip(
                (kernel.shape[axis] for axis in spec.rhs_spec[2:]),
                params["window_strides"],
                params["rhs_dilation"],
                (low for low, _ in params["padding"]),
                strict=True,
            )
        )
        taps = _present(kernel)
        if taps is None:
            window = _ungrouped(window, shape[1], channels, groups)
            for axis, (length, stride, rate, low) in enumerate(geometry, 2):
                window = widened(window, axis, range(length), stride, rate, low)
        else:
            window = _masked(window, taps.transpose(spec.rhs_spec), shape[1], groups, geometry)
        for axis, apart in enumerate(params["lhs_dilation"], 2):
            window = spaced(window, axis, apart)
        back = np.argsort(spec.lhs_spec)
        counts = window.counts.transpose(0, *(1 + axis for axis in back))
        self._add(image, Window(counts, tuple(window.starts[axis] for axis in back)))

    def _pool(self, window: Window, value: Value, step: Step) -> Window:
        params = step.params
        for axis, size in enumerate(params["window_dimensions"]):
            stride, rate = params["window_strides"][axis], params["window_dilation"][axis]
            low, apart = params["padding"][axis][0], params["base_dilation"][axis]
            if (size, stride, low, apart) == (1, 1, 0, 1):
                continue
            window = window.expanded(axis, step.outputs[0].shape[axis])
            window = spaced(widened(window, axis, range(size), stride, rate, low), axis, apart)
        return window

    def _reduction(self, window: Window, value: Value, axes: Sequence[int]) -> Window:
        factor = self._spread(window, value, axes)
        return inserted(Window(window.counts * factor, window.starts), axes)

    def _cumulative(self, window: Window, value: Value, axis: int, reverse: bool) -> Window:
        window = self._inside(window, axis, value.shape[axis])
        counts = window.counts if reverse else np.flip(window.counts, axis + 1)
        counts = np.cumsum(counts, axis=axis + 1)
        self._note(mass(window.counts) > 0)
        return window.with_axis(axis, counts if reverse else np.flip(counts, axis + 1), 0)

    def _mixed(self, window: Window, value: Value, output: Value, axes: Sequence[Any]) -> Window:
        """Every output along `axes` depends on every input along them."""
        places = [axis % len(value.shape) for axis in axes]
        for axis in places:
            window = window.with_axis(axis, window.total(axis, output.shape[axis]), None)
        return Window(window.counts * self._spread(window, value, places), window.starts)

    def _broadcast(self, window: Window, step: Step) -> Window:
        places, operand, shape = (
            step.params["broadcast_dimensions"],
            step.inputs[0].shape,
            step.outputs[0].shape,
        )
        kept = {place: i for i, place in enumerate(places) if operand[i] == shape[place]}
        for axis, length in enumerate(shape):
            if axis not in kept:
                window = window.with_axis(axis, window.total(axis, length), None)
        new = [axis for axis in range(len(shape)) if axis not in places]
        counts = window.counts.squeeze(tuple(1 + axis for axis in new))
        return Window(counts, tuple(window.starts[axis] for axis in range(len(shape)) if axis not in new))

    def _reshape(self, window: Window, before: Sequence[int], after: Sequence[int]) -> Window:
        starts: list[int | None] = [None] * len(before)
        shape = [1] * len(before)
        for old, new in groups(before, after):
            if len(old) == len(new) == 1:
                starts[old[0]], shape[old[0]] = window.starts[new[0]], window.counts.shape[1 + new[0]]
            elif any(window.starts[axis] is not None for axis in new):
                for axis in new:
                    window = self._inside(window, axis, after[axis])
                for axis in old:
                    starts[axis], shape[axis] = 0, before[axis]
        return Window(window.counts.reshape(len(window.counts), *shape), tuple(starts))

    def _parts(
        self, window: Window, step: Step, axis: int, *, stacked: bool = False
    ) -> Iterator[tuple[Value, Window]]:
        """What each of the joined arrays gets, from the window of the whole."""
        sizes = [1 if stacked else value.shape[axis] for value in step.inputs]
        if window.starts[axis] is not None:
            window = self._inside(window, axis, sum(sizes))
        start = 0
        for value, size in zip(step.inputs, sizes, strict=True):
            if value.depends and (step, value) not in self.annotation.couplings:
                part = window
                if window.starts[axis] is not None:
                    part = window.fitted(axis, start, start + size)
                    part = part.with_axis(axis, part.counts, 0)
                yield value, part
            start += size

    def _product(self, window: Window, step: Step, side: int) -> Window:
        """What one operand of a matrix product gets."""
        mine, other = step.inputs[side], step.inputs[1 - side]
        (sums, batches) = step.params["dimension_numbers"]
        summed, batch = sums[side], batches[side]
        free = [axis for axis in range(len(mine.shape)) if axis not in (*summed, *batch)]
        others = [a for a in range(len(other.shape)) if a not in (*sums[1 - side], *batches[1 - side])]
        ranks = len(batch), len(free), len(others)
        first = ranks[0] if side == 0 else ranks[0] + ranks[2]
        my_places = [*range(ranks[0]), *range(first, first + ranks[1])]
        their_places = [place for place in range(sum(ranks)) if place not in my_places]
        taps = self._taps(other)
        if taps is not None:
            if other.depends:
                self._note(mass(window.counts) > 0)  # what is masked out differs from place to place
            for mine_axis, axis in zip(summed, sums[1 - side], strict=True):
                if self.annotation.axes[mine][mine_axis].kind == "channel":
                    taps = taps / np.maximum(taps.sum(axis=axis, keepdims=True), 1)
            return self._resampled(window, step, side, taps, my_places, their_places)
        for place, axis in zip(their_places, others, strict=True):
            window = window.with_axis(place, window.total(place, other.shape[axis]), None)
        factor = self._spread(window, mine, summed)
        counts = window.counts.squeeze(tuple(1 + place for place in their_places)) * factor
        starts = [window.starts[place] for place in my_places]
        # Now batch, free; the summed axes are uniform. Put all in the operand's own order.
        order = [*batch, *free, *summed]
        counts = counts.reshape(*counts.shape, *(1 for _ in summed))
        starts += [None] * len(summed)
        back = np.argsort(order)
        return Window(counts.transpose(0, *(1 + back)), tuple(starts[i] for i in back))

    def _taps(self, value: Value) -> np.ndarray | None:
        """As `_present`; of an array that depends on the input, what no mask takes away."""
        if not value.depends:
            return _present(value)
        masked = self.annotation.masked.get(value)
        if masked is None or not masked.zero.any():
            return None
        return np.broadcast_to((~small(masked.zero)).astype(np.float64), value.shape)

    def _without(self, window: Window, masked: np.ndarray) -> Window:
        """A window without what is masked out, bool `[axes of the array...]`."""
        for axis, stride in enumerate(masked.strides):
            if stride != 0:
                window = self._inside(window, axis, masked.shape[axis])
        return Window(window.counts * ~small(masked), window.starts)

    def _resampled(
        self,
        window: Window,
        step: Step,
        side: int,
        taps: np.ndarray,
        my_places: Sequence[int],
        their_places: Sequence[int],
    ) -> Window:
        """A product with a matrix that has zeros: only the entries that are not zero are taps."""
        mine = step.inputs[side]
        sums, batches = step.params["dimension_numbers"]
        for place in (*their_places, *range(len(batches[0]))):
            window = self._inside(window, place, step.outputs[0].shape[place])
        letters = iter("abcdefghijklmnopqrstuvwxyz")
        result = [next(letters) for _ in step.outputs[0].shape]
        own, theirs = [""] * len(mine.shape), [""] * taps.ndim
        taken = zip(
            [*batches[side], *(a for a in range(len(mine.shape)) if a not in (*sums[side], *batches[side]))],
            my_places,
            strict=True,
        )
        for axis, place in taken:
            own[axis] = result[place]
        rest = [a for a in range(taps.ndim) if a not in (*sums[1 - side], *batches[1 - side])]
        for axis, place in zip(rest, their_places, strict=True):
            theirs[axis] = result[place]
        for i, axis in enumerate(batches[1 - side]):
            theirs[axis] = result[i]
        for axis, their in zip(sums[side], sums[1 - side], strict=True):
            own[axis] = theirs[their] = next(letters)
        equation = f"Z{''.join(result)},{''.join(theirs)}->Z{''.join(own)}"
        counts = np.einsum(equation, window.counts, taps, optimize=True)
        starts: list[int | None] = [0] * len(mine.shape)
        for axis in range(len(mine.shape)):
            if own[axis] in result:
                starts[axis] = window.starts[result.index(own[axis])]
        return Window(counts, tuple(starts))

    def _moved(self, step: Step, window: Window) -> None:
        """Operations that copy entries: run once on the entries' own numbers, to see where each goes."""
        moving = _MOVED[step.name]
        numbers, sizes = [], []
        for position, value in enumerate(step.inputs):
            if not moving(position):
                if value.depends:
                    raise InputError(
                        f"the model reads at places that depend on its input ({step.name}): "
                        "its receptive field differs from image to image"
                    )
                numbers.append(value.value)
            elif value.depends:
                size = int(np.prod(value.shape))
                first = 1 + sum(sizes)
                numbers.append(jnp.arange(first, first + size, dtype=jnp.int32).reshape(value.shape))
                sizes.append(size)
            else:
                numbers.append(jnp.zeros(value.shape, jnp.int32))
        source = np.asarray(step.primitive.bind(*numbers, **step.params)).ravel()
        flat = self._whole(window, step.outputs[0].shape).reshape(len(window.counts), -1)
        kept = source > 0  # zero is a constant, what is negative was read out of bounds
        gathered = np.zeros((len(flat), 1 + sum(sizes)))
        for row, counts in zip(gathered, flat, strict=True):
            row += np.bincount(source[kept], weights=counts[kept], minlength=len(row))
        first = 1
        moved = [value for position, value in enumerate(step.inputs) if moving(position) and value.depends]
        for value, size in zip(moved, sizes, strict=True):
            counts = gathered[:, first : first + size].reshape(-1, *value.shape)
            self._add(value, Window(counts, (0,) * len(value.shape)))
            first += size


# Which operands of the operations that copy are copied; the others say where.
_MOVED: dict[str, Callable[[int], bool]] = {
    "gather": lambda position: position == 0,
    "dynamic_slice": lambda position: position == 0,
    "dynamic_update_slice": lambda position: position < 2,
    "scatter": lambda position: position != 1,
}


def _joined(some: Iterable[dict[Value, None]]) -> dict[Value, None]:
    return {value: None for one in some for value in one}


def _present(value: Value) -> np.ndarray | None:
    """1 where a kernel or matrix has an entry, 0 where it has none by construction; None if it has all."""
    if value.depends or value.unmasked:
        return None
    size = np.abs(np.asarray(value.value, np.float64))
    # The weights of an interpolation are rounded: a millionth is nothing.
    there = size > 1e-6 * size.max(initial=0.0)
    return None if there.all() else there.astype(np.float64)


def _ungrouped(window: Window, outputs: int, inputs: int, groups: int) -> Window:
    """Each output channel averages the `inputs / groups` input channels of its group."""
    mine, theirs = inputs // groups, outputs // groups
    if window.starts[1] is None:
        return Window(window.counts * (theirs / mine), window.starts)
    if groups == 1:
        return window.with_axis(1, window.total(1, outputs) / mine, None)
    counts = window.fitted(1, 0, outputs).counts
    shape = counts.shape
    summed = counts.reshape(*shape[:2], groups, theirs, *shape[3:]).sum(axis=3) / mine
    return window.with_axis(1, np.repeat(summed, mine, axis=2), 0)


def _masked(
    window: Window, taps: np.ndarray, outputs: int, groups: int, geometry: Sequence[tuple[int, int, int, int]]
) -> Window:
    """Tap by tap, where not all are there: taps is `[outputs, inputs / groups, space...]`.

    Each output channel averages the input channels that any of its taps reads.
    """
    read = np.maximum(taps.any(axis=tuple(range(2, taps.ndim))).sum(axis=1), 1)
    window = window.expanded(1, outputs).fitted(1, 0, outputs)
    shape = window.counts.shape
    counts = window.counts / read.reshape(-1, *(1 for _ in shape[3:]))
    grouped = counts.reshape(*shape[:2], groups, outputs // groups, *shape[3:])
    total: Window | None = None
    for place in np.ndindex(*taps.shape[2:]):
        there = taps[(slice(None), slice(None), *place)]
        if not there.any():
            continue
        there = there.reshape(groups, outputs // groups, -1)
        # q outputs in question, n batch, g groups, o and i channels of a group.
        channels = np.einsum("qngo...,goi->qngi...", grouped, there)
        part = window.with_axis(1, channels.reshape(*shape[:2], -1, *shape[3:]), 0)
        for axis, (tap, (length, stride, rate, low)) in enumerate(zip(place, geometry, strict=True), 2):
            part = tapped(part, axis, tap, length, stride, rate, low)
        total = part if total is None else Window(total.counts + part.counts, part.starts)
    if total is None:
        raise InputError("a convolution of the model has no taps: its kernel is zero by construction")
    return total


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
        elif cut is not None and cut.name == "slice" and cut.inputs[0] is whole and not _strided(cut):
            first = cut.params["start_indices"][axis]
        else:
            return None
        if first != position % whole.shape[axis]:
            return None
        position += value.shape[axis]
    return (whole, low) if step.inputs.count(whole) == 1 else None


def _strided(step: Step) -> bool:
    return max(step.params["strides"] or (1,)) > 1


def _sliced(window: Window, step: Step) -> Window:
    params, before = step.params, step.inputs[0].shape
    strides = params["strides"] or (1,) * len(before)
    for axis, (first, last, by) in enumerate(
        zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    ):
        if (first, last, by) != (0, before[axis], 1):
            window = window.expanded(axis, step.outputs[0].shape[axis])
            window = widened(window, axis, [0], by, 1, -first)
    return window


def _padded(window: Window, step: Step) -> Window:
    for axis, (low, high, interior) in enumerate(step.params["padding_config"]):
        if (low, high, interior) != (0, 0, 0):
            window = window.expanded(axis, step.outputs[0].shape[axis])
            window = window.with_axis(axis, window.counts, (window.starts[axis] or 0) - low)
            window = spaced(window, axis, interior + 1)
    return window
