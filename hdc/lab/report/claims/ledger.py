"""The ledger: a verdict on every claim, from the records, by a rule that was fixed before the measurements.

The kind of a line says how it gets its verdict.

- *exact*, *count* and *memory* lines are computed or counted: `exact` if they hold, else `refuted`.
- *paired* lines (by seed), *time* lines (logarithms, by interleaved repeat) and *correlation* lines have a
  p-value, from the exact sign-flip test or the permutation test. Holm's method adjusts the p-values of all
  such lines of a claim together, for as many lines as the claim has, run or not. A line is `confirmed` if the
  adjusted p is below 0.05 and the sign is the claimed one, `refuted` if it is below 0.05 and the sign is the
  opposite, else `not resolved`, with the smallest difference that this n and spread would have shown.
- A line that expects *not higher* is `confirmed` if the upper end of the 90 % interval (Student's t: a
  one-sided test at 5 %) is below its margin; else `refuted` if the adjusted p is below 0.05 and the
  difference is above 0; else `not resolved`. *Not lower* is its mirror image. A claim needs all of its
  lines, so these intervals need no correction (an intersection-union test).
- The *matrix* line is `confirmed` if all cells agree with what the networks can see, else `refuted`.

A claim is `not run` if a line lacks records; else `refuted` if a line is refuted, `exact` if all lines are
exact, `confirmed` if all lines are confirmed or exact, else `not resolved`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.records.packed import TIMES_FILE
from hdc.lab.records.run import Run
from hdc.lab.report.claims.declared import Claim, Line, Selector
from hdc.lab.report.claims.facts import FACTS
from hdc.lab.report.statistics import ALPHA, Estimate, Paired, holm, least_pairs
from hdc.lab.report.tables import correlation, offsets_table
from hdc.lab.report.tables.columns import column, difference_text, title
from hdc.lab.report.tables.rendering import Document
from hdc.lab.report.tables.rows import Row, group
from hdc.lab.terminal import Rows

Verdict = Literal["exact", "confirmed", "refuted", "not resolved", "not run"]

_TESTED = ("paired", "time", "correlation")
_IN_WORDS = {
    "higher": "above",
    "lower": "below",
    "not_higher": "not above",
    "not_lower": "not below",
    "equal": "equal to",
}
_WORST_FIRST: tuple[Verdict, ...] = ("not run", "refuted", "not resolved", "confirmed", "exact")
_HOLDS = ("exact", "confirmed")


@dataclass(frozen=True)
class Outcome:
    """A line with its verdict.

    Attributes:
        line: as declared.
        verdict: by the rule.
        n: the number of pairs, repeats, rows or cells it rests on.
        found: what was found, as text: the difference with its interval, a ratio, a fact.
        detail: more about the verdict: the smallest effect, the margin, the command to run.
        effect, low, high, p, p_holm, mde: the numbers, in the column's own units (logarithms of the ratio
            for time); NaN where a line has none.
        pairs: the differences behind a paired or time line.
        detectable: of a tested line, the smallest effect that could have been shown among N tests.
    """

    line: Line
    verdict: Verdict
    n: int = 0
    found: str = ""
    detail: str = ""
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    mde: float = math.nan
    pairs: tuple[float, ...] = ()
    detectable: Callable[[int], float] | None = None


@dataclass(frozen=True)
class Judged:
    """A claim with the outcomes of its lines."""

    claim: Claim
    outcomes: tuple[Outcome, ...]

    @property
    def verdict(self) -> Verdict:
        """By the rule: the worst verdict of its lines."""
        found = {outcome.verdict for outcome in self.outcomes}
        return next(verdict for verdict in _WORST_FIRST if verdict in found)

    @property
    def text(self) -> str:
        """The verdict as the table shows it."""
        missing = dict.fromkeys(one.detail for one in self.outcomes if one.verdict == "not run")
        more = {"not run": f": {'; '.join(missing)}", "not resolved": " at this n"}
        return self.verdict + more.get(self.verdict, "")

    @property
    def holding(self) -> int:
        """The number of lines that are exact or confirmed."""
        return sum(outcome.verdict in _HOLDS for outcome in self.outcomes)


def judge(claims: Sequence[Claim], results: str) -> tuple[Judged, ...]:
    """Every claim with its verdict.

    Args:
        claims: as `hdc.lab.report.claims` reads them.
        results: the folder that holds the studies: records, or packed findings.

    Raises:
        InputError: for records that cannot be read, mixed rows, or a selector that several rows match.
    """
    known = records.studies(results)
    metrics: dict[str, list[str]] = {}
    for line in (line for claim in claims for line in claim.lines):
        metrics.setdefault(line.study, []).append(line.metric)
    studies = {name: _Study(name, results, metrics[name], name in known) for name in metrics}
    return tuple(_judged(claim, studies) for claim in claims)


class _Study:
    """The records of one study; without runs where it has none."""

    def __init__(self, name: str, results: str, metrics: Sequence[str], known: bool):
        self.name, self._results = name, results
        self.runs = records.load(name, results) if known else []
        self.rows = group(self.runs, list(dict.fromkeys(filter(None, metrics))))

    @cached_property
    def _times(self) -> pl.DataFrame | None:
        there = (records.study_folder(self._results, self.name) / TIMES_FILE).exists()
        return records.times(self.name, self._results) if there else None

    def repeats(self, row: Row, column: str) -> Mapping[int, float]:
        """The value of each repeat of a row: the median over its runs, which differ only in their seeds."""
        if self._times is None:
            return {}
        chosen = self._times.filter(pl.col("run_id").is_in([run.run_id for run in row.runs]))
        chosen = chosen.drop_nulls(column).group_by("repeat", maintain_order=True)
        return dict(chosen.agg(pl.col(column).median()).iter_rows())

    def row(self, selector: Selector) -> Row:
        """The row that a selector matches.

        Raises:
            _NotRun: where it matches none.
            InputError: where it matches several.
        """
        found = [
            row
            for row in self.rows
            if row.runs[0].config.dilation.layer_rates == selector.rates
            and all(row.keys.get(key) == value for key, value in selector.keys.items())
        ]
        if len(found) > 1:
            raise InputError(
                f"study {self.name}: {selector} matches several rows: "
                f"{' | '.join(row.label for row in found)}; add the keys that distinguish them to claims.toml"
            )
        if not found:
            raise _NotRun(f"hdc train study={self.name}")
        return found[0]


class _NotRun(Exception):
    """A line has no records; the message is the command that makes them and its runs that failed."""

    def __init__(self, command: str, runs: Sequence[Run] = ()):
        failed = (
            f"{run.config.dilation.label} ({run.run_id}) failed: {run.failure.get('error')}"
            for run in runs
            if run.state == "failed"
        )
        super().__init__("; ".join((command, *failed)))


def _judged(claim: Claim, studies: Mapping[str, _Study]) -> Judged:
    found = [_outcome(line, studies[line.study]) for line in claim.lines]
    # A line that was not run counts as a test that found nothing, so running less never helps a claim.
    tested = [i for i, line in enumerate(claim.lines) if line.kind in _TESTED]
    p = [1.0 if math.isnan(found[i].p) else found[i].p for i in tested]
    for i, adjusted in zip(tested, holm(p), strict=True):
        found[i] = _tested(found[i], adjusted, len(tested))
    return Judged(claim, tuple(found))


def _outcome(line: Line, study: _Study) -> Outcome:
    """What the records say about a line; a tested one is `not resolved` until its p is adjusted."""
    try:
        match line.kind:
            case "exact":
                holds, told = FACTS[line.fact]()
                return Outcome(line, "exact" if holds else "refuted", found=told)
            case "matrix":
                return _matrix(line, study)
            case "correlation":
                return _correlation(line, study)
            case _:
                return _compared(line, study)
    except _NotRun as missing:
        return Outcome(line, "not run", detail=str(missing))


def _matrix(line: Line, study: _Study) -> Outcome:
    cells = offsets_table.cells(study.runs)
    if not cells or not all(cell.accuracies for cell in cells):
        raise _NotRun(f"hdc train study={study.name}", study.runs)
    if not all(cell.judged for cell in cells):
        raise _NotRun(f"hdc runs {study.name} --analyse")
    agreeing = sum(cell.agrees for cell in cells)
    verdict = "confirmed" if agreeing == len(cells) else "refuted"
    return Outcome(line, verdict, len(cells), f"agrees in {agreeing} of {len(cells)} cells")


def _correlation(line: Line, study: _Study) -> Outcome:
    alike = dict.fromkeys(", ".join(row.others) for row in study.rows)
    if len(alike) > 1:
        raise InputError(
            f"study {study.name}: a correlation needs rows that differ only in their schedule, "
            f"there are {' | '.join(alike)}"
        )
    one = correlation(study.rows, line.predicted, line.metric)
    if not one.n:
        raise _NotRun(f"hdc train study={study.name}")
    numbers = (one.rho, one.low, one.high, one.p)
    return Outcome(line, "not resolved", one.n, f"ρ {one}", "", *numbers, detectable=one.detectable)


def _compared(line: Line, study: _Study) -> Outcome:
    """Treatment against control: counts and bytes as they are, the rest paired by seed or repeat."""
    rows = study.row(line.treatment), study.row(line.control)
    mine, theirs = (_values(line, study, row) for row in rows)
    pairs = [(mine[key], theirs[key]) for key in mine if key in theirs]
    if not pairs and line.kind in ("time", "memory"):
        raise _NotRun(f"hdc time study={study.name}")
    if not pairs:
        raise _NotRun(f"hdc train study={study.name}", [run for row in rows for run in row.runs])
    if line.kind in ("count", "memory"):
        one, other = pairs[0]
        counted = line.kind == "count"
        mb = (f"{value / 1e6:,.2f} MB" for value in pairs[0])
        shown = (row.text(line.column) for row in rows) if counted else mb
        told = " against ".join(shown) + (f" (×{one / other:.3g})" if other else "")
        holds = {"equal": one == other, "lower": one < other, "higher": one > other}[line.expect]
        return Outcome(line, "exact" if holds else "refuted", 1, told, effect=one - other)
    timed = line.kind == "time"
    differences = tuple(math.log(a / b) if timed else a - b for a, b in pairs)
    found = Paired.of(differences)
    told = _difference(line, found.mean, found.low, found.high)
    if timed:
        medians = np.median(list(mine.values())) / np.median(list(theirs.values()))
        told = f"medians ×{medians:.3f}, paired {told}"
    numbers = (found.mean, found.low, found.high, found.p)
    return Outcome(
        line, "not resolved", found.n, told, "", *numbers, pairs=differences, detectable=found.detectable
    )


def _values(line: Line, study: _Study, row: Row) -> Mapping[int, float]:
    """What a line compares of a row, by seed or repeat; a count by 0."""
    match line.kind:
        case "paired":
            return row.values.get(line.metric, {})
        case "count":
            value = row.estimate(line.column).mean
            return {} if math.isnan(value) else {0: value}
        case _:
            return study.repeats(row, "step_seconds" if line.kind == "time" else "step_bytes")


def _tested(outcome: Outcome, adjusted: float, tests: int) -> Outcome:
    """The verdict of a line with its adjusted p; a line that was not run stays as it is."""
    if outcome.detectable is None:
        return outcome
    line, mde = outcome.line, outcome.detectable(tests)
    outcome = replace(outcome, p_holm=adjusted, mde=mde if math.isfinite(mde) else math.nan)
    sign = -1 if line.expect in ("lower", "not_lower") else 1
    claimed, significant = sign * outcome.effect > 0, adjusted < ALPHA
    verdict, details = "not resolved", []
    if line.expect.startswith("not_"):
        interval, style = Estimate.of(outcome.pairs, 0.9), column(line.metric)
        end = interval.high if sign > 0 else interval.low
        margin = f"{line.margin * style.factor:.{style.digits}f}"
        details.append(f"90% interval to {_difference(line, end)}, margin {margin}")
        if sign * end < line.margin:
            verdict = "confirmed"
        elif significant and claimed:
            verdict = "refuted"
    elif significant:
        verdict = "confirmed" if claimed else "refuted"
    if verdict == "not resolved":
        details.append(_smallest(outcome, tests))
    return replace(outcome, verdict=verdict, detail="; ".join(details))


def _smallest(outcome: Outcome, tests: int) -> str:
    """The smallest effect that this n could have shown, for a line that is not resolved."""
    if math.isfinite(outcome.mde):
        shown = _difference(outcome.line, -outcome.mde if "lower" in outcome.line.expect else outcome.mde)
        return f"smallest that n = {outcome.n} would have shown: {shown}"
    if not math.isfinite(outcome.effect) or outcome.line.kind == "correlation":
        return f"n = {outcome.n}: undefined"
    over = "" if tests == 1 else f" over {tests} lines"
    return f"n = {outcome.n} pairs cannot reach p < {ALPHA}{over}: at least {least_pairs(tests)}"


def _difference(line: Line, mean: float, low: float = math.nan, high: float = math.nan) -> str:
    """A difference in its column's units; for time a ratio; a correlation as it is."""
    if not math.isfinite(mean):
        return "undefined"
    if line.kind == "correlation":
        return f"ρ {mean:+.2f}"
    if line.kind == "time":
        shown = f"×{math.exp(mean):.3f}"
        return f"{shown} [{math.exp(low):.3f}, {math.exp(high):.3f}]" if math.isfinite(low) else shown
    return difference_text(line.metric, mean, low, high)


