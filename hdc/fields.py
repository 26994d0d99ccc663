"""What a schedule sees, exactly: the receptive field, its holes and its gridding, from the rates alone.

`Stack` and `Branches` are the two kinds of schedule, and both are a `Field`. A stack of convolutions has one
schedule per axis, and closed forms. A network with parallel branches has none: its numbers are read off its
path counts, `PathCounts`, as are those of any model that `hdc.receptive` follows.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from hdc.errors import InputError
from hdc.ripple import STEM, PredictedRipple, predict
from hdc.schedules import (
    MAX_LAYERS,
    MAX_RATE,
    DilationSchedule,
    Gridding,
    coprime,
    first_largest,
    lattice_share,
    padding_share,
    parse_branches,
    split_layers,
    widened,
)
from hdc.schedules import parse as parse_rates

MAX_PIXELS = 2**24  # of a map of path counts
_MAX_RIPPLE_RATE = 1024  # with larger ones the ripple takes seconds
_LEAST = 1e-150


@dataclass(frozen=True, eq=False)
class PathCounts:
    """How many paths lead from one output to each input pixel.

    Attributes:
        counts: `[h, w]`, one axis for signals, three for volumes. Not negative, up to a common factor. The
            array is the receptive field: the smallest box that contains every count above zero.
        origin: the input pixel of `counts[0, 0]`; negative if it lies outside the map.

    Example:
        >>> paths = PathCounts.of_layers([[0, 6, 12]], kernel_size=3)
        >>> paths.size, paths.gap_free, paths.first_hole
        ((25, 25), False, (0, 1))
    """

    counts: np.ndarray
    origin: tuple[int, ...]

    @classmethod
    def of(cls, counts: np.ndarray, origin: Sequence[int]) -> "PathCounts":
        """Crop counts to their receptive field and divide them by the number of all paths.

        Raises:
            ValueError: if all counts are zero.
        """
        if not counts.any():
            raise ValueError("all counts are zero")
        places = [np.flatnonzero(counts.any(axis=_others(counts.ndim, axis))) for axis in range(counts.ndim)]
        box = tuple(slice(int(found[0]), int(found[-1]) + 1) for found in places)
        corner = tuple(int(start) + cut.start for start, cut in zip(origin, box, strict=True))
        return cls(counts[box] / counts.sum(), corner)

    @classmethod
    def of_layers(cls, layers: Iterable[Sequence[int]], kernel_size: int, axes: int = 2) -> "PathCounts":
        """The counts of layers that consist of parallel branches, added or concatenated.

        Args:
            layers: for each layer the rates of its branches; 0 is a 1x1 convolution or a shortcut.
            kernel_size: taps per axis.
            axes: 1 for signals, 2 for images.
        """
        counts, reach = np.ones((1,) * axes), 0
        for rates in layers:
            before = (kernel_size - 1) * max(rates) // 2  # where SAME puts an even kernel
            after = (kernel_size - 1) * max(rates) - before
            total = np.zeros([length + before + after for length in counts.shape])
            for rate in rates:
                branch = counts
                for axis in range(axes if rate else 0):  # a 1x1 convolution has one tap
                    branch = widened(branch, rate, kernel_size, axis)
                # All branches of a layer have the same centre.
                low = before - (kernel_size - 1) * rate // 2
                total[tuple(slice(low, low + length) for length in branch.shape)] += branch
            counts, reach = total, reach + before
        return cls.of(counts, (-reach,) * axes)

    @property
    def size(self) -> tuple[int, ...]:
        """The receptive field, in pixels per axis."""
        return self.counts.shape

    @cached_property
    def seen(self) -> np.ndarray:
        """Boolean mask of the field's pixels that at least one path reaches."""
        return self.counts > 0

    @property
    def holes(self) -> np.ndarray:
        """Boolean mask of the field's pixels that no path reaches."""
        return ~self.seen

    @property
    def gap_free(self) -> bool:
        """Whether every pixel of the field is seen."""
        return bool(self.seen.all())

    @property
    def first_hole(self) -> tuple[int, ...] | None:
        """The first hole, row by row from the field's corner; None if there is no hole."""
        if self.gap_free:
            return None
        return tuple(int(i) for i in np.unravel_index(int(np.argmax(self.holes)), self.size))

    @property
    def coverage(self) -> float:
        """The share of the field's pixels that is seen."""
        return float(self.seen.mean())

    def along(self, axis: int) -> np.ndarray:
        """The counts summed over the other axes."""
        return self.counts.sum(axis=_others(self.counts.ndim, axis))

    def axis_coverage(self, axis: int) -> float:
        """The share of the positions along `axis` at which at least one pixel is seen."""
        return float(np.mean(self.along(axis) > 0))

    def effective_width(self, axis: int) -> float:
        """sigma, the standard deviation of the path counts along `axis`, in pixels."""
        weights, position = self.along(axis), np.arange(self.size[axis])
        mean = np.average(position, weights=weights)
        return math.sqrt(np.average((position - mean) ** 2, weights=weights))

    def neighbour_overlap(self, axis: int, shift: int = 1) -> float:
        """Jaccard index of what two outputs see if their fields lie `shift` pixels apart along `axis`."""
        seen = np.moveaxis(self.seen, axis, 0)
        shared = np.count_nonzero(seen[shift:] & seen[: max(0, len(seen) - shift)])
        return float(shared / (2 * np.count_nonzero(seen) - shared))

    def gridding(self, max_period: int) -> Gridding:
        """Gridding index G: the strongest periodic ripple in the counts along any axis.

        The same as `DilationSchedule.gridding`: the largest |sum_x p(x) e^(-2 pi i f x)| / sum p, where p
        are the counts along an axis and f = m/q with gcd(m, q) = 1 and 2 <= q <= max_period.

        Args:
            max_period: the largest distance between neighbouring taps of a layer, in input pixels.
        """
        best, frequency = 0.0, None
        lines = [self.along(axis) for axis in range(self.counts.ndim)]
        for period in range(2, max_period + 1):
            numerators = coprime(period)
            for line in lines:
                # Only the position within the period matters, so folding loses nothing at m/q.
                folded = np.bincount(np.arange(len(line)) % period, weights=line, minlength=period)
                # Divided by the sum of the folded counts, so that a comb has an index of exactly 1.
                ripple = np.abs(np.fft.rfft(folded))[numerators] / folded.sum()
                peak = first_largest(ripple)
                if ripple[peak] > best + 1e-12:
                    best, frequency = float(ripple[peak]), int(numerators[peak]) / period
        return Gridding(min(best, 1.0), frequency)


