"""Operations that put entries elsewhere: reshape and transpose, concatenate and split, gather and scatter."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
from jax.lax import GatherScatterMode

from hdc.errors import InputError
from hdc.receptive.axes import CHANNEL, NEW, STACK, Annotation, Axes, Axis, resampled, scaled, uneven, unified
from hdc.receptive.masks import NOTHING, Given, Masked
from hdc.receptive.pullback import Pullback
from hdc.receptive.rules.base import Rule, Sides
from hdc.receptive.steps import Step, Value
from hdc.receptive.window import Window, mass


class Movement(Rule):
    """Operations on whole axes that also move a mask.

    Methods:
        moved: what they make of an array of their operand's shape.
    """

    def moved(self, step: Step, array: np.ndarray) -> np.ndarray:
        return array.reshape(step.outputs[0].shape)

    def masked(self, step: Step, given: Given) -> Masked:
        return (given[0] or NOTHING).each(lambda mask: self.moved(step, mask) if mask.ndim else mask)

    def entries(self, step: Step, given: Sequence[np.ndarray]) -> np.ndarray:
        return self.moved(step, given[0])


class Broadcast(Movement):
    def moved(self, step: Step, array: np.ndarray) -> np.ndarray:
        after = step.outputs[0].shape
        shape = [1] * len(after)
        for axis, place in enumerate(step.params["broadcast_dimensions"]):
            shape[place] = array.shape[axis]
        return np.broadcast_to(array.reshape(shape), after)

    def axes(self, step: Step, found: Annotation) -> Axes:
        operand, shape = step.inputs[0], step.outputs[0].shape
        new = [NEW] * len(shape)
        for i, place in enumerate(step.params["broadcast_dimensions"]):
            new[place] = found.axes[operand][i] if operand.shape[i] == shape[place] else NEW
        return tuple(new)

    def back(self, step: Step, window: Window, to: Pullback) -> Window:
        before, after = step.inputs[0].shape, step.outputs[0].shape
        places = step.params["broadcast_dimensions"]
        kept = {place for i, place in enumerate(places) if before[i] == after[place]}
        for axis, length in enumerate(after):
            if axis not in kept:
                window = window.summed(axis, length)
        return window.without([axis for axis in range(len(after)) if axis not in places])


class Squeeze(Movement):
    def axes(self, step: Step, found: Annotation) -> Axes:
        gone = step.params["dimensions"]
        return tuple(axis for i, axis in enumerate(found.axes[step.operand]) if i not in gone)

    def back(self, step: Step, window: Window, to: Pullback) -> Window:
        return window.inserted([axis % len(step.inputs[0].shape) for axis in step.params["dimensions"]])


class Transpose(Movement):
    def moved(self, step: Step, array: np.ndarray) -> np.ndarray:
        return array.transpose(step.params["permutation"])

    def axes(self, step: Step, found: Annotation) -> Axes:
        return tuple(found.axes[step.operand][i] for i in step.params["permutation"])

    def back(self, step: Step, window: Window, to: Pullback) -> Window:
        return window.transposed(np.argsort(step.params["permutation"]))


class Reshape(Movement):
    def axes(self, step: Step, found: Annotation) -> Axes:
        axes, before, after = found.axes[step.operand], step.operand.shape, step.outputs[0].shape
        result: list[Axis] = [NEW] * len(after)
        for old, new in _groups(before, after):
            old, new = [i for i in old if before[i] > 1], [j for j in new if after[j] > 1]
            if len(new) == 1:
                became = (_merged(tuple(axes[i] for i in old), tuple(before[i] for i in old)),)
            elif len(old) == 1:
                became = _split(axes[old[0]], tuple(after[j] for j in new))
            else:
                became = (CHANNEL,) * len(new)
            for j, axis in zip(new, became, strict=True):
                result[j] = axis
        # Axes of one position keep their meaning in order, as far as there are as many before and after.
        ones_old = [axis for axis, length in zip(axes, before, strict=True) if length == 1]
        ones_new = [j for j, length in enumerate(after) if length == 1]
        if len(ones_old) == len(ones_new):
            for j, axis in zip(ones_new, ones_old, strict=True):
                result[j] = axis
        return tuple(result)

    def back(self, step: Step, window: Window, to: Pullback) -> Window:
        before, after = step.inputs[0].shape, step.outputs[0].shape
        starts: list[int | None] = [None] * len(before)
        shape = [1] * len(before)
        for old, new in _groups(before, after):
            if len(old) == len(new) == 1:
                starts[old[0]], shape[old[0]] = window.starts[new[0]], window.counts.shape[1 + new[0]]
            elif any(window.starts[axis] is not None for axis in new):
                for axis in new:
                    window = to.inside(window, axis, after[axis])
                for axis in old:
                    starts[axis], shape[axis] = 0, before[axis]
        return Window(window.counts.reshape(len(window.counts), *shape), tuple(starts))


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The axes that a reshape turns into one another: pairs of places before and after, in order.

    No length is 0.
    """
    result: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        old, new, left, right = [], [], 1, 1
        while left != right or not (old or new):
            if i < len(before) and (left < right or not old):
                left *= before[i]
                old.append(i)
                i += 1
            if j < len(after) and (right < left or not new):
                right *= after[j]
                new.append(j)
                j += 1
        result.append((old, new))
    return result


