"""The convolutions and poolings of a traced model, and what each one's output sees."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from hdc.fields import PathCounts
from hdc.receptive.annotate import find_sources
from hdc.receptive.axes import Annotation
from hdc.receptive.pullback import Pullback
from hdc.receptive.steps import Step, Trace, Value
from hdc.schedules import Gridding

# Layers whose path counts are followed at the same time, as far as these have few enough entries.
_AT_ONCE = 16
_ENTRIES = 2**21
_KEPT = 2**18  # entries of a layer's path counts that are kept; larger ones are counted again when asked for


class Seen:
    """What follows from the path counts of an output."""

    paths: Any  # PathCounts

    @property
    def size(self) -> tuple[int, ...]:
        """The receptive field per axis, in input pixels."""
        return self.paths.size

    @property
    def holes(self) -> np.ndarray:
        """Which pixels of the receptive field are not seen: bool of the shape `size`."""
        return self.paths.holes

    @property
    def gap_free(self) -> bool:
        """Whether the receptive field has no hole."""
        return self.paths.gap_free

    @property
    def coverage(self) -> float:
        """The share of the receptive field's pixels that is seen."""
        return self.paths.coverage


@dataclass(frozen=True)
class Layer(Seen):
    """One convolution or pooling, and what its output sees of the input.

    Per axis, in the order of the input's spatial axes.

    Attributes:
        name: path of its parameters in the model, or its kind and a number.
        kind: conv, depthwise conv, grouped conv, transposed conv, max pool, sum pool, min pool or pool.
        kernel, rate, strides: taps, dilation rate and strides, below 1 for a transposed convolution.
        input_map, map: height and width of its input and output.
        input_stride, output_stride: pixels of the model's input from one position of its input, or output,
            to the next.
        input_field: the receptive field of what it reads, along the path on which that is smallest, at least:
            what interpolation and transposed convolutions add to it may be left out.
        padded: whether it has padding.
        causal: whether all padding lies before the map.
        circular: whether the map is continued around its edges, so that it has none.
        lost: the share of its taps along an axis that fall outside the map; none of a circular one do.
        gridding: predicted gridding index of its `paths`.
    """

    name: str
    kind: str
    kernel: tuple[int, ...]
    rate: tuple[int, ...]
    strides: tuple[Fraction, ...]
    input_map: tuple[int, ...]
    map: tuple[int, ...]
    input_stride: tuple[Fraction, ...]
    output_stride: tuple[Fraction, ...]
    input_field: tuple[int, ...]
    padded: bool
    causal: tuple[bool, ...]
    circular: tuple[bool, ...]
    lost: tuple[float, ...]
    gridding: Gridding
    _size: tuple[int, ...] = field(repr=False)
    _coverage: float = field(repr=False)
    _count: Callable[[], PathCounts] = field(repr=False)

    @cached_property
    def paths(self) -> PathCounts:
        """Path counts from its central output, as if the maps had no edge, where that can be."""
        return self._count()

    @property
    def size(self) -> tuple[int, ...]:
        """The receptive field per axis, in input pixels."""
        return self._size

    @property
    def coverage(self) -> float:
        """The share of the receptive field's pixels that is seen."""
        return self._coverage

    @property
    def gap_free(self) -> bool:
        """Whether the receptive field has no hole."""
        return self._coverage == 1

    def is_unproductive(self, input_map: Sequence[int]) -> bool:
        """Whether it is a convolution that adds no context on an input of that size.

        So it is if the field of what it reads covers the input already, along every axis on which it has more
        than one tap, and on every path that leads to it (Richter et al. 2021, arXiv 2106.12307).
        """
        wide = [axis for axis, taps in enumerate(self.kernel) if taps > 1]
        covered = all(self.input_field[axis] >= input_map[axis] for axis in wide)
        return bool(wide) and covered and not self.kind.endswith("pool")

    @property
    def padding_share(self) -> float:
        """The share of its taps that fall outside the map."""
        return 1 - math.prod(1 - lost for lost in self.lost)