def document(judged: Sequence[Judged]) -> Document:
    """Two blocks, the claims and their lines; as data, one row per line."""
    claims = tuple(
        (one.claim.name, one.claim.text, one.text, f"{one.holding} of {len(one.outcomes)}") for one in judged
    )
    lines = tuple(
        (
            one.claim.name,
            _said(outcome.line),
            str(outcome.n or "–"),
            outcome.found or "–",
            "–" if math.isnan(outcome.p_holm) else f"{outcome.p_holm:.3g}",
            outcome.verdict + (f": {outcome.detail}" if outcome.detail else ""),
        )
        for one in judged
        for outcome in one.outcomes
    )
    notes = (
        "exact: computed or counted. Measured lines: [95% BCa bootstrap interval], tested by exact sign "
        "flips, p by Holm's method over the tested lines of a claim",
        f"confirmed: p < {ALPHA} with the claimed sign; refuted: with the other. Not above, not below: "
        "confirmed if the 90% interval (t) ends before the margin",
        "a claim is confirmed, or exact, if all of its lines are, and refuted if one is",
    )
    sections = (
        Rows(("", "claim", "verdict", "lines that hold"), claims, ("claim", "verdict"), "the claims"),
        Rows(
            ("", "line", "n", "found", "p (Holm)", "verdict"),
            lines,
            ("line", "found", "verdict"),
            "what they rest on",
        ),
    )
    frame = pl.DataFrame(
        [_record(one, outcome) for one in judged for outcome in one.outcomes], infer_schema_length=None
    )
    return Document(sections, notes, frame.fill_nan(None))