def _others(axes: int, axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(axes) if other != axis)


@dataclass(frozen=True)
class RuleVerdict:
    """What the rule of Wang et al. 2018 says of a field. All values are None for branches: it has no answer.

    Attributes:
        m2: M_2 of the recursion, the larger one of the two axes; None for a single layer.
        accepts: whether the rule says that there are no holes.
        agrees: whether the rule is right.
    """

    m2: int | None
    accepts: bool | None
    agrees: bool | None


class StemLayer(NamedTuple):
    """A convolution or pooling before the rates: taps per axis, stride, and pixels between its taps."""

    kernel_size: int
    stride: int
    spacing: int


class Field(ABC):
    """What a schedule sees. A value per axis has one entry if `same_axes`, else (height, width).

    Attributes:
        name: the schedule's label, or the name of a published network.
        kernel_size: taps per axis.
        causal: whether all padding lies before the map.
        stem: the layers before the rates that count in the field.
    """

    name: str
    kernel_size: int
    causal: bool
    stem: "tuple[StemLayer, ...]" = ()

    @property
    @abstractmethod
    def rates(self) -> list[Any]:
        """One entry per layer: a rate, a pair (height, width), or the list of its branches' rates."""

    @property
    @abstractmethod
    def rates_text(self) -> str:
        """The rates on one line, repeats shortened: `1,2,5`, `2 x (1,2,5)`, `1x2,2x2`, `(0|6),(0|12)`."""

    @property
    @abstractmethod
    def chains(self) -> list[list[list[tuple[str, int]]]]:
        """For each axis its chains of layers, each layer with its name and rate.

        A layer of a chain reads what the layer before it wrote; each of several branches is its own chain.
        """

    @cached_property
    @abstractmethod
    def paths(self) -> PathCounts:
        """The path counts, `[h, w]`, or `[length]` for signals, as shares of all paths."""

    @abstractmethod
    def padding(self, size: int) -> list[float]:
        """For each layer the share of its taps that fall into the padding, on maps `size` pixels a side."""

    @property
    def dimensions(self) -> int:
        """1 for signals, 2 for images."""
        return len(self.chains)

    @property
    def is_stack(self) -> bool:
        """Whether every layer reads the one before it through one kernel: no branches, no 1x1 convolution."""
        return True

    @property
    def same_axes(self) -> bool:
        """Whether all axes have the same rates, so that one value holds for all of them."""
        return self.chains[0] == self.chains[-1]

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(self.rates)

    def along(self, axis: int) -> np.ndarray:
        """The path counts along one axis, as shares: exactly 0 in holes, above 0 elsewhere."""
        return self.paths.along(axis)

    @property
    def receptive_field(self) -> tuple[int, ...]:
        """Pixels, per axis."""
        return tuple(len(self.along(axis)) for axis in self._distinct)

    @property
    def coverage(self) -> tuple[float, ...]:
        """The share of the positions that is seen, per axis."""
        return tuple(float(np.mean(self.along(axis) > 0)) for axis in self._distinct)

    @property
    def seen(self) -> float:
        """The share of the field's pixels that is seen."""
        return self.paths.coverage

    @property
    def coverage_2d(self) -> float | None:
        """The share of an image's pixels that is seen; None for signals."""
        return None if self.dimensions == 1 else self.seen

    @property
    def gap_free(self) -> bool:
        """Whether every pixel of the field is seen."""
        return self.paths.gap_free

    @property
    def first_hole(self) -> tuple[int, ...] | None:
        """The first hole, row by row from the field's corner; None if there is none.

        Of a stack with the same rates on both axes, one number: the offset along either axis.
        """
        return self.paths.first_hole

    @cached_property
    def gridding(self) -> Gridding:
        """The gridding index, of the axis where it is larger."""
        return self.paths.gridding(max(itertools.chain(*self._rates_along), default=1))

    def predicted_ripple(self, stem: bool = True) -> PredictedRipple | None:
        """The ripple to be expected of the trained network, of the axis where it is larger.

        None for parallel branches, a 1x1 convolution or a shortcut among them, after strides and for rates
        above 1024, of which it says nothing. For signals it was not tried.

        Args:
            stem: whether a 3x3 convolution comes first, as in `net=context`, where the field has no stem.
        """
        if not self.is_stack or any(layer.stride > 1 for layer in self.stem):
            return None
        first = [(layer.kernel_size, 1) for layer in self.stem] or ([STEM] if stem else [])
        stacks = [[*first, *((self.kernel_size, rate) for _, rate in chains[0])] for chains in self.chains]
        if any(rate > _MAX_RIPPLE_RATE for stack in stacks for _, rate in stack):
            return None
        found = max((predict(stack) for stack in stacks[: len(self._distinct)]), key=lambda one: one.db)
        return replace(found, tried=False) if self.dimensions == 1 else found

    @property
    def lattice_share(self) -> tuple[float, int | None] | None:
        """`hdc.schedules.lattice_share` of the axis where it is larger; None for parallel branches."""
        if not self.is_stack:
            return None
        return max(
            (lattice_share([rate for _, rate in chains[0]]) for chains in self.chains), key=itemgetter(0)
        )

    @property
    def effective_width(self) -> tuple[float, ...]:
        """sigma, the standard deviation of the path counts in pixels, per axis."""
        return tuple(map(self.paths.effective_width, self._distinct))

    @property
    def neighbour_overlap(self) -> tuple[float, ...]:
        """Jaccard index of what two outputs see that are neighbours along an axis, per axis."""
        return tuple(map(self.paths.neighbour_overlap, self._distinct))

    @property
    def common_factor(self) -> tuple[int, ...]:
        """Greatest common divisor of the rates, per axis."""
        return tuple(math.gcd(*self._rates_along[axis]) for axis in self._distinct)

    @property
    def rule(self) -> RuleVerdict:
        """What the rule of Wang et al. 2018 says, and whether it is right."""
        return RuleVerdict(None, None, None)

    def to_dict(self, stem: bool = True) -> dict[str, Any]:
        """The values for JSON. A value per axis is a number if the axes are the same, else a list.

        `stem` is `predicted_ripple`'s.
        """
        ripple = self.predicted_ripple(stem)

        def plain(values: Sequence[Any] | None) -> Any:
            return values if values is None else values[0] if len(values) == 1 else list(values)

        stem_layers = [[layer.kernel_size, layer.stride] for layer in self.stem]
        return {
            "rates": self.rates,
            "kernel_size": self.kernel_size,
            **({"stem": stem_layers} if self.stem else {}),
            "receptive_field": plain(self.receptive_field),
            "coverage": plain(self.coverage),
            "coverage_2d": self.coverage_2d,
            "gap_free": self.gap_free,
            "first_hole": plain(self.first_hole),
            "gridding": self.gridding.index,
            "gridding_frequency": self.gridding.frequency,
            "ripple": None if ripple is None else ripple.db,
            "ripple_frequency": None if ripple is None else ripple.frequency,
            "lattice_share": None if self.lattice_share is None else self.lattice_share[0],
            "sigma": plain(self.effective_width),
            "neighbour_overlap": plain(self.neighbour_overlap),
            "common_factor": plain(self.common_factor),
            "hdc_rule": asdict(self.rule),
        }

    @property
    def _distinct(self) -> range:
        """The axes that values per axis are given for."""
        return range(1 if self.same_axes else self.dimensions)

    @property
    def _rates_along(self) -> list[list[int]]:
        """For each axis the rates of all its layers and branches."""
        return [[rate for _, rate in itertools.chain(*chains)] for chains in self.chains]


