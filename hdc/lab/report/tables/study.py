"""Rows to tables: means with intervals, paired differences, and notes on failed and missing runs."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import polars as pl

from hdc.errors import InputError, one_of, unknown
from hdc.lab.records.names import varying
from hdc.lab.records.run import Run, are_signals, task_of
from hdc.lab.report.statistics import (
    ALPHA,
    CONFIDENCE,
    POWER,
    Correlation,
    Paired,
    holm,
    least_pairs,
)
from hdc.lab.report.tables.columns import (
    DESCRIBED,
    NETWORK,
    column,
    difference_text,
    is_plugin,
    name_and_unit,
    seen,
    title,
)
from hdc.lab.report.tables.rendering import FORMATS, Document
from hdc.lab.report.tables.rows import Row, commits_of, differing, group
from hdc.lab.terminal import Rows
from hdc.schedules import Kind

_DIFFERENCE = ("baseline", "pairs", "difference", "difference_low", "difference_high", "p", "p_holm", "mde")
_FIELD = "receptive_field"
SOURCES = ("study", "published", "offsets", "claims")
_PUBLISHED = re.compile(r"(.+): (\d+(?:\.\d+)?)( unverified)?")
_NAMED = 4  # rows that the sentence above the table lists by name; of more it says how many


@dataclass(frozen=True)
class TableConfig:
    """What `conf/table/*.yaml` declares.

    Attributes:
        source: what the table shows: the records of a `study`, the `published` networks, the study of
            `offsets` beside what its networks see, or the `claims` with their verdicts. All sources take
            format and out; offsets takes study and results too, claims takes results.
        study: the study to read.
        results: the folder that holds the studies.
        measured: the columns of results, as split/metric, or `gridding` for the predicted index. Measures
            of plugins follow without being named.
        described: the columns of what is known without training, and of cost.
        correlate: described columns whose rank correlation with every measured column is shown.
        baseline: the row to compare with: a kind (plain, dilated, hdc) or a schedule's label, for the rows
            with the same other keys; with some keys of the row, such as `2x6, net.layer=standard`, for the
            rows in which the remaining keys are the same; or a row's full label, for all rows.
        published: what a paper has for some rows, as `ROW: NUMBER`, or `ROW: NUMBER unverified` where it was
            not read in a source; rows are named as a baseline is. It is shown beside the first column.
        paper: the paper, and what its numbers are.
        columns, rows: which to show of the terminal's, Markdown's or LaTeX's table, in this order, of all by
            default: columns by name, rows by label, schedule or a pattern such as `1-2-*`. Tests and their
            correction stay those of the whole table.
        format: terminal, markdown, csv or latex.
        out: the file to write; null prints.
    """

    source: str = "study"
    study: str = "default"
    results: str = "results"
    measured: tuple[str, ...] = (
        "test/psnr",
        "test/mae",
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
    published: tuple[str, ...] = ()
    paper: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    format: str = "terminal"
    out: str | None = None

    def __post_init__(self) -> None:
        one_of("source", self.source, SOURCES)
        one_of("format", self.format, FORMATS)
        if self.format == "csv" and (self.columns or self.rows):
            raise InputError("columns and rows are for tables to read: format=csv has all of them")
        for name in (*self.measured, *self.described):
            if not re.fullmatch(r"[^/]+/[^/]+", name) and name not in DESCRIBED:
                raise InputError(
                    f"unknown column {name!r}: use split/metric, or one of {', '.join(DESCRIBED)}"
                )
        for name in self.correlate:
            if name not in DESCRIBED:
                raise InputError(f"correlate must be of {', '.join(DESCRIBED)}, got {name!r}")
        for entry in self.published:
            if not _PUBLISHED.fullmatch(entry):
                raise InputError(f"published must be ROW: NUMBER, or ROW: NUMBER unverified, got {entry!r}")


@dataclass(frozen=True)
class Difference:
    """A row's difference to its baseline in one column.

    Attributes:
        paired: the differences by seed.
        p_holm: adjusted for all `tests` of the block; NaN without a test.
        tests: how many cells of the block have a test.
    """

    paired: Paired
    p_holm: float
    tests: int

    @property
    def shown(self) -> bool:
        """Whether the difference is there: its adjusted p is below 5 %."""
        return math.isfinite(self.paired.mean) and self.p_holm < ALPHA

    @property
    def mark(self) -> str:
        """`≈` for a difference within the noise, `?` where there are too few pairs to tell it from noise."""
        if not math.isfinite(self.paired.mean) or self.shown:
            return ""
        return "≈" if self.paired.resolvable(self.tests) else "?"


@dataclass(frozen=True)
class Table:
    """A study's rows and columns.

    Attributes:
        config: what was asked for.
        runs: all of the study, in every state.
        rows: the runs by configuration.
        measured, described: the columns to show.
        dense: whether accuracy is that of pixels.
        signals: whether the networks are for signals.
    """

    config: TableConfig
    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    measured: tuple[str, ...]
    described: tuple[str, ...]
    dense: bool
    signals: bool = False

    def baseline(self, row: Row) -> Row | None:
        """The row that `row` is compared with: the one named in full, or the one with the same other keys.

        Among several, the one with as many layers. None if there is no such row or more than one, and for
        a baseline itself.
        """
        if named := self._named:
            return None if row is named else named
        some = self._alike.get(self._free(row), [])
        if row in some:
            return None
        deep = [other for other in some if other.layers == row.layers] or some
        return deep[0] if len(deep) == 1 else None

    @cached_property
    def _named(self) -> Row | None:
        """The row whose full label is the baseline."""
        return next((row for row in self.rows if row.label == self.config.baseline and row.others), None)

    @cached_property
    def _alike(self) -> dict[tuple[str, ...], list[Row]]:
        """The rows of the baseline's kind or schedule and keys, by the keys that it does not name."""
        alike: dict[tuple[str, ...], list[Row]] = {}
        for row in self.rows:
            if _matches(self.config.baseline, row):
                alike.setdefault(self._free(row), []).append(row)
        return alike

    def _free(self, row: Row) -> tuple[str, ...]:
        """A row's other keys with their values, without the keys that the baseline names."""
        _, *named = self.config.baseline.split(", ")
        keys = {one.partition("=")[0] for one in named}
        return tuple(other for other in row.others if other.partition("=")[0] not in keys)

    @cached_property
    def published(self) -> dict[str, tuple[float, str]]:
        """What the paper has, as number and text, by the label of the row."""
        found = {}
        for entry in self.config.published:
            match = _PUBLISHED.fullmatch(entry)
            assert match is not None  # as checked
            for row in self.rows:
                if _matches(match[1], row):
                    found[row.label] = float(match[2]), match[2] + (match[3] or "")
        return found

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns of the difference block."""
        return tuple(name for name in self.measured if name not in DESCRIBED)

    @cached_property
    def differences(self) -> dict[tuple[str, str], Difference]:
        """All cells of the difference block, by row label and column."""
        cells = {
            (row.label, name): row.differences(name, other)
            for row in self.rows
            if (other := self.baseline(row))
            for name in self.compared
        }
        paired = dict(zip(cells, Paired.of_each([*cells.values()]), strict=True))
        adjusted = holm([one.p for one in paired.values()])
        tests = sum(math.isfinite(p) for p in adjusted)
        return {
            place: Difference(one, p, tests) for (place, one), p in zip(paired.items(), adjusted, strict=True)
        }

    @property
    def reference(self) -> str:
        """What the rows are compared with, in words; empty where there is no baseline."""
        labels = {other.schedule for row in self.rows if (other := self.baseline(row))}
        if labels and ", " in self.config.baseline:
            return self.config.baseline
        if len(labels) > 1:
            return f"{self.config.baseline} of as many layers"
        return next(iter(labels), "")

    @cached_property
    def found(self) -> str:
        """One sentence on the differences that are there; empty where nothing is tested."""
        return _found(self)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """The lines under the table."""
        return document(self).notes


def build(config: TableConfig, runs: Sequence[Run]) -> Table:
    """The table of a study: one row for each configuration, its seeds together.

    Raises:
        InputError: where runs of one row differ in versions, device or data, or the baseline is neither a
            kind of schedule nor a row.
    """
    rows = group(runs, [*config.measured, *config.described])
    known = dict.fromkeys((*get_args(Kind), *(name for row in rows for name in (row.schedule, row.label))))
    if config.baseline not in known and not any(_matches(config.baseline, row) for row in rows):
        full = [name for name in known if ", " in name]
        named = [name for name in full if config.baseline in name.split(", ")] or full
        hint = f"; for a row with its keys write 'baseline=\"{named[0]}\"'" if named else ""
        raise InputError(unknown("baseline", config.baseline, known) + hint)
    finished = any(run.state == "done" for run in runs)
    measured = [
        name
        for name in config.measured
        if not finished or name in DESCRIBED or any(row.values[name] for row in rows)
    ]
    measured += [
        name for name in (rows[0].values if rows else ()) if is_plugin(name) and name not in config.measured
    ]
    dense = task_of(runs) == "dense"
    described = config.described
    wider = any((one := seen(row.runs)) and _is_wider(row, one) for row in rows)
    if wider and described == TableConfig.described:
        described = ("network_field", "output_stride", *described)  # the schedule is in pixels of a small map
    return Table(config, tuple(runs), rows, tuple(measured), described, dense, are_signals(runs))


def _matches(baseline: str, row: Row) -> bool:
    """Whether a row is of the kind or schedule that a baseline names, and has its keys."""
    first, *named = baseline.split(", ")
    return first in (row.kind, row.schedule) and {*named} <= {*row.others}


def _is_wider(row: Row, found: Mapping[str, Any]) -> bool:
    """Whether a network sees more than its schedule and a stem do; older records do not say."""
    return "output_stride" in found and max(found["size"]) > row.runs[0].config.dilation.receptive_field + 2


def long_frame(table: Table) -> pl.DataFrame:
    """The table as data: one line per row and column, differences beside the means.

    `p` is the sign-flip test's, `p_holm` the same adjusted for the whole table, `mde` the smallest difference
    that would have been found; null where there is no test, or where no difference could have been found.
    """
    lines = []
    for row in table.rows:
        baseline = table.baseline(row)
        for name in dict.fromkeys([*table.measured, *table.described]):
            estimate, found = row.estimate(name), table.differences.get((row.label, name))
            line = {"row": row.label, "kind": row.kind, "column": name}
            line |= {key: getattr(estimate, key) for key in ("n", "mean", "low", "high")}
            line |= dict.fromkeys(_DIFFERENCE)
            if found and baseline:
                one, detectable = found.paired, found.paired.detectable(found.tests)
                mde = detectable if math.isfinite(detectable) else None
                values = (baseline.label, one.n, one.mean, one.low, one.high, one.p, found.p_holm, mde)
                line |= dict(zip(_DIFFERENCE, values, strict=True))
            lines.append(line | {"runs": " ".join(f"{run.run_id}:{run.state}" for run in row.runs)})
    return pl.DataFrame(lines, infer_schema_length=None).fill_nan(None)


def document(table: Table) -> Document:
    """The blocks: results, paired differences if there is a baseline, correlations, schedules and cost."""

    def block(
        text: str,
        head: Sequence[str],
        names: Sequence[str],
        body: Iterable[tuple[str, ...]],
        notes: Iterable[str] = (),
    ) -> None:
        headings = (title(name, table.dense, table.signals) for name in names)
        shown = Rows((*head, *headings), tuple(body), title=text, names=(*head, *names), notes=tuple(notes))
        blocks.append(shown)

    blocks: list[Rows] = []
    measured, described, compared = table.measured, table.described, table.compared
    results = ((row.label, row.seeds, *map(row.text, measured)) for row in table.rows)
    block(f"{table.config.study}: test split", ("schedule", "seeds"), measured, results, _notes(table))
    if table.published:
        blocks.append(_published(table))
    if table.reference and compared:
        differences = (
            (row.label, *(_difference_cell(table, row, name) for name in compared))
            for row in table.rows
            if table.baseline(row)
        )
        heading = f"difference to {table.reference}, paired by seed"
        block(heading, ("schedule",), compared, differences, _difference_notes(table))
    if table.config.correlate:
        blocks.append(_correlations(table))
    known = ((row.label, row.kind, *map(row.text, described)) for row in table.rows)
    block("the schedule itself, and its cost", ("schedule", "kind"), described, known)
    return Document(tuple(blocks), long_frame(table), table.found)


def _published(table: Table) -> Rows:
    """The paper's numbers beside the first measured column, and the differences to the baseline of both."""
    here = next(iter(table.compared), "")
    body = []
    for row in table.rows:
        if row.label not in table.published:
            continue
        (value, text), baseline = table.published[row.label], table.baseline(row)
        theirs, ours = "–", "–"
        if baseline and baseline.label in table.published:
            theirs = f"{value - table.published[baseline.label][0]:+.1f}"
        if baseline and here:
            ours = _difference_cell(table, row, here)
        body.append((row.label, text, theirs, row.text(here) if here else "–", ours))
    what = title(here, table.dense, table.signals) if here else "here"
    head = ("schedule", "published", "difference", f"here: {what}", "difference")
    note = (
        "published and measured differ in data, width and length of training: compare the signs of the "
        "differences, not the numbers; unverified: from memory, not read in a source"
    )
    text = f"published beside measured; published: {table.config.paper}"
    return Rows(head, tuple(body), title=text, notes=(note,))


