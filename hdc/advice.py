"""What is wrong or wasteful about a stack of layers, and what to change."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import groupby
from typing import Literal

from hdc import search
from hdc.schedules import MAX_FIELD, MAX_LAYERS, MAX_RATE, DilationSchedule, padding_share

# A better schedule is looked for with at most so much `search.work`: the answer has to come at once.
_WORK = search.WORK / 100

# A gridding index below this is nothing to improve on.
_TELLING = 0.05

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
]


@dataclass(frozen=True)
class Finding:
    """One thing to change.

    Attributes:
        rule: which of the checks found it.
        where: the layer, or "" for the whole.
        message: what is so.
        fix: what to do about it.
        problem: whether something is lost for certain; otherwise it is advice.
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
    """What the checks need to know of one convolution or pooling, along one axis.

    Attributes:
        name: for the message.
        kernel_size, rate: taps and dilation rate.
        spacing: output stride of its input: input pixels from one of its input positions to the next.
        map: length of its input; None where it is not known.
        padded: whether it has padding; None where that is not known.
        causal: whether all of that lies before the map.
        lost: the share of its taps that fall into the padding; None for what stride 1 makes it.
        is_pool: pooling has no rate to choose.
    """

    name: str
    kernel_size: int
    rate: int
    spacing: Fraction = Fraction(1)
    map: int | None = None
    padded: bool | None = None
    causal: bool = False
    lost: float | None = None
    is_pool: bool = False

    @property
    def step(self) -> Fraction:
        """Distance between neighbouring taps, in input pixels."""
        return self.rate * self.spacing


def lint(stacks: Sequence[Sequence[AxisOfLayer]], coverage: float) -> tuple[Finding, ...]:
    """Every finding about layers along one axis, but those of `on_map`.

    Args:
        stacks: layers with more than one tap, first layer first; in each stack every layer reads what the
            one before it made. Parallel branches are stacks of their own.
        coverage: the exact share of the receptive field, along that axis, that is seen.
    """
    layers = [layer for stack in stacks for layer in stack]
    return (
        *_holes(layers, coverage, len(stacks) > 1),
        *(_common_factor(layers) if coverage < 1 else ()),
        *(finding for stack in stacks for finding in _valid(stack)),
        *(_last(layers) if len(stacks) == 1 else ()),
        *(finding for stack in stacks for finding in _better_schedule(stack, len(layers))),
    )


def better(schedule: DilationSchedule, max_rate: int | None = None) -> search.Found | None:
    """A gap-free schedule with the same receptive field, no more layers and a smaller gridding index.

    The one with the fewest layers, of these the best; None where there is none, or too much to look at.

    Args:
        max_rate: the largest rate that it may have.
    """
    mine, field, taps = schedule.gridding.index, schedule.receptive_field, schedule.kernel_size
    for layers in range(1, len(schedule) + 1):
        if not 1 + (taps - 1) * layers <= field <= taps**layers:
            continue
        target = search.Target(layers, taps, field=field, max_rate=max_rate)
        candidates = search.count(target).number
        if candidates == 0:  # it would take a larger rate
            continue
        if search.work(target, candidates, 1) > _WORK:
            return None
        found = search.best(target, top=1).found[0]
        if found.gridding < mine - 1e-9:
            return found
    return None


def share(part: float) -> str:
    """A share in percent, in which neither nothing nor all is rounded up from less."""
    text = f"{part:.1%}"
    if text == "0.0%" and part > 0:
        return "less than 0.1%"
    return "more than 99.9%" if text == "100.0%" and part < 1 else text


def _between_branches(coverage: float) -> Finding:
    """For holes that show along no axis, as parallel branches leave them."""
    lost = f"{share(1 - coverage)} of the receptive field is never seen, between its branches"
    return Finding("holes", "", lost, "add branches at rates between, or widen the field before them", True)


