"""The search for schedules, against every multiset and order of rates, the paths counted one by one."""

import functools
import itertools
import math
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from hdc import orders, search
from hdc.errors import InputError
from hdc.ripple import SPREAD_DB, STEM, predict, tried
from hdc.schedules import MAX_FIELD, DilationSchedule
from hdc.search import Count, Target, best, best_order, best_per_field, count

# layers, kernel size, largest rate: None is all that is possible, K^(n - 1)
SPACES = [(1, 3, 4), (2, 2, None), (4, 2, None), (5, 2, 4), (3, 3, None), (4, 3, 7), (3, 4, 10), (3, 5, 8)]


class Known(NamedTuple):
    rates: tuple[int, ...]
    field: int
    index: float
    width: float
    ripple: float  # predicted, in the best of all orders
    ascending: float


@functools.cache
def predicted(order: tuple[int, ...], taps: int, stem: bool) -> float:
    return reference.predicted_ripple([*([(3, 1)] if stem else []), *((taps, rate) for rate in order)])[0]


@functools.cache
def gap_free(layers: int, taps: int, max_rate: int | None, stem: bool = True) -> list[Known]:
    """Every gap-free multiset of rates, by its path counts alone."""
    largest = taps ** (layers - 1) + 1 if max_rate is None else max_rate
    known = []
    for rates in itertools.combinations_with_replacement(range(1, largest + 1), layers):
        counts = reference.path_counts(rates, taps)
        if np.all(counts > 0):
            position = np.arange(len(counts))
            mean = np.average(position, weights=counts)
            width = np.sqrt(np.average((position - mean) ** 2, weights=counts))
            index = max(reference.gridding_spectrum(rates, taps).values(), default=0.0)
            least = min(predicted(order, taps, stem) for order in set(itertools.permutations(rates)))
            known.append(Known(rates, len(counts), index, width, least, predicted(rates, taps, stem)))
    return known


def assert_found(found: tuple[search.Found, ...], known: list[Known], stem: bool = True) -> None:
    """All sets are there, each in an order that no other order is 0.1 dB better than, and ranked."""
    by_rates = {one.rates: one for one in known}
    assert sorted(tuple(sorted(one.rates)) for one in found) == sorted(by_rates)
    for one in found:
        mine = by_rates[tuple(sorted(one.rates))]
        taps = (one.receptive_field - 1) // sum(one.rates) + 1
        assert one.receptive_field == mine.field
        assert one.gridding == pytest.approx(mine.index, abs=1e-9)
        assert one.effective_width == pytest.approx(mine.width)
        assert one.ripple == pytest.approx(predicted(one.rates, taps, stem), abs=1e-5)
        assert one.ascending_ripple == pytest.approx(mine.ascending, abs=1e-5)
        assert max(one.ripple, 0) <= max(mine.ripple, 0) + 0.1 + 1e-5
    least = max(min(one.ripple for one in found), 0)
    keys = [
        (
            math.floor((max(one.ripple, 0) - least) / SPREAD_DB),
            -round(one.effective_width, 6),
            *sorted(one.rates),
        )
        for one in found
    ]
    assert keys == sorted(keys)


@pytest.mark.parametrize("stem", [True, False])
@pytest.mark.parametrize(("layers", "taps", "max_rate"), SPACES)
def test_every_field_has_the_schedules_and_the_ranking_of_brute_force(layers, taps, max_rate, stem) -> None:
    known = gap_free(layers, taps, max_rate, stem)
    largest = max(one.field for one in known)
    for field in range(1, largest + 3):
        for at_least in (False, True):
            target = Target(layers, taps, field, at_least, max_rate)
            expected = [one for one in known if one.field == field or (at_least and one.field > field)]
            assert count(target) == Count(len(expected), exact=True), target
            if not expected:
                with pytest.raises(InputError):
                    best(target)
                continue
            result = best(target, 1000, stem)
            assert (result.target, result.stem, result.examined) == (target, stem, len(expected))
            assert result.max_rate >= max(one.rates[-1] for one in expected)
            assert_found(result.found, expected, stem)
            for top in (1, 3):
                assert best(target, top, stem).found == result.found[:top]


