"""`Stack` and `Branches`, against all paths counted one by one, in two dimensions."""

import itertools
import json
import math

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from hdc.errors import InputError
from hdc.fields import Branches, PathCounts, Stack
from hdc.schedules import DilationSchedule

KEYS = [
    "rates", "kernel_size", "receptive_field", "coverage", "coverage_2d", "gap_free", "first_hole",
    "gridding", "gridding_frequency", "ripple", "ripple_frequency", "lattice_share", "sigma",
    "neighbour_overlap", "common_factor", "hdc_rule",
]  # fmt: skip

RATES = st.lists(st.integers(1, 7), min_size=1, max_size=3)
PAIRS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3)
BRANCHES = st.lists(
    st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True), min_size=1, max_size=3
).filter(lambda layers: max(map(max, layers)) > 0)


def assert_values(values: dict, reached: dict, axes: list[int], max_period: int) -> None:
    """The numbers that can be read off the paths; `axes` are those that a value is given for."""

    def each(of):
        known = [of(axis) for axis in axes]
        return pytest.approx(known[0] if len(known) == 1 else known, abs=1e-9)

    low, high = reference.box(reached)
    size = [last - first + 1 for first, last in zip(low, high, strict=True)]
    assert values["receptive_field"] == each(lambda axis: size[axis])
    assert values["coverage"] == each(lambda axis: len({place[axis] for place in reached}) / size[axis])
    assert values["gap_free"] is (len(reached) == math.prod(size))
    if len(size) == 2:
        assert values["coverage_2d"] == pytest.approx(len(reached) / math.prod(size))
    else:
        assert values["coverage_2d"] is None
    assert values["sigma"] == each(lambda axis: reference.spread(reached, axis))
    assert values["neighbour_overlap"] == each(lambda axis: reference.jaccard(reached, axis))
    ripples = [reference.strongest(reached, axis, max_period) for axis in range(len(size))]
    index = max((value for ripple in ripples for value in ripple.values()), default=0.0)
    assert values["gridding"] == pytest.approx(index, abs=1e-9)
    if index < 1e-9:
        assert values["gridding_frequency"] is None
    else:
        at = [ripple[values["gridding_frequency"]] for ripple in ripples]
        assert max(at) == pytest.approx(index, abs=1e-9)


def assert_rule(values: dict, axes: list[list[int]], taps: int) -> None:
    m2 = max(reference.hdc_m2(rates) for rates in axes) if len(axes[0]) > 1 else None
    accepts = (m2 is None or m2 <= taps) and all(math.gcd(*rates) == 1 for rates in axes)
    holes = any((reference.path_counts(rates, taps) == 0).any() for rates in axes)
    assert values["hdc_rule"] == {"m2": m2, "accepts": accepts, "agrees": accepts is not holes}


@given(rates=RATES, taps=st.integers(2, 4))
def test_equal_axes(rates, taps) -> None:
    values = Stack.parse(",".join(map(str, rates)), taps).to_dict()
    reached = reference.path_counts_2d(rates, rates, taps)
    assert list(values) == KEYS
    assert (values["rates"], values["kernel_size"]) == (rates, taps)
    assert_values(values, reached, [0], max(rates))
    hole = reference.first_hole_2d(reached)
    assert hole is None or hole[0] == 0
    assert values["first_hole"] == (None if hole is None else hole[1])
    assert values["common_factor"] == math.gcd(*rates)
    shares = [np.mean([rate % period == 0 for rate in rates]) for period in range(2, 1 + max(rates))]
    assert values["lattice_share"] == pytest.approx(max(shares, default=0))
    assert_rule(values, [rates], taps)


@given(pairs=PAIRS, taps=st.integers(2, 3))
def test_rates_of_their_own_on_each_axis(pairs, taps) -> None:
    heights, widths = ([pair[axis] for pair in pairs] for axis in (0, 1))
    values = Stack.parse(",".join(f"{h}x{w}" for h, w in pairs), taps).to_dict()
    reached = reference.path_counts_2d(heights, widths, taps)
    same = heights == widths
    assert list(values) == KEYS
    assert values["rates"] == (heights if same else [list(pair) for pair in pairs])
    assert_values(values, reached, [0] if same else [0, 1], max(heights + widths))
    hole = reference.first_hole_2d(reached)
    assert values["first_hole"] == (None if hole is None else hole[1] if same else list(hole))
    factors = [math.gcd(*heights), math.gcd(*widths)]
    assert values["common_factor"] == (factors[0] if same else factors)
    assert_rule(values, [heights, widths], taps)