def correlation(rows: Sequence[Row], predicted: str, measured: str, given: str | None = None) -> Correlation:
    """Spearman's correlation of a described column with a measured one's means, over rows that have both.

    With `given`, another described column, the partial one, in which that column is held.
    """
    names = [predicted, *filter(None, [given])]
    # Rounded, so that predictions that differ only in their last bits share a rank.
    known = [
        (*(round(row.estimate(name).mean, 9) for name in names), row.estimate(measured).mean) for row in rows
    ]
    known = [values for values in known if all(map(math.isfinite, values))]
    x, *held, y = zip(*known, strict=True) if known else ((),) * (len(names) + 1)
    return Correlation.of(x, y, held[0] if held else None)


def _correlations(table: Table) -> Rows:
    """Does the prediction predict? A line per measured column, over rows that differ only in schedule.

    Where these differ in their receptive field too, a second line has the partial correlations.
    """
    alike: dict[tuple[str, ...], list[Row]] = {}
    for row in table.rows:
        alike.setdefault(row.others, []).append(row)
    held = {None: (), _FIELD: ("at equal field",)} if _field_varies(table) else {None: ()}
    found = {
        (title(name, table.dense, table.signals), *others, *words): [
            correlation(rows, predicted, name, given) for predicted in table.config.correlate
        ]
        for others, rows in alike.items()
        for name in table.compared
        for given, words in held.items()
    }
    body = tuple(
        (
            ", ".join(words),
            str(max((one.n for one in cells), default=0)),
            *(str(one) if math.isfinite(one.rho) else "–" for one in cells),
        )
        for words, cells in found.items()
    )
    head = ("Spearman with", "rows", *(DESCRIBED[name].title for name in table.config.correlate))
    equal = "; at equal field: partial, with the receptive field held" if _field_varies(table) else ""
    note = f"rank correlations: [{CONFIDENCE:.0%} BCa bootstrap interval over the rows], not corrected{equal}"
    text = "does the prediction predict? rank correlation with the rows' means"
    return Rows(head, body, title=text, names=("", "rows", *table.config.correlate), notes=(note,))


