"""The search for schedules, against every multiset of rates and the paths counted one by one."""

import functools
import itertools
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from hdc import search
from hdc.errors import InputError
from hdc.schedules import MAX_FIELD, DilationSchedule
from hdc.search import Count, Target, best, best_per_field, count

# layers, kernel size, largest rate: None is all that is possible, K^(n - 1)
SPACES = [(1, 3, 4), (2, 2, None), (4, 2, None), (5, 2, 8), (3, 3, None), (4, 3, 7), (3, 4, 10), (3, 5, 8)]


class Known(NamedTuple):
    rates: tuple[int, ...]
    field: int
    index: float
    width: float


@functools.cache
def gap_free(layers: int, taps: int, max_rate: int | None) -> list[Known]:
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
            known.append(Known(rates, len(counts), index, width))
    return known


def ranked(known: list[Known]) -> list[Known]:
    """Smallest index first; those within 1e-9 of the smallest of them: widest first, then by rates."""
    left, order = sorted(known, key=lambda one: one.index), []
    while left:
        ties = [one for one in left if one.index <= left[0].index + 1e-9]
        order += sorted(ties, key=lambda one: (-round(one.width, 6), one.rates))
        left = left[len(ties) :]
    return order


def assert_found(found: tuple[search.Found, ...], expected: list[Known]) -> None:
    assert [one.rates for one in found] == [one.rates for one in expected]
    for one, known in zip(found, expected, strict=True):
        assert one.receptive_field == known.field
        assert one.gridding == pytest.approx(known.index, abs=1e-9)
        assert one.effective_width == pytest.approx(known.width)


@pytest.mark.parametrize(("layers", "taps", "max_rate"), SPACES)
@pytest.mark.parametrize("at_least", [False, True])
def test_every_field_has_the_schedules_and_the_order_of_brute_force(layers, taps, max_rate, at_least) -> None:
    known = gap_free(layers, taps, max_rate)
    largest = max(one.field for one in known)
    for field in range(1, largest + 3):
        target = Target(layers, taps, field, at_least, max_rate)
        expected = ranked([one for one in known if one.field == field or (at_least and one.field > field)])
        assert count(target) == Count(len(expected), exact=True), target
        if not expected:
            with pytest.raises(InputError):
                best(target)
            continue
        result = best(target, top=1000)
        assert (result.target, result.examined) == (target, len(expected))
        assert result.max_rate >= max(one.rates[-1] for one in expected)
        assert_found(result.found, expected)
        for top in (1, 3):
            assert best(target, top).found == result.found[:top]


@pytest.mark.parametrize(("layers", "taps", "max_rate"), SPACES)
def test_the_best_of_every_field_is_that_of_brute_force(layers, taps, max_rate) -> None:
    known = gap_free(layers, taps, max_rate)
    target = Target(layers, taps, max_rate=max_rate)
    by_field = [
        ranked([one for one in known if one.field == field])[0]
        for field in sorted({one.field for one in known})
    ]
    result = best_per_field(target)
    assert_found(result.found, by_field)
    assert result.examined == len(known) == count(target).number
    assert_found(best(target, top=5).found, ranked(known)[:5])
    # Every field from the smallest to the largest exists, so that no message need say which are missing.
    fields = [one.receptive_field for one in result.found]
    assert fields == list(range(1 + (taps - 1) * layers, fields[-1] + 1, taps - 1))


@pytest.mark.parametrize("chunk", [20, 60, 1000])
def test_pieces_change_nothing(monkeypatch, chunk) -> None:
    searches = (
        lambda: best(Target(5, max_rate=12)),
        lambda: best(Target(5, field=81), top=3),
        lambda: best(Target(4, 4, field=100, at_least=True, max_rate=30), top=40),
        lambda: best_per_field(Target(5, max_rate=12)),
    )
    whole = [run() for run in searches]
    monkeypatch.setattr(search, "_CHUNK", chunk)
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
        assert schedule.gap_free and list(one.rates) == sorted(one.rates) and one.rates[-1] <= max_rate
        assert one.receptive_field == schedule.receptive_field
        assert one.receptive_field == field or (at_least and one.receptive_field > field)
        assert one.gridding == pytest.approx(schedule.gridding.index, abs=1e-9)
        assert one.effective_width == schedule.effective_width
    indices = [one.gridding for one in result.found]
    assert all(earlier <= later + 1e-9 for earlier, later in itertools.pairwise(indices))


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
    assert [one.rates for one in found] == [(1, 2, 5), (1, 3, 4)]
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
    result = best_per_field(Target(2, 300))
    assert result.max_rate == result.examined == len(result.found) == 218
    assert result.found[-1].receptive_field == 1 + 299 * 219 <= MAX_FIELD


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
                "rates up to 3375, ",
                " times",
                "set --max-rate",
            ],
        ),
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
    "target", [Target(6, max_rate=32), Target(7, max_rate=80), Target(3, 40), Target(4, 15, max_rate=300)]
)
def test_what_takes_seconds_is_not_refused(target) -> None:
    assert search.work(target, count(target).number) < search.WORK


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