def _merged(parts: Axes, lengths: tuple[int, ...]) -> Axis:
    if len(parts) == 1:
        return parts[0]
    kinds = [axis.kind for axis in parts]
    if all(axis.phase for axis in parts):
        return Axis("channel", phase=True, parts=parts, lengths=lengths)
    if set(kinds) == {"channel"}:
        return CHANNEL
    # Repeated or shuffled into the map from the channels: so many positions where there was one.
    if kinds[0] == "space" and set(kinds[1:]) <= {"new", "stack", "channel"}:
        return scaled(parts[0], Fraction(1, math.prod(lengths[1:])))
    return Axis("flat", parts=parts, lengths=lengths)


def _split(axis: Axis, lengths: tuple[int, ...]) -> Axes:
    if axis.parts and axis.lengths == lengths:
        return axis.parts
    if axis.kind == "space":
        strides = [axis.stride * math.prod(lengths[place + 1 :]) for place in range(len(lengths))]
        phases = (Axis("channel", axis.space, stride, phase=True) for stride in strides[1:])
        return (replace(axis, stride=strides[0]), *phases)
    return (axis if axis.kind == "new" else CHANNEL,) * len(lengths)


class Reverse(Rule):
    def back(self, step: Step, window: Window, to: Pullback) -> Window:
        for axis in step.params["dimensions"]:
            if window.starts[axis] is not None:
                start = step.inputs[0].shape[axis] - window.stop(axis)
                window = window.with_axis(axis, np.flip(window.counts, axis + 1), start)
        return window


