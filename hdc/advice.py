"""What is wrong or wasteful about a network's layers, with a fix for each."""

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import groupby
from typing import Literal

import numpy as np

from hdc.fields import Field
from hdc.ripple import SPREAD_DB, STEM, predict
from hdc.schedules import MAX_FIELD, MAX_LAYERS, MAX_RATE, DilationSchedule, first_gap, padding_share
from hdc.search import WORK, Found, Target, best, best_order, count, work

_WORK = WORK / 100  # the most `work` for a better schedule, so that the answer comes at once
_ADD_BRANCHES = "add branches at rates between, or widen the field before them"

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}

Rule = Literal[
    "holes",
    "output stride",
    "common factor",
    "rate and map",
    "padding",
    "VALID",
    "last layer",
    "better schedule",
    "phases",
    "checkerboard",
    "dead input",
    "unproductive",
]


@dataclass(frozen=True)
class Finding:
    """One thing to change.

    Attributes:
        rule: the check that found it.
        where: the layer or layers, or "" for the whole network.
        message: what is wrong.
        fix: what to do about it.
        problem: True if something is certainly lost, False if it is advice.
    """

    rule: Rule
    where: str
    message: str
    fix: str
    problem: bool

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{'problem' if self.problem else 'note'}, {self.rule}: {place}{self.message}; {self.fix}"


@dataclass(frozen=True)
class AxisOfLayer:
    """One convolution or pooling along one axis, as the checks need it.

    Attributes:
        name: the name shown in messages.
        kernel_size, rate: taps and dilation rate.
        spacing: stride of the map that the layer reads, in pixels of the network's input.
        map: length of that map; None if unknown.
        padded: whether the layer has padding; None if unknown.
        causal: whether all padding lies before the map.
        circular: whether the map is continued around its edges, so that no tap is lost.
        lost: the share of the layer's taps that fall into the padding; None to compute it for stride 1.
        is_pool: whether it has no rate to choose, as a pooling or a layer of the stem.
    """

    name: str
    kernel_size: int
    rate: int
    spacing: Fraction = Fraction(1)
    map: int | None = None
    padded: bool | None = None
    causal: bool = False
    circular: bool = False
    lost: float | None = None
    is_pool: bool = False

    @property
    def step(self) -> Fraction:
        """Distance between neighbouring taps, in input pixels."""
        return self.rate * self.spacing


