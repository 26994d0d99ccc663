"""The exact mathematics of a schedule, against enumeration of every path."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from hdc.errors import InputError
from hdc.schedules import MAX_FIELD, MAX_LAYERS, MAX_RATE, DilationSchedule, padding_share

RATES = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@pytest.mark.parametrize("taps", [2, 3, 4, 5])
def test_every_schedule_is_what_the_enumeration_of_its_paths_says(taps: int) -> None:
    """All schedules of at most 4 layers and rates up to 10."""
    for length in (1, 2, 3, 4):
        for rates in itertools.combinations_with_replacement(range(1, 11), length):
            counts = reference.path_counts(rates, taps)
            hole = reference.first_hole(counts)
            coverage = np.count_nonzero(counts) / len(counts)
            assert DilationSchedule(rates, taps).path_counts.tolist() == counts.tolist(), rates
            # A choice of taps ends where it ends in whatever order the layers come.
            for order in set(itertools.permutations(rates)):
                schedule = DilationSchedule(order, taps)
                assert schedule.receptive_field == len(counts), schedule
                assert (schedule.first_hole, schedule.gap_free) == (hole, hole is None), schedule
                assert schedule.coverage == coverage, schedule


@given(rates=RATES, taps=st.integers(2, 5))
def test_effective_width_is_the_deviation_of_the_paths(rates, taps) -> None:
    counts = reference.path_counts(rates, taps)
    reached = {(offset,): int(count) for offset, count in enumerate(counts) if count}
    expected = reference.spread(reached, 0)
    assert DilationSchedule(rates, taps).effective_width == pytest.approx(expected, rel=1e-9)


@given(rates=RATES, taps=st.integers(2, 5))
def test_neighbour_overlap_is_the_jaccard_index_of_what_two_outputs_read(rates, taps) -> None:
    reached = {(int(offset),): 1 for offset in np.flatnonzero(reference.path_counts(rates, taps))}
    assert DilationSchedule(rates, taps).neighbour_overlap == pytest.approx(reference.jaccard(reached, 0))


@pytest.mark.parametrize(
    ("rates", "overlap"), [([2, 2, 2], 0.0), ([1, 2, 5], 8 / 9), ([1], 1 / 2), ([3], 0.0)]
)
def test_neighbour_overlap_of_the_known_schedules(rates, overlap) -> None:
    assert DilationSchedule(rates).neighbour_overlap == pytest.approx(overlap)


@pytest.mark.parametrize("taps", [2, 3, 4, 5])
def test_gridding_index_is_the_peak_of_the_path_counts_spectrum(taps: int) -> None:
    for length in (1, 2, 3):
        for rates in itertools.product(range(1, 9), repeat=length):
            gridding = DilationSchedule(rates, taps).gridding
            spectrum = reference.gridding_spectrum(rates, taps)
            assert gridding.index == pytest.approx(max(spectrum.values(), default=0), abs=1e-9), rates
            if gridding.frequency is None:
                assert gridding.index == 0, rates
            else:
                assert spectrum[gridding.frequency] == pytest.approx(gridding.index, abs=1e-9), rates


@pytest.mark.parametrize(
    ("rates", "index", "frequency"),
    [
        ([2, 2, 2], 1.000, 1 / 2),
        ([5, 9, 17], 0.607, 3 / 13),
        ([1, 2, 9], 0.379, 1 / 9),
        ([1, 2, 4], 0.333, 1 / 2),
        ([1, 2, 5], 0.111, 1 / 2),
    ],
)
def test_gridding_index_of_the_known_schedules(rates: list[int], index: float, frequency: float) -> None:
    gridding = DilationSchedule(rates).gridding
    assert round(gridding.index, 3) == index
    assert gridding.frequency == pytest.approx(frequency)


@pytest.mark.parametrize("rates", [[1], [1, 1, 1]])
def test_without_dilation_there_is_no_frequency_to_look_at(rates: list[int]) -> None:
    gridding = DilationSchedule(rates).gridding
    assert (gridding.index, gridding.frequency) == (0.0, None)


def test_a_pure_comb_has_index_one_exactly() -> None:
    for rate in range(2, 30):
        assert DilationSchedule([rate], repeat=4).gridding.index == 1.0


def test_the_rule_of_wang_2018_and_what_it_gets_wrong() -> None:
    accepts_m2 = accepts_m2_holes = accepts = accepts_holes = gap_free = rejected_m2 = rejected = 0
    for rates in itertools.product(range(1, 11), repeat=4):
        schedule = DilationSchedule(rates)
        counts = reference.path_counts(sorted(rates), 3)  # the counts do not depend on the order
        assert schedule.first_hole == reference.first_hole(counts), rates
        whole, rule = bool(np.all(counts > 0)), schedule.hdc_rule
        assert rule.m2 == reference.hdc_m2(rates), rates
        assert rule.common_factor == math.gcd(*rates), rates
        assert rule.accepts == (rule.m2 <= 3 and math.gcd(*rates) == 1), rates
        accepts_m2 += rule.m2 <= 3
        accepts_m2_holes += rule.m2 <= 3 and not whole
        accepts += rule.accepts
        accepts_holes += rule.accepts and not whole
        gap_free += whole
        rejected_m2 += whole and rule.m2 > 3
        rejected += whole and not rule.accepts
    assert (accepts_m2, accepts_m2_holes) == (1580, 985)
    assert (accepts, accepts_holes) == (1494, 899)
    assert gap_free == 1773
    assert (rejected_m2, rejected) == (1178, 1178)


@pytest.mark.parametrize(
    ("rates", "kernel_size", "m2", "factor", "accepts"),
    [
        ([1, 2, 5], 3, 2, 1, True),
        ([1, 2, 9], 3, 5, 1, False),
        ([2, 2, 2], 3, 2, 2, False),
        ([1, 3], 3, 3, 1, True),
        ([1, 4], 3, 4, 1, False),
        ([1, 4], 4, 4, 1, True),
        ([1], 3, None, 1, True),
        ([2], 3, None, 2, False),
    ],
)
def test_the_rule_on_small_examples(rates, kernel_size, m2, factor, accepts) -> None:
    rule = DilationSchedule(rates, kernel_size).hdc_rule
    assert (rule.m2, rule.common_factor, rule.accepts) == (m2, factor, accepts)


@pytest.mark.parametrize(
    ("rates", "repeat", "label", "kind", "layers"),
    [
        ([1], 1, "1", "plain", (1,)),
        ([1, 1], 3, "1-1x3", "plain", (1,) * 6),
        ([2], 6, "2x6", "dilated", (2,) * 6),
        ([4, 4], 1, "4-4", "dilated", (4, 4)),
        ([1, 2, 5], 2, "1-2-5x2", "hdc", (1, 2, 5, 1, 2, 5)),
        ([5, 2, 1], 1, "5-2-1", "hdc", (5, 2, 1)),
    ],
)
def test_repeat_label_and_kind(rates, repeat, label, kind, layers) -> None:
    schedule = DilationSchedule(rates, repeat=repeat)
    assert (schedule.label, schedule.kind, schedule.layer_rates) == (label, kind, layers)
    assert len(schedule) == len(layers)


@given(rates=RATES, repeat=st.integers(1, 3), taps=st.integers(2, 5))
def test_a_repeat_is_the_same_field_as_the_rates_written_out(rates, repeat, taps) -> None:
    short, long = DilationSchedule(rates, taps, repeat), DilationSchedule(rates * repeat, taps)
    assert short.receptive_field == long.receptive_field
    assert short.path_counts.tolist() == long.path_counts.tolist()
    assert short.first_hole == long.first_hole
    assert short.hdc_rule == long.hdc_rule
    assert short.gridding.index == pytest.approx(long.gridding.index, abs=1e-12)


@given(data=st.data(), rates=RATES, taps=st.integers(2, 5))
def test_the_field_does_not_depend_on_the_order_of_the_layers(data, rates, taps) -> None:
    one = DilationSchedule(rates, taps)
    other = DilationSchedule(data.draw(st.permutations(rates)), taps)
    assert one.path_counts.tolist() == other.path_counts.tolist()
    assert (one.coverage, one.first_hole, one.gap_free) == (other.coverage, other.first_hole, other.gap_free)
    assert one.gridding == other.gridding


@given(rates=RATES, taps=st.integers(2, 5))
def test_path_counts_are_symmetric_and_sum_to_the_number_of_paths(rates, taps) -> None:
    counts = DilationSchedule(rates, taps).path_counts
    assert counts.sum() == taps ** len(rates)
    assert counts.tolist() == counts[::-1].tolist()


@pytest.mark.parametrize(("taps", "layers", "dtype"), [(3, 39, np.int64), (3, 40, object), (2, 63, object)])
def test_path_counts_are_exact_where_they_exceed_64_bits(taps: int, layers: int, dtype: type) -> None:
    schedule = DilationSchedule([1], taps, layers)
    counts = schedule.path_counts
    assert counts.dtype == dtype
    assert sum(map(int, counts)) == taps**layers
    # The value of the polynomial at z = 10^40 spells out every coefficient.
    base = 10**40
    assert sum(int(c) * base**i for i, c in enumerate(counts)) == sum(base**j for j in range(taps)) ** layers
    assert schedule.coverage == 1.0


def test_equal_schedules_are_equal_however_the_rates_are_given() -> None:
    given_as = [[1, 2, 5], (1, 2, 5), np.array([1, 2, 5]), [np.int64(1), np.int32(2), 5]]
    assert len({DilationSchedule(rates) for rates in given_as}) == 1
    assert DilationSchedule(range(1, 4)).rates == (1, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        ({"rates": [1, 0, 5]}, ["rates [1, 0, 5]", "rate 0", "position 2"]),
        ({"rates": [-1]}, ["rates [-1]", "rate -1", "position 1"]),
        ({"rates": [1, 1.5]}, ["rate 1.5", "position 2"]),
        ({"rates": [True]}, ["rate True", "position 1"]),
        ({"rates": [2, 2, "1"]}, ["rate '1'", "position 3"]),
        ({"rates": [None]}, ["rate None", "position 1"]),
        ({"rates": []}, ["rates is empty"]),
        ({"rates": ()}, ["rates is empty"]),
        ({"rates": "125"}, ["rates", "'125'"]),
        ({"rates": b"125"}, ["rates", "b'125'"]),
        ({"rates": 3}, ["rates", "got 3"]),
        ({"rates": None}, ["rates", "None"]),
        ({"rates": {1: 2}}, ["rates", "{1: 2}"]),
        ({"rates": np.array([1.0, 2.0])}, ["rates", "position 1"]),
        ({"rates": [1], "kernel_size": 0}, ["kernel_size", "got 0"]),
        ({"rates": [1], "kernel_size": 1}, ["kernel_size", "got 1"]),
        ({"rates": [1], "kernel_size": 3.0}, ["kernel_size", "got 3.0"]),
        ({"rates": [1], "kernel_size": True}, ["kernel_size", "got True"]),
        ({"rates": [1], "kernel_size": "3"}, ["kernel_size", "got '3'"]),
        ({"rates": [1], "repeat": 0}, ["repeat", "got 0"]),
        ({"rates": [1], "repeat": -2}, ["repeat", "got -2"]),
        ({"rates": [1], "repeat": 1.5}, ["repeat", "got 1.5"]),
        ({"rates": [1], "repeat": True}, ["repeat", "got True"]),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_one_line_that_names_value_and_place(arguments, mentions) -> None:
    with pytest.raises(InputError) as caught:
        DilationSchedule(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert all(mention in message for mention in mentions), message


@pytest.mark.parametrize(
    ("module", "absent"), [("hdc.schedules", "jax"), ("hdc", "jax"), ("hdc", "tensorflow")]
)
def test_the_import_is_light(module: str, absent: str) -> None:
    program = f"import sys, {module}; print({absent!r} in sys.modules, {module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@given(
    rate=st.integers(1, 9),
    taps=st.sampled_from([1, 3, 5]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_padding_share_counts_the_taps_outside_the_map(rate, taps, size) -> None:
    expected = reference.padding_share(rate, taps, size)
    assert padding_share(rate, taps, size) == pytest.approx(expected, abs=1e-12)


@given(
    rate=st.integers(1, 9),
    taps=st.integers(1, 6),
    size=st.tuples(st.integers(1, 10), st.integers(1, 10)),
)
def test_padding_share_lies_where_same_puts_it_for_even_kernels_as_well(rate, taps, size) -> None:
    expected = reference.same_padding_share((rate, rate), taps, size)
    assert padding_share(rate, taps, size) == pytest.approx(expected, abs=1e-12)


@given(
    rate=st.integers(1, 9),
    taps=st.integers(1, 6),
    size=st.lists(st.integers(1, 10), min_size=1, max_size=3),
)
def test_causal_padding_lies_before_the_map(rate, taps, size) -> None:
    inside = [sum(reference.taps_on_the_map(rate, taps, length, causal=True)) for length in size]
    expected = 1 - math.prod(inside) / math.prod(taps * length for length in size)
    assert padding_share(rate, taps, size, causal=True) == pytest.approx(expected, abs=1e-12)


@given(
    rates=st.lists(st.integers(1, 24), min_size=1, max_size=3),
    taps=st.integers(2, 5),
    repeat=st.integers(1, 2),
)
def test_gridding_of_larger_rates_is_that_of_the_definition(rates, taps, repeat) -> None:
    gridding = DilationSchedule(rates, taps, repeat).gridding
    spectrum = reference.gridding_spectrum(rates * repeat, taps)
    assert gridding.index == pytest.approx(max(spectrum.values(), default=0), abs=1e-9)
    assert spectrum.get(gridding.frequency, 0.0) == pytest.approx(gridding.index, abs=1e-9)


def test_gridding_of_the_largest_rates() -> None:
    gridding = DilationSchedule([2**i for i in range(13)]).gridding
    # Of rates 2^i each factor is that of one function at 2^i f; at f = 1/2 all but the first are 1.
    assert (gridding.index, gridding.frequency) == (pytest.approx(1 / 3, abs=1e-12), 1 / 2)


@pytest.mark.parametrize(("rates", "taps", "frequency"), [([2, 5], 6, 1 / 5), ([4, 2, 5], 8, 1 / 5)])
def test_of_equal_peaks_the_first_is_named(rates, taps, frequency) -> None:
    spectrum = reference.gridding_spectrum(rates, taps)
    equal = [f for f, value in spectrum.items() if value > max(spectrum.values()) - 1e-12]
    assert len(equal) > 1
    assert DilationSchedule(rates, taps).gridding.frequency == frequency in equal


@pytest.mark.parametrize(
    ("largest", "beyond", "mentions"),
    [
        ({"rates": [1] * 256}, {"rates": [1] * 257}, ["has 257 layers, at most 256"]),
        (
            {"rates": [1, 2], "repeat": 128},
            {"rates": [1, 2], "repeat": 129},
            ["has 258 layers, 2 repeated 129 times, at"],
        ),
        ({"rates": [1, 4096]}, {"rates": [1, 4097]}, ["4097", "position 2", "4096"]),
        ({"rates": [1], "kernel_size": 65536}, {"rates": [1], "kernel_size": 65537}, ["65537", "65536"]),
        ({"rates": [4095, 4096] * 4}, {"rates": [4096] * 8}, ["65537", "65536"]),
        ({"rates": [255], "kernel_size": 258}, {"rates": [256], "kernel_size": 257}, ["65537", "65536"]),
        ({"rates": [1], "repeat": 256}, {"rates": [1], "repeat": 10**30}, ["256"]),
    ],
    ids=["layers", "repeats", "rate", "taps", "sum", "both", "endless"],
)
def test_the_limits_themselves_are_allowed_and_one_more_is_not(largest, beyond, mentions) -> None:
    assert (MAX_LAYERS, MAX_RATE, MAX_FIELD) == (256, 4096, 65536)
    schedule = DilationSchedule(**largest)
    assert schedule.receptive_field <= MAX_FIELD
    assert len(schedule.path_counts) == schedule.receptive_field
    with pytest.raises(InputError) as caught:
        DilationSchedule(**beyond)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 250
    assert all(mention in message for mention in mentions), message
