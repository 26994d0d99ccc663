"""Exhaustive search for gap-free dilation schedules. `hdc.search(...)` calls `search`.

What a schedule can see does not depend on the order of its layers, so sets of rates are searched, in
ascending order. A set is gap-free exactly if every rate is at most s + (K - 1) * (sum of the rates before
it). Here s is what the stem sees in one piece, in pixels of the map that the rates are on, and 1 without a
stem: the first rate is then 1. How strong gridding will be in the trained network does depend on the
order: each set comes in the order of the least predicted ripple (`hdc.orders`), and the sets are ranked by
that ripple. The search visits every set that meets the target.

The search never reaches a dead end. From a prefix with `j` layers to come, every sum of rates can be reached
between the smallest completion (the last rate `j` more times) and the largest (each time the largest rate
allowed), because lowering the first of the largest rates by one keeps a schedule ascending and gap-free. For
the same reason every field between the smallest and the largest of a target exists.
"""

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from hdc.errors import InputError
from hdc.fields import Stack, Stemmed
from hdc.orders import Orders, TooManyOrders
from hdc.ripple import SPREAD_DB, STEM, tried
from hdc.schedules import MAX_FIELD, MAX_LAYERS, MAX_RATE, DilationSchedule

LIMIT = 10_000_000  # the most sets of rates that a search visits
WORK = 3e9  # the most `work` that a search does: about half a minute

_MERGED = 2**20  # `count` stops early above LIMIT only if the next layer takes more steps than this
_COUNTED = 10**15  # or if there are more prefixes than this: times MAX_RATE it still fits 64 bits
_CHUNK = 2**18  # rates in memory at a time, at each depth
_FIRST = np.ones((1, 0), dtype=np.int16)  # the prefix of all schedules


@dataclass(frozen=True)
class Target:
    """What to search for: gap-free schedules with a given number of layers.

    Args:
        layers: n, 1 to `MAX_LAYERS`.
        kernel_size: K, taps per axis, at least 2.
        field: receptive field in pixels per axis, up to `MAX_FIELD`; None for any field up to that.
        at_least: whether larger fields, up to `MAX_FIELD`, are accepted as well.
        max_rate: the largest rate allowed, up to `MAX_RATE`; None for no limit of its own.
        stem: taps and stride of the layers before, which count in the field; the rates are on their map.

    Raises:
        InputError: if a value is out of range, a stem's stride is not from 1 to its taps, `at_least` is given
            without a field, or the smallest field of so many layers is larger than `MAX_FIELD`.
    """

    layers: int
    kernel_size: int = 3
    field: int | None = None
    at_least: bool = False
    max_rate: int | None = None
    stem: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        _check("layers", self.layers, 1, MAX_LAYERS)
        _check("kernel_size", self.kernel_size, 2, MAX_FIELD)
        if self.field is not None:
            _check("field", self.field, 1, MAX_FIELD)
        if self.max_rate is not None:
            _check("max_rate", self.max_rate, 1, MAX_RATE)
        if self.at_least and self.field is None:
            raise InputError("at_least needs a field, the smallest that is allowed, got field None")
        Stemmed.of(Stack((DilationSchedule((1,)),)), self.stem)  # checks the stem
        smallest = self.pixels(self.layers)
        if smallest > MAX_FIELD:
            raise InputError(
                f"layers {self.layers} with kernel_size {self.kernel_size} have a receptive field of "
                f"{smallest} pixels or more, at most {MAX_FIELD} are allowed"
            )

    @property
    def spacing(self) -> int:
        """Pixels between neighbouring positions of the map that the rates are on."""
        return math.prod(stride for _, stride in self.stem)

    @property
    def reach(self) -> int:
        """The positions of that map between which the stem leaves no gap: the largest first rate."""
        return self._stem_field // self.spacing

    @property
    def _stem_field(self) -> int:
        field, spacing = 1, 1
        for taps, stride in self.stem:
            field += (taps - 1) * spacing
            spacing *= stride
        return field

    def pixels(self, total: int) -> int:
        """The receptive field of rates of that sum."""
        return self._stem_field + (self.kernel_size - 1) * self.spacing * total

    def largest_sum(self, field: int) -> int:
        """The largest sum of rates whose field is no larger; below 0 if the stem's is."""
        return (field - self._stem_field) // ((self.kernel_size - 1) * self.spacing)


