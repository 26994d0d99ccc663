"""The ledger: a verdict on every claim, from the records, by a rule that was fixed before the measurements.

The kind of a line says how it gets its verdict. No verdict of a line depends on the lines beside it.

- *exact* and *count* lines are proven or counted, the same on every machine: `exact` if they hold, else
  `refuted`. A *memory* line compares what one compiler plans for one program on one machine, and the *matrix*
  line what trained networks learn with what they can see: `confirmed` if it holds, else `refuted`.
- *paired* lines (by seed), *time* lines (logarithms, by interleaved repeat) and *correlation* lines have a
  p-value, from the exact sign-flip test or the permutation test. A line is `confirmed` if p is below 0.05 and
  the sign is the claimed one, `refuted` if p is below 0.05 and the sign is the opposite, else `not resolved`,
  with the smallest difference that this n and spread would have shown. Not resolved is not "no difference".
- "No difference" needs a margin: a line that expects *not higher* is `confirmed` if the 90 % interval
  (Student's t) ends below its margin, `refuted` if it begins above it, else `not resolved`. These are
  one-sided tests at 5 % (Schuirmann 1987). *Not lower* is the mirror image.
- A line with a share of 0.5 compares the treatment with half of the control, seed by seed.
- A correlation line holds the receptive field: it is the partial rank correlation, where the fields differ.

A claim needs all of its lines. It is `not run` if a line lacks records, `exact` if all lines are exact, and
`confirmed` if all are confirmed or exact. That needs no correction for the number of lines: a claim is
false if one of its lines is, and that line is confirmed with a probability of at most 5 %, whatever the
others do (an intersection-union test, Berger 1982). A claim is `refuted` if *any* line is refuted, and that
does need a correction: among many lines, one is found reversed by chance. So a tested line refutes its
claim only if its p is below 0.05 after Holm's correction for the tested lines of the claim. Otherwise the
claim is `not resolved`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
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
from hdc.lab.report.statistics import ALPHA, Estimate, Paired, holm, least_pairs, omnibus_p, p_below
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
_HOLDS = ("exact", "confirmed")
_FIELD = "receptive_field"
_BESIDE = {_FIELD: "field px", "parameters": "params"}  # named where a comparison varies them too


@dataclass(frozen=True)
class Outcome:
    """A line with its verdict.

    Attributes:
        line: as declared.
        verdict: by the rule.
        n: the number of pairs, repeats, rows or cells it rests on.
        found: what was found, as text: the difference with its interval, a ratio, a fact.
        detail: more about the verdict: the smallest effect, the margin, the command to run.
        differs: what else differs between treatment and control, as text: field, layers, parameters.
        effect, low, high, mde: the numbers, in the column's own units (logarithms of the ratio for time); NaN
            where a line has none.
        p: of the line's test; with a margin, that the difference is not within it.
        p_against: of the test that the opposite holds, by Holm over the tested lines of the claim.
        pairs: the differences behind a paired or time line.
        p_differs: of the sign-flip test that these differences have a mean of 0.
    """

    line: Line
    verdict: Verdict
    n: int = 0
    found: str = ""
    detail: str = ""
    differs: str = ""
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_against: float = math.nan
    mde: float = math.nan
    pairs: tuple[float, ...] = ()
    p_differs: float = math.nan

    @property
    def against(self) -> bool:
        """Whether this line alone refutes its claim."""
        return self.verdict == "refuted" and (self.line.kind not in _TESTED or self.p_against < ALPHA)


@dataclass(frozen=True)
class Group:
    """The paired lines of a claim that compare rows in one metric and one setting, tested together.

    Attributes:
        where: study, metric and setting.
        outcomes: of the lines.
        rows, n: how many rows they compare, and the seeds that all of them have.
        p: of the omnibus test, that these rows do not differ at all.
    """

    where: str
    outcomes: tuple[Outcome, ...]
    rows: int
    n: int
    p: float

    @property
    def resolved(self) -> int:
        """How many of the lines have a difference with a p below 0.05."""
        return sum(one.p_differs < ALPHA for one in self.outcomes)

    @property
    def agrees(self) -> bool:
        """Whether the omnibus test finds a difference where a pair does, and only there."""
        return (self.p < ALPHA) == (self.resolved > 0)


@dataclass(frozen=True)
class Judged:
    """A claim with the outcomes of its lines, and the groups of more than two rows among them."""

    claim: Claim
    outcomes: tuple[Outcome, ...]
    groups: tuple[Group, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """By the rule."""
        found = {outcome.verdict for outcome in self.outcomes}
        if "not run" in found:
            return "not run"
        if any(outcome.against for outcome in self.outcomes):
            return "refuted"
        return "not resolved" if found - {*_HOLDS} else "confirmed" if "confirmed" in found else "exact"

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
    tested = [i for i, line in enumerate(claim.lines) if line.kind in _TESTED]
    p = [1.0 if math.isnan(found[i].p_against) else found[i].p_against for i in tested]
    for i, adjusted in zip(tested, holm(p), strict=True):
        if not math.isnan(found[i].p_against):
            found[i] = replace(found[i], p_against=adjusted)
    return Judged(claim, tuple(found), tuple(_groups(found, studies)))


def _groups(outcomes: Sequence[Outcome], studies: Mapping[str, _Study]) -> Iterator[Group]:
    """The groups of the paired lines that were run: by study, metric, and the keys that both sides share."""
    together: dict[tuple[str, ...], list[Outcome]] = {}
    for one in outcomes:
        if one.line.kind == "paired" and one.pairs:
            setting = (f"{key}={value}" for key, value in _shared(one.line).items())
            where = (one.line.study, one.line.metric, *setting)
            together.setdefault(where, []).append(one)
    for (study, metric, *setting), some in together.items():
        sides = (side for one in some for side in (one.line.control, one.line.treatment))
        rows = {row.label: row for row in map(studies[study].row, sides)}
        values = [row.values[metric] for row in rows.values()]
        seeds = sorted(set.intersection(*map(set, values)))
        if len(rows) > 2:
            told = ", ".join((f"{study}: {title(metric, False)}", *setting))
            p = omnibus_p([[value[seed] for seed in seeds] for value in values])
            yield Group(told, tuple(some), len(rows), len(seeds), p)


def _outcome(line: Line, study: _Study) -> Outcome:
    """What the records say about a line."""
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
    one = correlation(study.rows, line.predicted, line.metric, _FIELD)
    if not one.n:
        raise _NotRun(f"hdc train study={study.name}")
    held = "at equal field, " if one.held else ""
    found = Outcome(line, "not resolved", one.n, f"{held}ρ {one}", "", "", one.rho, one.low, one.high, one.p)
    return _tested(found, one.detectable())


def _compared(line: Line, study: _Study) -> Outcome:
    """Treatment against control: counts and bytes as they are, the rest paired by seed or repeat."""
    rows = study.row(line.treatment), study.row(line.control)
    mine, theirs = (_values(line, study, row) for row in rows)
    pairs = [(mine[key], theirs[key]) for key in mine if key in theirs]
    if not pairs and line.kind in ("time", "memory"):
        raise _NotRun(f"hdc time study={study.name}")
    if not pairs:
        raise _NotRun(f"hdc train study={study.name}", [run for row in rows for run in row.runs])
    differs = _differs(line, *rows)
    if line.kind in ("count", "memory"):
        one, other = pairs[0]
        counted = line.kind == "count"
        mb = (f"{value / 1e6:,.2f} MB" for value in pairs[0])
        shown = (row.text(line.column) for row in rows) if counted else mb
        told = " against ".join(shown) + (f" (×{one / other:.3g})" if other else "")
        holds = {"equal": one == other, "lower": one < other, "higher": one > other}[line.expect]
        verdict = ("exact" if counted else "confirmed") if holds else "refuted"
        return Outcome(line, verdict, 1, told, differs=differs, effect=one - other)
    timed = line.kind == "time"
    differences = tuple(math.log(a / b) if timed else a - line.share * b for a, b in pairs)
    found = Paired.of(differences)
    told = _difference(line, found.mean, found.low, found.high)
    if timed:
        medians = np.median(list(mine.values())) / np.median(list(theirs.values()))
        told = f"medians ×{medians:.3f}, paired {told}"
    numbers = (found.mean, found.low, found.high, found.p)
    outcome = Outcome(line, "not resolved", found.n, told, "", differs, *numbers)
    outcome = replace(outcome, pairs=differences, p_differs=found.p)
    return _bounded(outcome) if line.expect.startswith("not_") else _tested(outcome, found.detectable())


def _differs(line: Line, mine: Row, theirs: Row) -> str:
    """What differs between two rows beside what the line compares, as `field px 33 against 25`."""
    counts = [
        (heading, mine.text(name), theirs.text(name))
        for name, heading in _BESIDE.items()
        if name != line.column
    ]
    counts.insert(1, ("layers", str(mine.layers), str(theirs.layers)))
    return ", ".join(f"{heading} {one} against {other}" for heading, one, other in counts if one != other)


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


def _tested(outcome: Outcome, mde: float) -> Outcome:
    """The verdict of a line by the sign of its effect and its p."""
    claimed = outcome.effect < 0 if outcome.line.expect == "lower" else outcome.effect > 0
    against = 1.0 if claimed else outcome.p
    outcome = replace(outcome, p_against=against, mde=mde if math.isfinite(mde) else math.nan)
    if outcome.p < ALPHA:
        return replace(outcome, verdict="confirmed" if claimed else "refuted")
    return replace(outcome, detail=_smallest(outcome))


def _bounded(outcome: Outcome) -> Outcome:
    """The verdict of a line by its margin, and the end of the interval that decides it."""
    line, sign = outcome.line, -1 if outcome.line.expect == "not_lower" else 1
    p = p_below([sign * pair for pair in outcome.pairs], line.margin)
    verdict = "confirmed" if p < ALPHA else "refuted" if 1 - p < ALPHA else "not resolved"
    interval, style = Estimate.of(outcome.pairs, 0.9), column(line.metric)
    word, away = ("from", -sign) if verdict == "refuted" else ("to", sign)
    end = _difference(line, interval.high if away > 0 else interval.low)
    detail = f"90% interval {word} {end}, margin {line.margin * style.factor:.{style.digits}f}"
    return replace(outcome, verdict=verdict, detail=detail, p=p, p_against=1 - p)


def _smallest(outcome: Outcome) -> str:
    """The smallest effect that this n could have shown, for a line that is not resolved."""
    if math.isfinite(outcome.mde):
        shown = _difference(outcome.line, -outcome.mde if outcome.line.expect == "lower" else outcome.mde)
        return f"smallest that n = {outcome.n} would have shown: {shown}"
    if not math.isfinite(outcome.effect) or outcome.line.kind == "correlation":
        return f"n = {outcome.n}: undefined"
    return f"n = {outcome.n} pairs cannot reach p < {ALPHA}: at least {least_pairs()}"


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
    """The claims, their lines, and where the omnibus tests disagree; as data, one row per line."""
    claims = tuple((one.claim.name, one.claim.text, one.text, _held(one)) for one in judged)
    lines = tuple(
        (
            one.claim.name,
            _said(outcome.line),
            str(outcome.n or "–"),
            outcome.found or "–",
            outcome.differs or "–",
            "–" if math.isnan(outcome.p) else f"{outcome.p:.3g}",
            outcome.verdict + (f": {detail}" if (detail := _detail(outcome)) else ""),
        )
        for one in judged
        for outcome in one.outcomes
    )
    sections = [
        Rows(("", "claim", "verdict", "lines that hold"), claims, ("claim", "verdict"), "the claims"),
        Rows(
            ("", "line", "n", "found", "what else differs", "p", "verdict"),
            lines,
            ("line", "found", "what else differs", "verdict"),
            "what they rest on",
            notes=tuple(_notes(judged)),
        ),
    ]
    groups = [(one.claim.name, group) for one in judged for group in one.groups]
    if groups:
        sections.append(_disagreeing(groups))
    frame = pl.DataFrame(
        [_record(one, outcome) for one in judged for outcome in one.outcomes], infer_schema_length=None
    )
    return Document(tuple(sections), frame.fill_nan(None))


def _held(judged: Judged) -> str:
    """How many lines hold, as `26 of 26`, and how many of all could not have failed."""
    constructed = sum(line.by_construction for line in judged.claim.lines)
    told = f", {constructed} by construction" if constructed else ""
    return f"{judged.holding} of {len(judged.outcomes)}{told}"


def _detail(outcome: Outcome) -> str:
    return "; ".join(filter(None, ("by construction" * outcome.line.by_construction, outcome.detail)))


def _disagreeing(groups: Sequence[tuple[str, Group]]) -> Rows:
    body = tuple(
        (name, one.where, str(one.rows), str(one.n), f"{one.p:.3g}", f"{one.resolved} of {len(one.outcomes)}")
        for name, one in groups
        if not one.agrees
    )
    agreeing = len(groups) - len(body)
    return Rows(
        ("", "compared", "rows", "seeds", "omnibus p", "pairs with p < 0.05"),
        body or (("", "none", "–", "–", "–", "–"),),
        ("compared",),
        f"do the rows differ at all? The omnibus test agrees with the pairs in {agreeing} of {len(groups)} "
        "groups, and not in these",
    )


def _notes(judged: Sequence[Judged]) -> Iterator[str]:
    yield (
        "exact: proven or counted, the same on every machine. Memory, as one compiler plans it, is confirmed "
        "or refuted. By construction: a comb of equal rates could not have shown anything else, so it is no "
        "evidence"
    )
    yield (
        "measured lines: [95% BCa bootstrap interval], p of exact sign flips, of this line alone. Not above, "
        "not below: p of Student's t test against the margin"
    )
    yield (
        f"confirmed: p < {ALPHA} with the claimed sign; refuted: with the other. Not above, not below: "
        "confirmed if the 90% interval (t) ends before the margin, refuted if it begins beyond it. Not "
        "resolved does not mean no difference"
    )
    yield (
        "a claim needs all of its lines: it is confirmed, or exact, if each of them is, without a correction "
        "for their number (intersection-union test, Berger 1982); one line is enough to refute it, so this "
        f"needs p < {ALPHA} by Holm's method over its lines"
    )
    if any(one.groups for one in judged):
        yield (
            "omnibus p: permutes the values of each seed among all rows of a group, which are the rows that "
            "a claim's lines compare in one metric and setting"
        )
    lines = [outcome.line for one in judged for outcome in one.outcomes]
    if any(line.metric.startswith("train/") for line in lines):
        yield (
            "train metrics are means over the last epoch's batches, taken while the network trains, with "
            "dropout on: not how well the trained network fits"
        )


def _record(judged: Judged, outcome: Outcome) -> dict[str, Any]:
    numbers = ("n", "effect", "low", "high", "p", "p_against", "mde")
    return {
        "claim": judged.claim.name,
        "claim_verdict": judged.verdict,
        "line": _said(outcome.line),
        "kind": outcome.line.kind,
        "study": outcome.line.study or None,
        **{name: getattr(outcome, name) for name in numbers},
        "found": outcome.found or None,
        "differs": outcome.differs or None,
        "by_construction": outcome.line.by_construction,
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
    if line.metric.startswith("train/"):
        what += " while training"
    mine, theirs = (
        str(replace(one, keys={key: one.keys[key] for key in one.keys if key not in _shared(line)}))
        for one in (line.treatment, line.control)
    )
    where = "".join(f", {key}={value}" for key, value in _shared(line).items())
    that = "that" if line.share == 1 else f"{line.share:.0%} of that"
    return f"{line.study}: {what} of {mine} {_IN_WORDS[line.expect]} {that} of {theirs}{where}"


def _shared(line: Line) -> dict[str, str]:
    """The keys that treatment and control have in common, with their values."""
    mine = line.treatment.keys
    return {key: value for key, value in line.control.keys.items() if mine.get(key) == value}