def for_schedule(field: Field, size: int | None = None, stem: bool = True) -> tuple[Finding, ...]:
    """All findings about a schedule.

    Args:
        field: what the schedule sees.
        size: side of the map in pixels, if it is known: the findings then include the padding.
        stem: whether ripples are predicted after a 3x3 convolution, as in `net=context`; a field with a stem
            of its own says that itself.

    Example:
        >>> from hdc.fields import Stack
        >>> for finding in for_schedule(Stack.parse("1,2,2,2")):
        ...     print(finding.rule, "-", finding.fix)
        better schedule - use 1,1,5, in this order
    """

    spacing = Fraction(math.prod(layer.stride for layer in field.stem))
    first = [
        AxisOfLayer(f"stem {number}", layer.kernel_size, 1, Fraction(layer.spacing), is_pool=True)
        for number, layer in enumerate(field.stem, 1)
    ]
    if field.stem:
        stem = [layer.kernel_size for layer in field.stem] == [STEM.kernel_size] and spacing == 1

    def along(name: str, rate: int) -> AxisOfLayer:
        padded = True if size else None
        return AxisOfLayer(
            name, field.kernel_size, rate, spacing, map=size, padded=padded, causal=field.causal
        )

    own = [[list(itertools.starmap(along, chain)) for chain in chains] for chains in field.chains]
    coverage = field.coverage * (field.dimensions // len(field.coverage))
    layers = zip(*(itertools.chain(*chains) for chains in own), strict=True)
    axes = [[[*first, *chains[0]], *chains[1:]] if first else chains for chains in own]
    return for_layers(axes, coverage, layers, field.seen, stem)


def for_layers(
    axes: Sequence[Sequence[Sequence[AxisOfLayer]]],
    coverage: Sequence[float],
    layers: Iterable[Sequence[AxisOfLayer]],
    seen: float,
    stem: bool = False,
) -> tuple[Finding, ...]:
    """All findings about a network's layers, problems first.

    A finding that does not hold along every axis names its axis.

    Args:
        axes: for each axis its chains of layers, as `along_axis` takes them.
        coverage: for each axis the exact share of the receptive field's positions that is seen.
        layers: each layer that a map may be too small for, with one entry per axis.
        seen: the exact share of the receptive field's pixels that is seen.
        stem: whether ripples are predicted after a 3x3 convolution that is not among the layers.
    """
    per_axis: list[Sequence[Finding]] = []
    for axis, (chains, seen_along) in enumerate(zip(axes, coverage, strict=True)):
        # Searching for a better schedule takes a while: equal axes share their findings.
        same = axis > 0 and (chains, seen_along) == (axes[0], coverage[0])
        per_axis.append(per_axis[0] if same else along_axis(chains, seen_along, stem))
    return merge(per_axis, layers, seen)


def for_phases(
    phases: Sequence[tuple[tuple[int, ...], float, float]], seen: float, up: Sequence[str]
) -> Iterator[Finding]:
    """The findings about the phases of an output.

    Args:
        phases: for each an output pixel, the share of its field that is seen, and its number of paths,
            divided by the largest of these.
        seen: that share at the output pixel that the other findings are about.
        up: the transposed convolutions whose kernel is no multiple of their stride.
    """
    blind = [at for at, _, paths in phases if paths == 0]
    fix = (
        f"give {up[0]} a kernel that is a multiple of its stride"
        if up
        else "lower the rates after upsampling"
    )
    fix += ", or resize and convolve"
    if blind:
        some = f"{len(blind)} of {len(phases)} phases of the output see nothing of the input, such as pixel"
        yield Finding("phases", "", f"{some} {_place(blind[0])}", fix, True)
    holed = [(covered, at) for at, covered, paths in phases if paths and covered < seen]
    if holed:
        covered, at = min(holed)
        message = (
            f"output pixel {_place(at)} and others of its phase see only {share(covered)} of their field"
        )
        yield Finding("phases", "", message, fix, True)
    fewest = min((paths for _, _, paths in phases if paths), default=1.0)
    if up and fewest < 1 - 1e-9:
        message = f"one phase of the output has {share(fewest)} of the paths of another: a checkerboard"
        yield Finding("checkerboard", ", ".join(up), message, fix, False)


def for_input(reaching: np.ndarray, wide: Sequence[str]) -> Iterator[Finding]:
    """The findings about input pixels that reach no output.

    Args:
        reaching: bool `[input's spatial axes]`, which do.
        wide: the layers whose stride is larger than their kernel.
    """
    if reaching.all():
        return
    box = [
        np.flatnonzero(reaching.any(axis=tuple(set(range(reaching.ndim)) - {a})))
        for a in range(reaching.ndim)
    ]
    within = reaching[tuple(slice(found[0], found[-1] + 1) for found in box)]
    dead = f"{share(float(np.mean(~reaching)))} of the input's pixels"
    if within.all():
        fix = "pad the maps, or take an input whose size fits the strides"
        yield Finding("dead input", "", f"{dead}, at its edges, reach no output", fix, False)
        return
    gap = np.argwhere(~within)[0] + [found[0] for found in box]
    fix = "take a kernel of at least the stride" if wide else "widen the kernels or lower the strides"
    message = f"{dead} reach no output, such as pixel {_place(gap)}"
    yield Finding("dead input", wide[0] if wide else "", message, f"{fix}, or pool before it", True)


def for_unproductive(
    layers: Sequence[tuple[str, tuple[int, ...]]], shape: Sequence[int]
) -> Iterator[Finding]:
    """The finding about convolutions whose input sees the whole image already.

    Args:
        layers: their names, and the field of what each reads, per axis.
        shape: of the image.
    """
    if not layers:
        return
    names = [name for name, _ in layers]
    what = "what it reads has a field" if len(names) == 1 else "what they read has fields"
    first, image = (" x ".join(map(str, one)) for one in (layers[0][1], shape))
    more = "" if len(names) == 1 else " or more"
    message = f"{what} of {first} px{more}, which covers the {image} px input: no context is added"
    largest = " x ".join(str(1 + max(along)) for along in zip(*(field for _, field in layers), strict=True))
    fix = f"take inputs of at least {largest} px, or fewer layers and strides"
    yield Finding("unproductive", _some(names), message, fix, False)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} others"


def _place(pixel: Iterable[int]) -> str:
    return ", ".join(map(str, pixel))