def _holes(layers: Sequence[AxisOfLayer], coverage: float, parallel: bool) -> Iterator[Finding]:
    if coverage == 1:
        return
    lost = f"{share(1 - coverage)} of the receptive field along an axis is never seen"
    culprit = None if parallel else _breaks(layers, [layer.step for layer in layers])
    if parallel:
        yield Finding(
            "holes", "", lost, "add branches at rates between, or widen the field before them", True
        )
        return
    if culprit is None:
        yield Finding(
            "holes",
            "",
            lost,
            "widen the field before the large rates, or add branches at rates between",
            True,
        )
        return
    layer, reach = culprit
    most = math.floor(reach / layer.spacing)
    if layer.is_pool or most < 1:
        fix = f"before {layer.name}, widen the kernels or lower the strides"
    else:
        fix = f"first lower the rate of {layer.name} to at most {most}, or add layers of smaller rates"
    if layer.spacing > 1 and _breaks(layers, [Fraction(layer.rate) for layer in layers]) is None:
        message = (
            f"rate {layer.rate} at output stride {layer.spacing} steps over {layer.step} input pixels, and "
            f"the layers of smaller steps see {reach} in one piece"
        )
        yield Finding("output stride", layer.name, message, fix, True)
    yield Finding("holes", "", lost, fix, True)


def _breaks(layers: Sequence[AxisOfLayer], steps: Sequence[Fraction]) -> tuple[AxisOfLayer, Fraction] | None:
    """The certificate: by ascending step, the first layer that steps over more than those before it see."""
    reach = Fraction(1)
    for step, layer in sorted(zip(steps, layers, strict=True), key=lambda pair: pair[0]):
        if step > reach:
            return layer, reach
        reach += (layer.kernel_size - 1) * step
    return None


def _common_factor(layers: Sequence[AxisOfLayer]) -> Iterator[Finding]:
    if not layers or any(layer.step.denominator > 1 for layer in layers):
        return
    factor = math.gcd(*(int(layer.step) for layer in layers))
    if factor > 1:
        yield Finding(
            "common factor",
            "",
            f"all steps are multiples of {factor} pixels: neighbouring outputs share no input",
            "add a layer at rate 1, or change one rate so that they have no common factor",
            True,
        )


def on_map(layers: Iterable[Sequence[AxisOfLayer]], axes: int) -> list[list[Finding]]:
    """Rates that are too large for the map that they work on.

    Args:
        layers: each by its axes.
        axes: how many these are.

    Returns:
        The findings of each axis.
    """
    found: list[list[Finding]] = [[] for _ in range(axes)]
    for layer in layers:
        largest = max(axis.rate for axis in layer)
        if largest == 1 or any(axis.map is None or axis.is_pool or axis.padded is False for axis in layer):
            continue
        # Two thirds exactly are enough, whatever their rounding.
        fits = bisect_left(range(1, largest), 1 / 3 + 1e-9, key=partial(_lost, layer))
        fix = f"a rate of at most {fits} keeps two thirds" if fits else "take larger maps"
        lost = 1 - math.prod(1 - _lost_along(axis) for axis in layer)
        beyond = [axis.rate >= (axis.map or 0) and axis.rate > 1 < axis.kernel_size for axis in layer]
        for axis, findings, too_large in zip(layer, found, beyond, strict=True):
            if too_large:
                message = f"rate {axis.rate} is not smaller than the {axis.map} px of the map: {_left(axis)}"
                findings.append(Finding("rate and map", axis.name, message, fix, True))
            elif lost > 0.5 and not any(beyond):
                size = " x ".join(map(str, dict.fromkeys(one.map for one in layer)))
                message = f"{share(lost)} of its taps fall into the padding of the {size} px map"
                findings.append(Finding("padding", axis.name, message, fix, False))
    return found


def _lost(layer: Sequence[AxisOfLayer], most: int) -> float:
    """The share of a layer's taps that fall into the padding, were none of its rates larger than `most`."""
    return 1 - math.prod(1 - _lost_along(replace(a, rate=min(a.rate, most), lost=None)) for a in layer)


def _lost_along(axis: AxisOfLayer) -> float:
    if axis.lost is not None:
        return axis.lost
    return padding_share(axis.rate, axis.kernel_size, [axis.map or 1], axis.causal)


