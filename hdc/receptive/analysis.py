"""What a model sees: the exact receptive field, its holes and its gridding, layer by layer."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.text import Text

from hdc import advice
from hdc.advice import AxisOfLayer, Finding
from hdc.errors import InputError
from hdc.fields import PathCounts
from hdc.receptive import models
from hdc.receptive.annotate import annotate
from hdc.receptive.axes import Annotation
from hdc.receptive.costs import count_parameters, multiply_adds
from hdc.receptive.layers import Layer, Seen, count_paths, find_layers, spatial_axes
from hdc.receptive.models.layout import Layout
from hdc.receptive.outputs import Output
from hdc.receptive.reach import Phase, find_phases, find_reached, find_reaching
from hdc.receptive.rules.layout import Movement
from hdc.receptive.rules.pointwise import POINTWISE
from hdc.receptive.steps import Step, Trace, Value
from hdc.receptive.table import Layers
from hdc.receptive.trace import trace
from hdc.schedules import Gridding

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MAX_PIXELS = 2**24  # counts of all of them, as doubles, take 128 MiB


@dataclass(frozen=True, repr=False, eq=False)
class Analysis(Seen):
    """What one output of a model sees. `print` it; every number is exact.

    A path is a choice of one tap in each layer and one operand of each addition or concatenation.
    Weights do not count, pointwise functions pass what they get, channels are averaged.

    Attributes:
        model: its class, or the function's name.
        input_shape, output_shape: as the model takes and returns them.
        at: the output pixel in question, along those of the output's axes that are spatial ones of the input,
            in the output's order. Along its other axes, such as channels, all outputs are taken together.
        paths: normalised path counts over the receptive field, as if the maps had no edge. Some operations
            cannot be continued beyond it: a dense head, global pooling, interpolation near the edge.
        within_edges: whether such a one took part, so that `paths` are those within the edges.
        support: `[input's spatial axes]` bool: the input pixels that are seen from `at`, within the edges.
        paths_inside: the same shape: the share of the paths to each of them.
        output_stride: input pixels from one output pixel to the next, per axis; None where the output lacks
            a spatial axis.
        offset: input coordinate of the middle of output pixel 0's field, per axis, if that lies as it does
            at `at`, which upsampling may change; None where `within_edges`.
        gridding: predicted gridding index G of `paths`.
        couplings: where a summary of the map, or of its rows or columns, returns to its pixels (group
            normalisation, batch statistics, squeeze-and-excitation, image pooling). Through these all of
            it is seen; the numbers leave them out. Attention is none: what it reads is counted.
        assumed: parameters without values, of an abstract model, that decide what a mask hides. It is taken
            to hide nothing, so that the numbers are upper bounds.
        phases: of an output that is finer than a map on the way, what the pixels see that lie differently
            between those of the map; the worst first, () where all lie alike. More than 64 phases along an
            axis are not told apart; if the axes have more together, they are those along each axis and along
            the diagonal.
        reaching: `[input's spatial axes]` bool: the input pixels that reach any output, be it by a summary.
        layers: every convolution and pooling on the way.
        chains: the convolutions and poolings of more than one tap, except transposed ones, in sequence: each
            reads what the one before it wrote. Parallel branches are chains of their own.
        multiply_adds: of every convolution and matrix product on the way, for the whole input, taps in the
            padding included; biases, activations and pooling are not counted.
        parameters: trained values on the way.
        findings: what should be changed, with the change.
    """

    model: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    at: tuple[int, ...]
    paths: PathCounts
    within_edges: bool
    support: np.ndarray
    paths_inside: np.ndarray
    output_stride: tuple[Fraction, ...] | None
    offset: tuple[float, ...] | None
    gridding: Gridding
    couplings: tuple[str, ...]
    assumed: tuple[str, ...]
    phases: tuple[Phase, ...]
    reaching: np.ndarray
    layers: tuple[Layer, ...]
    chains: tuple[tuple[Layer, ...], ...]
    multiply_adds: int
    parameters: int
    findings: tuple[Finding, ...]
    _layout: Layout
    _reached: Callable[[tuple[int, ...]], np.ndarray]

    @property
    def dead(self) -> float:
        """The share of the input's pixels that reach no output."""
        return float(np.mean(~self.reaching))

    @property
    def checkerboard(self) -> float:
        """How much fewer paths the phase with the fewest has: 0 if all have as many, 1 if one has none."""
        return 1 - min((phase.paths for phase in self.phases), default=1.0)

    @property
    def unproductive(self) -> tuple[str, ...]:
        """The convolutions that add no context on an input of this size: see `Layer.is_unproductive`."""
        return tuple(layer.name for layer in self.layers if layer.is_unproductive(self.reaching.shape))

    @property
    def smallest_input(self) -> tuple[int, ...]:
        """The smallest input, per axis, on which every convolution adds context: none is unproductive."""
        wide = [layer for layer in self.layers if not layer.kind.endswith("pool")]
        return tuple(
            1 + max((layer.input_field[axis] for layer in wide if layer.kernel[axis] > 1), default=0)
            for axis in range(len(self.size))
        )

    @property
    def largest_input(self) -> tuple[int, ...]:
        """The largest receptive field of any map, per axis: no pixel of a map sees all of a larger input.

        Summaries such as global pooling and dense heads do.
        """
        fields = [layer.size for layer in self.layers] + ([] if self.within_edges else [self.size])
        return tuple(map(max, zip(*fields, strict=True))) if fields else self.size

    def reaches(self, pixel: Sequence[int]) -> np.ndarray:
        """The projective field of an input pixel: the outputs that see it, couplings aside.

        Args:
            pixel: its place along the input's spatial axes.

        Returns:
            Bool, of the output's spatial axes.

        Raises:
            InputError: for a place that is not on the input.
        """
        return self._reached(_on(pixel, self._layout.standard[1:-1], "pixel", "the input"))

    @cached_property
    def path_counts(self) -> np.ndarray:
        """`paths` as an array of the shape `size`, of sum 1."""
        return self.paths.counts

    def to_dict(self) -> dict[str, Any]:
        """The numbers and findings, in types that JSON knows."""
        return {
            "model": self.model,
            "input_shape": self.input_shape,
            "output_shape": self.output_shape,
            "at": self.at,
            **_seen(self),
            "first_hole": self.paths.first_hole,
            "within_edges": self.within_edges,
            "frequency": self.gridding.frequency,
            "output_stride": None if self.output_stride is None else _floats(self.output_stride),
            "offset": self.offset,
            "couplings": self.couplings,
            "assumed": self.assumed,
            "phases": [asdict(phase) for phase in self.phases],
            "checkerboard": self.checkerboard,
            "dead": self.dead,
            "unproductive": self.unproductive,
            "smallest_input": self.smallest_input,
            "largest_input": self.largest_input,
            "multiply_adds": self.multiply_adds,
            "parameters": self.parameters,
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "kernel": layer.kernel,
                    "rate": layer.rate,
                    "strides": _floats(layer.strides),
                    "map": layer.map,
                    "output_stride": _floats(layer.output_stride),
                    **_seen(layer),
                    "padding_share": layer.padding_share,
                }
                for layer in self.layers
            ],
            "findings": [asdict(finding) for finding in self.findings],
        }

    def __rich__(self) -> RenderableType:
        return Group(*self._summary(), self._table(), *(Text(f"- {finding}") for finding in self.findings))

    def __repr__(self) -> str:
        # As wide as it needs to be: a string has no terminal.
        console = Console(width=160, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    def figure(self) -> "Figure":
        """The map of the paths and its profile, holes in orange."""
        from hdc import plots

        title = f"{self.model}: {_times(self.size)} px, {self.coverage:.0%} seen, G {self.gridding.index:.2f}"
        return plots.figure([(title, self.paths)])

    def _summary(self) -> list[Text]:
        place = f"output pixel {_times(self.at, ', ')}" if self.at else "all outputs together"
        field_text = f"receptive field {_times(self.size)} px"
        if self.within_edges:
            field_text += " within the edges of the maps"
        first = self.paths.first_hole
        seen = (
            "gap-free" if first is None else f"{self.coverage:.1%} seen, first hole at {_times(first, ', ')}"
        )
        lines = [
            f"{self.model} {_times(self.input_shape)} -> {_times(self.output_shape)}, {place}",
            *([self._layout.said] if self._layout.said else []),
            f"{field_text}, {seen}",
            f"gridding G {self.gridding.index:.3f}",
        ]
        if (frequency := self.gridding.frequency) is not None:
            lines[-1] += f" at {frequency:.4g} cycles per pixel (period {1 / frequency:.4g} px)"
        if self.output_stride is not None:
            lines.append(f"output stride {_times(self.output_stride)}")
        if self.offset is not None:
            lines[-1] += f", offset {', '.join(f'{value:g}' for value in self.offset)}"
        if self.phases:
            worst = self.phases[0]
            lines.append(
                f"{len(self.phases)} phases, the worst at output pixel {_times(worst.at, ', ')}: "
                f"{worst.coverage:.1%} seen of {_times(worst.size)} px; checkerboard {self.checkerboard:.2f}"
            )
        if self.layers and (self.within_edges or self.unproductive):
            lines.append(
                f"fits inputs from {_times(self.smallest_input)} to {_times(self.largest_input)} px: on "
                "smaller ones some layers add no context, and no map pixel sees all of a larger one"
            )
        if self.dead:
            lines.append(f"{advice.share(self.dead)} of the input reaches no output")
        lines += [
            f"also sees a summary of the map, its rows or columns, not counted here: {name}"
            for name in self.couplings
        ]
        lines += [
            f"an upper bound: {name}, which has no value, may mask some of it out" for name in self.assumed
        ]
        return [Text(line) for line in lines]

    def _table(self) -> RenderableType:
        heads = ("layer", "kind", "kernel", "rate", "stride", "map", "output stride", "field", "seen %", "G")
        rows = []
        for layer in self.layers:
            axes = (layer.kernel, layer.rate, layer.strides, layer.map, layer.output_stride, layer.size)
            seen, padding = f"{100 * layer.coverage:.1f}", f"{100 * layer.padding_share:.1f}"
            gridding = f"{layer.gridding.index:.3f}"
            rows.append((layer.name, layer.kind, *map(_times, axes), seen, gridding, padding))
        spare = ("output stride", "kind", "padding %", "stride", "kernel", "map")
        return Layers((*heads, "padding %"), rows, words=("kind",), spare=spare)


def analyse(
    model: Any,
    input_shape: Sequence[int],
    at: Sequence[int] | None = None,
    *,
    params: Any = None,
    call: Mapping[str, Any] | None = None,
    output: Output = None,
    spatial: Sequence[int] | None = None,
    values: bool = True,
) -> Analysis:
    """What one output of a model sees of its input, exactly.

    The model is traced in evaluation and not changed. Weights do not count, except where their values decide
    what is zero or which places are read, as the positions of a learnable spacing do. Convolutions of every
    kind, pooling, interpolation, residuals, branches, dense heads and loops are followed operation by
    operation.

    Args:
        model: a Flax NNX or Linen module, an Equinox module, a Keras model on JAX, what `haiku.transform`
            returns, a PyTorch module, or any function `f(x)` or `f(params, x)` of JAX arrays. Weights that a
            function closes over are constants: they have no names, and their zeros are taken for masks.
        input_shape: as the model takes it: `[batch, height, width, channels]`, of signals
            `[batch, length, channels]`; PyTorch `[batch, channels, height, width]`; Equinox
            `[channels, height, width]`.
        at: the output pixel, its centre by default.
        params: what `f(params, x)` takes first, the variables of a Linen module or the parameters of a Haiku
            one; these two may leave it out and are then analysed without values.
        call: keyword arguments of the call, such as `{"train": False}`.
        output: which output is asked about: the index, key or path (`"aux.0"`) of one of several, or a
            layer by the name of its parameters (`"layer3.0.conv2"`).
        spatial: the axes of the input along which pixels lie, such as `(2, 3)`. By default those that are
            usual for such models; of a function's input, those that the shape suggests.
        values: whether the values of the parameters are looked at; without them, the model is analysed as an
            abstract one.

    Raises:
        InputError: for what is no model, arguments that do not fit it, a shape that the model does not take
            or of more than `MAX_PIXELS` pixels, several results without `output`, a result that is empty or
            does not depend on the input, a place that is not on the map, operations whose receptive field
            differs from input to input or depends on the values of an abstract model, and operations that
            analyse does not know.

    Example:
        Two layers of rate 2 see every second pixel of a 9 x 9 field:

        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> layers = [nnx.Conv(1, 1, (3, 3), kernel_dilation=2, rngs=rngs) for _ in range(2)]
        >>> seen = analyse(nnx.Sequential(*layers), (1, 32, 32, 1))
        >>> seen.size, seen.gap_free, seen.paths.first_hole
        ((9, 9), False, (0, 1))
        >>> f"{seen.coverage:.1%}", seen.support.shape, int(seen.support.sum())
        ('30.9%', (32, 32), 25)
    """
    given = _integers(input_shape)
    if given is None or not given or min(given) < 1:
        raise InputError(
            "input_shape must be positive integers (batch, height, width, channels), "
            f"got {_shown(input_shape)}"
        )
    adapted = models.adapt(model, given, params=params, call=call, spatial=spatial, values=values)
    shape = adapted.layout.standard
    if max(shape[0], math.prod(shape[1:-1]), shape[-1]) > MAX_PIXELS:
        raise InputError(
            f"input_shape {_times(given)} is too large to count paths on: at most {MAX_PIXELS} pixels, such "
            "as 4096x4096, and as many in the batch and channels"
        )
    traced = trace(adapted, output)
    if 0 in traced.output.shape:
        raise InputError(
            f"the output {traced.shape} of {adapted.name} for an input of shape {given} is "
            "empty, as where a layer without padding reads further than its map goes"
        )
    if not traced.output.depends:
        raise InputError(f"the result of {adapted.name} does not depend on its input")
    annotation = annotate(traced)
    axes = spatial_axes(traced.output, annotation)
    place = _place(traced.output, axes, at)
    pixel = traced.output, dict(zip(axes, place, strict=True))
    if annotation.local:
        # What meets within a window is counted; a softmax of attention reads nothing that its values do not.
        counted = _followed(annotation, annotation.local)
        seen, followed = (_inside(traced, one, pixel) > 0 for one in (annotation, counted))
        if not np.array_equal(seen, followed):
            annotation = counted
    annotation = _followed(annotation, _picked(traced, annotation))
    phases = find_phases(traced, annotation, axes)
    if at is None and phases and any(phase.paths > 0 for phase in phases):
        # Where the centre sees nothing, the phase beside it that sees something.
        seeing = [phase.at for phase in phases if phase.paths > 0]
        if place in {phase.at for phase in phases} - set(seeing):
            place = min(seeing, key=lambda other: math.dist(other, place))
    pixel = traced.output, dict(zip(axes, place, strict=True))  # the phases may have moved it
    inside = _inside(traced, annotation, pixel)
    if not inside.any():
        but = ", except on a summary of the map" if annotation.couplings else ""
        raise InputError(f"the result of {adapted.name} does not depend on its input at {place}{but}")
    counts, start, within_edges, _ = count_paths(traced, annotation, [pixel], beyond=True)[0]
    paths = PathCounts.of(inside, (0,) * inside.ndim) if within_edges else PathCounts.of(counts, start)
    # In the order of the input's axes: the output may have them in another one.
    along = sorted((annotation.axes[traced.output][axis] for axis in axes), key=lambda axis: axis.space)
    whole = [axis.space for axis in along] == list(range(len(shape) - 2))
    strides = tuple(axis.stride for axis in along) if whole else None
    offset = None
    if strides is not None and not within_edges:
        middles = [start + (length - 1) / 2 for start, length in zip(paths.origin, paths.size, strict=True)]
        spaces = [annotation.axes[traced.output][axis].space for axis in axes]
        there = [i for _, i in sorted(zip(spaces, place, strict=True))]
        offset = tuple(float(m - i * s) for m, i, s in zip(middles, there, strides, strict=True))
    layers, before = find_layers(traced, annotation)
    reaching = find_reaching(traced, annotation)
    return Analysis(
        model=adapted.name,
        input_shape=given,
        output_shape=traced.shape,
        at=place,
        paths=paths,
        within_edges=within_edges,
        support=inside > 0,
        paths_inside=inside / inside.sum(),
        output_stride=strides,
        offset=offset,
        gridding=paths.gridding(annotation.spread[traced.output]),
        couplings=_couplings(traced, annotation, _uncounted(traced, annotation, pixel, inside)),
        assumed=tuple(sorted(annotation.assumed)),
        phases=phases,
        reaching=reaching,
        layers=layers,
        chains=_chains(
            layers, before, [any(_chosen(layer, axis) for axis in range(inside.ndim)) for layer in layers]
        ),
        multiply_adds=multiply_adds(traced.steps),
        parameters=count_parameters(traced.steps),
        findings=_findings(layers, before, paths, phases, reaching),
        _layout=adapted.layout,
        _reached=lambda pixel: find_reached(traced, annotation, axes, pixel),
    )


def _seen(one: Analysis | Layer) -> dict[str, Any]:
    return {
        "receptive_field": one.size,
        "coverage": one.coverage,
        "gap_free": one.gap_free,
        "gridding": one.gridding.index,
    }


def _floats(values: Sequence[Fraction]) -> list[float]:
    return [float(value) for value in values]


def _place(output: Value, axes: Sequence[int], at: Sequence[int] | None) -> tuple[int, ...]:
    lengths = tuple(output.shape[axis] for axis in axes)
    if at is None:
        return tuple(length // 2 for length in lengths)
    if not axes:
        raise InputError(
            f"the output {output.shape} has no spatial axes, so at={_shown(at)} is not a place on it"
        )
    return _on(at, lengths, "at", "the output")


def _on(place: Sequence[int], lengths: Sequence[int], name: str, of: str) -> tuple[int, ...]:
    given = _integers(place)
    fits = given is not None and len(given) == len(lengths)
    if given is None or not fits or any(not 0 <= i < n for i, n in zip(given, lengths, strict=True)):
        raise InputError(f"{name}={_shown(place)} is not a place on {of}'s {_times(lengths)} map")
    return given


def _integers(values: object) -> tuple[int, ...] | None:
    """A sequence of integers of any kind; None for anything else."""
    try:
        given = list(values)  # type: ignore[call-overload]
        return None if any(isinstance(value, bool) for value in given) else tuple(map(operator.index, given))
    except TypeError:
        return None


def _shown(value: object) -> str:
    """A value on one short line; an array, say, by what it is."""
    text = repr(value)
    if len(text) <= 60 and "\n" not in text:
        return text
    shape = getattr(value, "shape", None)
    return f"an object of type {type(value).__name__}" if shape is None else f"an array of shape {shape}"


def _followed(annotation: Annotation, couplings: set[tuple[Step, Value]]) -> Annotation:
    """With these couplings counted as paths."""
    return replace(annotation, couplings=annotation.couplings - couplings)


def _picked(traced: Trace, annotation: Annotation) -> set[tuple[Step, Value]]:
    """The couplings by what is no summary, but a place of the map that was taken from it."""
    found = set()
    for step, value in annotation.couplings - annotation.local:
        if _is_taken(value) and not _inside(traced, annotation, (value, {})).all():
            found.add((step, value))
    return found


def _is_taken(value: Value) -> bool:
    """Whether an array comes, by pointwise operations and movements, from a part of another one."""
    queue = [value]
    for one in queue:
        if (step := one.step) is None:
            continue
        if step.name in ("slice", "dynamic_slice", "gather", "split"):
            return True
        if step.name in POINTWISE or isinstance(step.rule, Movement):
            queue += [other for other in step.inputs if other.depends and other not in queue]
    return False


def _inside(traced: Trace, annotation: Annotation, pixel: tuple[Value, dict[int, int]]) -> np.ndarray:
    return count_paths(traced, annotation, [pixel], beyond=False)[0].counts


def _uncounted(
    traced: Trace, annotation: Annotation, pixel: tuple[Value, dict[int, int]], inside: np.ndarray
) -> set[tuple[Step, Value]]:
    """The couplings, but for those of softmaxes if what these see is counted without them.

    So it is in attention, which reads the values at all places over which its weights are normalised.
    """
    softmaxes = {(step, value) for step, value in annotation.couplings if step in annotation.softmaxes}
    if softmaxes:
        counted = _inside(traced, _followed(annotation, softmaxes), pixel)
        if not np.array_equal(counted > 0, inside > 0):
            return annotation.couplings
    return annotation.couplings - softmaxes


def _couplings(traced: Trace, annotation: Annotation, chosen: set[tuple[Step, Value]]) -> tuple[str, ...]:
    """Each by the module between the summary and its return, else by the one that takes it from there."""
    readers: dict[Value, list[Step]] = {}
    for step in traced.steps:
        for value in step.inputs:
            readers.setdefault(value, []).append(step)

    def extent(value: Value) -> set[tuple[str, int]]:
        axes = zip(annotation.axes[value], value.shape, strict=True)
        return {(one.kind, one.space) for one, n in axes if one.kind in ("space", "flat") and n > 1}

    def back(step: Step, whole: set[tuple[str, int]]) -> list[Step]:
        """The steps that compute a summary of the map, or of its rows or columns."""
        summaries = [value for value in step.inputs if value.depends and extent(value) < whole]
        return [value.step for value in summaries if value.step is not None]

    def on(step: Step) -> list[Step]:
        return [reader for output in step.outputs for reader in readers.get(output, ())]

    names = {}
    for step in traced.steps:
        for value in step.inputs:
            if (step, value) in chosen and value.step is not None:
                whole = extent(step.outputs[0])
                name = _parameter(value.step, lambda one, whole=whole: back(one, whole)) or _parameter(
                    step, on
                )
                names[name or "an operation without parameters"] = None
    return tuple(names)


def _parameter(start: Step, following: Callable[[Step], list[Step]]) -> str:
    """The module of the first parameter that is read on the way."""
    queue, seen = [start], {start}
    for step in queue:
        for value in step.inputs:
            if value.parameter:
                return value.parameter.rpartition(".")[0]
        for other in following(step):
            if other not in seen:
                seen.add(other)
                queue.append(other)
    return ""


def _findings(
    layers: Sequence[Layer],
    before: Sequence[set[int]],
    paths: PathCounts,
    phases: Sequence[Phase],
    reaching: np.ndarray,
) -> tuple[Finding, ...]:
    along, axes = [], range(paths.counts.ndim)
    by_axis = [[_along(layer, axis) for axis in axes] for layer in layers]
    for axis in axes:
        chains = _chains(layers, before, [_chosen(layer, axis) for layer in layers])
        along.append([[_along(layer, axis) for layer in chain] for chain in chains])
    chosen = [one for one, layer in zip(by_axis, layers, strict=True) if any(_chosen(layer, a) for a in axes)]
    found = advice.for_layers(along, list(map(paths.axis_coverage, axes)), chosen, paths.coverage)
    wide = [layer.name for layer in layers if any(layer.kernel[a] < layer.strides[a] for a in axes)]
    up = [
        layer.name
        for layer in layers
        if layer.kind == "transposed conv" and any(layer.kernel[a] * layer.strides[a] % 1 for a in axes)
    ]
    idle = [layer for layer in layers if layer.is_unproductive(reaching.shape)]
    more = [
        *advice.for_phases([(phase.at, phase.coverage, phase.paths) for phase in phases], paths.coverage, up),
        *advice.for_input(reaching, wide),
        *advice.for_unproductive([(one.name, one.input_field) for one in idle], reaching.shape),
    ]
    return tuple(sorted([*found, *more], key=lambda finding: not finding.problem))


def _along(layer: Layer, axis: int) -> AxisOfLayer:
    return AxisOfLayer(
        name=layer.name,
        kernel_size=layer.kernel[axis],
        rate=layer.rate[axis],
        spacing=layer.input_stride[axis],
        map=layer.input_map[axis],
        padded=layer.padded,
        causal=layer.causal[axis],
        circular=layer.circular[axis],
        lost=layer.lost[axis],
        is_pool=layer.kind.endswith("pool"),
    )


def _chosen(layer: Layer, axis: int) -> bool:
    return layer.kernel[axis] > 1 and layer.kind != "transposed conv"


def _chains(
    layers: Sequence[Layer], before: Sequence[set[int]], chosen: Sequence[bool]
) -> tuple[tuple[Layer, ...], ...]:
    """The chosen layers in sequence; each of several branches is a chain of its own."""
    numbers = [number for number, one in enumerate(chosen) if one]
    chains: list[list[Layer]] = []
    last = None
    for number in numbers:
        if (
            last is None
            or last not in before[number]
            or _is_branch(number, last, numbers, before)
            or _joins(number, last, numbers, before)
        ):
            chains.append([])
        chains[-1].append(layers[number])
        last = number
    return tuple(map(tuple, chains))


def _is_branch(number: int, last: int, numbers: Sequence[int], before: Sequence[set[int]]) -> bool:
    """Whether another layer also takes its input from `last`, beside this one."""
    return any(
        last in before[other] and number not in before[other] and other not in before[number]
        for other in numbers
        if other != number
    )


def _joins(number: int, last: int, numbers: Sequence[int], before: Sequence[set[int]]) -> bool:
    """Whether a layer also reads what another one wrote, beside `last`."""
    return any(other in before[number] and other not in before[last] for other in numbers if other != last)


def _times(values: Sequence[object], by: str = "x") -> str:
    """3x3; a single number where all are the same is not shortened."""
    return by.join(map(str, values))