def along_axis(
    chains: Sequence[Sequence[AxisOfLayer]], coverage: float, stem: bool = False
) -> tuple[Finding, ...]:
    """The findings about layers along one axis, except those of `on_map`.

    Args:
        chains: layers with more than one tap, first layer first. Within a chain each layer reads what the
            layer before it wrote; parallel branches are separate chains.
        coverage: the exact share of the receptive field's positions along that axis that is seen.
        stem: as for `for_layers`.
    """
    layers = list(itertools.chain(*chains))
    return (
        *_holes(layers, coverage, len(chains) > 1),
        *(_common_factor(layers) if coverage < 1 else ()),
        *(finding for chain in chains for finding in _valid(chain)),
        *(_last(layers, stem) if len(chains) == 1 else ()),
        *(finding for chain in chains for finding in _better_schedule(chain, len(layers), stem)),
    )


def better(schedule: DilationSchedule, max_rate: int | None = None, stem: bool = True) -> Found | None:
    """A gap-free schedule of the same receptive field and no more layers, of less predicted ripple.

    Its ripple is less than that of the schedule's rates in their best order, by more than `SPREAD_DB`. The
    one with the fewest layers, and among those the best. None if there is none, or if the search would take
    too long.

    Args:
        max_rate: the largest rate allowed.
        stem: whether ripples are predicted after a 3x3 convolution, as in `net=context`.

    Example:
        >>> better(DilationSchedule((2, 2, 2))).rates
        (3, 2, 1)
    """
    field, taps = schedule.receptive_field, schedule.kernel_size
    mine = best_order(schedule.layer_rates, taps, stem)
    if mine is None or mine.ripple <= SPREAD_DB:
        return None
    for layers in range(1, len(schedule) + 1):
        if not 1 + (taps - 1) * layers <= field <= taps**layers:
            continue
        target = Target(layers, taps, field=field, max_rate=max_rate)
        candidates = count(target)
        if candidates.number == 0:  # all of them need a larger rate
            continue
        if not candidates.exact or work(target, _WORK) > _WORK:
            return None
        found = best(target, 1, stem).found[0]
        if found.ripple < mine.ripple - SPREAD_DB:
            return found
    return None


def share(part: float) -> str:
    """Percent; never shows 0.0% or 100.0% for a share that is not exactly that."""
    text = f"{part:.1%}"
    if text == "0.0%" and part > 0:
        return "less than 0.1%"
    return "more than 99.9%" if text == "100.0%" and part < 1 else text


def _holes(layers: Sequence[AxisOfLayer], coverage: float, parallel: bool) -> Iterator[Finding]:
    if coverage == 1:
        return
    message = f"{share(1 - coverage)} of the receptive field along an axis is never seen"
    taps = [layer.kernel_size for layer in layers]
    gap = first_gap([layer.step for layer in layers], taps)
    if parallel:
        fix = _ADD_BRANCHES
    elif gap is None:
        fix = "widen the field before the large rates, or add branches at rates between"
    else:
        layer, reach = layers[gap[0]], gap[1]
        most = math.floor(reach / layer.spacing)
        if layer.is_pool or most < 1:
            fix = f"before {layer.name}, widen the kernels or lower the strides"
        else:
            fix = f"first lower the rate of {layer.name} to at most {most}, or add layers of smaller rates"
        if layer.spacing > 1 and first_gap([layer.rate for layer in layers], taps) is None:
            stride = (
                f"rate {layer.rate} at output stride {layer.spacing} steps over {layer.step} input pixels, "
                f"and the layers of smaller steps see {reach} in one piece"
            )
            yield Finding("output stride", layer.name, stride, fix, True)
    yield Finding("holes", "", message, fix, True)


def _common_factor(layers: Sequence[AxisOfLayer]) -> Iterator[Finding]:
    if not layers or any(layer.step.denominator > 1 for layer in layers):
        return
    factor = math.gcd(*(int(layer.step) for layer in layers))
    reach = sum((layer.kernel_size - 1) * layer.step for layer in layers)
    for layer in layers:
        # Around the edge of a circular map, outputs may meet again.
        if layer.circular and layer.map is not None and reach >= (around := layer.map * layer.spacing):
            factor = math.gcd(factor, int(around)) if around.denominator == 1 else 1
    if factor > 1:
        yield Finding(
            "common factor",
            "",
            f"all steps are multiples of {factor} pixels: neighbouring outputs share no input",
            "add a layer at rate 1, or change one rate so that they have no common factor",
            True,
        )


