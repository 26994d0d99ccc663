"""The certificate of a schedule: all that can be said of it before anything is trained.

A schedule is a stack of dilated convolutions, with the same rates on both axes, other ones on each, or on
one axis alone; or the layers of a published network, which may have parallel branches.
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from hdc.errors import InputError
from hdc.fields import PathCounts
from hdc.schedules import MAX_RATE, DilationSchedule, Gridding, padding_share

MAX_PIXELS = 2**24  # of a path map
_LEAST = 1e-150

T = TypeVar("T")
Branches = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Rule:
    """The rule of Wang et al. 2018 against the truth; every value is None where the rule says nothing.

    Attributes:
        m2: M_2 of the recursion, the larger one of the axes; None for a single layer and for branches.
        accepts: whether the rule takes the schedule for one without holes.
        agrees: whether that is so.
    """

    m2: int | None
    accepts: bool | None
    agrees: bool | None


@dataclass(frozen=True)
class Certificate:
    """The exact numbers of one schedule.

    Attributes:
        name: its label, or the published network's name.
        axes: one schedule per axis: two for images, one for signals; empty for branches.
        branches: the rates of each layer's parallel branches, 0 for a 1x1 convolution; empty for a stack.
        kernel_size: taps per axis.
        causal: whether all padding lies before the map.
    """

    name: str
    axes: tuple[DilationSchedule, ...]
    branches: Branches = ()
    kernel_size: int = 3
    causal: bool = False

    @property
    def dimensions(self) -> int:
        """1 for signals, 2 for images."""
        return len(self.axes) or 2

    @property
    def same_axes(self) -> bool:
        """Whether one number per axis is one number in all."""
        return len(set(self.axes)) <= 1

    @property
    def rates(self) -> list[Any]:
        """As they are written: a rate per layer, a pair of height and width, or one for each branch."""
        if self.branches:
            return [list(layer) for layer in self.branches]
        if self.same_axes:
            return list(self.axes[0].layer_rates)
        return [list(pair) for pair in zip(*(axis.layer_rates for axis in self.axes), strict=True)]

    @property
    def layers(self) -> int:
        return len(self.branches) or len(self.axes[0])

    @cached_property
    def paths(self) -> PathCounts:
        """The path counts, `[h, w]`, or one axis for signals, as shares."""
        if self.branches:
            return PathCounts.of_layers(self.branches, self.kernel_size)
        pixels = math.prod(axis.receptive_field for axis in self.axes)
        if pixels > MAX_PIXELS:
            raise InputError(
                f"the field of {self.name} has {pixels} pixels, a map of it has at most {MAX_PIXELS}"
            )
        counts = np.ones((1,) * len(self.axes))
        for axis, schedule in enumerate(self.axes):
            shape = [-1 if i == axis else 1 for i in range(len(self.axes))]
            counts = counts * _shares(schedule).reshape(shape)
        return PathCounts(counts, (0,) * len(self.axes))

    def along(self, axis: int) -> np.ndarray:
        """The path counts along one axis, as shares: 0 exactly where there are none."""
        return _shares(self.axes[axis]) if self.axes else self.paths.along(axis)

    @property
    def receptive_field(self) -> tuple[int, ...]:
        """Pixels, per axis."""
        return self._per_axis(lambda s: s.receptive_field, lambda a: self.paths.size[a])

    @property
    def coverage(self) -> tuple[float, ...]:
        """The share of the field, per axis, that is seen."""
        return self._per_axis(lambda s: s.coverage, self.paths.axis_coverage if self.branches else None)

    @property
    def coverage_2d(self) -> float | None:
        """The share of the field's pixels that is seen; None for signals."""
        if self.dimensions == 1:
            return None
        return self.paths.coverage if self.branches else math.prod(axis.coverage for axis in self.axes)

    @property
    def seen(self) -> float:
        """The share of the field's pixels that is seen, of images or signals."""
        return self.coverage[0] if self.coverage_2d is None else self.coverage_2d

    @property
    def gap_free(self) -> bool:
        """Whether every pixel of the field is seen."""
        return self.paths.gap_free if self.branches else all(axis.gap_free for axis in self.axes)

    @property
    def first_hole(self) -> tuple[int, ...] | None:
        """The first pixel that is not seen, from the field's corner, row by row; None without one.

        One number where the axes are the same: the offset along both.
        """
        if self.branches:
            return self.paths.first_hole
        holes = [axis.first_hole for axis in self.axes]
        if self.same_axes:
            return None if holes[0] is None else (holes[0],)
        if holes[1] is not None:
            return 0, holes[1]
        return None if holes[0] is None else (holes[0], 0)

    @cached_property
    def gridding(self) -> Gridding:
        """The gridding index of the axis where it is larger."""
        if self.branches:
            return self.paths.gridding(max(max(layer) for layer in self.branches))
        # Equal axes are different objects, and the index takes its time.
        return max((axis.gridding for axis in dict.fromkeys(self.axes)), key=lambda gridding: gridding.index)

    @property
    def effective_width(self) -> tuple[float, ...]:
        """sigma, in pixels, per axis."""
        return self._per_axis(
            lambda s: s.effective_width, self.paths.effective_width if self.branches else None
        )

    @property
    def neighbour_overlap(self) -> tuple[float, ...]:
        """Jaccard index of what two outputs see that are adjacent along each axis."""
        return self._per_axis(
            lambda s: s.neighbour_overlap, self.paths.neighbour_overlap if self.branches else None
        )

    @property
    def common_factor(self) -> tuple[int, ...]:
        """Greatest common divisor of the rates, per axis."""
        rates = [rate for layer in self.branches for rate in layer]
        return self._per_axis(lambda s: s.hdc_rule.common_factor, lambda _: math.gcd(*rates))

    @property
    def rule(self) -> Rule:
        """The heuristic, and whether it is right here."""
        if self.branches:
            return Rule(None, None, None)
        rules = [axis.hdc_rule for axis in self.axes]
        known = [rule.m2 for rule in rules if rule.m2 is not None]
        accepts = all(rule.accepts for rule in rules)
        return Rule(max(known, default=None), accepts, accepts == self.gap_free)

    def padding(self, size: int) -> list[float]:
        """The share of each layer's taps that fall into the padding of a map of `size` pixels a side."""

        def lost(*rates: int) -> float:
            shares = (padding_share(rate, self.kernel_size, [size], self.causal) for rate in rates)
            return 1 - math.prod(1 - share for share in shares)

        if self.branches:
            # A branch of rate 0 has one tap, which is always on the map.
            taps = [[self.kernel_size**2 if rate else 1 for rate in layer] for layer in self.branches]
            shares = [[lost(rate, rate) for rate in layer] for layer in self.branches]
            return [float(np.average(a, weights=b)) for a, b in zip(shares, taps, strict=True)]
        return [lost(*rates) for rates in zip(*(axis.layer_rates for axis in self.axes), strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON. A value per axis is one number where the axes are the same, else [height, width]."""

        def plain(values: Sequence[Any] | None) -> Any:
            return values if values is None else values[0] if len(values) == 1 else list(values)

        return {
            "rates": self.rates,
            "kernel_size": self.kernel_size,
            "receptive_field": plain(self.receptive_field),
            "coverage": plain(self.coverage),
            "coverage_2d": self.coverage_2d,
            "gap_free": self.gap_free,
            "first_hole": plain(self.first_hole),
            "gridding": self.gridding.index,
            "gridding_frequency": self.gridding.frequency,
            "sigma": plain(self.effective_width),
            "neighbour_overlap": plain(self.neighbour_overlap),
            "common_factor": plain(self.common_factor),
            "hdc_rule": {"m2": self.rule.m2, "accepts": self.rule.accepts, "agrees": self.rule.agrees},
        }

    def _per_axis(
        self, of: Callable[[DilationSchedule], T], of_branches: Callable[[int], T] | None
    ) -> tuple[T, ...]:
        """One value where the axes are the same. Branches have the same rates on both axes."""
        if not self.axes:
            assert of_branches is not None
            return (of_branches(0),)
        return tuple(of(axis) for axis in (self.axes[:1] if self.same_axes else self.axes))


def _shares(schedule: DilationSchedule) -> np.ndarray:
    """Path counts as shares of all; a share too small for a double, even squared, is still above zero."""
    counts = schedule.path_counts
    shares = (counts / schedule.kernel_size ** len(schedule)).astype(np.float64)
    return np.where(counts > 0, np.maximum(shares, _LEAST), 0.0)


def parse(text: str, kernel_size: int = 3, dimensions: int = 2) -> Certificate:
    """The certificate of a schedule as it is typed.

    Args:
        text: rates such as `1,2,5`, or with other ones on each axis, height x width, `1x2,2x2`; or a
            label as tables have it, `1-2-5x2`.
        kernel_size: taps per axis.
        dimensions: 2 for images, 1 for signals.

    Raises:
        InputError: for text that is not that, and for rates out of range.
    """
    layers = []
    inner = text.strip()
    if label := re.fullmatch(r"(\d{1,9}(?:-\d{1,9})+)(?:x(\d{1,9}))?", inner, re.ASCII):
        axis = DilationSchedule(tuple(map(int, label[1].split("-"))), kernel_size, int(label[2] or 1))
        return Certificate(axis.label, (axis,) * dimensions, kernel_size=kernel_size)
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1]
    for position, part in enumerate(inner.split(","), start=1):
        numbers = part.strip().split("x")
        for number in numbers:
            if not (number.isascii() and number.isdecimal()):
                what = f"{_short(part.strip())!r} at position {position} is not a dilation rate"
                raise InputError(
                    f"rates {_short(text)!r}: {what if part.strip() else f'position {position} is empty'}; "
                    "write 1,2,5, or 1x2,2x2 for height x width, or a name of 'hdc check --named'"
                )
            # Python refuses to read thousands of digits.
            if len(number.lstrip("0")) > 9:
                raise InputError(
                    f"rates {_short(text)!r}: rate {_short(number)} at position {position} is too large, "
                    f"at most {MAX_RATE} is allowed"
                )
        if len(numbers) > dimensions:
            raise InputError(
                f"rates {_short(text)!r}: {_short(part.strip())!r} at position {position} is for "
                f"{len(numbers)} axes, the schedule has {dimensions}"
            )
        layers.append(
            [int(number.lstrip("0") or 0) for number in numbers]
            * (1 if len(numbers) == dimensions else dimensions)
        )
    axes = tuple(DilationSchedule(rates, kernel_size) for rates in zip(*layers, strict=True))
    by_axis = "-".join("x".join(map(str, pair)) for pair in layers)
    return Certificate(axes[0].label if len(set(axes)) == 1 else by_axis, axes, kernel_size=kernel_size)


def rates_text(certificate: Certificate) -> str:
    """`1,2,5`; repeats as `3 x (1,2,5)`; branches as `(1|4)`, where 0 is a 1x1 convolution or a shortcut."""
    if certificate.same_axes and certificate.axes:
        one = certificate.axes[0]
        rates = ",".join(map(str, one.rates))
        return rates if one.repeat == 1 else f"{one.repeat} x ({rates})"
    by = "|" if certificate.branches else "x"
    parts = []
    for rates, run in itertools.groupby(certificate.rates):
        times, text = len(list(run)), by.join(map(str, rates))
        text = f"({text})" if certificate.branches and len(rates) > 1 else text
        parts += [f"{times} x {text}"] if times > 2 else [text] * times
    return ",".join(parts)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