def find_layers(traced: Trace, annotation: Annotation) -> tuple[tuple[Layer, ...], tuple[set[int], ...]]:
    """The layers, and for each the numbers of those that it reads from, directly or not."""
    spaces = range(len(traced.input.shape) - 2)
    chosen = []
    sources: dict[Value, set[int]] = {traced.input: set()}
    least = {traced.input: (Fraction(1),) * len(spaces)}  # the field along the path on which it is smallest
    fields_read: list[tuple[int, ...]] = []
    for step in traced.steps:
        read = set[int]().union(*(sources[value] for value in step.inputs if value.depends))
        own = set[int]()
        fields = [least[value] for value in step.inputs if value.depends]
        field = tuple(min(along) for along in zip(*fields, strict=True))
        operand, output = step.inputs[0], step.outputs[0]
        kind = step.rule.kind(step) if operand.depends else ""
        before, after = (_by_space(value, annotation) if kind else {} for value in (operand, output))
        if len(before) == len(after) == len(spaces):
            by_axis = _geometry(step)
            axes = [by_axis.get(before[k], _Axis(operand.shape[before[k]])) for k in spaces]
            # Not 1x1 convolutions, whose output sees what their input sees.
            if any(axis.taps > 1 or axis.stride != 1 for axis in axes):
                # One of the batch, in which a model may have put the phases of a map.
                batch = step.params["dimension_numbers"].out_spec[0] if kind.endswith("conv") else 0
                middle = {batch: 0} | {place: output.shape[place] // 2 for place in after.values()}
                own = {len(chosen)}
                chosen.append((step, kind, axes, before, after, (output, middle), read))
                fields_read.append(tuple(math.floor(pixels) for pixels in field))
                strides = [annotation.axes[operand][before[k]].stride for k in spaces]
                field = tuple(f + a.reach * s for f, a, s in zip(field, axes, strides, strict=True))
        sources |= dict.fromkeys(step.outputs, read | own)
        least |= dict.fromkeys(step.outputs, field)
    middles = [middle for *_, middle, _ in chosen]
    counted: list[dict[str, Any] | None] = []
    at_once = 1
    while len(counted) < len(middles):
        some = middles[len(counted) : len(counted) + at_once]
        found = _follow(traced, annotation, some)
        at_once = max(1, min(_AT_ONCE, 2 * at_once, _ENTRIES // max(1, found[-1].counts.size)))
        counted += [_counted(traced, annotation, *pair) for pair in zip(some, found, strict=True)]
    # A place that looks at nothing but zeros that the model put in has no field.
    kept = {number: one for number, one in enumerate(counted) if one is not None}
    places = {number: place for place, number in enumerate(kept)}
    layers = []
    names: Counter[str] = Counter()
    for number, details in kept.items():
        step, kind, axes, before, after, (output, _), _ = chosen[number]
        operand = step.inputs[0]
        name = step.inputs[-1].parameter.rpartition(".")[0] or kind
        names[name] += 1
        layers.append(
            Layer(
                name=name if names[name] == 1 else f"{name} ({names[name]})",
                kind=kind,
                kernel=tuple(axis.taps for axis in axes),
                rate=tuple(axis.rate for axis in axes),
                strides=tuple(axis.stride for axis in axes),
                input_map=tuple(axis.length for axis in axes),
                map=tuple(output.shape[after[k]] for k in spaces),
                input_stride=tuple(annotation.axes[operand][before[k]].stride for k in spaces),
                output_stride=tuple(annotation.axes[output][after[k]].stride for k in spaces),
                input_field=fields_read[number],
                padded=any(axis.padded for axis in axes),
                causal=tuple(axis.causal for axis in axes),
                circular=tuple(axis.circular for axis in axes),
                lost=tuple(axis.lost for axis in axes),
                **details,
            )
        )
    return tuple(layers), tuple({places[i] for i in chosen[n][-1] if i in kept} for n in kept)


def _counted(
    traced: Trace, annotation: Annotation, middle: tuple[Value, dict[int, int]], found: "Counted"
) -> dict[str, Any] | None:
    """What a `Layer` holds of its path counts; None where it sees nothing."""
    if not found.counts.any():
        return None
    paths = PathCounts.of(found.counts, found.start)

    def count() -> PathCounts:
        (again,) = _follow(traced, annotation, [middle])
        return PathCounts.of(again.counts, again.start)

    return {
        "gridding": paths.gridding(annotation.spread[middle[0]]),
        "_size": paths.size,
        "_coverage": paths.coverage,
        "_count": count if paths.counts.size > _KEPT else lambda: paths,
    }


def _follow(
    traced: Trace, annotation: Annotation, places: Sequence[tuple[Value, Mapping[int, int | range]]]
) -> "list[Counted]":
    """Path counts as if the maps had no edge; within the edges where an edge took part."""
    found = count_paths(traced, annotation, places, beyond=True)
    # Counts are of no use if they continue beyond some maps and end at the edges of others.
    bounded = [row for row, one in enumerate(found) if one.bounded]
    if bounded:
        inside = count_paths(traced, annotation, [places[row] for row in bounded], beyond=False)
        for row, again in zip(bounded, inside, strict=True):
            found[row] = again
    return found


class Counted(NamedTuple):
    """Path counts from one place.

    Attributes:
        counts: over the input's spatial axes.
        start: where they start.
        bounded: whether the edge of a map took part.
        log: the logarithm of the factor by which they were divided.
    """

    counts: np.ndarray
    start: tuple[int, ...]
    bounded: bool
    log: float


def count_paths(
    traced: Trace,
    annotation: Annotation,
    places: Sequence[tuple[Value, Mapping[int, int | range]]],
    *,
    beyond: bool,
) -> list[Counted]:
    """The path counts from each place: a position, or a range of them, along some axes of an array.

    Places that see the same share one result.
    """
    if annotation.sources is None:
        annotation.sources = find_sources(traced, annotation)
    pullback = Pullback(traced, annotation, annotation.sources, beyond=beyond)
    window = pullback.run(places)
    *space, channels = traced.input.shape[1:]
    for axis, length in ((0, traced.input.shape[0]), (len(space) + 1, channels)):
        if window.starts[axis] is not None:  # otherwise all alike
            window = window.summed(axis, length)
    for axis, length in enumerate(space, 1):
        window = window.expanded(axis, length)
        if not beyond:
            window = window.fitted(axis, 0, length)
    starts = tuple(start or 0 for start in window.starts[1:-1])
    counts = window.counts[:, 0, ..., 0]
    rows = zip(counts, pullback.bounded, pullback.logs, strict=True)
    found = [Counted(row, starts, bool(bounded), float(log)) for row, bounded, log in rows]
    return [found[row] for row in pullback.rows]


def spatial_axes(value: Value, annotation: Annotation) -> list[int]:
    """The spatial axes of an array, in its own order."""
    return [place for place, axis in enumerate(annotation.axes[value]) if axis.kind == "space"]


@dataclass(frozen=True)
class _Axis:
    """The taps of a layer along one axis of its operand, `length` long before padding."""

    length: int
    taps: int = 1
    rate: int = 1
    stride: Fraction = Fraction(1)
    reach: int = 0  # positions from the first tap's to the last one's, at least
    padded: bool = False
    causal: bool = False
    circular: bool = False
    lost: float = 0.0


def _geometry(step: Step) -> dict[int, _Axis]:
    """The taps of a convolution or pooling, by axis of its operand."""
    found = {}
    added = _added(step.inputs[0])
    for taps in step.rule.taps(step):
        steps, length = added.get(taps.axis, []), step.inputs[0].shape[taps.axis]
        first = np.arange(step.outputs[0].shape[taps.place]) * taps.stride - taps.low
        reads = np.add.outer(first, np.arange(taps.count) * taps.rate)
        there = (reads >= 0) & (reads <= (length - 1) * taps.apart)
        for padding in steps:
            length, reads = padding.length, reads - padding.before * taps.apart
            if padding.circular:  # no edge
                reads = reads % (length * taps.apart)
            else:
                there &= (reads >= 0) & (reads <= (length - 1) * taps.apart)
        high = max([taps.high, *(padding.after for padding in steps)])
        padded = max([taps.low, high, *(padding.before for padding in steps)]) > 0
        found[taps.axis] = _Axis(
            length,
            taps.count,
            taps.rate,
            taps.step,
            (taps.count - 1) * taps.rate // taps.apart,
            padded,
            causal=padded and high <= 0,
            circular=any(padding.circular for padding in steps),
            lost=1 - float(np.mean(there)),
        )
    return found


@dataclass(frozen=True)
class _Padding:
    """What a step of its own puts before and after a map of some length."""

    before: int
    after: int
    length: int
    circular: bool


def _added(value: Value) -> dict[int, list[_Padding]]:
    """By axis, the steps of their own that padded an array, the last one first.

    Causal, circular and reflecting padding, and padding by hand, are such steps.
    """
    found: dict[int, list[_Padding]] = {}
    while value.step is not None and (padded := value.step.rule.added(value.step)) is not None:
        circular = value.step.rule.is_circular(value.step)
        value, sides = padded
        for axis, (low, high) in sides.items():
            if (low, high) != (0, 0):
                found.setdefault(axis, []).append(_Padding(low, high, value.shape[axis], circular))
    return found


def _by_space(value: Value, annotation: Annotation) -> dict[int, int]:
    """By spatial axis of the model's input, that of an array."""
    axes = annotation.axes[value]
    return {axis.space: place for place, axis in enumerate(axes) if axis.kind == "space"}