def on_map(layers: Iterable[Sequence[AxisOfLayer]], axes: int) -> list[list[Finding]]:
    """Find rates that are too large for the map that the layer reads.

    Args:
        layers: each with one entry per axis.
        axes: the number of axes.

    Returns:
        The findings of each axis.
    """
    found: list[list[Finding]] = [[] for _ in range(axes)]
    for layer in layers:
        largest = max(axis.rate for axis in layer)
        if largest == 1 or any(axis.map is None or axis.is_pool or axis.padded is False for axis in layer):
            continue
        # The margin is for rounding: exactly two thirds of the taps are enough.
        fits = bisect_left(range(1, largest), 1 / 3 + 1e-9, key=partial(_lost, layer))
        fix = f"a rate of at most {fits} keeps two thirds" if fits else "take larger maps"
        lost = 1 - math.prod(1 - _lost_along(axis) for axis in layer)
        beyond = [axis.rate >= (axis.map or 0) and axis.rate > 1 < axis.kernel_size for axis in layer]
        for axis, findings, too_large in zip(layer, found, beyond, strict=True):
            if axis.circular:
                findings.extend(_around(axis))
            elif too_large:
                message = f"rate {axis.rate} is not smaller than the {axis.map} px of the map: {_left(axis)}"
                findings.append(Finding("rate and map", axis.name, message, fix, True))
            elif lost > 0.5 and not any(beyond):
                size = " x ".join(map(str, dict.fromkeys(one.map for one in layer)))
                message = f"{share(lost)} of its taps fall into the padding of the {size} px map"
                findings.append(Finding("padding", axis.name, message, fix, False))
    return [_grouped(findings) for findings in found]


def _grouped(findings: Iterable[Finding]) -> list[Finding]:
    """Layers that lose the same share to the padding, in one finding."""
    places: dict[Finding, list[str]] = {}
    for finding in findings:
        alike = replace(finding, where="") if finding.rule == "padding" else finding
        places.setdefault(alike, []).append(finding.where)
    return [replace(finding, where=_some(names)) for finding, names in places.items()]


def _around(axis: AxisOfLayer) -> Iterator[Finding]:
    """The finding about taps that meet on a circular map."""
    length = axis.map or 1
    pixels = length // math.gcd(length, axis.rate)
    if pixels >= axis.kernel_size:
        return
    many = "the same pixel" if pixels == 1 else f"only {pixels} different pixels"
    message = f"rate {axis.rate} on a circular map of {length} px: its {axis.kernel_size} taps read {many}"
    most = (length - 1) // (axis.kernel_size - 1)
    fix = f"a rate of at most {most} keeps them apart" if most else "take larger maps"
    yield Finding("rate and map", axis.name, message, fix, True)


def _lost(layer: Sequence[AxisOfLayer], most: int) -> float:
    """The share of a layer's taps that fall into the padding if its rates are lowered to at most `most`."""
    return 1 - math.prod(1 - _lost_along(replace(a, rate=min(a.rate, most), lost=None)) for a in layer)


def _lost_along(axis: AxisOfLayer) -> float:
    if axis.lost is not None:
        return axis.lost
    if axis.circular:  # a larger rate would let taps meet
        return float((axis.kernel_size - 1) * axis.rate >= (axis.map or 1))
    return padding_share(axis.rate, axis.kernel_size, [axis.map or 1], axis.causal)


def _left(axis: AxisOfLayer) -> str:
    """How many taps are left on a map that is shorter than the distance between any two of them."""
    none = 1 - axis.kernel_size * (1 - _lost_along(axis))
    if none > 1 - 1e-9:
        return "no tap is left"
    return "one tap is left" + ("" if none < 1e-9 else f", and none at {share(none)} of its places")


def _valid(layers: Sequence[AxisOfLayer]) -> Iterator[Finding]:
    """One finding for each run of layers on maps of one stride: only their pixels can be added up."""
    bare = [layer for layer in layers if layer.padded is False and layer.rate > 1 and layer.map]
    for _, group in groupby(bare, key=lambda layer: layer.spacing):
        some = list(group)
        lost = sum((layer.kernel_size - 1) * layer.rate for layer in some)
        where = some[0].name if len(some) == 1 else f"{some[0].name} to {some[-1].name}"
        message = f"VALID padding takes {lost} px off the {some[0].map} px map"
        fix = "use SAME, or compare it only with schedules of the same field"
        yield Finding("VALID", where, message, fix, False)


