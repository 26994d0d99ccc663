"""Rows to tables: means with their intervals, paired differences, what failed and what is missing."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import polars as pl

from hdc.errors import InputError
from hdc.lab.config import unknown
from hdc.lab.records.names import varying
from hdc.lab.records.run import Run
from hdc.lab.report.statistics import (
    ALPHA,
    CONFIDENCE,
    POWER,
    Correlation,
    Estimate,
    Paired,
    holm,
    least_pairs,
)
from hdc.lab.report.tables.columns import DESCRIBED, NETWORK, difference_text, number, style, title
from hdc.lab.report.tables.rendering import FORMATS, Document, Section
from hdc.lab.report.tables.rows import Row, differing, group
from hdc.schedules import Kind

SOURCES = ("study", "published", "offsets", "claims")


@dataclass(frozen=True)
class TableConfig:
    """What `conf/table/*.yaml` declares.

    Attributes:
        source: what it is about: the records of a `study`; the `published` networks; the study of `offsets`
            beside the certificate; the `claims` with their verdicts. The keys below are those of a study;
            study, results, format and out count for others too where they apply.
        study: whose records.
        results: the folder that holds the studies.
        measured: the columns of results, as split/metric, or `gridding` for the predicted index.
        described: the columns of what is known without training, and of cost.
        correlate: described columns whose rank correlation with every measured one is shown.
        baseline: the row that the others are compared with: a kind (plain, dilated, hdc) or a schedule's
            label, among rows that differ in nothing else; or a row's whole label, for all rows.
        format: terminal, markdown, csv or latex.
        out: a file to write; the terminal where it is null.
    """

    source: str = "study"
    study: str = "default"
    results: str = "results"
    measured: tuple[str, ...] = (
        "test/accuracy",
        "test/mean_iou",
        "gridding",
        "test/erf_ripple",
        "test/feature_ripple",
        "test/speckle",
    )
    described: tuple[str, ...] = (
        "receptive_field",
        "coverage",
        "gridding",
        "parameters",
        "flops_per_image",
        "train/seconds",
    )
    correlate: tuple[str, ...] = ()
    baseline: str = "plain"
    format: str = "terminal"
    out: str | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise InputError(f"source must be one of {', '.join(SOURCES)}, got {self.source!r}")
        if self.format not in FORMATS:
            raise InputError(f"format must be one of {', '.join(FORMATS)}, got {self.format!r}")
        for name in (*self.measured, *self.described):
            if not re.fullmatch(r"[^/]+/[^/]+", name) and name not in DESCRIBED:
                raise InputError(
                    f"unknown column {name!r}: use split/metric, or one of {', '.join(DESCRIBED)}"
                )
        for name in self.correlate:
            if name not in DESCRIBED:
                raise InputError(f"correlate must be of {', '.join(DESCRIBED)}, got {name!r}")


@dataclass(frozen=True)
class Difference:
    """A row's difference to its baseline in one column.

    Attributes:
        paired: the differences by seed.
        p_holm: adjusted for all `tests` of the block; NaN where there is no test.
        tests: how many cells of the block have one.
    """

    paired: Paired
    p_holm: float
    tests: int

    @property
    def mark(self) -> str:
        """`≈` for a difference within the noise, `?` where so few pairs could not tell it from noise."""
        if not math.isfinite(self.paired.mean) or self.p_holm < ALPHA:
            return ""
        return "≈" if self.paired.resolvable(self.tests) else "?"


@dataclass(frozen=True)
class Table:
    """Rows, ready to be drawn.

    Attributes:
        config: what was asked for.
        runs: all of them, in every state.
        rows: the runs by configuration.
        measured, described: the columns that there are.
        dense: whether accuracy is that of pixels.
    """

    config: TableConfig
    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    measured: tuple[str, ...]
    described: tuple[str, ...]
    dense: bool

    def baseline(self, row: Row) -> Row | None:
        """The row that `row` is compared with: the one of that label, or the same in all but the schedule.

        Of several, the one with as many layers; None where that is not one, and for a baseline itself.
        """
        if named := self._named:
            return None if row is named else named
        some = self._alike.get(row.others, [])
        if row in some:
            return None
        deep = [other for other in some if other.layers == row.layers] or some
        return deep[0] if len(deep) == 1 else None

    @cached_property
    def _named(self) -> Row | None:
        """The row whose whole label the baseline is."""
        return next((row for row in self.rows if row.label == self.config.baseline and row.others), None)

    @cached_property
    def _alike(self) -> dict[tuple[str, ...], list[Row]]:
        """The rows that the baseline's kind or schedule names, by what else differs."""
        alike: dict[tuple[str, ...], list[Row]] = {}
        for row in self.rows:
            if self.config.baseline in (row.kind, row.schedule):
                alike.setdefault(row.others, []).append(row)
        return alike

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns of the difference block."""
        return tuple(column for column in self.measured if column not in DESCRIBED)

    @cached_property
    def differences(self) -> dict[tuple[str, str], Difference]:
        """By the row's label and the column: all cells of the difference block."""
        cells = {
            (row.label, column): row.differences(column, other)
            for row in self.rows
            if (other := self.baseline(row))
            for column in self.compared
        }
        paired = dict(zip(cells, Paired.of_each([*cells.values()]), strict=True))
        adjusted = holm([one.p for one in paired.values()])
        tests = sum(math.isfinite(p) for p in adjusted)
        return {
            place: Difference(one, p, tests) for (place, one), p in zip(paired.items(), adjusted, strict=True)
        }

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """The lines under the table."""
        return tuple(_notes(self))