@dataclass(frozen=True)
class Stack(Field):
    """A stack of dilated convolutions: all values come from closed forms.

    Args:
        axes: one schedule for signals, two for images (height, width), equally long.
        name: the label of the rates by default.
        causal: whether all padding lies before the map.

    Raises:
        InputError: if the axes differ in their number of layers or in their kernel size.

    Example:
        >>> field = Stack.parse("2,2,2")
        >>> field.receptive_field, field.gap_free, round(field.seen, 3)
        ((13,), False, 0.29)
        >>> Stack.parse("1x2,2x2").first_hole
        (0, 1)
    """

    axes: tuple[DilationSchedule, ...]
    name: str = ""
    causal: bool = False
    kernel_size: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.axes) not in (1, 2) or len({(len(axis), axis.kernel_size) for axis in self.axes}) != 1:
            raise InputError(
                "a stack needs one schedule for signals or two for images, with the same number of layers "
                f"and the same kernel size, got {', '.join(axis.label for axis in self.axes) or 'none'}"
            )
        object.__setattr__(self, "kernel_size", self.axes[0].kernel_size)
        if not self.name:
            label = self.axes[0].label if self.same_axes else "-".join(self._layer_texts)
            object.__setattr__(self, "name", label)

    @classmethod
    def parse(cls, text: str, kernel_size: int = 3, axes: int = 2) -> "Stack":
        """The stack of a schedule as it is typed; see `hdc.schedules.parse`."""
        return cls(parse_rates(text, kernel_size, axes))

    @property
    def rates(self) -> list[Any]:
        by_layer = zip(*(axis.layer_rates for axis in self.axes), strict=True)
        return list(self.axes[0].layer_rates) if self.same_axes else [list(rates) for rates in by_layer]

    @property
    def _layer_texts(self) -> list[str]:
        return ["x".join(map(str, rates)) for rates in self.rates]

    @property
    def rates_text(self) -> str:
        if not self.same_axes:
            return _shortened(self._layer_texts)
        rates, repeat = ",".join(map(str, self.axes[0].rates)), self.axes[0].repeat
        return rates if repeat == 1 else f"{repeat} x ({rates})"

    @property
    def chains(self) -> list[list[list[tuple[str, int]]]]:
        return [[[(f"layer {n}", rate) for n, rate in enumerate(axis.layer_rates, 1)]] for axis in self.axes]

    @cached_property
    def paths(self) -> PathCounts:
        pixels = math.prod(axis.receptive_field for axis in self.axes)
        if pixels > MAX_PIXELS:
            raise InputError(f"the field of {self.name} has {pixels} pixels, a map has at most {MAX_PIXELS}")
        counts = math.prod(np.ix_(*map(_shares, self.axes)), start=np.ones((1,) * len(self.axes)))
        return PathCounts(counts, (0,) * len(self.axes))

    def padding(self, size: int) -> list[float]:
        def lost(rates: Sequence[int]) -> float:
            shares = (padding_share(rate, self.kernel_size, [size], self.causal) for rate in rates)
            return 1 - math.prod(1 - share for share in shares)

        return list(map(lost, zip(*(axis.layer_rates for axis in self.axes), strict=True)))

    def along(self, axis: int) -> np.ndarray:
        return _shares(self.axes[axis])

    @property
    def seen(self) -> float:
        return math.prod(axis.coverage for axis in self.axes)

    @property
    def gap_free(self) -> bool:
        return all(axis.gap_free for axis in self.axes)

    @property
    def first_hole(self) -> tuple[int, ...] | None:
        *before, last = (axis.first_hole for axis in self.axes)
        if self.same_axes:
            return None if last is None else (last,)
        if last is not None:
            return 0, last
        return None if before[0] is None else (before[0], 0)

    @cached_property
    def gridding(self) -> Gridding:
        found = (self.axes[axis].gridding for axis in self._distinct)
        return max(found, key=lambda gridding: gridding.index)

    @property
    def effective_width(self) -> tuple[float, ...]:
        return tuple(self.axes[axis].effective_width for axis in self._distinct)

    @property
    def neighbour_overlap(self) -> tuple[float, ...]:
        return tuple(self.axes[axis].neighbour_overlap for axis in self._distinct)

    @property
    def rule(self) -> RuleVerdict:
        rules = [axis.hdc_rule for axis in self.axes]
        accepts = all(rule.accepts for rule in rules)
        largest = max((rule.m2 for rule in rules if rule.m2 is not None), default=None)
        return RuleVerdict(largest, accepts, accepts == self.gap_free)


