"""Statistics of seed-paired values: intervals, tests, detectable differences. Reproducible to the last digit.

A sign-flip test of n pairs has 2^n outcomes, so its smallest p is 2 / 2^n however large the effect: 0.25 for
three seeds. `Paired.resolvable` says whether n pairs can reach significance at all.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count

import numpy as np
import scipy  # which imports its parts when they are used: stats takes as long as JAX

CONFIDENCE = 0.95
ALPHA = 0.05  # two-sided
POWER = 0.8

_RESAMPLES = 2**16  # assignments of signs to try; up to 16 pairs these are all
_AT_ONCE = 2**22  # numbers held in memory at a time
_SIMULATED = 13  # up to so many pairs the detectable difference of the sign-flip test is simulated ...
_SAMPLES = 2000  # ... with so many samples
_SEED = 0  # for all resampling, so that a table comes out the same every time


@dataclass(frozen=True)
class Estimate:
    """Mean and interval (Student's t) of one value per seed; the interval is NaN for one seed."""

    n: int
    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Sequence[float], confidence: float = CONFIDENCE) -> "Estimate":
        n = len(values)
        if n == 0:
            return cls(0, math.nan, math.nan)
        mean = float(np.mean(values))
        if n == 1:
            return cls(1, mean, math.nan)
        quantile = float(scipy.special.stdtrit(n - 1, (1 + confidence) / 2))  # of Student's t
        return cls(n, mean, quantile * float(np.std(values, ddof=1)) / math.sqrt(n))

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences.

    Attributes:
        n: pairs.
        mean: NaN without pairs, or if a difference is not finite; then all numbers below are NaN, too.
        low, high: 95 % BCa bootstrap interval; NaN for fewer than two pairs. If all differences are equal,
            BCa is undefined and the interval is that value: the sample shows no spread. With few pairs the
            interval is too narrow: for normal differences it covers the true value in 90 % of cases for 12
            pairs, in 72 % for 3.
        p: two-sided p-value of the sign-flip permutation test of a mean of 0: exact up to 16 pairs, beyond
            that over 65536 assignments of signs; NaN for fewer than two pairs.
        deviation: standard deviation of the differences; NaN for fewer than two pairs.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float
    deviation: float

    @classmethod
    def of(cls, differences: Sequence[float]) -> "Paired":
        return cls.of_each([differences])[0]

    @classmethod
    def of_each(cls, cells: Sequence[Sequence[float]]) -> list["Paired"]:
        """Like `of`, for many samples; those of equal length are tested together, with the same results."""
        known = [len(cell) > 1 and math.isfinite(np.mean(cell)) for cell in cells]
        p = dict.fromkeys(range(len(cells)), math.nan)
        for n in {len(cell) for cell, one in zip(cells, known, strict=True) if one}:
            places = [i for i, cell in enumerate(cells) if known[i] and len(cell) == n]
            rows = _batch(min(2**n, _RESAMPLES))
            for some in (places[start : start + rows] for start in range(0, len(places), rows)):
                p |= zip(some, _sign_flip_p(np.array([cells[i] for i in some], float)), strict=True)
        return [
            cls(
                len(cell),
                float(np.mean(cell)) if len(cell) else math.nan,
                *(_bootstrap((np.asarray(cell, float),), np.mean) if known[i] else (math.nan, math.nan)),
                p[i],
                float(np.std(cell, ddof=1)) if known[i] else math.nan,
            )
            for i, cell in enumerate(cells)
        ]

    def resolvable(self, tests: int = 1) -> bool:
        """Whether n pairs can make one of `tests` tests significant after Holm's correction."""
        return self.n >= least_pairs(tests)

    def detectable(self, tests: int = 1) -> float:
        """The smallest mean difference that n pairs of this spread find with 80 % power, if they are normal.

        For several `tests` the level of 5 % is divided by their number, Holm's first step. Up to 13 pairs
        the sign-flip test is simulated: where few assignments of signs reach the level, it needs up to a
        third more than a t test. Beyond, it is a paired t test's: the delta with P(T > t) = 0.8, where T is
        noncentral t with n - 1 degrees of freedom and noncentrality delta sqrt(n) / s, and t is the
        two-sided quantile of Student's t (Cohen 1988, chapter 2). Infinite if not `resolvable`, NaN if the
        spread is not known.
        """
        if not math.isfinite(self.deviation):
            return math.nan
        if not self.resolvable(tests):
            return math.inf
        if self.n <= _SIMULATED:
            return _detectable_by_signs(self.n, tests) * self.deviation
        return _noncentrality(self.n, tests) * self.deviation / math.sqrt(self.n)