def build(config: TableConfig, runs: Sequence[Run]) -> Table:
    """Group runs into rows: one for each configuration that differs in more than its seeds.

    Raises:
        InputError: where runs of one row differ in versions, device or data, and for a baseline that is
            neither a kind of schedule nor a row.
    """
    rows = group(runs, [*config.measured, *config.described])
    known = [name for row in rows for name in (row.schedule, row.label)]
    if config.baseline not in (*get_args(Kind), *known):
        raise InputError(unknown("baseline", config.baseline, list(dict.fromkeys([*get_args(Kind), *known]))))
    finished = any(run.state == "done" for run in runs)
    measured = tuple(
        column
        for column in config.measured
        if not finished or column in DESCRIBED or any(row.values[column] for row in rows)
    )
    dense = any(run.info.get("data", {}).get("task") == "dense" for run in runs)
    return Table(config, tuple(runs), rows, measured, config.described, dense)


def long_frame(table: Table) -> pl.DataFrame:
    """The table as data: one line per row and column, differences beside the means.

    `p` is that of the sign-flip test, `p_holm` adjusted for all of the table, `mde` the smallest difference
    that would have been found; null where there is none, or where no difference could have been found.
    """
    lines = []
    for row in table.rows:
        baseline = table.baseline(row)
        for column in dict.fromkeys([*table.measured, *table.described]):
            estimate = (
                Estimate(0, number(column, row.runs), math.nan)
                if column in DESCRIBED
                else row.estimate(column)
            )
            found = table.differences.get((row.label, column))
            paired = found.paired if found else None
            detectable = found.paired.detectable(found.tests) if found else math.nan
            lines.append(
                {
                    "row": row.label,
                    "kind": row.kind,
                    "column": column,
                    "n": estimate.n,
                    "mean": estimate.mean,
                    "low": estimate.low,
                    "high": estimate.high,
                    "baseline": baseline.label if found and baseline else None,
                    "pairs": paired.n if paired else None,
                    "difference": paired.mean if paired else None,
                    "difference_low": paired.low if paired else None,
                    "difference_high": paired.high if paired else None,
                    "p": paired.p if paired else None,
                    "p_holm": found.p_holm if found else None,
                    "mde": detectable if math.isfinite(detectable) else None,
                    "runs": " ".join(f"{run.run_id}:{run.state}" for run in row.runs),
                }
            )
    return pl.DataFrame(lines, infer_schema_length=None).fill_nan(None)