def _field_varies(table: Table) -> bool:
    return len({row.estimate(_FIELD).mean for row in table.rows}) > 1


def _difference_cell(table: Table, row: Row, name: str) -> str:
    found = table.differences[row.label, name]
    one = found.paired
    if not math.isfinite(one.mean):
        return "undefined" if one.n else "–"
    return f"{found.mark} {difference_text(name, one.mean, one.low, one.high)}".lstrip()


def _found(table: Table) -> str:
    """The first column with its differences, then for every other column in how many rows they are there."""
    columns = {name: _tested(table, name) for name in table.compared}
    columns = {name: rows for name, rows in columns.items() if rows}
    if not columns:
        return ""
    pairs = sorted({found.paired.n for rows in columns.values() for _, found in rows})
    to = table.reference if table._named is None else _name(table._named)
    n = "n = " + " to ".join(map(str, dict.fromkeys((pairs[0], pairs[-1])))) + " seeds"
    if all(found.mark == "?" for rows in columns.values() for _, found in rows):
        return f"{n} are too few to show a difference to {to}, however large."
    (first, rows), *others = columns.items()
    parts = [
        f"{_listed(first, some, len(rows), table.dense)} {'is' if len(some) == 1 else 'are'} {side} {to}"
        for side, sign in (("above", 1), ("below", -1))
        if (some := [(row, one) for row, one in rows if one.shown and sign * one.paired.mean > 0])
    ]
    rest = [_name(row) for row, one in rows if not one.shown]
    if not parts:
        parts = [f"no difference to {to} is shown"]
    elif rest:
        parts.append(f"no difference is shown for {_joined(rest) if len(rest) <= _NAMED else 'the others'}")
    text = f"{n}: in {name_and_unit(first, table.dense, table.signals)[0]}, {_joined(parts)}"
    there = {name: sum(one.shown for _, one in rows) for name, rows in others}
    counted = [
        f"{name_and_unit(name, table.dense, table.signals)[0]} ({_share(count, len(columns[name]))})"
        for name, count in there.items()
        if count
    ]
    if counted:
        text += f"; there are differences in {_joined(counted)}"
    if none := [
        name_and_unit(name, table.dense, table.signals)[0] for name, count in there.items() if not count
    ]:
        text += f"; none is shown in {_joined(none)}"
    return f"{text}."


