"""Better dilation rates for the layers of a model: `hdc.advise`."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

from flax import nnx
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hdc.errors import InputError
from hdc.gridding import expected_ripple
from hdc.rates import changeable, replace_rates
from hdc.receptive import Analysis, analyse
from hdc.receptive.layers import Layer
from hdc.receptive.outputs import Output
from hdc.ripple import SPREAD_DB, predict
from hdc.schedules import MAX_FIELD, MAX_LAYERS, MAX_RATE, padding_share
from hdc.search import WORK, Target, best, best_order, count, work

_WORK = WORK / 100  # the most `work` of a search, so that the answer comes in seconds
_FEW = 3  # schedules of a group that are put into the model
_POOL = 200  # from which these are taken
_TOO_MANY = "{} layers have too many schedules of this field to search all"


@dataclass(frozen=True, repr=False, eq=False)
class Option:
    """The rates of a group of layers: those that it has, or others.

    Attributes:
        rates: of every layer of the group, in order.
        change: what to give `hdc.replace_rates`: the layers whose rates differ, by name.
        predicted: the ripple in dB that `hdc.ripple` predicts of the group's layers alone.
        seen: what the model with these rates sees, analysed.
        last: the last layer of the group in that analysis, and what it sees.
        simulated: the expected ripple of the whole model with these rates, in dB; None if not asked for.
    """

    rates: tuple[int, ...]
    change: Mapping[str, int]
    predicted: float
    seen: Analysis
    last: Layer
    simulated: float | None = None

    def is_better(self, other: "Option") -> bool:
        """Whether it sees more than another, or as much with less ripple, by more than `SPREAD_DB`."""
        if self.coverage != other.coverage:
            return self.coverage > other.coverage
        return self.ripple < other.ripple - SPREAD_DB

    @property
    def coverage(self) -> tuple[float, float]:
        """The shares of the receptive field that the model's output sees, and that the last layer sees."""
        return self.seen.coverage, self.last.coverage

    @property
    def ripple(self) -> float:
        """The simulated ripple, or the predicted one; 0 dB for less, which is no gridding."""
        return _audible(self.predicted if self.simulated is None else self.simulated)


@dataclass(frozen=True, repr=False, eq=False)
class Advice:
    """Better rates for one group of layers, which follow one another on maps of one stride.

    Attributes:
        layers: their names, in order.
        kernel_size: taps per axis of each.
        now: the rates that they have.
        better: other rates at the same receptive field of the model, the best first; () if nothing is better.
        note: why no or fewer schedules were looked at, or "".
    """

    layers: tuple[str, ...]
    kernel_size: int
    now: Option
    better: tuple[Option, ...]
    note: str = ""


@dataclass(frozen=True, repr=False, eq=False)
class Advised:
    """What `advise` found. `print` it.

    Attributes:
        before: the analysis of the model as it is.
        groups: for each group of layers with dilation what is better.
        left: dilated layers that no suggestion is made for.
        change: what to give `hdc.replace_rates` for the best rates of all groups together, or of the first
            one if together they lose something; {} if nothing is better.
        after: the analysis of the model with this change.
    """

    before: Analysis
    groups: tuple[Advice, ...]
    left: tuple[str, ...]
    change: Mapping[str, int]
    after: Analysis

    def __rich__(self) -> RenderableType:
        before = self.before
        parts: list[RenderableType] = [
            Text(
                f"{before.model}: receptive field {_times(before.size)} px, {before.parameters:,} parameters"
            )
        ]
        for group in self.groups:
            parts += _shown(group)
        if not self.groups:
            parts.append(Text("there are no dilated layers in sequence whose rates hdc can change"))
        if self.left:
            names = ", ".join(self.left)
            parts.append(Text(f"\nleft as they are, alone or in parallel branches: {names}"))
        if self.change:
            change = ", ".join(f'"{name}": {rate}' for name, rate in self.change.items())
            parts.append(Text(f"\nmodel = hdc.replace_rates(model, {{{change}}})"))
        return Group(*parts)

    def __repr__(self) -> str:
        console = Console(width=160, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())


