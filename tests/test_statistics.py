"""The statistics against their definitions, written slowly, and their error rates under a known truth."""

import itertools
import math

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hdc.lab.report import statistics
from hdc.lab.report.statistics import Correlation, Paired, omnibus_p, p_below

numbers = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))
samples = st.lists(numbers, min_size=2, max_size=8)


@settings(deadline=None, max_examples=60)
@given(samples)
def test_a_paired_test_is_all_its_sign_flips(values):
    found = Paired.of(values)
    assert found.p == pytest.approx(reference.sign_flip_p(values))
    assert found.p >= 2 / 2**found.n - 1e-12
    assert found.mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    mirrored = Paired.of([-value for value in values])
    assert mirrored.p == pytest.approx(found.p)


@settings(deadline=None, max_examples=60)
@given(samples)
def test_an_interval_is_there_and_within_the_sample(values):
    found = Paired.of(values)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found == Paired.of(values)


@pytest.mark.parametrize("n", [6, 10, 15])
def test_the_interval_is_efrons_bca(n):
    values = np.random.default_rng(n).gamma(1.0, size=n).tolist()
    generator = np.random.default_rng(99)
    means = generator.choice(values, size=(200_000, n)).mean(axis=1)
    found = Paired.of(values)
    expected = reference.bca(values, means)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))
    percentiles = np.percentile(means, [2.5, 97.5])  # which a skewed sample tells apart
    assert found.high - percentiles[1] > 0.05 * (expected[1] - expected[0])


@pytest.mark.parametrize("n", [2, 3, 5, 9, 12, 17])
def test_many_cells_at_once_have_scipy_s_numbers_to_the_last_digit(n):
    drawn = np.random.default_rng(n)
    cells = [(drawn.normal(0.3, 1, n) * 10.0**power).tolist() for power in range(-4, 3)]
    cells += [drawn.integers(-2, 3, n).tolist(), [0.25] * n, [0.0] * (n - 1) + [1.0]]
    cells = [[1.0], *cells, [], [math.nan] * n]  # among others, which are not tested
    found = Paired.of_each(cells)
    assert [one.n for one in found] == list(map(len, cells))
    assert all(math.isnan(found[place].p) for place in (0, -2, -1))
    for cell, one in zip(cells[1:-2], found[1:-2], strict=True):
        values = (np.array(cell, float),)
        shared = {"statistic": np.mean, "vectorized": True}
        test = stats.permutation_test(
            values, permutation_type="samples", n_resamples=2**16, rng=np.random.default_rng(0), **shared
        )
        bootstrap = stats.bootstrap(
            values,
            paired=True,
            method="BCa" if np.ptp(cell) else "percentile",
            rng=np.random.default_rng(0),
            **shared,
        )
        expected = (np.mean(cell), *bootstrap.confidence_interval, test.pvalue, np.std(cell, ddof=1))
        assert (one.mean, one.low, one.high, one.p, one.deviation) == expected


def test_equal_differences_have_the_point_and_fewer_than_two_nothing():
    same = Paired.of([0.25] * 7)
    assert (same.low, same.high, same.p, same.deviation) == (0.25, 0.25, 2 / 2**7, 0.0)
    assert Paired.of([0.0] * 7).p == 1.0
    for values, mean in (([], math.nan), ([0.5], 0.5), ([0.5, math.nan], math.nan)):
        found = Paired.of(values)
        assert found.n == len(values)
        np.testing.assert_equal(found.mean, mean)
        assert all(map(math.isnan, (found.low, found.high, found.p, found.detectable())))


def test_many_pairs_are_tested_by_sampling_and_come_out_the_same():
    values = np.random.default_rng(0).normal(0.45, 1, size=16).tolist()
    found = Paired.of(values)
    assert found.p == pytest.approx(reference.sign_flip_p(values), rel=1e-9)  # the last that is exact
    more = Paired.of([*values, 0.5])
    assert more.p == pytest.approx(reference.sign_flip_p([*values, 0.5]), rel=0.1)
    assert more == Paired.of([*values, 0.5])