def document(table: Table) -> Document:
    """The blocks: results, paired differences where there is a baseline, what is known and its cost."""
    head = tuple(title(column, table.dense) for column in table.measured)
    results = tuple(
        (row.label, row.seeds, *(_cell(row, column) for column in table.measured)) for row in table.rows
    )
    blocks = [Section(f"{table.config.study}: test split", ("schedule", "seeds", *head), results)]
    pairs = [(row, other) for row in table.rows if (other := table.baseline(row))]
    if pairs and table.compared:
        differences = tuple(
            (row.label, *(_difference_cell(table, row, column) for column in table.compared))
            for row, _ in pairs
        )
        head = ("schedule", *(title(column, table.dense) for column in table.compared))
        labels = {other.schedule for _, other in pairs}
        to = labels.pop() if len(labels) == 1 else f"{table.config.baseline} of as many layers"
        blocks.append(Section(f"difference to {to}, paired by seed", head, differences))
    if table.config.correlate:
        blocks.append(_correlations(table))
    known = tuple(
        (row.label, row.kind, *(_cell(row, column) for column in table.described)) for row in table.rows
    )
    head = ("schedule", "kind", *(title(column, table.dense) for column in table.described))
    blocks.append(Section("the schedule itself, and its cost", head, known))
    return Document(tuple(blocks), table.notes, long_frame(table))


def correlation(rows: Sequence[Row], predicted: str, column: str) -> Correlation:
    """Spearman's of a described column and the rows' means of a measured one, over rows that have both."""
    # Rounded, so that predictions that are equal but for the last bits share a rank.
    pairs = [(round(number(predicted, row.runs), 9), row.estimate(column).mean) for row in rows]
    known = [pair for pair in pairs if all(map(math.isfinite, pair))]
    return Correlation.of([x for x, _ in known], [y for _, y in known])


def _correlations(table: Table) -> Section:
    """Does the prediction predict? A line for each measured column, of rows that differ in nothing else."""
    alike: dict[tuple[str, ...], list[Row]] = {}
    for row in table.rows:
        alike.setdefault(row.others, []).append(row)
    found = {
        (others, column): [correlation(rows, name, column) for name in table.config.correlate]
        for others, rows in alike.items()
        for column in table.compared
    }
    body = tuple(
        (
            ", ".join((title(column, table.dense), *others)),
            str(max((one.n for one in cells), default=0)),
            *(_correlation_cell(one) for one in cells),
        )
        for (others, column), cells in found.items()
    )
    head = ("Spearman with", "rows", *(DESCRIBED[name].title for name in table.config.correlate))
    return Section("does the prediction predict? rank correlation with the rows' means", head, body)


def _correlation_cell(found: Correlation) -> str:
    if not math.isfinite(found.rho):
        return "–"
    return f"{found.rho:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _cell(row: Row, column: str) -> str:
    if column in DESCRIBED:
        value = DESCRIBED[column].of(row.runs)
        return "–" if value is None else DESCRIBED[column].text(value)
    estimate = row.estimate(column)
    if not math.isfinite(estimate.mean):
        return "undefined" if estimate.n else "–"
    _, factor, digits = style(column)
    text = f"{estimate.mean * factor:.{digits}f}"
    return text if estimate.n == 1 else f"{text} ±{estimate.half_width * factor:.{digits}f}"


def _difference_cell(table: Table, row: Row, column: str) -> str:
    found = table.differences[row.label, column]
    one = found.paired
    if not math.isfinite(one.mean):
        return "undefined" if one.n else "–"
    return f"{found.mark} {difference_text(column, one.mean, one.low, one.high)}".lstrip()