@given(rates=RATES, taps=st.integers(2, 6))
def test_signals(rates, taps) -> None:
    values = Stack.parse(",".join(map(str, rates)), taps, axes=1).to_dict()
    counts = reference.path_counts(rates, taps)
    reached = {(offset,): int(count) for offset, count in enumerate(counts) if count}
    assert list(values) == KEYS
    assert_values(values, reached, [0], max(rates))
    assert values["first_hole"] == reference.first_hole(counts)
    assert_rule(values, [rates], taps)


@given(layers=BRANCHES, taps=st.sampled_from([3, 5]))
def test_parallel_branches(layers, taps) -> None:
    field = Branches(tuple(map(tuple, layers)), "some", taps)
    values = field.to_dict()
    reached = reference.branched_counts(layers, taps)
    assert list(values) == KEYS
    assert values["rates"] == layers
    assert_values(values, reached, [0], max(map(max, layers)))
    hole = reference.first_hole_2d(reached)
    assert values["first_hole"] == (None if hole is None else list(hole))
    assert values["common_factor"] == math.gcd(*itertools.chain(*layers))
    assert values["hdc_rule"] == {"m2": None, "accepts": None, "agrees": None}
    assert (field.layers, field.dimensions, field.same_axes) == (len(layers), 2, True)


@pytest.mark.parametrize("taps", [2, 3, 4, 5])
def test_the_paths_of_branches_lie_where_same_padding_puts_them(taps) -> None:
    for layers in ([[1]], [[2], [3]], [[0, 2]], [[0, 1], [3]], [[2, 3]], [[1, 4], [0, 3]]):
        paths, reached = PathCounts.of_layers(layers, taps), reference.branched_counts(layers, taps)
        low, high = reference.box(reached)
        expected = np.zeros([last - first + 1 for first, last in zip(low, high, strict=True)])
        for place, count in reached.items():
            expected[place[0] - low[0], place[1] - low[1]] = count
        assert paths.origin == low, layers
        assert paths.counts == pytest.approx(expected / expected.sum()), layers


@pytest.mark.parametrize("text", ["1,2,5", "2,2,2", "1x2,2x2", "1x9,3x1", "7"])
def test_the_map_has_exactly_the_pixels_that_paths_reach(text) -> None:
    field = Stack.parse(text)
    pairs = [[int(n) for n in part.split("x")] * (1 if "x" in part else 2) for part in text.split(",")]
    reached = reference.path_counts_2d([p[0] for p in pairs], [p[1] for p in pairs], 3)
    total = sum(reached.values())
    shares = {place: count / total for place, count in reached.items()}
    counts = field.paths.counts
    assert {tuple(map(int, place)): counts[*place] for place in np.argwhere(counts)} == pytest.approx(shares)
    assert field.seen == field.coverage_2d == pytest.approx(len(reached) / counts.size)


def test_paths_that_are_rare_beyond_float_are_seen_all_the_same() -> None:
    field = Stack.parse(",".join(["1"] * 256), 5)
    seen, coverage = field.paths.gap_free, field.paths.coverage
    assert (field.gap_free, seen, coverage) == (True, True, 1.0)


@pytest.mark.parametrize(
    "branches", [((0, 6, 12, 18),), ((3, 9),), ((0, 3), (0, 6), (0, 12)), ((5,), (0, 10))]
)
def test_branches_in_a_pure_comb_have_index_one_exactly(branches) -> None:
    assert Branches(branches).gridding.index == 1.0


def test_values_are_plain_json() -> None:
    for text, taps, dimensions in (("1,2,5", 3, 2), ("1x2,2x2", 3, 2), ("2,4", 4, 1), ("3", 2, 1)):
        values = Stack.parse(text, taps, dimensions).to_dict()
        assert json.loads(json.dumps(values, allow_nan=False)) == values
    values = Branches(((0, 2), (1,))).to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values


