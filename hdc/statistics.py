"""What values paired over seeds can tell: SciPy's statistics, the same numbers every time.

A test of n pairs by their signs has 2^n outcomes, so its smallest p is 2 / 2^n, whatever the effect:
three seeds end at 0.25. `Paired.resolvable` says whether n pairs can tell anything at all.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import numpy as np
from scipy import optimize, stats

CONFIDENCE = 0.95
ALPHA = 0.05  # two-sided
POWER = 0.8

_RESAMPLES = 2**16  # assignments of signs that are tried: up to 16 pairs, all of them
_SIMULATED = 13  # pairs, up to which the smallest detectable difference is the sign-flip test's own
_SAMPLES = 2000  # for that
_SEED = 0  # of all resampling, so that a table comes out the same every time


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
        quantile = float(stats.t.ppf((1 + confidence) / 2, n - 1))
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
        mean: NaN for no pairs, or where a difference is not finite; so are all numbers below.
        low, high: 95 % BCa bootstrap interval; NaN for fewer than two pairs. Where all differences are
            equal BCa is undefined and the interval is their one value: the sample shows no spread. Of few
            pairs it is too short: with normal differences it holds the truth in 90 % of samples of 12
            pairs, in 72 % of 3.
        p: two-sided, of the sign-flip permutation test of a mean of 0: exact up to 16 pairs, beyond that
            over 65536 assignments of signs; NaN for fewer than two pairs.
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
        values = np.asarray(differences, float)
        mean = float(np.mean(values)) if len(values) else math.nan
        if len(values) < 2 or not math.isfinite(mean):
            return cls(len(values), mean, math.nan, math.nan, math.nan, math.nan)
        test = stats.permutation_test(
            (values,),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=_RESAMPLES,
            rng=np.random.default_rng(_SEED),
        )
        low, high = _bootstrap((values,), np.mean)
        return cls(len(values), mean, low, high, float(test.pvalue), float(np.std(values, ddof=1)))

    def resolvable(self, tests: int = 1) -> bool:
        """Whether so many pairs, each way, can make one of `tests` tests significant after Holm."""
        return self.n >= least_pairs(tests)

    def detectable(self, tests: int = 1) -> float:
        """The smallest mean difference that this n and spread find with 80 % power, of normal differences.

        Of several `tests` the 5 % are divided by their number, which is Holm's first step. Up to 13 pairs it
        is the sign-flip test's own, simulated: where few assignments of signs reach the level it needs
        up to a third more than a t test. Beyond, a paired t test's: the delta with P(T > t) = 0.8, T
        noncentral t with n - 1 degrees of freedom and noncentrality delta sqrt(n) / s, t the two-sided point
        of Student's t (Cohen 1988, chapter 2). Infinite where not `resolvable`, NaN where the spread is not
        known.
        """
        if not math.isfinite(self.deviation):
            return math.nan
        if not self.resolvable(tests):
            return math.inf
        if self.n <= _SIMULATED:
            return _detectable_by_signs(self.n, tests) * self.deviation
        critical = float(stats.t.isf(ALPHA / tests / 2, self.n - 1))
        found = optimize.root_scalar(
            lambda value: stats.nct.sf(critical, self.n - 1, value) - POWER, bracket=(0, 10 * critical)
        )
        return found.root * self.deviation / math.sqrt(self.n)


@cache
def _detectable_by_signs(n: int, tests: int) -> float:
    """What the sign-flip test of n pairs detects, in standard deviations.

    Turning the signs of some of the differences x + d leaves the mean as large as it was where the mean of
    those is at most 0. So the k-th smallest of the means of all subsets of x, its sign turned, is the d from
    which fewer than k subsets do (Hartigan 1969); with the one that turns none they are k assignments of
    the 2^n, and k is the most that the level allows.
    """
    allowed = math.ceil(ALPHA / tests * 2.0 ** (n - 1)) - 1
    subsets = np.arange(1, 2**n)[None, :] >> np.arange(n)[:, None] & 1
    means = np.random.default_rng(_SEED).normal(size=(_SAMPLES, n)) @ (subsets / subsets.sum(axis=0))
    return float(np.quantile(-np.partition(means, allowed - 1, axis=1)[:, allowed - 1], POWER))


def least_pairs(tests: int = 1) -> int:
    """How many pairs a sign-flip test needs so that its smallest p, times `tests`, is below 5 %."""
    return next(n for n in count(2) if tests * 2.0 ** (1 - n) < ALPHA)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of one family (Holm 1979), in the order given; NaN is no test and stays."""
    values = np.asarray(p, float)
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN is sorted last
    stepped = values[order] * np.arange(len(order), 0, -1)
    values[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return values.tolist()


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of n rows.

    Attributes:
        n: rows.
        rho: NaN for fewer than four rows, whose resamples are mostly ties, where one side is constant and
            where a value is not finite; so are all numbers below.
        low, high: 95 % bootstrap interval (BCa) over the rows; where BCa is undefined, as for a perfect
            correlation, that of the percentiles.
        p: two-sided, of the permutation test: exact up to seven rows, beyond that over 9999 permutations.
    """

    n: int
    rho: float
    low: float
    high: float
    p: float

    @classmethod
    def of(cls, x: Sequence[float], y: Sequence[float]) -> "Correlation":
        data = np.asarray(x, float), np.asarray(y, float)
        if len(x) < 4 or min(np.ptp(data[0]), np.ptp(data[1])) == 0 or not np.isfinite(data).all():
            return cls(len(x), math.nan, math.nan, math.nan, math.nan)
        test = stats.permutation_test(
            data[:1],
            lambda x, axis: _spearman(x, data[1], axis),
            permutation_type="pairings",
            vectorized=True,
            n_resamples=9999,
            rng=np.random.default_rng(_SEED),
        )
        low, high = _bootstrap(data, _spearman)
        return cls(len(x), float(test.statistic), low, high, float(test.pvalue))

    def detectable(self, tests: int = 1) -> float:
        """The smallest correlation that so many rows find with 80 % power; NaN where there is no test.

        By Fisher's z, whose standard deviation for ranks is about 1.03 / sqrt(n - 3) (Fieller, Hartley and
        Pearson 1957); of several `tests` as in `Paired.detectable`.
        """
        if math.isnan(self.p):
            return math.nan
        quantiles = stats.norm.isf(ALPHA / tests / 2) + stats.norm.ppf(POWER)
        return float(np.tanh(1.03 * quantiles / math.sqrt(self.n - 3)))


def _spearman(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    """Pearson's correlation of the ranks; 0 for a resample of one value alone, which shows no relation."""
    a, b = (stats.rankdata(values, axis=axis) for values in (x, y))
    a, b = a - a.mean(axis=axis, keepdims=True), b - b.mean(axis=axis, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=axis) * (b**2).sum(axis=axis))
    return (a * b).sum(axis=axis) / np.where(scale > 0, scale, 1)


def _bootstrap(data: tuple[np.ndarray, ...], statistic: Callable[..., Any]) -> tuple[float, float]:
    """The 95 % BCa interval of a statistic of paired samples; of its percentiles where BCa is undefined."""
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            found = stats.bootstrap(
                data,
                statistic,
                paired=True,
                vectorized=True,
                confidence_level=CONFIDENCE,
                method=method,
                rng=np.random.default_rng(_SEED),
            ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            break
    return float(found.low), float(found.high)