class Tile(Rule):
    def axes(self, step: Step, found: Annotation) -> Axes:
        columns = zip(found.axes[step.operand], step.operand.shape, step.params["reps"], strict=True)
        return tuple(NEW if length == 1 < times else axis for axis, length, times in columns)

    def back(self, step: Step, window: Window, to: Pullback) -> Window:
        for axis, times in enumerate(step.params["reps"]):
            if times > 1:
                length = step.inputs[0].shape[axis]
                whole = to.inside(window, axis, times * length).counts
                shape = (*whole.shape[: axis + 1], times, length, *whole.shape[axis + 2 :])
                window = window.with_axis(axis, whole.reshape(shape).sum(axis=axis + 1), 0)
        return window


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
        largest = step.inputs[int(np.argmax(sizes))]
        # Of several copies, as a wide circular padding has, the one in the middle is the map.
        sides = [
            (sum(sizes[:place]), sum(sizes[place + 1 :]))
            for place, part in enumerate(step.inputs)
            if part is largest
        ]
        return largest, {axis: min(sides, key=lambda side: (abs(side[0] - side[1]), -side[0]))}

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        axis = step.params["dimension"]
        map_like = to.annotation.axes[step.outputs[0]][axis].kind in ("space", "flat")
        if to.beyond and map_like and window.starts[axis] is not None:
            depending = [value for value in step.inputs if value.depends]
            whole, sides = self.added(step)
            circular = self.is_circular(step)
            # Beyond its edge, a map with circular padding, or one of constants, continues as any other.
            if circular or (depending == [whole] and not to.is_coupling(step, whole)):
                window = window.moved(axis, -sides[axis][0])
                length = whole.shape[axis]
                first, last = window.starts[axis] or 0, window.stop(axis) - 1
                if circular and first // length == last // length:  # in one copy
                    window = window.moved(axis, -(first // length) * length)
                to.add(whole, window)
                return
        parts = list(_parts(window, step, axis, [value.shape[axis] for value in step.inputs], to))
        if to.beyond and map_like:
            # Padding that reflects, say: what lies beyond the edge is part of the map once more.
            several = sum(mass(part.counts) > 0 for _, part in parts) > 1
            to.bounded |= several
        for value, part in parts:
            to.add(value, part)

    def is_circular(self, step: Step) -> bool:
        """Whether a map is continued around its edges by itself and by slices of its own."""
        axis, (whole, sides) = step.params["dimension"], self.added(step)
        position = -sides[axis][0]
        for value in step.inputs:
            first, cut = 0, value.step
            if value is not whole:
                if cut is None or cut.name != "slice" or cut.inputs[0] is not whole:
                    return False
                first = cut.params["start_indices"][axis]
                if max(cut.params["strides"] or (1,)) > 1:
                    return False
            if first != position % whole.shape[axis]:
                return False
            position += value.shape[axis]
        return len(step.inputs) > 1


class Stack(Rule):
    """The turns of a scan, or anything else, along a new axis."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        joined, place = unified(step, found), step.params["axis"]
        # What the turns of a loop over a map return lies as what they take.
        taken = [found.axes[rows][0] for rows in step.params.get("rows", ()) if rows.depends]
        along = next((axis for axis in taken if axis.kind in ("space", "flat")), STACK)
        return (*joined[:place], along, *joined[place:])

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        axis = step.params["axis"]
        for value, part in _parts(window, step, axis, [1] * len(step.inputs), to):
            to.add(value, part.without([axis]))


def _parts(
    window: Window, step: Step, axis: int, sizes: list[int], to: Pullback
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


class Unstack(Rule):
    def axes(self, step: Step, found: Annotation) -> Axes:
        axes, gone = found.axes[step.operand], step.params["axis"]
        return (*axes[:gone], *axes[gone + 1 :])

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        to.add(step.inputs[0], window.inserted([step.params["axis"]], number))


class ScanRow(Rule):
    """One row of a stack, as each turn of a scan gets it."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        return found.axes[step.operand][1:]

    def back(self, step: Step, window: Window, to: Pullback) -> Window:
        if step.params["carried"] and to.annotation.axes[step.inputs[0]][0].kind in ("space", "flat"):
            to.note(window)  # a recurrence begins at the edge of the map
        return window.inserted([0], step.params["position"])


class Split(Rule):
    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        axis, sizes = step.params["axis"], step.params["sizes"]
        to.add(step.inputs[0], window.expanded(axis, sizes[number]).moved(axis, sum(sizes[:number])))


class Copy(Rule):
    """Operations that copy entries of the operands at the positions `data`; the other operands say where."""

    def __init__(self, *data: int):
        self.data = data

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        """Runs the operation once on the entries' own numbers, to see where each goes."""
        operands, moved, total = [], [], 1  # the number 0 is a constant
        for position, value in enumerate(step.inputs):
            if position not in self.data:
                if value.depends:
                    raise InputError(
                        f"the model reads at places that depend on its input ({step.name}): "
                        "its receptive field differs from image to image"
                    )
                operands.append(value.value)
            elif value.depends:
                first, total = total, total + math.prod(value.shape)
                operands.append(jnp.arange(first, total, dtype=jnp.int32).reshape(value.shape))
                moved.append((value, slice(first, total)))
            else:
                operands.append(jnp.zeros(value.shape, jnp.int32))
        params = dict(step.params)
        if params.get("fill_value") is not None:  # of what is read out of bounds: a constant
            params["fill_value"] = 0
        source = np.asarray(step.primitive.bind(*operands, **params)).ravel()
        for axis, length in enumerate(step.outputs[0].shape):
            window = to.inside(window, axis, length)
        flat = window.counts.reshape(len(window.counts), -1)
        kept = source > 0  # what is negative was read out of bounds
        if to.beyond:
            to.bounded |= flat[:, ~kept].any(axis=1)  # padding with constants
        gathered = np.stack([np.bincount(source[kept], counts[kept], total) for counts in flat])
        for value, numbers in moved:
            to.add(value, Window(gathered[:, numbers].reshape(-1, *value.shape), (0,) * len(value.shape)))


class Gather(Copy):
    def axes(self, step: Step, found: Annotation) -> Axes:
        """Taking places along one axis, as repeating and nearest-neighbour interpolation do."""
        axes, shape = found.axes[step.operand], step.outputs[0].shape
        if (along := self._along(step)) is None:
            return (CHANNEL,) * len(shape)
        taken, place = along
        others = iter(axis for i, axis in enumerate(axes) if i != taken)
        if place is None:
            return tuple(others)
        return tuple(
            _picked(axes[taken], step, taken, length) if i == place else next(others)
            for i, length in enumerate(shape)
        )

    def pull(self, step: Step, number: int, window: Window, to: Pullback) -> None:
        along, places = self._along(step), step.inputs[1]
        if along is None or places.depends or not step.inputs[0].depends:
            super().pull(step, number, window, to)
            return
        taken, place = along
        length = step.inputs[0].shape[taken]
        if place is None:  # one place, without an axis of its own
            window, place = window.inserted([taken]), taken
        else:
            window = to.inside(window, place, step.outputs[0].shape[place])
        picks = np.asarray(places.value).ravel()
        if step.params["mode"] == GatherScatterMode.CLIP:
            picks = picks.clip(0, length - 1)
        inside = (picks >= 0) & (picks < length)
        if to.beyond:
            reached = window.counts.any(axis=tuple(1 + i for i in range(len(window.starts)) if i != place))
            to.bounded |= np.atleast_2d(reached)[:, ~inside].any(axis=1)  # padding with constants
            if to.annotation.axes[step.inputs[0]][taken].kind in ("space", "flat"):
                turns = [_turns(picks, np.flatnonzero(row), length) for row in np.atleast_2d(reached)]
                to.bounded |= np.array(turns)
        # Summed over the places at which each entry is taken.
        order = np.flatnonzero(inside)[np.argsort(picks[inside], kind="stable")]
        shape = list(window.counts.shape)
        shape[1 + place] = length
        counts = np.zeros(shape)
        if len(order):
            entries, first = np.unique(picks[order], return_index=True)
            sums = np.add.reduceat(window.counts.take(order, axis=1 + place), first, axis=1 + place)
            counts[(*(slice(None) for _ in range(1 + place)), entries)] = sums
        others = [axis for axis in range(len(window.starts)) if axis != place]
        window = window.with_axis(place, counts, 0).transposed([*others[:taken], place, *others[taken:]])
        to.add(step.inputs[0], window)

    def _along(self, step: Step) -> tuple[int, int | None] | None:
        """The axis of the operand along which places are taken and that of the output, if it is one each.

        The output has no such axis where one place alone is taken.
        """
        numbers, before, rank = (
            step.params["dimension_numbers"],
            step.inputs[0].shape,
            len(step.outputs[0].shape),
        )
        taken, gone = numbers.start_index_map, numbers.collapsed_slice_dims
        if len(taken) != 1 or gone != taken or not 0 <= len(before) - rank <= 1:
            return None
        if any(size != before[i] for i, size in enumerate(step.params["slice_sizes"]) if i != taken[0]):
            return None
        places = set(range(rank)) - set(numbers.offset_dims)
        return taken[0], places.pop() if places else None


def _turns(picks: np.ndarray, reached: np.ndarray, length: int) -> bool:
    """Whether the picks that are reached go around the edge of a map, turn there, or stay there."""
    if len(reached) == 0:
        return False
    some = picks[reached[0] : reached[-1] + 1]
    steps = np.diff(some)
    turned = bool((steps > 0).any() and (steps < 0).any())
    return turned or len(_without_padding(some, picks, length)) < len(some)


def _without_padding(some: np.ndarray, picks: np.ndarray, length: int) -> np.ndarray:
    """Without what repeats an end of the map more often than any place between them is."""
    often = np.bincount(picks[(picks > 0) & (picks < length - 1)]).max(initial=1)
    for end in (0, length - 1):
        extra = np.count_nonzero(some == end) - often
        if extra > 0:
            some = some[extra:] if some[0] == end else some[:-extra]
    return some


def _picked(axis: Axis, step: Step, taken: int, length: int) -> Axis:
    """The axis at chosen places: evenly spaced ones, or all of them, each several times."""
    before, places = step.inputs[0].shape[taken], step.inputs[1]
    if axis.kind == "space" and not places.depends and length > 1 and before > 1:
        picks = np.asarray(places.value).ravel()
        # Padding aside, which goes around the edge of the map, turns or stays there.
        pieces = np.split(picks, np.flatnonzero(np.diff(np.diff(picks) >= 0)) + 1)
        some = _without_padding(max(pieces, key=len), picks, before)
        steps = np.unique(np.diff(some))
        if len(steps) == 1 and steps[0] > 0:
            return scaled(axis, int(steps[0]))
        if 1 < len(some) < length and np.ptp(some) > 0:  # not one place several times
            return resampled(axis, int(np.ptp(some)) + 1, len(some))
    return resampled(axis, before, length)


class Update(Copy):
    """`dynamic_update_slice`."""

    def axes(self, step: Step, found: Annotation) -> Axes:
        base, update = step.inputs[:2]
        given = [(value, found.axes[value]) for value in (base, update) if value.depends]
        axes = unified(step, found, given, beside=range(len(base.shape)))
        return uneven(axes, [n != m for n, m in zip(base.shape, update.shape, strict=True)])


RULES: dict[str, Rule] = {
    "broadcast_in_dim": Broadcast(),
    "reshape": Reshape(),
    "squeeze": Squeeze(),
    "transpose": Transpose(),
    "rev": Reverse(),
    "tile": Tile(),
    "concatenate": Concatenate(),
    "stack": Stack(),
    "unstack": Unstack(),
    "scan_row": ScanRow(),
    "split": Split(),
    "gather": Gather(0),
    "dynamic_slice": Copy(0),
    "dynamic_update_slice": Update(0, 1),
    "scatter": Copy(0, 2),
}