@pytest.mark.parametrize(("layers", "taps", "max_rate"), SPACES)
def test_the_best_of_every_field_is_the_best_of_that_field(layers, taps, max_rate) -> None:
    known = gap_free(layers, taps, max_rate)
    result = best_per_field(Target(layers, taps, max_rate=max_rate))
    for one in result.found:
        (first,) = best(Target(layers, taps, one.receptive_field, max_rate=max_rate), top=1).found
        assert one == first
    assert result.examined == len(known) == count(Target(layers, taps, max_rate=max_rate)).number
    assert_found(best(Target(layers, taps, max_rate=max_rate), top=1000).found, known)
    # Every field from the smallest to the largest exists, so that no message need say which are missing.
    fields = [one.receptive_field for one in result.found]
    assert fields == sorted({one.field for one in known})
    assert fields == list(range(1 + (taps - 1) * layers, fields[-1] + 1, taps - 1))


RATES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(rates=RATES, taps=st.integers(2, 5), stem=st.booleans())
def test_the_best_order_of_any_rates_is_that_of_all_orders(rates, taps, stem) -> None:
    found = best_order(rates, taps, stem)
    layers = [STEM] if stem else []
    known = {
        order: predict([*layers, *((taps, rate) for rate in order)]).db
        for order in set(itertools.permutations(rates))
    }
    assert found.ripple == pytest.approx(known[found.rates], abs=1e-5)
    assert found.ascending_ripple == pytest.approx(known[tuple(sorted(rates))], abs=1e-5)
    assert max(found.ripple, 0) <= max(min(known.values()), 0) + 0.1 + 1e-5
    descending = tuple(sorted(rates, reverse=True))
    if max(known[descending], 0) < max(min(known.values()), 0) + 0.1 - 1e-5:
        assert found.rates == descending
    assert found.gridding == DilationSchedule(found.rates, taps).gridding.index
    assert found.tried == tried([*layers, *((taps, rate) for rate in found.rates)])


def test_each_set_is_looked_at_over_periods_of_its_own() -> None:
    """Sets are computed together; the largest rate of another says nothing of a set's ripple."""
    sets = np.array([[2, 3, 5], [1, 3, 40]])
    found, ripples, _ = orders.Orders(3, stem=3).best(sets)
    for rates, order, db in zip(sets.tolist(), found.tolist(), ripples, strict=True):
        known = {
            one: predict([STEM, *((3, rate) for rate in one)]).db for one in itertools.permutations(rates)
        }
        assert db == pytest.approx(known[tuple(order)], abs=1e-5)
        assert db <= min(known.values()) + 0.1


def test_a_best_order_that_would_take_long_is_not_looked_for() -> None:
    assert best_order([2**n for n in range(10)] * 3) is None


def test_the_study_s_worst_schedule_is_turned_round() -> None:
    """1-3-3-3-3-3 was measured at 13.7 dB, its reverse at 6.1."""
    found = best_order((1, 3, 3, 3, 3, 3))
    assert found.rates == (3, 3, 3, 3, 3, 1)
    assert found.ascending_ripple > found.ripple + 5
    (first, *_) = best(Target(6, field=33)).found
    assert first.ripple < SPREAD_DB and first.ascending_ripple > first.ripple + 5


@pytest.mark.parametrize("chunk", [40, 1000])
def test_pieces_change_nothing(monkeypatch, chunk) -> None:
    searches = (
        lambda: best(Target(5, max_rate=8)),
        lambda: best(Target(5, field=81), top=3),
        lambda: best(Target(4, 4, field=100, at_least=True, max_rate=30), top=40),
        lambda: best_per_field(Target(5, max_rate=8)),
    )
    whole = [run() for run in searches]
    monkeypatch.setattr(search, "_CHUNK", chunk)
    monkeypatch.setattr(orders, "_VALUES", 50 * chunk)
    assert [run() for run in searches] == whole