def _record(judged: Judged, outcome: Outcome) -> dict[str, Any]:
    numbers = ("n", "effect", "low", "high", "p", "p_holm", "mde")
    return {
        "claim": judged.claim.name,
        "claim_verdict": judged.verdict,
        "line": _said(outcome.line),
        "kind": outcome.line.kind,
        "study": outcome.line.study or None,
        **{name: getattr(outcome, name) for name in numbers},
        "found": outcome.found or None,
        "verdict": outcome.verdict,
        "detail": outcome.detail or None,
    }


def _said(line: Line) -> str:
    """A line as a sentence."""
    match line.kind:
        case "exact":
            return (FACTS[line.fact].__doc__ or "").rstrip(".")
        case "matrix":
            return f"{line.study}: learnt where the network sees it, guessed where it does not"
        case "correlation":
            what = f"{title(line.predicted, False)} and {title(line.metric, False)}"
            return f"{line.study}: rank correlation of {what} {_IN_WORDS[line.expect]} 0"
    compared = line.metric or line.column
    what = title(compared, False) if compared else f"step {line.kind}"
    shared = dict(line.treatment.keys.items() & line.control.keys.items())
    mine, theirs = (
        str(replace(one, keys={key: value for key, value in one.keys.items() if key not in shared}))
        for one in (line.treatment, line.control)
    )
    where = "".join(f", {key}={value}" for key, value in line.control.keys.items() if key in shared)
    return f"{line.study}: {what} of {mine} {_IN_WORDS[line.expect]} that of {theirs}{where}"