def _tested(table: Table, name: str) -> list[tuple[Row, Difference]]:
    """The rows with a test in a column."""
    cells = ((row, table.differences.get((row.label, name))) for row in table.rows)
    return [(row, one) for row, one in cells if one is not None and math.isfinite(one.paired.p)]


def _listed(name: str, rows: Sequence[tuple[Row, Difference]], count: int, dense: bool) -> str:
    """Rows that differ, each with its difference; of many, their number and the range."""
    unit = {"%": " points", "": ""}.get(unit := name_and_unit(name, dense)[1], f" {unit}")
    if len(rows) > _NAMED:
        ends = sorted((one.paired.mean for _, one in rows), key=abs)
        low, high = (difference_text(name, end, math.nan, math.nan) for end in (ends[0], ends[-1]))
        return f"{_share(len(rows), count)} ({low} to {high}{unit})"
    return _joined(
        [
            f"{_name(row)} ({difference_text(name, one.paired.mean, one.paired.low, one.paired.high)}{unit})"
            for row, one in rows
        ]
    )


def _share(count: int, of: int) -> str:
    return f"all {of} rows" if count == of > 1 else f"{count} of {of} rows"


def _name(row: Row) -> str:
    return f"{row.schedule} with {', '.join(row.others)}" if row.others else row.schedule