def _left(axis: AxisOfLayer) -> str:
    """What is left of taps of which any two lie further apart than the map is long."""
    none = 1 - axis.kernel_size * (1 - _lost_along(axis))
    if none < 1e-9:
        return "one tap is left"
    return (
        "no tap is left" if none > 1 - 1e-9 else f"one tap is left, and none at {share(none)} of its places"
    )


def _valid(layers: Sequence[AxisOfLayer]) -> Iterator[Finding]:
    """For each run of layers on maps of one stride, whose pixels can be added up."""
    bare = [layer for layer in layers if layer.padded is False and layer.rate > 1 and layer.map]
    for _, group in groupby(bare, key=lambda layer: layer.spacing):
        some = list(group)
        lost = sum((layer.kernel_size - 1) * layer.rate for layer in some)
        where = some[0].name if len(some) == 1 else f"{some[0].name} to {some[-1].name}"
        message = f"VALID padding takes {lost} px off the {some[0].map} px map"
        fix = "use SAME, or compare it only with schedules of the same field"
        yield Finding("VALID", where, message, fix, False)


def _last(layers: Sequence[AxisOfLayer]) -> Iterator[Finding]:
    convolutions = [layer for layer in layers if not layer.is_pool]
    # Only layers on the same map can change places without changing the field.
    same = [layer for layer in convolutions if layer.spacing == convolutions[-1].spacing]
    if len(same) < 2:
        return
    last, rates = same[-1], [layer.rate for layer in same]
    if last.rate >= last.kernel_size and last.rate == max(rates) > min(rates):
        message = f"the last layer has the largest rate, {last.rate}"
        fix = (
            "put the small rates last, which leaves the certificate as it is, or add a layer at rate 1, as "
            "DRN-C does"
        )
        yield Finding("last layer", last.name, message, fix, False)


def _better_schedule(layers: Sequence[AxisOfLayer], of: int) -> Iterator[Finding]:
    for (taps, spacing), group in groupby(layers, key=lambda layer: (layer.kernel_size, layer.spacing)):
        stack = [layer for layer in group if not layer.is_pool]
        rates = tuple(layer.rate for layer in stack)
        field = 1 + (taps - 1) * sum(rates)
        if len(rates) < 2 or max(rates) == 1 or len(rates) > MAX_LAYERS or field > MAX_FIELD:
            continue
        schedule = DilationSchedule(rates, taps)
        mine = schedule.gridding.index
        if mine < _TELLING:
            continue
        # Rates of which most taps would fall into the padding are no gain.
        fit = [
            bisect_right(range(1, MAX_RATE + 1), 0.5, key=partial(_lost, [replace(layer, rate=MAX_RATE)] * 2))
            for layer in stack
            if layer.map
        ]
        found = better(schedule, max(1, min([MAX_RATE, *fit])))
        if found is not None and found.gridding < mine / 2:
            pixels = "px" if spacing == 1 else "px of their map"
            fewer = f" with {len(found.rates)} layers in place of {len(rates)}"
            message = (
                f"rates {_listed(found.rates)} have the same field of {field} {pixels}"
                f"{fewer if len(found.rates) < len(rates) else ''} and G {found.gridding:.3f} in place of "
                f"{mine:.3f}"
            )
            where = f"{stack[0].name} to {stack[-1].name}" if len(stack) < of else ""
            yield Finding(
                "better schedule", where, message, f"use {_listed(found.rates)}, in any order", False
            )


def merge(
    per_axis: Sequence[Sequence[Finding]],
    layers: Iterable[Sequence[AxisOfLayer]],
    seen: float,
) -> tuple[Finding, ...]:
    """The findings of all axes, problems first; those that do not hold for every axis name theirs.

    Args:
        per_axis: what `lint` found along each.
        layers: each by its axes.
        seen: the exact share of the receptive field's pixels that is seen.
    """
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
        merged = {_between_branches(seen): None, **merged}
    return tuple(sorted(merged, key=lambda finding: not finding.problem))


def _listed(rates: Sequence[int]) -> str:
    return ",".join(map(str, rates))
