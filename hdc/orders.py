"""The order of its layers that gives a set of rates the least predicted ripple, for many sets at once.

Only the layers after a layer smooth the chance that arises in it (`hdc.ripple`), in whatever order they come.
So an order is a path from no rate to all rates, one rate at a time, the last layer first, and the power at a
frequency is a sum along this path: each multiset of rates on it adds an amount of its own. The least and the
largest sum over all paths from a multiset on follow by dynamic programming. The least power at a tooth over
the largest in its valleys is a bound: no order has less ripple. Branch and bound with it visits few orders.

Few teeth decide. An order is looked for that is better at some of them, and then compared at all: its
strongest tooth is added to them. Once no order is better at these, none is better at all.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from hdc import ripple
from hdc.schedules import responses

_NUMBERS = ripple.WIDTH * ripple.CHANNELS
_VALUES = 2**20  # in an array at a time
_VISITS = 300_000  # the most steps along paths that are looked at for one set
_WIDTH = 8  # orders of a set that are followed at a time
_LESS = 10**-0.01  # an order counts as better if it has 0.1 dB less


class TooManyOrders(Exception):
    """The best order of some set of rates is not found, and proven, in reasonable time."""


class Orders:
    """The predicted ripple of sets of rates over the orders of their layers.

    Sets are `[m, n]` rates, each row ascending. Within, ripples are quotients of powers, not dB.

    Args:
        kernel_size: K of each layer, at least 2.
        stem: taps of the convolution that comes first, 1 for none.
    """

    def __init__(self, kernel_size: int, stem: int):
        self.kernel_size, self.stem = kernel_size, stem

    def best(self, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The best order of the layers of each set: in no order is the ripple less by 0.1 dB.

        It is the order with the smallest rates last if that is as good. A ripple below 0 dB is no gridding,
        and counts as 0 dB.

        Raises:
            TooManyOrders: if that takes too long for one of them.

        Returns:
            `[m, n]` rates, the first layer first; `[m]` ripples in this order, and in ascending order, in dB.
        """
        orders, ripples, ascending = np.zeros_like(sets), np.empty(len(sets)), np.empty(len(sets))
        for times, rows, rates in _patterns(sets):
            by_size = np.argsort(rates.max(axis=1), kind="stable")  # the largest rate decides on the periods
            values = math.prod(count + 1 for count in times) * int(self.fields(sets).max()) // 2
            values = max(values, ripple.longest_period(int(rates.max())) ** 2 // 2)
            for part in _parts(by_size, values):
                some = rows[part]
                block = _Block(self, sets[some], rates[part], times)
                orders[some], ripples[some], ascending[some] = block.best()
        return orders, _decibels(ripples), _decibels(ascending)

    def unordered(self, sets: np.ndarray, longest: int) -> np.ndarray:
        """`[m, 3, t]`: the power that no order changes, at the teeth of all periods and in their valleys.

        The valleys of periods that are longer than a set's own are infinite.
        """
        field = self.fields(sets)[:, None]
        own = np.maximum(ripple.longest_period(1), sets[:, -1:])
        middle, white = ripple.expected(self._paths(sets, field), field, own)
        powers = []
        for period in range(2, longest + 1):
            power = ripple.spectrum(middle, period)[:, ripple.teeth(period)] + white[:, None, None] / _NUMBERS
            power[own[:, 0] < period, 1:] = np.inf
            powers.append(power)
        return np.concatenate(powers, axis=-1)

    def passed(self, rates: np.ndarray, longest: int) -> np.ndarray:
        """`[..., 3, t]`: the share of the power that layers pass, at the same frequencies."""
        different, inverse = np.unique(rates, return_inverse=True)
        steps = different.astype(np.int64)[:, None, None]
        tables = [
            responses(2 * period, self.kernel_size)[steps * ripple.teeth(period) % (2 * period)] ** 2
            for period in range(2, longest + 1)
        ]
        return np.concatenate(tables, axis=-1)[inverse.reshape(rates.shape)]

    def squares(self, rates: np.ndarray, times: tuple[int, ...]) -> np.ndarray:
        """`[m, s]`: the sum of squares of the paths through each multiset of `[m, d]` rates."""
        pixels = 1 + (self.kernel_size - 1) * int((rates * times).sum(axis=1).max())
        return _sums_of_squares(_products(self._responses(rates, pixels), times))

    def variances(self, rates: np.ndarray) -> np.ndarray:
        """Of each layer's taps, in square pixels."""
        return rates.astype(float) ** 2 * (self.kernel_size**2 - 1) / 12

    @property
    def stem_variance(self) -> float:
        """Of the stem's taps, in square pixels; 0 without a stem."""
        return (self.stem**2 - 1) / 12

    def fields(self, sets: np.ndarray) -> np.ndarray:
        """`[m]` pixels, the stem included."""
        return self.stem + (self.kernel_size - 1) * sets.sum(axis=1, dtype=np.int64)

    def _responses(self, rates: np.ndarray, pixels: int) -> np.ndarray:
        """`[..., f]`: the share of the power that layers pass, at the frequencies of a circle of pixels."""
        return np.abs(_transform(rates, self.kernel_size, pixels)) ** 2

    def _paths(self, sets: np.ndarray, field: np.ndarray) -> np.ndarray:
        """`[m, pixels]`: the share of the paths that lead to each pixel; zeros follow the field."""
        pixels = int(field.max())
        product = _transform(np.array(1), self.stem, pixels) if self.stem > 1 else np.ones(())
        for rates in sets.T:
            product = product * _transform(rates, self.kernel_size, pixels)
        paths = np.fft.irfft(product, _circle(pixels))
        # Round-off leaves less than nothing in places.
        return np.maximum(paths, 0) * (np.arange(_circle(pixels)) < field)


class _Block:
    """Sets whose rates occur equally often.

    An order of the layers is a path: for each layer, the last one first, the position of its rate among the
    different ones.

    Args:
        orders: what holds for all sets.
        sets: `[m, n]`.
        rates: `[m, d]` different rates of each set.
        times: how often each of the d occurs.
    """

    def __init__(self, orders: Orders, sets: np.ndarray, rates: np.ndarray, times: tuple[int, ...]):
        self.rates, self.times = rates, np.array(times)
        # A multiset of rates is a number: its digits say how often it has each rate.
        shape = tuple(self.times + 1)
        self.digits = np.array(list(np.ndindex(shape)))
        self.steps = np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))])
        longest = ripple.longest_period(int(rates.max()))
        self.passed, self.unordered = orders.passed(rates, longest), orders.unordered(sets, longest)
        # By the multiset of the layers after it: what a layer's chance adds, before they smooth it.
        before = orders.variances(rates) @ (self.times - self.digits).T + orders.stem_variance
        first = self.digits.sum(axis=1) == 0
        arises = (before > 0) & ~first
        share = np.where(arises, before / before[:, first], 1)
        self.strength = np.where(arises, ripple.chance(orders.squares(rates, times), share), 0) / _NUMBERS

    def best(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Orders.best`; ripples are quotients."""
        layers = np.repeat(np.arange(len(self.times)), self.times)
        paths = layers[np.argsort(self.rates[:, layers], axis=1, kind="stable")]  # the smallest rates last
        unproven = np.arange(len(paths))
        ascending, _ = self._ripples(unproven, paths[:, ::-1])
        ripples, strongest = self._ripples(unproven, paths)
        teeth = strongest[:, -2:]
        while len(unproven):
            better, found = self._better(teeth, unproven, ripples[unproven])
            unproven, found, teeth = unproven[better], found[better], teeth[better]
            of_found, strongest = self._ripples(unproven, found)
            less = of_found < ripples[unproven]
            ripples[unproven[less]], paths[unproven[less]] = of_found[less], found[less]
            teeth = np.column_stack([teeth, strongest[:, -1]])
        return np.take_along_axis(self.rates, paths, axis=1)[:, ::-1], ripples, ascending

    def _ripples(self, rows: np.ndarray, paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ripple of an order of some sets, `[p]`, and all teeth, `[p, t]`, the strongest last."""
        power, smoothing, after = self.unordered[rows], np.ones(()), np.zeros(len(rows), dtype=int)
        for axis in paths.T:
            after += self.steps[axis]
            smoothing = smoothing * self.passed[rows, axis]
            power += self.strength[rows, after][:, None, None] * smoothing
        contrast = ripple.contrast(power)
        return contrast.max(axis=1), np.argsort(np.round(contrast, 9), axis=1, kind="stable")

    def _better(
        self, teeth: np.ndarray, rows: np.ndarray, ripples: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which of some sets have an order with less ripple at some teeth `[p, k]`, and its path."""
        power, passed = (
            np.take_along_axis(
                values[rows], teeth.reshape(len(teeth), *([1] * (values.ndim - 2)), -1), axis=-1
            )
            for values in (self.unordered, self.passed)
        )
        adds = self.strength[rows][..., None, None] * _products(passed, self.times)
        to_go = self._to_go(adds)

        def bound(set_: np.ndarray, after: np.ndarray, power: np.ndarray) -> np.ndarray:
            return np.maximum(ripple.contrast(power + to_go[set_, after]).max(axis=1), 1)

        least, paths = np.maximum(ripples, 1), np.zeros((len(rows), self.times.sum()), dtype=int)
        start = np.arange(len(rows)), np.zeros(len(rows), dtype=int), power, paths[:, :0]
        waiting, visits = [(*start, bound(*start[:3]))], np.zeros(len(rows), dtype=int)
        while waiting:
            set_, after, power, path, bounds = waiting.pop()
            promising = bounds < least[set_] * _LESS
            set_, after, power, path = (values[promising] for values in (set_, after, power, path))
            parent, axis = np.nonzero(self.digits[after] < self.times)
            set_, after = set_[parent], after[parent] + self.steps[axis]
            power = power[parent] + adds[set_, after]
            path = np.column_stack([path[parent], axis])
            visits += np.bincount(set_, minlength=len(visits))
            if visits.max(initial=0) > _VISITS:
                raise TooManyOrders
            bounds = bound(set_, after, power)
            order = np.lexsort((np.round(bounds, 9), set_))
            order = order[bounds[order] < least[set_[order]] * _LESS]
            place = np.arange(len(order)) - np.searchsorted(set_[order], set_[order])
            if path.shape[1] == paths.shape[1]:
                first = order[place == 0]
                least[set_[first]], paths[set_[first]] = bounds[first], path[first]
                continue
            # The best few of each set go first: they end in orders that rule out most of the others.
            for turn in range(int(place.max(initial=-1)) // _WIDTH, -1, -1):
                part = order[place // _WIDTH == turn]
                waiting.append((set_[part], after[part], power[part], path[part], bounds[part]))
        return least < np.maximum(ripples, 1), paths

    def _to_go(self, adds: np.ndarray) -> np.ndarray:
        """What the layers still to come add `[p, s, 3, k]`: the least at teeth, the largest in valleys."""
        to_go = np.full_like(adds, -np.inf)
        to_go[:, :, 0] = np.inf
        to_go[:, -1] = 0
        level = self.digits.sum(axis=1)
        for done in range(level[-1] - 1, -1, -1):
            for axis, step in enumerate(self.steps):
                after = np.flatnonzero((level == done) & (self.digits[:, axis] < self.times[axis]))
                by_axis = adds[:, after + step] + to_go[:, after + step]
                to_go[:, after, 0] = np.minimum(to_go[:, after, 0], by_axis[:, :, 0])
                to_go[:, after, 1:] = np.maximum(to_go[:, after, 1:], by_axis[:, :, 1:])
        return to_go


def _decibels(ripples: np.ndarray) -> np.ndarray:
    """Without the digits that depend on which sets are computed together."""
    return np.round(10 * np.log10(ripples), 6)


def _parts(rows: np.ndarray, values: int) -> Iterator[np.ndarray]:
    """Some rows after the other, if so many `values` are needed for each."""
    step = max(1, _VALUES // max(1, values))
    return (rows[start : start + step] for start in range(0, len(rows), step))


def _patterns(sets: np.ndarray) -> Iterator[tuple[tuple[int, ...], np.ndarray, np.ndarray]]:
    """The sets whose rates occur equally often: how often, the sets' positions, their different rates."""
    starts, kind = np.unique(np.diff(sets, axis=1, prepend=0) > 0, axis=0, return_inverse=True)
    found: dict[tuple[int, ...], list[tuple[np.ndarray, np.ndarray]]] = {}
    for number, first in enumerate(starts):
        places = np.flatnonzero(first)
        times = np.diff(places, append=sets.shape[1])
        by_times = np.argsort(times, kind="stable")
        rows = np.flatnonzero(kind.ravel() == number)
        alike = found.setdefault(tuple(times[by_times].tolist()), [])
        alike.append((rows, sets[rows[:, None], places[by_times]]))
    for times, alike in found.items():
        rows, rates = (np.concatenate(some) for some in zip(*alike, strict=True))
        yield times, rows, rates


def _products(factors: np.ndarray, times: Iterable[int]) -> np.ndarray:
    """`[m, s, ...]`: for each multiset the product of its factors, of `[m, d, ...]`."""
    rows, _, *shape = factors.shape
    products = np.ones((rows, 1, *shape))
    for axis, count in enumerate(times):
        powers = np.stack([factors[:, axis] ** power for power in range(count + 1)], axis=1)
        products = (products[:, :, None] * powers[:, None]).reshape(rows, -1, *shape)
    return products


def _circle(pixels: int) -> int:
    """The length of a circle that has room for them; even, so that its frequencies pair up."""
    return pixels + pixels % 2


def _transform(rates: np.ndarray, kernel_size: int, pixels: int) -> np.ndarray:
    """`[..., f]`: the Fourier transform of a layer's taps on a circle."""
    length = _circle(pixels)
    taps = np.fft.fft(np.full(kernel_size, 1 / kernel_size), length)
    return taps[rates[..., None].astype(np.int64) * np.arange(length // 2 + 1) % length]


def _sums_of_squares(spectrum: np.ndarray) -> np.ndarray:
    """Of values whose power at the frequencies of a circle is `[..., f]`."""
    ends = spectrum[..., 0] + spectrum[..., -1]
    return (2 * spectrum.sum(axis=-1) - ends) / (2 * (spectrum.shape[-1] - 1))