@given(pairs=PAIRS, taps=st.integers(2, 5), size=st.integers(1, 7))
def test_padding_of_every_layer(pairs, taps, size) -> None:
    shares = Stack.parse(",".join(f"{h}x{w}" for h, w in pairs), taps).padding(size)
    expected = [reference.same_padding_share(pair, taps, (size, size)) for pair in pairs]
    assert shares == pytest.approx(expected, abs=1e-12)


@given(rates=RATES, taps=st.integers(2, 5), size=st.integers(1, 12))
def test_padding_of_signals(rates, taps, size) -> None:
    shares = Stack.parse(",".join(map(str, rates)), taps, 1).padding(size)
    # Along the other axis of a map, a kernel of rate 0 never leaves it.
    expected = [reference.same_padding_share((rate, 0), taps, (size, 1)) for rate in rates]
    assert shares == pytest.approx(expected, abs=1e-12)


@given(layers=BRANCHES, size=st.integers(1, 9))
def test_padding_of_branches_counts_a_1x1_s_one_tap(layers, size) -> None:
    expected = []
    for rates in layers:
        outside = sum(
            9 * reference.same_padding_share((rate, rate), 3, (size, size)) for rate in rates if rate
        )
        expected.append(outside / sum(9 if rate else 1 for rate in rates))
    field = Branches(tuple(map(tuple, layers)))
    assert field.padding(size) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "dimensions", "name", "axes"),
    [
        ("1,2,5", 2, "1-2-5", [(1, 2, 5), (1, 2, 5)]),
        ("1,2,5", 1, "1-2-5", [(1, 2, 5)]),
        (" 1, 2 ,5 ", 2, "1-2-5", [(1, 2, 5), (1, 2, 5)]),
        ("[1,2,5]", 2, "1-2-5", [(1, 2, 5), (1, 2, 5)]),
        ("[1, 2, 5]", 1, "1-2-5", [(1, 2, 5)]),
        ("7", 2, "7", [(7,), (7,)]),
        ("0000000000007", 2, "7", [(7,), (7,)]),
        ("4096", 1, "4096", [(4096,)]),
        ("1x2,2x2", 2, "1x2-2x2", [(1, 2), (2, 2)]),
        ("1x2,3", 2, "1x2-3x3", [(1, 3), (2, 3)]),
        ("2x2,3x3", 2, "2-3", [(2, 3), (2, 3)]),
        ("1-2-5", 1, "1-2-5", [(1, 2, 5)]),
        ("1-2x2", 2, "1-2x2", [(1, 2, 1, 2), (1, 2, 1, 2)]),
    ],
)
def test_what_parse_takes(text, dimensions, name, axes) -> None:
    field = Stack.parse(text, axes=dimensions)
    assert field.name == name
    assert [axis.layer_rates for axis in field.axes] == axes
    assert (field.dimensions, field.kernel_size) == (dimensions, 3)


@pytest.mark.parametrize("taps", [2, 3, 8])
def test_parse_hands_the_kernel_size_on(taps) -> None:
    field = Stack.parse("1,2", taps)
    assert field == Stack((DilationSchedule((1, 2), taps),) * 2, "1-2")
    assert field.kernel_size == taps