@dataclass(frozen=True)
class Count:
    """The number of schedules: exactly `number` if `exact`, otherwise at least that many."""

    number: int
    exact: bool


@dataclass(frozen=True)
class Found:
    """A gap-free schedule.

    Attributes:
        rates: dilation rates in the best order of the layers, the first one first. In no order does the
            prediction have 0.1 dB less.
        receptive_field: R, pixels per axis.
        ripple: predicted for the trained network, in dB, see `hdc.ripple`; 0 and below is no gridding.
        ascending_ripple: the same for the ascending order: the difference is what the order is worth.
        tried: whether predictions were compared with trained networks like this one.
        gridding: G, the index of `DilationSchedule.gridding`, the same in every order.
        effective_width: sigma = sqrt(sum r_i^2 (K^2 - 1) / 12), pixels.
    """

    rates: tuple[int, ...]
    receptive_field: int
    ripple: float
    ascending_ripple: float
    tried: bool
    gridding: float
    effective_width: float


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
        target: what was searched for.
        stem: whether the ripple is predicted after a 3x3 convolution, as in `net=context`.
        found: best first; of `best_per_field` the best of each field, ascending by field.
        examined: how many gap-free sets of rates meet the target; all of them were considered.
        max_rate: the largest rate considered: the target's, or less if a larger rate would always leave a
            hole or exceed the field.
    """

    target: Target
    stem: bool
    found: tuple[Found, ...]
    examined: int
    max_rate: int


def search(
    layers: int,
    field: int | None = None,
    *,
    kernel_size: int = 3,
    at_least: bool = False,
    max_rate: int | None = None,
    top: int = 10,
    stem: bool | Sequence[tuple[int, int]] = True,
) -> Result:
    """The best gap-free schedules with that many layers: `best`, or without a field `best_per_field`.

    `import hdc` makes it available as `hdc.search(...)`. The arguments are those of `Target` and `best`; a
    `stem` that is a list of layers, taps and stride of each, is the target's and counts in the field.

    Example:
        >>> [found.rates for found in search(layers=3, field=17, top=2).found]
        [(2, 1, 5), (4, 3, 1)]
        >>> [(found.receptive_field, found.rates) for found in search(layers=2).found]
        [(5, (1, 1)), (7, (2, 1)), (9, (3, 1))]

        After a ResNet's stem of stride 4, rates 2 and 2 leave no hole:

        >>> [found.rates for found in search(layers=2, field=43, stem=[(7, 2), (3, 2)]).found]
        [(1, 3), (2, 2)]
    """
    layers_before = () if isinstance(stem, bool) else tuple((int(taps), int(stride)) for taps, stride in stem)
    target = Target(layers, kernel_size, field, at_least, max_rate, layers_before)
    stem = bool(stem)
    return best_per_field(target, stem) if field is None else best(target, top, stem)


def best(target: Target, top: int = 10, stem: bool = True) -> Result:
    """The `top` best gap-free schedules that meet the target. The search is exhaustive.

    Each set of rates comes once, in its best order. Sets whose predicted ripple is less than `SPREAD_DB`
    above the least of all are ties, since the prediction is no more accurate; those less than twice as far
    above it come next, and so on. A ripple below 0 dB counts as 0 dB. Of ties, the largest effective width
    comes first, then the smallest rates.

    Args:
        top: how many.
        stem: whether the ripple is predicted after a 3x3 convolution, as in `net=context`. If the target has
            a stem, it is predicted after that, of one layer of stride 1, or else of the rates alone.

    Raises:
        InputError: if no schedule can meet the target (the message says why), if more than `LIMIT` sets of
            rates do, if the search takes too long, or if `top` is out of range.

    Example:
        >>> result = best(Target(layers=3, field=17), top=1)
        >>> result.found[0].rates, result.examined
        ((2, 1, 5), 2)
    """
    _check("top", top, 1, LIMIT)
    return _search(target, top, stem, per_field=False)


def best_per_field(target: Target, stem: bool = True) -> Result:
    """The best gap-free schedule of each field that the target's layers can have, ascending by field.

    Raises:
        InputError: if the target has a field, if more than `LIMIT` sets of rates meet it, or if the search
            takes too long.
    """
    if target.field is not None:
        raise InputError(f"the best of every field needs a target without a field, got field {target.field}")
    return _search(target, 1, stem, per_field=True)


def count(target: Target) -> Count:
    """Count the gap-free sets of rates that meet the target, without listing them.

    Dynamic programming over (sum of rates, last rate). It stops early only once the count is above `LIMIT`,
    and then gives a lower bound: every prefix leads to at least one schedule.

    Example:
        >>> count(Target(layers=12, field=201))
        Count(number=3900409, exact=True)
    """
    if _impossible(target) is not None:
        return Count(0, exact=True)
    space = _Space(target)
    last, totals, ways = np.array([1]), np.array([0]), np.array([1])
    for remaining in range(target.layers, 0, -1):
        low, choices = space.next_rates(last, totals, remaining)
        prefixes = int(ways @ choices)
        if prefixes > LIMIT and (choices.sum() > _MERGED or prefixes > _COUNTED):
            return Count(prefixes, exact=False)
        parent, rates = _branch(low, choices)
        states, merged = np.unique((totals[parent] + rates) * (MAX_RATE + 1) + rates, return_inverse=True)
        totals, last = np.divmod(states, MAX_RATE + 1)
        prefix_ways, ways = ways[parent], np.zeros(len(states), dtype=np.int64)
        np.add.at(ways, merged, prefix_ways)
    return Count(int(ways.sum()), exact=True)


def work(target: Target, most: float = WORK) -> float:
    """Estimate the cost of a search, in steps of about 10 ns. The sum ends once it is above `most`.

    Args:
        target: a target that can be met.
        most: no more than this is of interest.
    """
    steps = 0.0
    for sets in _Space(target).schedules():
        steps += float(_steps(sets, target.kernel_size).sum())
        if steps > most:
            break
    return steps


def best_order(rates: Sequence[int], kernel_size: int = 3, stem: bool = True) -> Found | None:
    """These rates in their best order, with holes or without; None if the search would take long.

    Raises:
        InputError: as `DilationSchedule`.

    Example:
        >>> best_order((1, 3, 3, 3, 3, 3)).rates
        (3, 3, 3, 3, 3, 1)
    """
    sets = np.sort([DilationSchedule(tuple(rates), kernel_size).rates])
    if _steps(sets, kernel_size)[0] > WORK / 100:
        return None
    try:
        order, ripple, ascending = Orders(kernel_size, STEM.kernel_size if stem else 1).best(sets)
    except TooManyOrders:
        return None
    target = Target(len(sets[0]), kernel_size)
    return _found(order[0], float(ripple[0]), float(ascending[0]), target, STEM.kernel_size if stem else 1)


def _steps(sets: np.ndarray, kernel_size: int) -> np.ndarray:
    """`[m]`: the cost of the best order. It looks at all multisets of the rates, and at all periods."""
    layers, times, multisets = sets.shape[1], np.ones(len(sets)), np.full(len(sets), 2.0)
    for rate, before in zip(sets.T[1:], sets.T, strict=False):
        times = np.where(rate == before, times + 1, 1)
        multisets *= (times + 1) / times
    pixels, largest = 1 + (kernel_size - 1) * sets.sum(axis=1, dtype=float), sets[:, -1].astype(float)
    return multisets * (pixels + 32 * layers) / 2 + largest * pixels + layers * largest**2


class _Space:
    """The ascending gap-free schedules that meet a target; there must be at least one."""

    def __init__(self, target: Target) -> None:
        k = self.kernel_size = target.kernel_size
        self.layers, self.reach = target.layers, target.reach
        largest = MAX_FIELD if target.field is None or target.at_least else target.field
        self.largest_sum = target.largest_sum(largest)
        # In positions of the map: the i-th rate is at most the field before it, which is at most s K^(i-1).
        # The whole field is the field before the last layer + (K - 1) r_n, so it is at least K r_n.
        whole = self.reach + (k - 1) * self.largest_sum
        self.max_rate = min(_allowed_rate(target), self.reach * k ** (target.layers - 1), whole // k)
        self.piece = _CHUNK // max(self.layers, self.max_rate // 16)  # schedules in memory at a time
        # By the number of layers to come: the smallest sum of rates from which they still reach the field.
        self.needed = [target.largest_sum(target.field - 1) + 1 if target.field is not None else 0]
        while len(self.needed) < target.layers:
            after = self.needed[-1]
            self.needed.append(max(after - self.max_rate, -((self.reach - after) // k)))

    def next_rates(
        self, last: np.ndarray, totals: np.ndarray, remaining: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """For each prefix the smallest next rate and the number of choices; each leads to a schedule.

        Args:
            last: `[m]` last rates of the prefixes.
            totals: `[m]` sums of the prefixes' rates.
            remaining: how many rates are still to come.
        """
        low = np.maximum(last, self.needed[remaining - 1] - totals)
        fits = (self.largest_sum - totals) // remaining
        high = np.minimum(self.reach + (self.kernel_size - 1) * totals, fits)
        return low, np.minimum(high, self.max_rate) - low + 1

    def schedules(self, prefixes: np.ndarray = _FIRST) -> Iterator[np.ndarray]:
        """All schedules that start with one of the prefixes `[m, i]`, in pieces `[p, n]`."""
        remaining = self.layers - prefixes.shape[1]
        if remaining == 0:
            yield prefixes
            return
        last = prefixes[:, -1] if prefixes.shape[1] else np.ones(len(prefixes), dtype=np.int64)
        low, choices = self.next_rates(last, prefixes.sum(axis=1), remaining)
        # Depth first and piece by piece, so that memory does not grow with the number of schedules.
        pieces = np.cumsum(choices) // self.piece
        edges = [0, *(np.flatnonzero(np.diff(pieces)) + 1), len(prefixes)]
        for start, stop in itertools.pairwise(edges):
            parent, rates = _branch(low[start:stop], choices[start:stop])
            longer = np.column_stack([prefixes[start:stop][parent], rates.astype(prefixes.dtype)])
            yield from self.schedules(longer)


def _search(target: Target, top: int, stem: bool, *, per_field: bool) -> Result:
    """Visit every set of rates of the target and keep the `top` best, per field or overall."""
    reason = _impossible(target)
    if reason is not None:
        raise InputError(reason)
    size = count(target)
    if size.number > LIMIT or work(target) > WORK:
        raise InputError(_too_many(target, size))
    k, space = target.kernel_size, _Space(target)
    taps = STEM.kernel_size if stem else 1
    if target.stem:
        taps = target.stem[0][0] if len(target.stem) == target.spacing == 1 else 1
    orders = Orders(k, taps)
    try:
        visited = [(rates, *orders.best(rates)) for rates in space.schedules()]
    except TooManyOrders:
        raise InputError(_too_many(target, size)) from None
    sets, ordered, ripples, ascending = (np.concatenate(some) for some in zip(*visited, strict=True))
    fields = sets.sum(axis=1, dtype=np.int64) * per_field
    found = (
        _found(ordered[place], float(ripples[place]), float(ascending[place]), target, taps)
        for place in _leaders(sets, ripples, fields, top)
    )
    return Result(target, stem, tuple(found), len(sets), space.max_rate)


def _found(rates: np.ndarray, ripple: float, ascending: float, target: Target, stem: int) -> Found:
    schedule = DilationSchedule(tuple(rates.tolist()), target.kernel_size)
    field = Stemmed.of(Stack((schedule,)), target.stem) if target.stem else Stack((schedule,))
    return Found(
        schedule.rates,
        target.pixels(sum(schedule.rates)),
        ripple,
        ascending,
        tried([*([(stem, 1)] if stem > 1 else []), *((target.kernel_size, rate) for rate in schedule.rates)]),
        field.gridding.index,
        field.effective_width[0],
    )


def _leaders(rates: np.ndarray, ripples: np.ndarray, groups: np.ndarray, top: int) -> np.ndarray:
    """Find the `top` best sets of each group.

    Args:
        rates: `[m, n]`.
        ripples: `[m]`, dB.
        groups: `[m]` integers.

    Returns:
        Their positions, by group and best first.
    """
    _, group = np.unique(groups, return_inverse=True)
    ripples = np.maximum(ripples, 0)
    least = np.full(group.max() + 1, np.inf)
    np.minimum.at(least, group, ripples)
    steps = (ripples - least[group]) // SPREAD_DB
    squares = (rates.astype(np.int64) ** 2).sum(axis=1)  # orders as the effective width does, and is exact
    order = np.lexsort((*rates.T[::-1], -squares, steps, group))
    place = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    return order[place < top]


def _branch(low: np.ndarray, choices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers from `low[i]` on, `choices[i]` of them: for each the position i, and the number."""
    parent = np.repeat(np.arange(len(low)), choices)
    first = np.cumsum(choices) - choices
    return parent, np.arange(len(parent)) - first[parent] + low[parent]