def _notes(table: Table) -> Iterator[str]:
    yield f"mean ± half of the {CONFIDENCE:.0%} interval over seeds (Student's t); G is predicted"
    for column in table.config.measured:
        if column not in table.measured and column not in TableConfig.measured:
            yield f"no run has {column}"
    if table.differences:
        yield from _difference_notes(table)
    elif len(table.rows) > 1 and table.compared:
        yield f"no differences: no row, or more than one, is the baseline {table.config.baseline!r}"
    if any(len(seeds) == 1 for row in table.rows for seeds in row.values.values()):
        yield "one seed has no interval: its spread over seeds is not known"
    if table.config.correlate:
        yield f"rank correlations: [{CONFIDENCE:.0%} BCa bootstrap interval over the rows], not corrected"
    if set(NETWORK) & {*table.described, *table.config.correlate}:
        yield from network_notes(table.config.study, table.rows)
    if len(commits := _commits(table.runs)) > 1:
        yield f"runs of more than one commit: {', '.join(sorted(commits))}"
    asked = any(other.startswith("data.") for row in table.rows for other in row.others)
    for key, others in varying(table.runs).items():
        if others:
            yield f"with {key} differ, too: {', '.join(others)}"
    for key, values in differing([row.circumstances for row in table.rows if row.circumstances]).items():
        if not (asked and key.startswith("data.")):
            yield f"rows differ in {key}: {', '.join(values)}"
    for run in table.runs:
        name = f"{run.config.dilation.label} ({run.run_id}, seeds {list(run.config.seeds)})"
        for key, (was, now) in run.info.get("changed", {}).items():
            yield f"begun with {key}={was}, ended with {now}: {name}"
        match run.state:
            case "failed":
                yield f"failed: {name}: {run.failure.get('error')}"
            case "interrupted":
                yield f"not finished: {name}: interrupted"
            case "running":
                yield f"not finished: {name}: still running"
            case "planned":
                yield f"missing: {name}: planned and never started"
    for row in table.rows:
        planned = {seed for run in row.runs if run.state == "done" for seed in run.config.seeds}
        if absent := sorted(planned - row.tested):
            yield f"{row.label}: done, and without measurements of seeds {absent}: the records are not whole"


def network_notes(study: str, rows: Sequence[Row]) -> Iterator[str]:
    """Why the records do not say what a network sees, and what adds it."""
    if any(
        run.state == "done" and "seen" not in run.info.get("network", {}) for row in rows for run in row.runs
    ):
        yield f"– 'hdc runs {study} --analyse' adds what the network sees to records of an older version"
    for row in rows:
        if reason := next((run.info.get("network", {}).get("unseen") for run in row.runs), None):
            yield f"{row.label}: what its network sees is not known: {reason}"


def _difference_notes(table: Table) -> Iterator[str]:
    cells = table.differences.values()
    tests = max(one.tests for one in cells)
    over = "" if tests == 1 else f" over {tests} tests"
    if tests:
        yield (
            f"differences: mean [{CONFIDENCE:.0%} BCa bootstrap interval, not corrected]; tested by exact "
            f"sign flips, Holm's correction{over}"
        )
    for row in table.rows:
        if other := table.baseline(row):
            shared = max(
                (table.differences[row.label, column].paired.n for column in table.compared), default=0
            )
            if shared < max((len(seeds) for seeds in row.values.values()), default=0):
                yield f"{row.label}: {shared} of its seeds paired with {other.label}"
    if any(one.mark == "≈" for one in cells):
        yield f"≈ within the noise: adjusted p of {ALPHA} or more"
    if any(one.mark == "?" and one.paired.n == 1 for one in cells):
        yield "? one pair: its spread is not known, it may be noise"
    for n in sorted({one.paired.n for one in cells if one.mark == "?" and one.paired.n > 1}):
        yield (
            f"? n = {n} pairs cannot reach p < {ALPHA}{over}, however large the difference: nothing can be "
            f"resolved; at least {least_pairs(tests)} seeds"
        )
    smallest = []
    for column in table.compared:
        found = [one.paired for (_, name), one in table.differences.items() if name == column]
        seen = [value for one in found if math.isfinite(value := one.detectable(tests))]
        if seen:
            _, factor, digits = style(column)
            smallest.append(f"{title(column, table.dense)} {max(seen) * factor:.{digits}f}")
    if smallest:
        pairs = sorted({one.paired.n for one in cells if math.isfinite(one.paired.detectable(tests))})
        yield (
            f"smallest difference that n = {', '.join(map(str, pairs))} pairs would have shown, in the row "
            f"of the widest spread ({POWER:.0%} power, p < {ALPHA}{over}): {', '.join(smallest)}"
        )


def _commits(runs: Sequence[Run]) -> set[str]:
    found = [run.info.get("git") for run in runs if run.state == "done"]
    return {git["commit"][:10] + (" with changes" if git["dirty"] else "") for git in found if git}