@dataclass(frozen=True)
class Branches(Field):
    """Layers with parallel branches, with the same rates on all axes.

    Args:
        branches: for each layer the rates of its branches; 0 is a 1x1 convolution or a shortcut.
        name: the rates by default.
        kernel_size: taps per axis.
        causal: whether all padding lies before the map.
        axes: 1 for signals, 2 for images.

    Raises:
        InputError: if there is no layer or a layer without a branch, a rate or the kernel size is out of
            range, or the field has more than `MAX_PIXELS` pixels.

    Example:
        >>> field = Branches(((0, 6, 12),))
        >>> field.name, field.receptive_field, field.first_hole
        ('(0|6|12)', (25,), (0, 1))
    """

    branches: tuple[tuple[int, ...], ...]
    name: str = ""
    kernel_size: int = 3
    causal: bool = False
    axes: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.rates_text)
        if self.kernel_size < 2:
            raise InputError(f"kernel_size must be an integer of at least 2, got {self.kernel_size}")
        if not 1 <= len(self.branches) <= MAX_LAYERS or not all(self.branches):
            raise InputError(
                f"branches must be 1 to {MAX_LAYERS} layers of at least one rate each, got {self.name}"
            )
        largest = max(map(max, self.branches))
        if largest > MAX_RATE or min(map(min, self.branches)) < 0:
            raise InputError(f"the rates of branches must be from 0 to {MAX_RATE}, got {self.name}")
        side = 1 + (self.kernel_size - 1) * sum(map(max, self.branches))
        if side**self.axes > MAX_PIXELS:
            raise InputError(
                f"the field of {self.name} is {side} px wide, a map has at most {MAX_PIXELS} pixels"
            )

    @property
    def rates(self) -> list[Any]:
        return [list(layer) for layer in self.branches]

    @property
    def rates_text(self) -> str:
        texts = ("|".join(map(str, layer)) for layer in self.branches)
        return _shortened(f"({text})" if "|" in text else text for text in texts)

    @property
    def chains(self) -> list[list[list[tuple[str, int]]]]:
        numbered = enumerate(self.branches, 1)
        chains = [[(f"layer {n} at rate {rate}", rate)] for n, rates in numbered for rate in rates if rate]
        return [chains] * self.axes

    @property
    def is_stack(self) -> bool:
        return len(self.branches) == len(self.branches[0]) == 1 and self.branches[0][0] > 0

    @cached_property
    def paths(self) -> PathCounts:
        return PathCounts.of_layers(self.branches, self.kernel_size, self.axes)

    def padding(self, size: int) -> list[float]:
        # A branch of rate 0 has a single tap, which is always on the map.
        taps = [[self.kernel_size**self.axes if rate else 1 for rate in layer] for layer in self.branches]
        shares = [
            [padding_share(rate, self.kernel_size, [size] * self.axes, self.causal) for rate in layer]
            for layer in self.branches
        ]
        return [float(np.average(a, weights=b)) for a, b in zip(shares, taps, strict=True)]


