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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import polars as pl

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.records.packed import TIMES_FILE
from hdc.lab.records.run import Run
from hdc.lab.report.claims.declared import Claim, Line, Selector
from hdc.lab.report.claims.facts import FACTS
from hdc.lab.report.statistics import ALPHA, Correlation, Estimate, Paired, holm, least_pairs
from hdc.lab.report.tables import correlation, offsets_table
from hdc.lab.report.tables.columns import DESCRIBED, column, difference_text, number, title
from hdc.lab.report.tables.rendering import Document, Section
from hdc.lab.report.tables.rows import Row, group

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
        match self.verdict:
            case "not run":
                missing = dict.fromkeys(o.detail for o in self.outcomes if o.verdict == "not run")
                return f"not run: {'; '.join(missing)}"
            case "not resolved":
                return "not resolved at this n"
            case verdict:
                return verdict

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
    evidence = _Evidence(claims, results)
    return tuple(_judged(claim, evidence) for claim in claims)


class _Evidence:
    """The records of the studies that the claims need, each read once."""

    def __init__(self, claims: Sequence[Claim], results: str):
        self._results = results
        self._known = records.studies(results)
        self._metrics: dict[str, list[str]] = {}
        for line in (line for claim in claims for line in claim.lines if line.metric):
            self._metrics.setdefault(line.study, []).append(line.metric)
        self.runs = cache(self._runs)
        self.rows = cache(self._rows)
        self.times = cache(self._times)

    def _runs(self, study: str) -> list[Run]:
        return records.load(study, self._results) if study in self._known else []

    def _rows(self, study: str) -> tuple[Row, ...]:
        return group(self.runs(study), list(dict.fromkeys(self._metrics.get(study, []))))

    def _times(self, study: str) -> pl.DataFrame | None:
        there = (records.study_folder(self._results, study) / TIMES_FILE).exists()
        return records.times(study, self._results) if there else None

    def row(self, study: str, selector: Selector) -> Row | None:
        """The row that a selector matches, None if there is none.

        Raises:
            InputError: where it matches several.
        """
        found = [
            row
            for row in self.rows(study)
            if row.runs[0].config.dilation.layer_rates == selector.rates
            and all(row.keys.get(key) == value for key, value in selector.keys.items())
        ]
        if len(found) > 1:
            raise InputError(
                f"study {study}: {selector} matches several rows: "
                f"{' | '.join(row.label for row in found)}; add the keys that distinguish them to claims.toml"
            )
        return found[0] if found else None


def _judged(claim: Claim, evidence: _Evidence) -> Judged:
    found = [_outcome(line, evidence) for line in claim.lines]
    # A line that was not run counts as a test that found nothing, so running less never helps a claim.
    tested = [i for i, line in enumerate(claim.lines) if line.kind in _TESTED]
    p = [1.0 if math.isnan(found[i].p) else found[i].p for i in tested]
    for i, adjusted in zip(tested, holm(p), strict=True):
        if found[i].verdict != "not run":
            found[i] = _tested(found[i], adjusted, len(tested))
    return Judged(claim, tuple(found))


def _outcome(line: Line, evidence: _Evidence) -> Outcome:
    """What the records say about a line; a tested one is `not resolved` until its p is adjusted."""
    not_run = Outcome(line, "not run", detail=f"hdc train study={line.study}")
    match line.kind:
        case "exact":
            holds, told = FACTS[line.fact]()
            return Outcome(line, "exact" if holds else "refuted", found=told)
        case "matrix":
            runs = evidence.runs(line.study)
            return _matrix(line, runs) or _with_failures(not_run, runs)
        case "correlation":
            return _correlation(line, evidence.rows(line.study)) or not_run
    treatment, control = (evidence.row(line.study, one) for one in (line.treatment, line.control))
    if treatment is None or control is None:
        return not_run
    not_run = _with_failures(not_run, [*treatment.runs, *control.runs])
    match line.kind:
        case "count":
            return _count(line, treatment, control) or not_run
        case "paired":
            pairs = treatment.differences(line.metric, control)
            if not pairs:
                return not_run
            one = Paired.of(pairs)
            told = _difference(line, one.mean, one.low, one.high)
        case "memory":
            bytes_ = (_repeats(evidence.times(line.study), row, "step_bytes") for row in (treatment, control))
            mine, theirs = (next(iter(values.values()), math.nan) for values in bytes_)
            shown = (f"{value / 1e6:,.2f} MB" for value in (mine, theirs))
            return _counted(line, mine, theirs, *shown) or _no_times(not_run)
        case _:
            mine, theirs = (
                _repeats(evidence.times(line.study), row, "step_seconds") for row in (treatment, control)
            )
            pairs = [math.log(mine[repeat] / theirs[repeat]) for repeat in mine if repeat in theirs]
            if not pairs:
                return _no_times(not_run)
            one = Paired.of(pairs)
            medians = np.median(list(mine.values())) / np.median(list(theirs.values()))
            told = f"medians ×{medians:.3f}, paired {_difference(line, one.mean, one.low, one.high)}"
    return Outcome(
        line, "not resolved", one.n, told, "", one.mean, one.low, one.high, one.p, pairs=tuple(pairs)
    )