def test_so_few_pairs_cannot_reach_five_per_cent():
    assert Paired.of([1.0, 1.1, 1.2]).p == 0.25
    for tests in (1, 2, 12, 16, 48):
        n = statistics.least_pairs(tests)
        assert tests * 2 / 2**n < 0.05 <= tests * 2 / 2 ** (n - 1)
        values = np.linspace(1, 2, n)
        assert Paired.of(values).resolvable(tests)
        assert not Paired.of(values[1:]).resolvable(tests)
        assert Paired.of(values[1:]).detectable(tests) == math.inf
    assert statistics.least_pairs() == 6


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=9))
def test_holm_is_its_definition(p):
    adjusted = statistics.holm(p)
    assert adjusted == pytest.approx(reference.holm(p))
    for (a, b), (c, d) in itertools.combinations(zip(p, adjusted, strict=True), 2):
        assert (a <= c and b <= d) or (a >= c and b >= d)


def test_holm_leaves_out_what_is_no_test():
    assert statistics.holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx(
        [0.03, math.nan, 0.06, 0.06], nan_ok=True
    )
    assert statistics.holm([]) == []


def test_under_the_null_a_corrected_family_is_wrong_in_at_most_one_table_of_twenty():
    """400 tables of 4 tests on 8 pairs without any difference; uncorrected, one in seven has a finding."""
    generator = np.random.default_rng(20)
    tables = generator.normal(size=(400, 4, 8))
    raw = [[Paired.of(cell).p for cell in table] for table in tables]
    wrong = np.mean([min(statistics.holm(p)) < 0.05 for p in raw])
    uncorrected = np.mean([min(p) < 0.05 for p in raw])
    assert wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
    assert 0.1 < uncorrected < 0.25


@pytest.mark.parametrize(("n", "tests"), [(10, 1), (13, 4), (14, 1), (16, 12)])
def test_the_smallest_effect_is_that_of_a_t_test_where_many_assignments_reach_the_level(n, tests):
    values = np.random.default_rng(n).normal(size=n)
    found = Paired.of(values)
    expected = reference.detectable(float(np.std(values, ddof=1)), n, 0.05 / tests)
    assert found.detectable(tests) == pytest.approx(expected, rel=0.04 if n <= 13 else 1e-3)
    assert found.detectable(tests) > found.detectable() - 1e-12


@pytest.mark.parametrize(("n", "tests"), [(6, 1), (10, 20), (12, 60)])
def test_where_only_one_assignment_does_all_signs_must_be_the_same(n, tests):
    """With the probability Phi(shift)^n: more than a t test needs."""
    found = Paired.of(np.random.default_rng(n).normal(size=n))
    expected = stats.norm.ppf(0.8 ** (1 / n)) * found.deviation
    assert found.detectable(tests) == pytest.approx(expected, rel=0.04)
    assert found.detectable(tests) > 1.15 * reference.detectable(found.deviation, n, 0.05 / tests)


@pytest.mark.parametrize("tests", [1, 10])
def test_the_sign_flip_test_has_the_power_that_is_told(tests):
    generator = np.random.default_rng(5)
    unit = Paired.of([-1.0, 1.0] * 5)
    shift = unit.detectable(tests) / unit.deviation  # of differences with deviation 1
    found = [tests * Paired.of(generator.normal(shift, 1, size=10)).p < 0.05 for _ in range(300)]
    assert 0.72 < np.mean(found) < 0.88


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=12))
def test_a_correlation_is_that_of_the_ranks(pairs):
    x, y = zip(*pairs, strict=True)
    found = Correlation.of(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(found.rho)
        assert math.isnan(found.p)
        return
    assert found.rho == pytest.approx(reference.spearman(x, y))
    assert -1 - 1e-9 <= found.low <= found.high <= 1 + 1e-9
    assert Correlation.of([math.exp(value) for value in x], y) == found


def test_a_correlation_s_p_counts_all_orders():
    x, y = [1, 2, 3, 4, 5], [2, 1, 3, 5, 4]
    rho = reference.spearman(x, y)
    others = [reference.spearman(x, order) for order in itertools.permutations(y)]
    expected = 2 * np.mean([value >= rho - 1e-12 for value in others])
    assert Correlation.of(x, y).p == pytest.approx(expected)
    perfect = Correlation.of(range(24), range(24))
    assert (perfect.rho, perfect.low, perfect.high) == pytest.approx((1, 1, 1))
    assert perfect.p < 0.001
    assert math.isnan(Correlation.of([1, 2, 3], [1, 2, 3]).rho)


def test_a_correlation_s_interval_covers_the_truth():
    """Normal pairs with Pearson 0.6 have Spearman 6 / pi arcsin(0.3)."""
    generator = np.random.default_rng(3)
    truth, inside = 6 / math.pi * math.asin(0.3), []
    for _ in range(60):
        x, noise = generator.normal(size=(2, 24))
        found = Correlation.of(x, 0.6 * x + 0.8 * noise)
        inside.append(found.low <= truth <= found.high)
    assert np.mean(inside) > 0.85


def test_the_smallest_correlation_is_the_one_found_four_times_in_five():
    """Normal pairs with Spearman rho have Pearson 2 sin(pi rho / 6)."""
    generator = np.random.default_rng(8)
    null, n = Correlation.of(range(16), generator.permutation(16)), 16
    pearson = 2 * math.sin(math.pi * null.detectable() / 6)
    x, noise = generator.normal(size=(2, 600, n))
    related = pearson * x + math.sqrt(1 - pearson**2) * noise
    critical = np.quantile([abs(reference.spearman(a, b)) for a, b in zip(x, noise, strict=True)], 0.95)
    found = [reference.spearman(a, b) > critical for a, b in zip(x, related, strict=True)]
    assert 0.72 < np.mean(found) < 0.88
    assert null.detectable(tests=10) > null.detectable()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 4)), min_size=5, max_size=9))