@dataclass(frozen=True)
class Stemmed(Field):
    """A schedule after the first layers of a network, which count in what it sees.

    Args:
        field: the schedule; its rates are on the map that the stem writes.
        stem: taps per axis and stride of each layer.

    Raises:
        InputError: if a stem's layer has less than one tap, a stride above its taps, or the field more than
            `MAX_PIXELS` pixels.

    Example:
        A ResNet's stem of stride 4 fills the holes between taps of two of its pixels:

        >>> Stack.parse("2,2").gap_free, Stemmed.of(Stack.parse("2,2"), [(7, 2), (3, 2)]).gap_free
        (False, True)
    """

    field: Field
    stem: tuple[StemLayer, ...]

    @classmethod
    def of(cls, field: Field, stem: Iterable[tuple[int, int]]) -> "Stemmed":
        """From the taps and the stride of each layer of the stem."""
        layers, spacing = [], 1
        for taps, stride in stem:
            if not 1 <= stride <= taps:
                raise InputError(
                    f"each layer of the stem needs a stride from 1 to its number of taps, got {taps}/{stride}"
                )
            layers.append(StemLayer(taps, stride, spacing))
            spacing *= stride
        return cls(field, tuple(layers))

    def __post_init__(self) -> None:
        names = [f"{one.kernel_size}/{one.stride}" for one in self.stem]
        object.__setattr__(self, "name", f"{self.field.name} after {','.join(names)}")
        object.__setattr__(self, "kernel_size", self.field.kernel_size)
        object.__setattr__(self, "causal", self.field.causal)
        sides = [self.stem_field + self.spacing * (side - 1) for side in self.field.paths.size]
        if math.prod(sides) > MAX_PIXELS:
            raise InputError(
                f"the field of {self.name} has {math.prod(sides)} pixels, a map has at most {MAX_PIXELS}"
            )

    @property
    def spacing(self) -> int:
        """Pixels between neighbouring positions of the map that the rates are on."""
        return math.prod(layer.stride for layer in self.stem)

    @property
    def stem_field(self) -> int:
        """The receptive field of the stem alone, in pixels per axis."""
        return 1 + sum((layer.kernel_size - 1) * layer.spacing for layer in self.stem)

    @property
    def rates(self) -> list[Any]:
        return self.field.rates

    @property
    def rates_text(self) -> str:
        return self.field.rates_text

    @property
    def chains(self) -> list[list[list[tuple[str, int]]]]:
        return self.field.chains

    @property
    def is_stack(self) -> bool:
        return self.field.is_stack

    @cached_property
    def paths(self) -> PathCounts:
        counts = self.field.paths.counts
        for axis in range(counts.ndim):
            lines = np.moveaxis(counts, axis, 0)
            apart = np.zeros(((len(lines) - 1) * self.spacing + 1, *lines.shape[1:]))
            apart[:: self.spacing] = lines
            counts = np.moveaxis(apart, 0, axis)
            for layer in self.stem:
                counts = widened(counts, layer.spacing, layer.kernel_size, axis)
        return PathCounts.of(counts, (0,) * counts.ndim)

    def padding(self, size: int) -> list[float]:
        return self.field.padding(size)

    @cached_property
    def gridding(self) -> Gridding:
        largest = max(itertools.chain(*self._rates_along), default=1) * self.spacing
        return self.paths.gridding(max(largest, *(layer.spacing for layer in self.stem)))

    @property
    def neighbour_overlap(self) -> tuple[float, ...]:
        return tuple(self.paths.neighbour_overlap(axis, self.spacing) for axis in self._distinct)

    @property
    def rule(self) -> RuleVerdict:
        rule = self.field.rule
        return rule if rule.accepts is None else replace(rule, agrees=rule.accepts == self.gap_free)