@given(
    layers=st.integers(1, 5),
    taps=st.integers(2, 6),
    max_rate=st.integers(1, 12),
    rise=st.integers(0, 60),
    at_least=st.booleans(),
    top=st.integers(1, 30),
)
def test_what_is_found_is_what_the_certificate_says(layers, taps, max_rate, rise, at_least, top) -> None:
    field = 1 + (taps - 1) * (layers + rise)
    target = Target(layers, taps, field, at_least, max_rate)
    number = count(target)
    assert number.exact
    if number.number == 0:
        with pytest.raises(InputError):
            best(target, top)
        return
    result = best(target, top)
    assert result.examined == number.number
    assert len(result.found) == min(top, number.number)
    assert len({one.rates for one in result.found}) == len(result.found)
    for one in result.found:
        schedule = DilationSchedule(one.rates, taps)
        assert schedule.gap_free and max(one.rates) <= max_rate
        assert one.receptive_field == schedule.receptive_field
        assert one.receptive_field == field or (at_least and one.receptive_field > field)
        assert one.gridding == pytest.approx(schedule.gridding.index, abs=1e-9)
        assert one.effective_width == schedule.effective_width
        assert one.ripple <= one.ascending_ripple + 0.1
    # The first is a tie with the least; what follows is at most a step below the one before it.
    ripples = [max(one.ripple, 0) for one in result.found]
    assert ripples[0] < min(ripples) + SPREAD_DB
    assert all(later > earlier - SPREAD_DB for earlier, later in itertools.pairwise(ripples))


@given(layers=st.integers(1, 6), taps=st.integers(2, 4), max_rate=st.integers(1, 9))
def test_a_count_that_stops_early_is_a_lower_bound_above_the_limit(layers, taps, max_rate) -> None:
    multisets = itertools.combinations_with_replacement(range(1, max_rate + 1), layers)
    true = sum(DilationSchedule(rates, taps).gap_free for rates in multisets)
    target = Target(layers, taps, max_rate=max_rate)
    assert count(target) == Count(true, exact=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "LIMIT", 50)
        patch.setattr(search, "_MERGED", 20)
        early = count(target)
    assert early.number == true if early.exact else 50 < early.number <= true


def test_the_design_s_examples() -> None:
    found = best(Target(layers=3, field=17)).found
    assert [one.rates for one in found] == [(2, 1, 5), (4, 3, 1)]
    assert found[0].gridding == pytest.approx(1 / 9)
    # Of the 1773 gap-free orders of 4 rates up to 10, each multiset once.
    assert count(Target(4, max_rate=10)).number == len(
        {tuple(sorted(r)) for r in itertools.product(range(1, 11), repeat=4) if DilationSchedule(r).gap_free}
    )
    assert count(Target(6, max_rate=32)) == Count(55279, exact=True)


def test_all_ones_have_no_gridding_at_any_depth() -> None:
    (found,) = best(Target(256, max_rate=1)).found
    assert (found.rates, found.receptive_field, found.gridding) == ((1,) * 256, 513, 0.0)


def test_fields_stay_within_what_a_schedule_may_have() -> None:
    result = best_per_field(Target(2, 1009))
    assert result.max_rate == result.examined == len(result.found) == 64
    assert result.found[-1].receptive_field == 1 + 1008 * 65 <= MAX_FIELD


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        ({"layers": 0}, ["layers", "from 1 to 256", "got 0"]),
        ({"layers": 257}, ["layers", "from 1 to 256", "got 257"]),
        ({"layers": 2.0}, ["layers", "got 2.0"]),
        ({"layers": True}, ["layers", "got True"]),
        ({"layers": 3, "kernel_size": 1}, ["kernel_size", "from 2", "got 1"]),
        ({"layers": 3, "field": 0}, ["field", "from 1 to 65536", "got 0"]),
        ({"layers": 3, "field": 65537}, ["field", "from 1 to 65536", "got 65537"]),
        ({"layers": 3, "field": "17"}, ["field", "got '17'"]),
        ({"layers": 3, "max_rate": 0}, ["max_rate", "from 1 to 4096", "got 0"]),
        ({"layers": 3, "max_rate": 4097}, ["max_rate", "from 1 to 4096", "got 4097"]),
        ({"layers": 3, "at_least": True}, ["at_least", "field", "None"]),
        ({"layers": 256, "kernel_size": 257}, ["layers 256", "kernel_size 257", "65537", "65536"]),
    ],
    ids=str,
)
def test_a_bad_target_is_refused(arguments, mentions) -> None:
    assert_refused(lambda: Target(**arguments), mentions)