@pytest.mark.parametrize(
    ("text", "dimensions", "mentions"),
    [
        ("", 2, ["position 1", "empty"]),
        (" ", 2, ["position 1", "empty"]),
        ("[]", 2, ["position 1", "empty"]),
        ("1,,2", 2, ["'1,,2'", "position 2", "empty"]),
        ("1,2,", 2, ["position 3", "empty"]),
        (",1", 2, ["position 1", "empty"]),
        ("a", 2, ["'a'", "position 1", "1,2,5"]),
        ("1,b,2", 2, ["'b'", "position 2"]),
        ("1.5", 2, ["'1.5'", "position 1"]),
        ("-1,2", 2, ["'-1'", "position 1"]),
        ("+1", 2, ["'+1'"]),
        ("1e1", 2, ["'1e1'"]),
        ("1_0", 2, ["'1_0'"]),
        ("1;2", 2, ["'1;2'"]),
        ("1 2", 2, ["'1 2'"]),
        ("x", 2, ["'x'"]),
        ("1x", 2, ["'1x'"]),
        ("x1", 2, ["'x1'"]),
        ("1X2", 2, ["'1X2'"]),
        ("1,2x2x2", 2, ["'2x2x2'", "position 2", "3 axes", "has 2"]),
        ("1x2", 1, ["'1x2'", "2 axes", "has 1"]),
        ("1-2,5", 2, ["'1-2'", "position 1"]),
        ("1-2x", 2, ["'1-2x'", "position 1"]),
        ("1-0", 2, ["rate 0", "position 2"]),
        ("1-" + "9" * 5000, 2, ["position 1"]),
        ("²", 2, ["'²'"]),
        ("１", 2, ["'１'"]),
        ("0", 2, ["rate 0", "position 1"]),
        ("0,1", 2, ["rate 0", "position 1"]),
        ("1x0", 2, ["rate 0"]),
        ("4097", 2, ["4097", "4096"]),
        ("9" * 5000, 2, ["position 1", "too large", "at most 4096"]),
        ("1,99999999999999999999", 2, ["rate 99999999999999999999", "position 2", "too large", "4096"]),
        ("0" * 5000, 2, ["rate 0", "position 1"]),
        (",".join(["1"] * 257), 2, ["256", "257"]),
        ("1,\n2\n,x\n", 1, ["position 3"]),
    ],
)
def test_what_parse_refuses_is_said_in_one_line(text, dimensions, mentions) -> None:
    with pytest.raises(InputError) as caught:
        Stack.parse(text, axes=dimensions)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300
    assert all(mention in message for mention in mentions), message


@pytest.mark.parametrize("text", ["[1,2", "1,2]"])
def test_a_bracket_alone_is_refused(text) -> None:
    with pytest.raises(InputError):
        Stack.parse(text)


def test_a_stack_points_to_what_reads_parallel_branches() -> None:
    with pytest.raises(InputError, match=r"no parallel branches; hdc\.fields\.parse reads them$"):
        Stack.parse("1,[0,6,12,18]")


@given(st.text(alphabet="0123456789x,[] .-ab\n", max_size=12))
def test_parse_takes_text_or_refuses_it_and_nothing_else_happens(text) -> None:
    try:
        field = Stack.parse(text)
    except InputError as error:
        assert "\n" not in str(error)
        return
    if "-" in text:
        rates, _, repeat = text.strip().partition("x")
        expected = tuple(map(int, rates.split("-"))) * int(repeat or 1)
        assert [axis.layer_rates for axis in field.axes] == [expected, expected]
        return
    written = [[int(n) for n in part.split("x")] for part in text.strip().strip("[]").split(",")]
    pairs = [pair if len(pair) == 2 else pair * 2 for pair in written]
    heights, widths = (tuple(pair[axis] for pair in pairs) for axis in (0, 1))
    assert [axis.layer_rates for axis in field.axes] == [heights, widths]


@pytest.mark.parametrize("taps", [0, 1, -3])
def test_a_kernel_of_one_tap_is_refused(taps) -> None:
    with pytest.raises(InputError, match="kernel_size"):
        Stack.parse("1,2", taps)


def test_axes_that_do_not_belong_together_are_refused() -> None:
    one = DilationSchedule((1, 2))
    for axes in ((), (one,) * 3, (one, DilationSchedule((1,))), (one, DilationSchedule((1, 2), 5))):
        with pytest.raises(InputError, match="one schedule for signals or two for images"):
            Stack(axes)


def test_a_field_without_a_name_is_named_after_its_rates() -> None:
    assert Stack((DilationSchedule((1, 2, 5), repeat=2),)).name == "1-2-5x2"
    assert Stack.parse("1x2,2x2").name == "1x2-2x2"
    assert Branches(((1,), (0, 4), (0, 4), (0, 4))).name == "1,3 x (0|4)"
    assert Branches(((1,),), "mine").name == "mine"
