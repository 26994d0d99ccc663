"""`hdc.fields`: counts over a field of any shape, against loops and against schedules."""

import numpy as np
import pytest
import reference
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from hdc.fields import PathCounts
from hdc.receptive import analyse
from hdc.schedules import DilationSchedule

RATES = st.lists(st.integers(1, 7), min_size=1, max_size=5)
FIELDS = st.integers(1, 5).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(0, 3), min_size=width, max_size=width), min_size=1, max_size=6
    )
)


@given(RATES, st.sampled_from([2, 3, 4]), st.sampled_from([1, 2]))
def test_a_stack_without_branches_is_its_schedule(rates: list[int], taps: int, axes: int) -> None:
    schedule = DilationSchedule(tuple(rates), kernel_size=taps)
    counts = PathCounts.of_layers([[rate] for rate in rates], taps, axes)
    line = reference.path_counts(rates, taps)
    whole = line if axes == 1 else np.outer(line, line)
    assert counts.size == (schedule.receptive_field,) * axes
    np.testing.assert_allclose(counts.counts, whole / whole.sum(), rtol=1e-12)
    assert counts.coverage == pytest.approx(schedule.coverage**axes)
    assert counts.gap_free == schedule.gap_free
    hole = reference.first_hole(line)
    assert counts.first_hole == (None if hole is None else (*[0] * (axes - 1), hole))
    assert counts.holes.sum() == np.count_nonzero(whole == 0)
    for axis in range(axes):
        np.testing.assert_allclose(counts.along(axis), line / line.sum(), rtol=1e-12)
        assert counts.axis_coverage(axis) == pytest.approx(schedule.coverage)
        assert counts.effective_width(axis) == pytest.approx(schedule.effective_width)
    if axes == 1:
        assert counts.neighbour_overlap(0) == pytest.approx(schedule.neighbour_overlap)


@given(RATES, st.sampled_from([2, 3, 4]))
def test_the_gridding_index_is_that_of_the_schedule(rates: list[int], taps: int) -> None:
    found = PathCounts.of_layers([[rate] for rate in rates], taps).gridding(max(rates))
    spectrum = reference.gridding_spectrum(rates, taps)
    strongest = max(spectrum.values(), default=0.0)
    assert found.index == pytest.approx(strongest, abs=1e-9)
    assert found.index == pytest.approx(DilationSchedule(tuple(rates), taps).gridding.index, abs=1e-9)
    if strongest > 1e-9:
        assert found.frequency is not None
        assert spectrum[found.frequency] == pytest.approx(strongest, abs=1e-9)
        assert found.frequency <= 0.5
    else:
        assert found.index < 1e-9


BRANCHES = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=3).filter(
    lambda layers: any(map(any, layers))
)


@given(BRANCHES, st.sampled_from([2, 3, 4]))
def test_branches_are_choices(layers: list[list[int]], taps: int) -> None:
    counts = PathCounts.of_layers(layers, taps)
    expected = reference.branched_counts(layers, taps)
    total = sum(expected.values())
    low = [min(place[axis] for place in expected) for axis in (0, 1)]
    high = [max(place[axis] for place in expected) for axis in (0, 1)]
    assert counts.origin == tuple(low)
    assert counts.size == tuple(b - a + 1 for a, b in zip(low, high, strict=True))
    for row, column in np.ndindex(*counts.size):
        paths = expected.get((row + low[0], column + low[1]), 0)
        assert counts.counts[row, column] == pytest.approx(paths / total, abs=1e-12)
    places = sorted((row - low[0], column - low[1]) for row, column in expected)
    unseen = sorted(set(np.ndindex(*counts.size)) - set(places))
    assert counts.first_hole == (unseen[0] if unseen else None)
    assert counts.coverage == pytest.approx(len(places) / np.prod(counts.size))