def test_a_partial_correlation_is_that_of_what_the_held_ranks_leave(rows):
    x, y, held = zip(*rows, strict=True)
    found = Correlation.of(x, y, held)
    if len(set(held)) == 1:
        assert found == Correlation.of(x, y)
        return
    assert found.held == 1
    if math.isnan(found.rho):
        left = [1 - reference.spearman(v, held) ** 2 if len(set(v)) > 1 else 0 for v in (x, y)]
        assert min(left) < 1e-9
        return
    assert found.rho == pytest.approx(reference.partial_spearman(x, y, held), abs=1e-6)
    assert -1 - 1e-6 <= found.low <= found.high <= 1 + 1e-6
    assert Correlation.of(y, x, [math.exp(value) for value in held]).rho == pytest.approx(found.rho, abs=1e-6)


def test_what_only_the_held_column_brings_about_is_gone_where_it_is_held():
    """Two numbers that both follow a third: correlated, and not at equal third, in 19 of 20 cases."""
    generator = np.random.default_rng(6)
    x, y, third = generator.normal(size=(3, 60, 24))
    found = [
        (Correlation.of(a + 2 * c, b + 2 * c).p < 0.05, Correlation.of(a + 2 * c, b + 2 * c, c).p < 0.05)
        for a, b, c in zip(x, y, third, strict=True)
    ]
    plain, partial = np.mean(found, axis=0)
    assert plain > 0.9
    assert partial < 0.15
    assert math.isnan(Correlation.of(third[0], y[0], np.exp(third[0])).rho)
    assert math.isnan(Correlation.of([1, 2, 3, 4], [2, 1, 4, 3], [1, 2, 4, 3]).detectable())


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=2, max_size=4))
def test_the_omnibus_test_counts_all_ways_to_permute_within_seeds(seeds):
    rows = list(zip(*seeds, strict=True))
    assert omnibus_p(rows) == pytest.approx(reference.omnibus_p(rows))
    two = [a - b for a, b in zip(*rows[:2], strict=True)]
    assert omnibus_p(rows[:2]) == pytest.approx(reference.sign_flip_p(two))


def test_the_omnibus_test_needs_numbers():
    for rows in ([[1.0, 2.0]], [[1.0], [2.0]], [[1.0, math.nan], [2.0, 3.0], [1.0, 2.0]]):
        assert math.isnan(omnibus_p(rows))


@settings(deadline=None, max_examples=60)
@given(samples, numbers)
def test_a_mean_below_a_bound_has_student_s_p(values, bound):
    found = p_below(values, bound)
    if len(set(values)) == 1:
        assert found == (0 if values[0] < bound else 1) or (values[0] == bound and math.isnan(found))
        return
    expected = stats.ttest_1samp(values, bound, alternative="less").pvalue
    assert found == pytest.approx(expected, abs=1e-9)
    mirrored = p_below([-value for value in values], -bound)
    assert found + mirrored == pytest.approx(1, abs=1e-9)
    assert math.isnan(p_below(values[:1], bound))