@pytest.mark.parametrize(
    ("target", "mentions"),
    [
        (Target(3, 3, 18), ["field 18", "multiple of kernel size - 1 = 2", "3 layers", "are 17 and 19"]),
        (Target(3, 5, 20), ["field 20", "- 1 = 4", "are 17 and 21"]),
        (Target(3, 3, 2), ["field 2 ", "nearest of 3 layers with kernel size 3 is 7"]),
        (Target(3, 3, 100), ["field 100 ", "nearest of 3 layers with kernel size 3 is 27"]),
        (Target(3, 3, 5), ["field 5 ", "smallest field of 3 layers with kernel size 3 is 7"]),
        (Target(3, 3, 29), ["field 29 ", "3 layers with kernel size 3 is 3^3 = 27; 4 layers suffice"]),
        (Target(3, 3, 29, True), ["field 29 ", "3 layers with kernel size 3 is 3^3 = 27; 4 layers suffice"]),
        (Target(3, 3, 28, True), ["field 28 ", "3^3 = 27; 4 layers"]),
        (Target(3, 3, 29, max_rate=2), ["3^3 = 27; 8 layers suffice"]),
        (Target(4, 3, 41, max_rate=5), ["kernel size 3 and rates up to 5 is 29; 6 layers suffice"]),
        (Target(4, 3, 30, True, 5), ["kernel size 3 and rates up to 5 is 29; 5 layers suffice"]),
        (Target(10, 3, 59049), ["rates up to 4096 is 22945; 15 layers suffice"]),
        (Target(12, 5, 65536, True), ["field 65536", "12 layers with kernel size 5", "is 65533"]),
        (Target(1, 2, 1000, max_rate=1), ["2^1 = 2"]),
    ],
    ids=str,
)
def test_an_impossible_target_is_refused_with_the_reason(target, mentions) -> None:
    assert_refused(lambda: best(target), mentions)
    assert count(target) == Count(0, exact=True)


@pytest.mark.parametrize(
    ("target", "mentions"),
    [
        (Target(7, max_rate=100), [" 16,691,170 gap-free", "10,000,000", "a lower --max-rate, --field or"]),
        (Target(10), ["10 layers", "at least ", "set --max-rate, --field or fewer --layers"]),
        (Target(256), ["256 layers", "at least ", "set --max-rate, --field or fewer --layers"]),
        (
            Target(10, 2, 200, True, 80),
            ["set a lower --max-rate, --field without --at-least or fewer --layers"],
        ),
        (
            Target(4, 15),
            [
                "4 layers",
                "kernel size 15",
                " 2,215,760 gap-free",
                "rates up to 3375, whose orders would take too long",
                "set --max-rate",
            ],
        ),
        (Target(7, max_rate=32), [" 489,663 gap-free", "rates up to 32, whose orders", "a lower --max-rate"]),
        (Target(14, 2, 8001), ["kernel size 2", "at least ", "set --max-rate or fewer --layers"]),
    ],
    ids=str,
)
def test_a_space_that_is_too_large_is_refused_with_its_size(target, mentions) -> None:
    assert_refused(lambda: best(target), mentions)


@pytest.mark.parametrize("target", [Target(4, 15, max_rate=3000), Target(4, 15, max_rate=1500), Target(5, 6)])
def test_large_rates_are_refused_before_they_are_searched(target) -> None:
    number = count(target)
    assert number.exact and number.number < search.LIMIT
    start = time.process_time()
    assert_refused(lambda: best_per_field(target), [f"{number.number:,} gap-free", "--max-rate", "--layers"])
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "target",
    [Target(6, max_rate=32), Target(10, field=101, max_rate=16), Target(12, field=65), Target(2, 300)],
)
def test_what_takes_seconds_is_not_refused(target) -> None:
    assert search.work(target) < search.WORK


def test_other_refusals() -> None:
    assert_refused(lambda: best(Target(3), top=0), ["top", "from 1", "got 0"])
    assert_refused(lambda: best_per_field(Target(3, field=17)), ["field 17"])
    assert_refused(lambda: best_per_field(Target(10)), ["10 layers", "at least"])


def assert_refused(run, mentions) -> None:
    with pytest.raises(InputError) as caught:
        run()
    message = str(caught.value)
    assert "\n" not in message
    assert all(mention in message for mention in mentions), message


def test_the_import_is_light() -> None:
    program = "import sys, hdc.search; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