def _sign_flip_p(values: np.ndarray) -> list[float]:
    """For each row, the p of the sign-flip test of its mean."""
    test = scipy.stats.permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        axis=-1,
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=_batch(values.size),
        rng=np.random.default_rng(_SEED),
    )
    return np.asarray(test.pvalue).tolist()


@cache
def _detectable_by_signs(n: int, tests: int) -> float:
    """The mean difference that the sign-flip test of n pairs detects, in standard deviations.

    Flipping the signs of a subset of the differences x + d leaves their mean as large as it was, or makes it
    larger, if the subset's mean is at most 0. So minus the k-th smallest of the means of all subsets of x is
    the d above which fewer than k subsets do so (Hartigan 1969). With the assignment that flips none these
    are k of the 2^n assignments, and k is the most that the level allows.
    """
    allowed = math.ceil(ALPHA / tests * 2.0 ** (n - 1)) - 1
    subsets = np.arange(1, 2**n)[None, :] >> np.arange(n)[:, None] & 1
    means = np.random.default_rng(_SEED).normal(size=(_SAMPLES, n)) @ (subsets / subsets.sum(axis=0))
    return float(np.quantile(-np.partition(means, allowed - 1, axis=1)[:, allowed - 1], POWER))


@cache
def _noncentrality(n: int, tests: int) -> float:
    """The noncentrality delta sqrt(n) / s that a paired t test of n pairs detects."""
    critical = float(scipy.stats.t.isf(ALPHA / tests / 2, n - 1))
    return scipy.optimize.root_scalar(
        lambda value: scipy.stats.nct.sf(critical, n - 1, value) - POWER, bracket=(0, 10 * critical)
    ).root