def _with_failures(not_run: Outcome, runs: Sequence[Run]) -> Outcome:
    """The outcome with its failed runs named beside the command."""
    failed = (
        f"; {run.config.dilation.label} ({run.run_id}) failed: {run.failure.get('error')}"
        for run in runs
        if run.state == "failed"
    )
    return replace(not_run, detail=not_run.detail + "".join(failed))


def _matrix(line: Line, runs: Sequence[Run]) -> Outcome | None:
    cells = offsets_table.cells(runs)
    if not cells or not all(cell.accuracies for cell in cells):
        return None
    if not all(cell.judged for cell in cells):
        return Outcome(line, "not run", detail=f"hdc runs {line.study} --analyse")
    agreeing = sum(cell.agrees for cell in cells)
    verdict = "confirmed" if agreeing == len(cells) else "refuted"
    return Outcome(line, verdict, len(cells), f"agrees in {agreeing} of {len(cells)} cells")


def _correlation(line: Line, rows: Sequence[Row]) -> Outcome | None:
    alike = dict.fromkeys(", ".join(row.others) for row in rows)
    if len(alike) > 1:
        raise InputError(
            f"study {line.study}: a correlation needs rows that differ only in their schedule, "
            f"there are {' | '.join(alike)}"
        )
    one = correlation(rows, line.predicted, line.metric)
    told = f"ρ {one.rho:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"
    return (
        Outcome(line, "not resolved", one.n, told, "", one.rho, one.low, one.high, one.p) if one.n else None
    )


def _count(line: Line, treatment: Row, control: Row) -> Outcome | None:
    mine, theirs = (number(line.column, row.runs) for row in (treatment, control))
    counted = DESCRIBED[line.column]
    shown = (counted.text(counted.of(row.runs)) for row in (treatment, control) if counted.of)
    return _counted(line, mine, theirs, *shown)


def _counted(line: Line, mine: float, theirs: float, my_text: str, their_text: str) -> Outcome | None:
    if math.isnan(mine) or math.isnan(theirs):
        return None
    holds = {"equal": mine == theirs, "lower": mine < theirs, "higher": mine > theirs}[line.expect]
    told = f"{my_text} against {their_text}" + (f" (×{mine / theirs:.3g})" if theirs else "")
    return Outcome(line, "exact" if holds else "refuted", 1, told, effect=mine - theirs)


def _no_times(not_run: Outcome) -> Outcome:
    return replace(not_run, detail=f"hdc time study={not_run.line.study}")


def _repeats(times: pl.DataFrame | None, row: Row, column: str) -> Mapping[int, float]:
    """The value of every repeat of a row, the median over its runs, which differ only in their seeds."""
    if times is None:
        return {}
    chosen = times.filter(pl.col("run_id").is_in([run.run_id for run in row.runs])).drop_nulls(column)
    return dict(chosen.group_by("repeat", maintain_order=True).agg(pl.col(column).median()).iter_rows())


def _tested(outcome: Outcome, adjusted: float, tests: int) -> Outcome:
    """The verdict of a line with its adjusted p."""
    line = outcome.line
    down = line.expect in ("lower", "not_lower")
    effect = -outcome.effect if down else outcome.effect  # above 0: in the direction that the line names
    significant = adjusted < ALPHA
    if line.kind == "correlation":
        detectable = Correlation(outcome.n, outcome.effect, outcome.low, outcome.high, outcome.p).detectable(
            tests
        )
    else:
        detectable = Paired.of(outcome.pairs).detectable(tests)
    outcome = replace(outcome, p_holm=adjusted, mde=detectable if math.isfinite(detectable) else math.nan)
    if line.expect.startswith("not_"):
        interval = Estimate.of(outcome.pairs, 0.9)
        end, worst = (interval.low, -interval.low) if down else (interval.high, interval.high)
        style = column(line.metric)
        margin = f"{line.margin * style.factor:.{style.digits}f}"
        reach = f"90% interval to {_difference(line, end)}, margin {margin}"
        if worst < line.margin:
            return replace(outcome, verdict="confirmed", detail=reach)
        if significant and effect > 0:
            return replace(outcome, verdict="refuted", detail=reach)
        return replace(outcome, detail=f"{reach}; {_smallest(outcome, tests)}")
    if significant:
        return replace(outcome, verdict="confirmed" if effect > 0 else "refuted")
    return replace(outcome, detail=_smallest(outcome, tests))


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
        Section("the claims", ("", "claim", "verdict", "lines that hold"), claims, ("claim", "verdict")),
        Section(
            "what they rest on",
            ("", "line", "n", "found", "p (Holm)", "verdict"),
            lines,
            ("line", "found", "verdict"),
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
            sign = "above" if line.expect == "higher" else "below"
            what = f"{DESCRIBED[line.predicted].title} and {title(line.metric, False)}"
            return f"{line.study}: rank correlation of {what} {sign} 0"
        case "count":
            what = DESCRIBED[line.column].title
        case "paired":
            what = title(line.metric, False)
        case _:
            what = f"step {line.kind}"
    shared = dict(line.treatment.keys.items() & line.control.keys.items())
    mine, theirs = (
        str(replace(one, keys={key: value for key, value in one.keys.items() if key not in shared}))
        for one in (line.treatment, line.control)
    )
    where = "".join(f", {key}={line.control.keys[key]}" for key in line.control.keys if key in shared)
    return f"{line.study}: {what} of {mine} {_IN_WORDS[line.expect]} that of {theirs}{where}"