def advise(
    model: nnx.Module,
    input_shape: Sequence[int],
    *,
    simulate: bool = False,
    call: Mapping[str, Any] | None = None,
    output: Output = None,
    spatial: Sequence[int] | None = None,
) -> Advised:
    """Better dilation rates and orders for the layers of a model, at the same receptive field and cost.

    It looks at groups of stride-1 layers in sequence, of one kernel size and on maps of one stride, whose
    rates `hdc.replace_rates` can change. `hdc.search` finds the best order of the rates that they have, and
    gap-free rates of the same field. A few with the least predicted ripple are put into the model, which is
    analysed again: what is suggested keeps its field, output and parameters, sees no less, and is better.

    Example:
        >>> import hdc
        >>> schedule = hdc.DilationSchedule([2, 2, 2])
        >>> model = hdc.ContextNetwork(schedule, in_channels=3, classes=6, task="dense", rngs=nnx.Rngs(0))
        >>> found = advise(model, (1, 64, 64, 3))
        >>> found.groups[0].better[0].rates, found.change
        ((1, 3, 2, 1), {'blocks.0.conv': 3, 'blocks.2.conv': 1})

    Args:
        model: a Flax NNX module.
        input_shape: as `analyse` takes it.
        simulate: whether to predict ripples by simulating the whole model as well (`hdc.expected_ripple`),
            which takes seconds to minutes for each schedule and needs values. Otherwise they are those of
            the group's layers alone, by `hdc.ripple`.
        call, output, spatial: as `analyse` takes them; `simulate` takes none of them.

    Raises:
        InputError: as `analyse`, and `expected_ripple` if `simulate`.
    """
    if not isinstance(model, nnx.Module):
        raise InputError(
            f"advise takes a Flax NNX module, whose rates it can change, got {type(model).__name__}"
        )
    given = {"call": call, "output": output, "spatial": spatial}
    if simulate and (names := [f"{name}=" for name, value in given.items() if value is not None]):
        raise InputError(
            f"simulate=True simulates the model called with an image alone, without {', '.join(names)}"
        )
    look = partial(analyse, input_shape=input_shape, **given)
    before = look(model)
    shape = tuple(input_shape)
    known = changeable(model)
    ripple = expected_ripple(model, shape[1:]).peak if simulate else None
    groups, used = [], set[str]()
    for group in _groups(before, known):
        used |= {layer.name for layer in group}
        groups.append(_advice(model, shape, before, group, ripple, look))
    left = [
        layer.name
        for layer in before.layers
        if layer.name not in used and max(layer.rate) > 1 and not layer.kind.endswith("pool")
    ]
    change, after = {}, before
    for group in groups:
        if group.better:
            more = {**change, **group.better[0].change}
            seen = look(replace_rates(model, more)) if change else group.better[0].seen
            if _keeps(before, seen):
                change, after = more, seen
    return Advised(before, tuple(groups), tuple(left), change, after)


def _groups(analysis: Analysis, known: Mapping[str, Sequence[int]]) -> Iterator[list[Layer]]:
    again = {layer.name.partition(" (")[0] for layer in analysis.layers if " (" in layer.name}

    def fits(layer: Layer) -> bool:
        return (
            layer.name in known
            and layer.name not in again
            and "conv" in layer.kind
            and set(layer.strides) == {1}
            and len({*layer.kernel}) == len({*layer.rate}) == 1
        )

    for chain in analysis.chains:
        for _, some in groupby(filter(fits, chain), key=lambda layer: (layer.kernel, layer.input_stride)):
            group = list(some)
            if len(group) > 1 and max(max(layer.rate) for layer in group) > 1:
                yield group


def _advice(
    model: nnx.Module,
    shape: tuple[int, ...],
    before: Analysis,
    group: Sequence[Layer],
    ripple: float | None,
    look: Callable[[nnx.Module], Analysis],
) -> Advice:
    taps, rates = group[0].kernel[0], tuple(layer.rate[0] for layer in group)
    names = tuple(layer.name for layer in group)
    now = Option(rates, {}, _predicted(rates, taps), before, group[-1], ripple)
    candidates, note = _candidates(rates, taps, _largest_rate(group))
    found = []
    for other in _ranked(now, {one: _predicted(one, taps) for one in candidates})[:_FEW]:
        change = {name: new for name, old, new in zip(names, rates, other, strict=True) if new != old}
        try:
            changed = replace_rates(model, change)
            seen = look(changed)
        except InputError as error:  # padding that does not scale, or a map that gets too small
            note = note or str(error)
            continue
        last = next(layer for layer in seen.layers if layer.name == names[-1])
        option = Option(other, change, _predicted(other, taps), seen, last)
        if not _keeps(before, seen):
            continue
        if ripple is not None:
            option = replace(option, simulated=expected_ripple(changed, shape[1:]).peak)
        found.append(option)
    better = [option for option in found if option.is_better(now)]
    order = _ranked(now, {option.rates: option.ripple for option in better})
    better.sort(key=lambda one: (*(-share for share in one.coverage), order.index(one.rates)))
    return Advice(names, taps, now, tuple(better), note)