def parse(text: str, kernel_size: int = 3, axes: int = 2) -> Field:
    """A schedule as it is typed: a stack as `hdc.schedules.parse` reads it, or one with parallel branches.

    >>> parse("1,2,5").name, parse("1,[0,6,12]").name
    ('1-2-5', '1,(0|6|12)')

    Raises:
        InputError: if the text is neither, or a number in it is out of range.
    """
    branches = parse_branches(text)
    if branches is None:
        rates = split_layers(text)
        if "0" in rates and text.strip().startswith("["):
            raise InputError(
                f"rates {text.strip()[:40]!r}: rate 0 is for one of several parallel branches, a 1x1 "
                f"convolution or a shortcut; for one layer of such branches write [[{','.join(rates)[:40]}]]"
            )
        return Stack.parse(text, kernel_size, axes)
    return Branches(branches, kernel_size=kernel_size, axes=axes)


def parse_stem(text: str) -> list[tuple[int, int]]:
    """Taps and stride of each layer of a stem as it is typed.

    >>> parse_stem("7/2,3/2"), parse_stem("3")
    ([(7, 2), (3, 2)], [(3, 1)])

    Raises:
        InputError: if the text is something else, or a number in it has more than four digits.
    """
    found = []
    for part in text.split(","):
        taps, _, stride = part.strip().partition("/")
        numbers = (taps, stride or "1")
        if not all(number.isascii() and number.isdecimal() and len(number) <= 4 for number in numbers):
            raise InputError(
                f"stem {text[:40]!r}: {part.strip()[:40]!r} is not taps, or taps/stride; write 3, or 7/2,3/2"
            )
        found.append((int(taps), int(numbers[1])))
    return found


def _shortened(layers: Iterable[str]) -> str:
    """The layers joined by commas; more than two equal ones in a row as `3 x 1x2`."""
    parts = []
    for text, run in itertools.groupby(layers):
        times = len(list(run))
        parts += [f"{times} x {text}"] if times > 2 else [text] * times
    return ",".join(parts)


def _shares(schedule: DilationSchedule) -> np.ndarray:
    """The path counts as shares of all paths.

    A share too small for a double is raised to a value above zero whose square is still above zero.
    """
    counts = schedule.path_counts
    shares = (counts / schedule.kernel_size ** len(schedule)).astype(np.float64)
    return np.where(counts > 0, np.maximum(shares, _LEAST), 0.0)
