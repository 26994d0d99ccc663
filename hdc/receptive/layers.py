"""The convolutions and poolings of a traced model, and what each one's output sees."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hdc.path_counts import PathCounts
from hdc.receptive.axes import Annotation
from hdc.receptive.pullback import Pullback
from hdc.receptive.trace import Step, Trace, Value
from hdc.schedules import Gridding

# Layers whose path counts are followed at the same time: bounds the memory.
_AT_ONCE = 16


@dataclass(frozen=True)
class Layer:
    """One convolution or pooling, and what its output sees of the input.

    Per axis, in the order of the input's spatial axes.

    Attributes:
        name: path of its parameters in the model, or its kind and a number.
        kind: conv, depthwise conv, grouped conv, transposed conv, max pool, sum pool, min pool or pool.
        kernel, rate, strides: taps, dilation rate and strides, below 1 for a transposed convolution.
        input_map, map: height and width of its input and output.
        input_stride, output_stride: pixels of the model's input from one position of its input, or output,
            to the next.
        padded: whether it has padding.
        paths: path counts from its central output, as if the maps had no edge.
        gridding: predicted gridding index of these.
        padding_share: the share of its taps that fall outside the map.
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
    padded: bool
    paths: PathCounts
    gridding: Gridding
    padding_share: float

    @property
    def size(self) -> tuple[int, ...]:
        """The receptive field of its output, in input pixels."""
        return self.paths.size

    @property
    def coverage(self) -> float:
        """The share of that field that is seen."""
        return self.paths.coverage