def _impossible(target: Target) -> str | None:
    """Why no gap-free schedule meets the target; None if at least one does."""
    field, k, n = target.field, target.kernel_size, target.layers
    if field is None:
        return None
    rate = _allowed_rate(target)
    smallest, largest = target.pixels(n), _largest_field(target, n, rate)
    stack = f"of {n} layers with kernel size {k}"
    if target.stem:
        stack += f" after a stem of {target.pixels(0)} px"
    if not target.at_least:
        total = target.largest_sum(field)
        if target.pixels(total) != field:
            around = (target.pixels(total), target.pixels(total + 1))
            near = sorted({min(max(possible, smallest), largest) for possible in around})
            step = f"kernel size - 1 = {k - 1}"
            if target.spacing > 1:
                step = f"(kernel size - 1) x output stride = {(k - 1) * target.spacing}"
            return (
                f"field {field} is not possible: field - {target.pixels(0)} must be a multiple of {step}; "
                f"the nearest {stack} {'is' if len(near) == 1 else 'are'} {' and '.join(map(str, near))}"
            )
        if field < smallest:
            return f"field {field} is not possible: the smallest field {stack} is {smallest}, all rates 1"
    if field <= largest:
        return None
    bound = f"is {k}^{n} = {k**n}" if field > k**n else f"and rates up to {rate} is {largest}"
    if target.stem:
        bound = f"is {largest}" if target.max_rate is None else f"and rates up to {rate} is {largest}"
    suffice = (m for m in range(n + 1, MAX_LAYERS + 1) if _largest_field(target, m, rate) >= field)
    advice = "".join(f"; {m} layers suffice" for m in itertools.islice(suffice, 1))
    return f"field {field} is not possible: the largest gap-free field {stack} {bound}{advice}"