@pytest.mark.parametrize("taps", [2, 3])
def test_the_same_branches_as_a_model(taps: int) -> None:
    class Branches(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            rates = (1, 3)
            self.convs = nnx.List(nnx.Conv(2, 2, (taps, taps), kernel_dilation=r, rngs=rngs) for r in rates)

        def __call__(self, x):
            return x + self.convs[0](x) + self.convs[1](x)

    analysis = analyse(nnx.eval_shape(lambda: Branches(nnx.Rngs(0))), (1, 16, 16, 2))
    counts = PathCounts.of_layers([[0, 1, 3]], taps)
    np.testing.assert_allclose(counts.counts, analysis.path_counts, rtol=0, atol=1e-12)
    assert tuple(8 + start for start in counts.origin) == analysis.paths.origin


@given(FIELDS, st.integers(-3, 3))
def test_any_field_is_cut_to_what_is_seen(rows: list[list[int]], start: int) -> None:
    field = np.array(rows, float)
    if not field.any():
        with pytest.raises(ValueError):
            PathCounts.of(field, (start, start))
        return
    counts = PathCounts.of(field, (start, 0))
    seen = np.argwhere(field)
    assert counts.origin == (seen[:, 0].min() + start, seen[:, 1].min())
    assert counts.size == tuple(np.ptp(seen, axis=0) + 1)
    assert counts.counts.sum() == pytest.approx(1)
    assert counts.seen.sum() == len(seen)
    for axis in (0, 1):
        positions = np.repeat(seen[:, axis], field[field > 0].astype(int))
        assert counts.effective_width(axis) == pytest.approx(np.std(positions), abs=1e-9)


@given(FIELDS, st.integers(0, 6), st.sampled_from([0, 1]))
def test_neighbours_share_pixels_that_both_see(rows: list[list[int]], shift: int, axis: int) -> None:
    field = np.array(rows, float)
    if not field.any():
        return
    step = np.eye(2, dtype=int)[axis] * shift
    mine = {tuple(place) for place in np.argwhere(field)}
    theirs = {tuple(place) for place in np.argwhere(field) + step}
    overlap = PathCounts.of(field, (0, 0)).neighbour_overlap(axis, shift)
    assert overlap == pytest.approx(len(mine & theirs) / len(mine | theirs))


@given(FIELDS, st.integers(1, 6))
def test_gridding_is_the_strongest_ripple_along_either_axis(rows: list[list[int]], longest: int) -> None:
    field = np.array(rows, float)
    if not field.any():
        return
    strongest = 0.0
    for axis in (0, 1):
        line = field.sum(axis=1 - axis)
        for q in range(2, longest + 1):
            for m in range(1, q):
                wave = np.exp(-2j * np.pi * m / q * np.arange(len(line)))
                strongest = max(strongest, abs(wave @ line) / line.sum())
    assert PathCounts.of(field, (0, 0)).gridding(longest).index == pytest.approx(min(strongest, 1), abs=1e-9)


def test_holes_by_hand() -> None:
    counts = PathCounts.of(np.array([[0, 0, 0, 0], [0, 2, 0, 1], [0, 1, 4, 0]]), (5, -1))
    assert (counts.origin, counts.size, counts.first_hole) == ((6, 0), (2, 3), (0, 1))
    assert counts.holes.tolist() == [[False, True, False], [False, False, True]]
    assert counts.coverage == pytest.approx(4 / 6)
    assert counts.along(0) == pytest.approx([3 / 8, 5 / 8])
    assert counts.axis_coverage(1) == 1
    assert counts.neighbour_overlap(1) == pytest.approx(1 / 7)


def test_volumes_have_three_axes() -> None:
    counts = PathCounts.of_layers([[1], [2]], 3, axes=3)
    assert (counts.size, counts.origin, counts.gap_free) == ((7, 7, 7), (-3, -3, -3), True)
    assert counts.along(2) == pytest.approx(reference.path_counts([1, 2], 3) / 9)