def find_layers(traced: Trace, annotation: Annotation) -> tuple[tuple[Layer, ...], tuple[set[int], ...]]:
    """The layers, and for each the numbers of those that it reads from, directly or not."""
    rank = len(traced.input.shape)
    chosen: list[tuple[Step, _Geometry]] = []
    sources: dict[Value, set[int]] = {traced.input: set()}
    before = []
    for step in traced.steps:
        read = set[int]().union(*(sources[value] for value in step.inputs if value.depends))
        geometry = _geometry(step) if step.inputs[0].depends else None
        if geometry is not None and geometry.reaches and spatial_axes(step.outputs[0], annotation, rank):
            before.append(read)
            read = read | {len(chosen)}
            chosen.append((step, geometry))
        sources |= dict.fromkeys(step.outputs, read)
    places = []
    for step, _ in chosen:
        output = step.outputs[0]
        places.append((output, {a: output.shape[a] // 2 for a in spatial_axes(output, annotation, rank)}))
    counted = [
        found
        for first in range(0, len(places), _AT_ONCE)
        for found in count_paths(traced, annotation, places[first : first + _AT_ONCE], beyond=True)
    ]
    # A place that looks at nothing but zeros that the model put in has no field.
    kept = [number for number, (counts, _, _) in enumerate(counted) if counts.any()]
    layers = []
    names: Counter[str] = Counter()
    for number in kept:
        (step, geometry), (output, index), (counts, start, _) = (
            chosen[number],
            places[number],
            counted[number],
        )
        name = step.inputs[-1].parameter.rpartition(".")[0] or geometry.kind
        names[name] += 1
        read, made = annotation.axes[step.inputs[0]], annotation.axes[output]
        paths = PathCounts.of(counts, start)
        layers.append(
            Layer(
                name=name if names[name] == 1 else f"{name} ({names[name]})",
                kind=geometry.kind,
                kernel=geometry.kernel,
                rate=geometry.rate,
                strides=geometry.strides,
                input_map=tuple(step.inputs[0].shape[axis] for axis in geometry.axes),
                map=tuple(output.shape[axis] for axis in index),
                input_stride=tuple(read[axis].stride for axis in geometry.axes),
                output_stride=tuple(made[axis].stride for axis in index),
                padded=geometry.padded,
                paths=paths,
                gridding=paths.gridding(annotation.spread[output]),
                padding_share=geometry.padding_share,
            )
        )
    return tuple(layers), tuple({kept.index(i) for i in before[number] if i in kept} for number in kept)


def count_paths(
    traced: Trace, annotation: Annotation, places: Sequence[tuple[Value, dict[int, int]]], *, beyond: bool
) -> list[tuple[np.ndarray, tuple[int, ...], bool]]:
    """For each place: counts over the input's spatial axes, where they start, whether an edge took part."""
    pullback = Pullback(traced, annotation, beyond=beyond)
    window = pullback.run(places)
    shape = traced.input.shape
    for axis in (0, len(shape) - 1):
        window = window.with_axis(axis, window.total(axis, shape[axis]), None)
    for axis in range(1, len(shape) - 1):
        window = window.expanded(axis, shape[axis])
        if not beyond:
            window = window.fitted(axis, 0, shape[axis])
    starts = tuple(start or 0 for start in window.starts[1:-1])
    counts = window.counts[:, 0, ..., 0]
    return [(counts[row], starts, bool(pullback.bounded[row])) for row in range(len(places))]


def spatial_axes(value: Value, annotation: Annotation, rank: int) -> list[int]:
    """The spatial axes of an array, in the order of the input's."""
    axes = annotation.axes[value]
    found = sorted((axis.space, place) for place, axis in enumerate(axes) if axis.kind == "space")
    return [place for _, place in found] if len(found) == rank - 2 else []


@dataclass(frozen=True)
class _Geometry:
    kind: str
    axes: tuple[int, ...]  # of the operand
    kernel: tuple[int, ...]
    rate: tuple[int, ...]
    strides: tuple[Fraction, ...]
    padded: bool
    padding_share: float

    @property
    def reaches(self) -> bool:
        """Whether its output sees more, or lies farther apart, than its input: not a 1x1 convolution."""
        return any(k > 1 or s != 1 for k, s in zip(self.kernel, self.strides, strict=True))


def _geometry(step: Step) -> _Geometry | None:
    """The taps of a convolution or pooling; None for any other step."""
    params = step.params
    if step.name == "conv_general_dilated":
        spec = params["dimension_numbers"]
        axes, places = spec.lhs_spec[2:], spec.out_spec[2:]
        kernel = [step.inputs[1].shape[axis] for axis in spec.rhs_spec[2:]]
        fields = ("rhs_dilation", "window_strides", "lhs_dilation", "padding")
        rates, strides, apart, padding = (params[name] for name in fields)
        groups, channels = params["feature_group_count"], step.inputs[0].shape[spec.lhs_spec[1]]
        if max(apart) > 1:
            kind = "transposed conv"
        elif groups == 1:
            kind = "conv"
        else:
            kind = "depthwise conv" if groups == channels else "grouped conv"
    elif step.name.startswith("reduce_window"):
        kind = f"{step.name.removeprefix('reduce_window').removeprefix('_')} pool".strip()
        axes = places = tuple(range(1, len(step.inputs[0].shape) - 1))
        fields = ("window_dimensions", "window_dilation", "window_strides", "base_dilation", "padding")
        kernel, rates, strides, apart, padding = ([params[name][axis] for axis in axes] for name in fields)
    else:
        return None
    inside = 1.0
    for axis, place, taps, rate, stride, gap, (low, _) in zip(
        axes, places, kernel, rates, strides, apart, padding, strict=True
    ):
        reads = np.add.outer(np.arange(step.outputs[0].shape[place]) * stride - low, np.arange(taps) * rate)
        inside *= float(np.mean((reads >= 0) & (reads <= (step.inputs[0].shape[axis] - 1) * gap)))
    return _Geometry(
        kind,
        tuple(axes),
        tuple(kernel),
        tuple(rates),
        tuple(Fraction(stride, gap) for stride, gap in zip(strides, apart, strict=True)),
        any(low > 0 or high > 0 for low, high in padding),
        1 - inside,
    )