def _joined(items: Sequence[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last


def _notes(table: Table) -> Iterator[str]:
    yield f"mean ± half of the {CONFIDENCE:.0%} interval over seeds (Student's t); G is predicted"
    for name in table.config.measured:
        if name not in table.measured and name not in TableConfig.measured:
            yield f"no run has {name}"
    if not table.differences and len(table.rows) > 1 and table.compared:
        yield f"no differences: the baseline {table.config.baseline!r} matches no row, or more than one"
    if any(len(seeds) == 1 for row in table.rows for seeds in row.values.values()):
        yield "no interval for one seed: the spread over seeds is not known"
    if set(NETWORK) & {*table.described, *table.config.correlate}:
        yield from network_notes(table.config.study, table.rows)
    if len(commits := commits_of(table.runs)) > 1:
        yield f"runs of more than one commit: {', '.join(sorted(commits))}"
    asked = any(other.startswith("data.") for row in table.rows for other in row.others)
    for key, others in varying(table.runs).items():
        if others:
            yield f"{key} stands for {', '.join(others)} too: they always vary together"
    for key, values in differing([row.circumstances for row in table.rows if row.circumstances]).items():
        if not (asked and key.startswith("data.")):
            yield f"rows differ in {key}: {', '.join(values)}"
    for run in table.runs:
        name = f"{run.config.dilation.label} ({run.run_id}, seeds {list(run.config.seeds)})"
        for key, (was, now) in run.info.get("changed", {}).items():
            yield f"started with {key}={was}, resumed with {now}: {name}"
        match run.state:
            case "failed":
                yield f"failed: {name}: {run.failure.get('error')}"
            case "interrupted":
                yield f"not finished: {name}: interrupted"
            case "running":
                yield f"not finished: {name}: still running"
            case "planned":
                yield f"missing: {name}: planned but never started"
    for row in table.rows:
        planned = {seed for run in row.runs if run.state == "done" for seed in run.config.seeds}
        if absent := sorted(planned - row.tested):
            yield f"{row.label}: incomplete records: done, but no measurements of seeds {absent}"


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
            pairs = max((table.differences[row.label, name].paired.n for name in table.compared), default=0)
            if pairs < max((len(seeds) for seeds in row.values.values()), default=0):
                yield f"{row.label}: {pairs} of its seeds paired with {other.label}"
    if any(one.mark == "≈" for one in cells):
        yield f"≈ within the noise: adjusted p of {ALPHA} or more, which does not show that nothing differs"
    if any(one.mark == "?" and one.paired.n == 1 for one in cells):
        yield "? one pair: its spread is not known, so it may be noise"
    for n in sorted({one.paired.n for one in cells if one.mark == "?" and one.paired.n > 1}):
        yield (
            f"? n = {n} pairs cannot reach p < {ALPHA}{over}, however large the difference: use at least "
            f"{least_pairs(tests)} seeds"
        )
    smallest = []
    for name in table.compared:
        found = [one.paired.detectable(tests) for (_, of), one in table.differences.items() if of == name]
        if finite := [value for value in found if math.isfinite(value)]:
            largest = max(finite) * column(name).factor
            smallest.append(f"{title(name, table.dense, table.signals)} {largest:.{column(name).digits}f}")
    if smallest:
        pairs = sorted({one.paired.n for one in cells if math.isfinite(one.paired.detectable(tests))})
        yield (
            f"smallest difference that n = {', '.join(map(str, pairs))} pairs would have shown, in the row "
            f"with the widest spread ({POWER:.0%} power, p < {ALPHA}{over}): {', '.join(smallest)}"
        )