def _last(layers: Sequence[AxisOfLayer], stem: bool) -> Iterator[Finding]:
    convolutions = [layer for layer in layers if not layer.is_pool]
    # Only layers on the same map can change places without changing the field.
    same = [layer for layer in convolutions if _kind(layer) == _kind(convolutions[-1])]
    rates = tuple(layer.rate for layer in same)
    if len(same) < 2 or not same[-1].kernel_size <= rates[-1] == max(rates) > min(rates):
        return
    found = best_order(rates, same[-1].kernel_size, stem) if _allowed(same) else None
    if found is None:
        return
    now = _ripple(same, stem)
    if found.ripple < now - SPREAD_DB:
        message = f"the last layer has the largest rate, {rates[-1]}"
        fix = (
            f"use {_listed(found)}, which leaves the certificate as it is and has a predicted ripple of "
            f"{found.ripple:.1f} dB in place of {now:.1f}, or add a layer at rate 1, as DRN-C does"
        )
        yield Finding("last layer", same[-1].name, message, fix, False)


def _better_schedule(layers: Sequence[AxisOfLayer], of: int, stem: bool) -> Iterator[Finding]:
    for (taps, spacing), group in groupby(layers, key=_kind):
        stack = [layer for layer in group if not layer.is_pool]
        rates = tuple(layer.rate for layer in stack)
        if len(rates) < 2 or max(rates) == 1 or not _allowed(stack):
            continue
        # A rate that puts most of its taps into the padding is no improvement.
        fit = [
            bisect_right(range(1, MAX_RATE + 1), 0.5, key=partial(_lost, [replace(layer, rate=MAX_RATE)] * 2))
            for layer in stack
            if layer.map
        ]
        found = better(DilationSchedule(rates, taps), max(1, min([MAX_RATE, *fit])), stem)
        if found is not None:
            pixels = "px" if spacing == 1 else "px of their map"
            fewer = f" with {len(found.rates)} layers in place of {len(rates)}"
            message = (
                f"rates {_listed(found)} have the same field of {found.receptive_field} {pixels}"
                f"{fewer if len(found.rates) < len(rates) else ''} and a predicted ripple of "
                f"{found.ripple:.1f} dB in place of {_ripple(stack, stem):.1f}"
            )
            where = f"{stack[0].name} to {stack[-1].name}" if len(stack) < of else ""
            yield Finding("better schedule", where, message, f"use {_listed(found)}, in this order", False)


def _kind(layer: AxisOfLayer) -> tuple[int, Fraction]:
    """What layers that may change places have in common."""
    return layer.kernel_size, layer.spacing


def _allowed(stack: Sequence[AxisOfLayer]) -> bool:
    """Whether layers of one kernel size are a `DilationSchedule`."""
    field = 1 + sum((layer.kernel_size - 1) * layer.rate for layer in stack)
    return len(stack) <= MAX_LAYERS and field <= MAX_FIELD and max(layer.rate for layer in stack) <= MAX_RATE


def _ripple(stack: Sequence[AxisOfLayer], stem: bool) -> float:
    """Predicted for these layers alone, in dB."""
    layers = [(layer.kernel_size, layer.rate) for layer in stack]
    return predict([*([STEM] if stem else []), *layers]).db


def _listed(found: Found) -> str:
    return ",".join(map(str, found.rates))


def merge(
    per_axis: Sequence[Sequence[Finding]],
    layers: Iterable[Sequence[AxisOfLayer]],
    seen: float,
) -> tuple[Finding, ...]:
    """Merge the findings of `along_axis`, one sequence per axis, and add those of `on_map`."""
    names = AXES.get(len(per_axis), [f"axis {k}" for k in range(len(per_axis))])
    per_axis = [[*found, *more] for found, more in zip(per_axis, on_map(layers, len(per_axis)), strict=True)]
    merged: dict[Finding, None] = {}
    for name, findings in zip(names, per_axis, strict=True):
        for finding in findings:
            if not all(finding in others for others in per_axis):
                place = f"{finding.where}, {name}" if finding.where else name
                finding = replace(finding, where=place)
            merged[finding] = None
    if seen < 1 and not any(finding.rule == "holes" for finding in merged):
        lost = f"{share(1 - seen)} of the receptive field is never seen, between its branches"
        merged = {Finding("holes", "", lost, _ADD_BRANCHES, True): None, **merged}
    return tuple(sorted(merged, key=lambda finding: not finding.problem))