def _ranked(now: Option, ripples: Mapping[tuple[int, ...], float]) -> list[tuple[int, ...]]:
    """Rates, the best first.

    Of those that the ripple cannot tell apart, first the one whose largest rate is the smallest, since it
    loses the fewest taps to the padding, then the one that changes the fewest layers.
    """
    least = min(map(_audible, ripples.values()), default=0.0)

    def rank(rates: tuple[int, ...]) -> tuple[bool, float, int, int, float, tuple[int, ...]]:
        ripple = _audible(ripples[rates])
        changes = sum(old != new for old, new in zip(now.rates, rates, strict=True))
        no_less = ripple >= now.ripple - SPREAD_DB
        return no_less, (ripple - least) // SPREAD_DB, max(rates), changes, ripple, rates

    return sorted(ripples, key=rank)


def _audible(ripple: float) -> float:
    """0 dB and below is no gridding."""
    return max(0.0, ripple)


def _candidates(rates: tuple[int, ...], taps: int, max_rate: int) -> tuple[set[tuple[int, ...]], str]:
    """Other rates of the same field, for all layers and for those from the first dilated one on."""
    found: set[tuple[int, ...]] = set()
    note = ""
    first = next(place for place, rate in enumerate(rates) if rate > 1)
    for kept in {0, first}:
        some = rates[kept:]
        field = 1 + (taps - 1) * sum(some)
        if len(some) > MAX_LAYERS or field > MAX_FIELD or max(some) > MAX_RATE:
            note = _TOO_MANY.format(len(rates))
            continue
        ordered = best_order(some, taps, stem=kept > 0)
        found |= set() if ordered is None else {rates[:kept] + ordered.rates}
        if field > taps ** len(some):
            powers = tuple(taps**place for place in range(len(some)))
            note = note or (
                f"{len(some)} layers see at most {taps ** len(some)} px per axis without holes, "
                f"with the rates {_times(powers, ',')} in any order; these have {field} px"
            )
            continue
        target = Target(len(some), taps, field=field, max_rate=max_rate)
        candidates = count(target)
        if candidates.number == 0:
            continue
        if not candidates.exact or work(target, _WORK) > _WORK:
            note = _TOO_MANY.format(len(rates))
            continue
        found |= {rates[:kept] + one.rates for one in best(target, _POOL, stem=kept > 0).found}
    return found - {rates}, note


def _largest_rate(group: Sequence[Layer]) -> int:
    """The largest rate that leaves half of a layer's taps on its map, and all apart on circular ones."""

    def fits(layer: Layer) -> int:
        taps, side = layer.kernel[0], min(layer.input_map)
        if any(layer.circular):
            return (side - 1) // (taps - 1)
        if not layer.padded:
            return MAX_RATE

        def lost(rate: int) -> float:
            return padding_share(rate, taps, layer.input_map, any(layer.causal))

        return bisect_right(range(1, MAX_RATE + 1), 0.5, key=lost)

    return max(1, min(map(fits, group)))


def _keeps(before: Analysis, after: Analysis) -> bool:
    """Whether the model sees no less after a change, and its output, field and parameters are the same."""
    same = ("size", "output_shape", "output_stride", "within_edges", "parameters")
    return (
        all(getattr(before, one) == getattr(after, one) for one in same) and after.coverage >= before.coverage
    )


def _predicted(rates: Sequence[int], taps: int) -> float:
    return predict([(taps, rate) for rate in rates]).db


def _shown(group: Advice) -> list[RenderableType]:
    what = f"{group.layers[0]} to {group.layers[-1]}, {len(group.layers)} layers"
    parts: list[RenderableType] = [Text(f"\n{what} of kernel size {group.kernel_size}")]
    if not group.better:
        parts.append(
            Text(f"rates {_times(group.now.rates, ',')}: nothing better was found at the same field")
        )
    else:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        simulated = group.now.simulated is not None
        for head in (
            "rates",
            "seen %",
            "G",
            "ripple",
            *(["simulated"] if simulated else []),
            "padding %",
            "multiply-adds",
        ):
            table.add_column(head, justify="left" if head == "rates" else "right")
        for option in (group.now, *group.better):
            padding = max(layer.padding_share for layer in option.seen.layers)
            table.add_row(
                _times(option.rates, ",") + (" (now)" if option is group.now else ""),
                f"{100 * option.last.coverage:.1f}",
                f"{option.last.gridding.index:.3f}",
                f"{option.predicted:.1f}",
                *([] if option.simulated is None else [f"{option.simulated:.1f}"]),
                f"{100 * padding:.1f}",
                f"{option.seen.multiply_adds:,}",
            )
        said = "" if simulated else "; simulate=True for the whole model's"
        parts += [
            table,
            Text(f"seen, G: what {group.layers[-1]} sees; ripple: dB, predicted from these layers{said}"),
        ]
    if group.note:
        parts.append(Text(group.note))
    return parts


def _times(values: Sequence[object], by: str = "x") -> str:
    return by.join(map(str, values))