def least_pairs(tests: int = 1) -> int:
    """The number of pairs from which a sign-flip test's smallest p, times `tests`, is below 5 %."""
    return next(n for n in count(2) if tests * 2.0 ** (1 - n) < ALPHA)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of one family (Holm 1979), in the order given; NaN, for no test, stays NaN."""
    values = np.asarray(p, float)
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN is sorted last
    stepped = values[order] * np.arange(len(order), 0, -1)
    values[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return values.tolist()


def p_below(values: Sequence[float], bound: float) -> float:
    """One-sided p of Student's t test: small where the mean of `values` is shown to lie below `bound`.

    NaN for fewer than two values; without any spread 0 or 1, and NaN at the bound itself. `1 - p` is the p
    of the test that the mean lies above.
    """
    if len(values) < 2:
        return math.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.std(values, ddof=1) / math.sqrt(len(values))
        return float(scipy.special.stdtr(len(values) - 1, np.divide(np.mean(values) - bound, error)))


def omnibus_p(rows: Sequence[Sequence[float]]) -> float:
    """p of the test that the rows do not differ at all; each has one value per seed, in the same order.

    It is the sign-flip test for more than two rows: the values of each seed are permuted among the rows, and
    the statistic is the variance of the rows' means. NaN for fewer than two seeds or rows, or if a value is
    not finite.
    """
    data = np.array(rows, float)
    if min(data.shape) < 2 or not np.isfinite(data).all():
        return math.nan
    test = scipy.stats.permutation_test(
        tuple(data),
        lambda *rows, axis: np.var([row.mean(axis=axis) for row in rows], axis=0),
        permutation_type="samples",
        vectorized=True,
        alternative="greater",
        n_resamples=9999,
        batch=_batch(data.size),
        rng=np.random.default_rng(_SEED),
    )
    return float(test.pvalue)


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of n rows, or the partial one: what is left of it where a third is held.

    Attributes:
        n: rows.
        rho: NaN for fewer than four rows, whose resamples are mostly ties, if one side is constant or, of a
            partial correlation, ranks as what is held does, or if a value is not finite; then all numbers
            below are NaN, too.
        low, high: 95 % bootstrap interval over the rows: BCa, or percentiles where BCa is undefined, as for
            a perfect correlation.
        p: two-sided p-value of the permutation test: exact up to seven rows, beyond that over 9999
            permutations. Of a partial correlation the residuals are permuted, which is nearly exact.
        held: how many columns are held, 0 or 1.
    """

    n: int
    rho: float
    low: float
    high: float
    p: float
    held: int = 0

    @classmethod
    def of(
        cls, x: Sequence[float], y: Sequence[float], given: Sequence[float] | None = None
    ) -> "Correlation":
        """The correlation of x and y; with `given`, of what the ranks of `given` leave of their ranks.

        SciPy has no partial correlation, so this one is ours (tested by residuals of permuted ranks, after
        Freedman and Lane 1983). A `given` that is constant holds nothing.
        """
        data = [np.asarray(values, float) for values in (x, y)]
        if given is not None and len(given) and np.ptp(given) > 0:
            data.append(np.asarray(given, float))
        held, unknown = len(data) - 2, cls(len(x), math.nan, math.nan, math.nan, math.nan, len(data) - 2)
        if len(x) < 4 or min(map(np.ptp, data)) == 0 or not np.isfinite(data).all():
            return unknown
        ranks = scipy.stats.rankdata(data, axis=-1)  # permuting the values only permutes the ranks
        if held:
            design = np.stack([np.ones(len(x)), ranks[2]], axis=1)
            ranks = ranks[:2] - (design @ np.linalg.lstsq(design, ranks[:2].T)[0]).T
            if np.abs(ranks).max(axis=1).min() < 1e-9:  # one ranks as what is held does
                return unknown
        test = scipy.stats.permutation_test(
            (ranks[0],),
            lambda x, axis: _pearson(x, ranks[1], axis),
            permutation_type="pairings",
            vectorized=True,
            n_resamples=9999,
            batch=_batch(len(x)),
            rng=np.random.default_rng(_SEED),
        )
        low, high = _bootstrap(tuple(data), _partial if held else _spearman)
        return cls(len(x), float(test.statistic), low, high, float(test.pvalue), held)

    def __str__(self) -> str:
        return f"{self.rho:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"

    def detectable(self, tests: int = 1) -> float:
        """The smallest correlation that n rows find with 80 % power; NaN without a test or for too few rows.

        By Fisher's z, whose standard deviation for ranks is about 1.03 / sqrt(n - 3), with one row less for
        what is held (Fieller, Hartley and Pearson 1957); several `tests` count as in `Paired.detectable`.
        """
        rows = self.n - 3 - self.held
        if math.isnan(self.p) or rows < 1:
            return math.nan
        quantiles = scipy.stats.norm.isf(ALPHA / tests / 2) + scipy.stats.norm.ppf(POWER)
        return float(np.tanh(1.03 * quantiles / math.sqrt(rows)))


def _partial(x: np.ndarray, y: np.ndarray, given: np.ndarray, axis: int = -1) -> np.ndarray:
    """Spearman's partial correlation; 0 where what is held leaves nothing of one side."""
    together, one, other = (_spearman(a, b, axis) for a, b in ((x, y), (x, given), (y, given)))
    scale = np.sqrt(np.maximum((1 - one**2) * (1 - other**2), 0))
    return np.where(scale > 1e-9, together - one * other, 0) / np.where(scale > 1e-9, scale, 1)


def _spearman(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    """Pearson's correlation of the ranks; 0 where a resample is constant and so shows no relation."""
    return _pearson(scipy.stats.rankdata(x, axis=axis), scipy.stats.rankdata(y, axis=axis), axis)


def _pearson(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    a, b = a - a.mean(axis=axis, keepdims=True), b - b.mean(axis=axis, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=axis) * (b**2).sum(axis=axis))
    return (a * b).sum(axis=axis) / np.where(scale > 0, scale, 1)


def _batch(n: int) -> int:
    """How many pieces of n numbers to hold at a time; it does not change the results."""
    return max(1, _AT_ONCE // n)


def _bootstrap(data: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray]) -> tuple[float, float]:
    """The 95 % BCa interval of a statistic of paired samples; percentiles where BCa is undefined."""
    low, high = math.nan, math.nan
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
            warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
            low, high = scipy.stats.bootstrap(
                data,
                statistic,
                paired=True,
                vectorized=True,
                confidence_level=CONFIDENCE,
                n_resamples=9999,
                batch=_batch(len(data[0])),
                method=method,
                rng=np.random.default_rng(_SEED),
            ).confidence_interval
        if math.isfinite(low) and math.isfinite(high):
            break
    return float(low), float(high)