def _too_many(target: Target, size: Count) -> str:
    """The message for a search that is too large: its size, and which options make it smaller."""
    bounds = ["--max-rate" if target.max_rate is None else "a lower --max-rate"]
    if target.field is None:
        bounds.append("--field")
    elif target.at_least:
        bounds.append("--field without --at-least")
    if size.number > LIMIT:
        too_much = f", at most {LIMIT:,} are searched"
    else:
        too_much = f" with rates up to {_Space(target).max_rate}, whose orders would take too long to search"
    return (
        f"{target.layers} layers with kernel size {target.kernel_size} have "
        f"{'' if size.exact else 'at least '}{size.number:,} gap-free sets of rates that meet the target"
        f"{too_much}: set {', '.join(bounds)} or fewer --layers"
    )


def _allowed_rate(target: Target) -> int:
    return MAX_RATE if target.max_rate is None else target.max_rate


def _largest_field(target: Target, layers: int, max_rate: int) -> int:
    """The largest gap-free field up to `MAX_FIELD`: each rate as large as the layers before it allow."""
    total, most = 0, target.largest_sum(MAX_FIELD)
    for _ in range(layers):
        total += min(max_rate, target.reach + (target.kernel_size - 1) * total)
    return target.pixels(min(total, most))


def _check(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{name} must be an integer from {low} to {high}, got {value!r}")


class _CallableModule(ModuleType):
    """Lets `hdc.search(...)` work although `hdc.search` is this module."""

    __call__ = staticmethod(search)


sys.modules[__name__].__class__ = _CallableModule
