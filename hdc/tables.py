"""Records to tables: means with their intervals, paired differences, what failed and what is missing."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from hdc.errors import InputError
from hdc.records import Run
from hdc.rendering import FORMATS, Document, Section

SOURCES = ("study", "published")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class TableConfig:
    """What `conf/table/*.yaml` declares.

    Attributes:
        source: what it is about: the records of a `study`, or the `published` networks, for which of the
            other keys only format and out count.
        study: whose records.
        results: the folder that holds the studies.
        measured: the columns of results, as split/metric, or `gridding` for the predicted index.
        described: the columns of what is known without training, and of cost.
        baseline: the row that the others are compared with: a kind (plain, dilated, hdc) or a label.
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
    baseline: str = "plain"
    format: str = "terminal"
    out: str | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise InputError(f"source must be one of {', '.join(SOURCES)}, got {self.source!r}")
        if self.format not in FORMATS:
            raise InputError(f"format must be one of {', '.join(FORMATS)}, got {self.format!r}")
        for name in (*self.measured, *self.described):
            if not re.fullmatch(r"[^/]+/[^/]+", name) and name not in _DESCRIBED:
                raise InputError(
                    f"unknown column {name!r}: use split/metric, or one of {', '.join(_DESCRIBED)}"
                )


@dataclass(frozen=True)
class Estimate:
    """Mean and 95 % interval (Student's t) of one value per seed; the interval is NaN for one seed."""

    n: int
    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        n = len(values)
        if n == 0:
            return cls(0, math.nan, math.nan)
        mean = float(np.mean(values))
        if n == 1:
            return cls(1, mean, math.nan)
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
        return cls(n, mean, quantile * float(np.std(values, ddof=1)) / math.sqrt(n))

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width


@dataclass(frozen=True)
class Row:
    """One configuration, all its seeds.

    Attributes:
        schedule, kind: of the dilation schedule.
        others: what else differs between the rows of this table, as key=value.
        runs: the runs behind it, in every state.
        values: value per seed, by column; a metric that was not finite is NaN.
    """

    schedule: str
    kind: str
    others: tuple[str, ...]
    runs: tuple[Run, ...]
    values: Mapping[str, Mapping[int, float]]

    @property
    def label(self) -> str:
        """The schedule's label, then the other keys that set this row apart."""
        return ", ".join((self.schedule, *self.others))

    @property
    def layers(self) -> int:
        """How many layers its schedule has."""
        return len(self.runs[0].config.dilation)

    @property
    def seeds(self) -> str:
        """How many seeds are done, of how many planned where some are not."""
        planned = {seed for run in self.runs for seed in run.config.seeds}
        done = {seed for run in self.runs if run.state == "done" for seed in run.config.seeds}
        return str(len(done)) if done == planned else f"{len(done)} of {len(planned)}"

    def estimate(self, column: str) -> Estimate:
        """Over the seeds that are done; undefined where one of them was not finite."""
        return Estimate.of(list(self.values.get(column, {}).values()))

    def difference(self, column: str, baseline: "Row") -> Estimate:
        """This row minus `baseline`, seed by seed, over the seeds that both have."""
        mine, other = self.values.get(column, {}), baseline.values.get(column, {})
        return Estimate.of([mine[seed] - other[seed] for seed in mine if seed in other])


@dataclass(frozen=True)
class Table:
    """Rows and what is noted under them, ready to be drawn."""

    config: TableConfig
    rows: tuple[Row, ...]
    measured: tuple[str, ...]
    dense: bool
    notes: tuple[str, ...]

    def baseline(self, row: Row) -> Row | None:
        """The row that `row` is compared with: the same in all but the schedule.

        Of several, the one with as many layers; None where that is not one, and for a baseline itself.
        """
        wanted = self.config.baseline
        some = [o for o in self.rows if o.others == row.others and wanted in (o.kind, o.schedule)]
        if row in some:
            return None
        deep = [other for other in some if other.layers == row.layers] or some
        return deep[0] if len(deep) == 1 else None


def build(config: TableConfig, runs: Sequence[Run]) -> Table:
    """Group runs into rows: one for each configuration that differs in more than its seeds.

    The keys that differ between runs are found, not declared, so runs of other data, lengths or
    networks never share a row.
    """
    flat = {run: _flatten(run.config.to_dict()) for run in runs}
    keys = sorted({key for values in flat.values() for key in values} - {"seeds"})
    varying = [
        key
        for key in keys
        if not key.startswith("schedule.") and len({str(values[key]) for values in flat.values()}) > 1
    ]
    groups: dict[tuple[str, ...], list[Run]] = {}
    labels: dict[tuple[int, ...], str] = {}
    for run in runs:
        others = tuple(f"{key}={_plain(flat[run][key])}" for key in varying)
        # 2-2x3 and 2x6 are the same schedule: the first one's label stands for both.
        schedule = labels.setdefault(run.config.dilation.layer_rates, run.config.dilation.label)
        groups.setdefault((schedule, *others), []).append(run)
    columns = [*config.measured, *config.described]
    rows = tuple(
        Row(key[0], members[0].config.dilation.kind, key[1:], tuple(members), _values(members, columns))
        for key, members in groups.items()
    )
    finished = any(run.state == "done" for run in runs)
    measured = tuple(
        column
        for column in config.measured
        if not finished or column in _DESCRIBED or any(row.values[column] for row in rows)
    )
    dense = any(run.info.get("data", {}).get("task") == "dense" for run in runs)
    table = Table(config, rows, measured, dense, ())
    return replace(table, notes=tuple(_notes(table, runs)))


def long_frame(table: Table) -> pl.DataFrame:
    """The table as data: one line per row and column, differences beside the means."""
    lines = []
    for row in table.rows:
        baseline = table.baseline(row)
        for column in dict.fromkeys([*table.measured, *table.config.described]):
            if column in _DESCRIBED:
                estimate, difference = Estimate(0, _number(_DESCRIBED[column].of(row.runs)), math.nan), None
            else:
                estimate = row.estimate(column)
                difference = row.difference(column, baseline) if baseline else None
            lines.append(
                {
                    "row": row.label,
                    "kind": row.kind,
                    "column": column,
                    "n": estimate.n,
                    "mean": estimate.mean,
                    "low": estimate.low,
                    "high": estimate.high,
                    "baseline": baseline.label if difference and baseline else None,
                    "pairs": difference.n if difference else None,
                    "difference": difference.mean if difference else None,
                    "difference_low": difference.low if difference else None,
                    "difference_high": difference.high if difference else None,
                    "runs": " ".join(f"{run.run_id}:{run.state}" for run in row.runs),
                }
            )
    return pl.DataFrame(lines, infer_schema_length=None).fill_nan(None)


def document(table: Table) -> Document:
    """The blocks: results, paired differences where there is a baseline, what is known and its cost."""
    head = tuple(_title(column, table.dense) for column in table.measured)
    results = tuple(
        (row.label, row.seeds, *(_cell(row, column) for column in table.measured)) for row in table.rows
    )
    blocks = [Section(f"{table.config.study}: test split", ("schedule", "seeds", *head), results)]
    compared = [column for column in table.measured if column not in _DESCRIBED]
    pairs = [(row, table.baseline(row)) for row in table.rows]
    differences = tuple(
        (row.label, *(_difference_cell(row.difference(column, other), column) for column in compared))
        for row, other in pairs
        if other
    )
    if differences:
        head = ("schedule", *(_title(column, table.dense) for column in compared))
        labels = {other.schedule for _, other in pairs if other}
        to = labels.pop() if len(labels) == 1 else f"{table.config.baseline} of as many layers"
        blocks.append(Section(f"difference to {to}, paired by seed", head, differences))
    described = table.config.described
    known = tuple((row.label, row.kind, *(_cell(row, column) for column in described)) for row in table.rows)
    head = ("schedule", "kind", *(_title(column, table.dense) for column in described))
    blocks.append(Section("the schedule itself, and its cost", head, known))
    return Document(tuple(blocks), table.notes, long_frame(table))


@dataclass(frozen=True)
class _Described:
    """A column that needs no training: its heading, its value for a row's runs, and its text."""

    title: str
    of: Callable[[Sequence[Run]], Any]
    text: Callable[[Any], str]


def _network(name: str) -> Callable[[Sequence[Run]], Any]:
    """A value that `run.json` keeps of the network, from the first run that has begun."""
    return lambda runs: next((run.info["network"].get(name) for run in runs if "network" in run.info), None)


_DESCRIBED = {
    "receptive_field": _Described("field px", lambda runs: runs[0].config.dilation.receptive_field, str),
    "coverage": _Described(
        "coverage %", lambda runs: 100 * runs[0].config.dilation.coverage, "{:.0f}".format
    ),
    "gap_free": _Described(
        "gap-free", lambda runs: runs[0].config.dilation.gap_free, lambda v: "yes" if v else "no"
    ),
    "gridding": _Described("G", lambda runs: runs[0].config.dilation.gridding.index, "{:.3f}".format),
    "parameters": _Described("params", _network("parameters"), "{:,}".format),
    "flops_per_image": _Described("MFLOP", _network("flops_per_image"), lambda v: f"{v / 1e6:,.1f}"),
    "bytes_per_image": _Described("MB", _network("bytes_per_image"), lambda v: f"{v / 1e6:,.2f}"),
}

# Heading, factor and digits of a measured column; others show their own name and four digits.
_MEASURED = {
    "accuracy": ("accuracy %", 100, 2),
    "mean_iou": ("mIoU %", 100, 2),
    "speckle": ("speckle %", 100, 3),
    "erf_ripple": ("ERF ripple dB", 1, 1),
    **{f"erf_area_{share}": (f"ERF area {share} % px²", 1, 0) for share in (20, 30, 50, 99)},
    **{f"erf_fill_{share}": (f"ERF fill {share} %", 1, 3) for share in (20, 30, 50, 99)},
    "feature_ripple": ("feature ripple dB", 1, 1),
    "phase_imbalance": ("phase imbalance %", 100, 2),
    "seconds": ("s/epoch", 1, 1),
}


def _style(column: str) -> tuple[str, float, int]:
    return _MEASURED.get(column.split("/")[1], (column, 1, 4))


def _title(column: str, dense: bool) -> str:
    if column in _DESCRIBED:
        return _DESCRIBED[column].title
    title = _style(column)[0]
    if dense and column.endswith("/accuracy"):
        title = f"pixel {title}"
    split = column.split("/")[0]
    return title if split == "test" or column == "train/seconds" else f"{split} {title}"


def _cell(row: Row, column: str) -> str:
    if column in _DESCRIBED:
        value = _DESCRIBED[column].of(row.runs)
        return "–" if value is None else _DESCRIBED[column].text(value)
    return _estimate_text(row.estimate(column), column, "")


def _difference_cell(difference: Estimate, column: str) -> str:
    text = _estimate_text(difference, column, "+")
    if difference.n == 1 and math.isfinite(difference.mean):
        return f"? {text}"
    return f"≈ {text}" if difference.low <= 0 <= difference.high else text


def _estimate_text(estimate: Estimate, column: str, sign: str) -> str:
    if estimate.n == 0:
        return "–"
    if not math.isfinite(estimate.mean):
        return "undefined"
    _, factor, digits = _style(column)
    text = f"{estimate.mean * factor:{sign}.{digits}f}"
    return text if estimate.n == 1 else f"{text} ±{estimate.half_width * factor:.{digits}f}"


def _values(runs: Sequence[Run], columns: Sequence[str]) -> dict[str, dict[int, float]]:
    """Value per seed, for each measured column, of the runs that are done."""
    frames = [run.metrics() for run in runs if run.state == "done"]
    values: dict[str, dict[int, float]] = {column: {} for column in columns if column not in _DESCRIBED}
    for column in values:
        split, metric = column.split("/", 1)
        for frame in frames:
            chosen = frame.filter(pl.col("split") == split, pl.col("metric") == metric)
            value = pl.col("value").fill_null(math.nan)
            # An epoch's time is typical as a median; of anything else the last value is the run's.
            value = value.median() if metric == "seconds" else value.sort_by("step").last()
            for seed, number in chosen.group_by("seed", maintain_order=True).agg(value).iter_rows():
                values[column].setdefault(seed, number)
    return values


def _notes(table: Table, runs: Sequence[Run]) -> Iterator[str]:
    yield f"mean ± half of the {CONFIDENCE:.0%} interval over seeds (Student's t); G is predicted"
    for column in set(table.config.measured) - set(table.measured) - set(TableConfig.measured):
        yield f"no run has {column}"
    pairs = [(row, other) for row in table.rows if (other := table.baseline(row))]
    compared = [column for column in table.measured if column not in _DESCRIBED]
    for row, other in pairs:
        shared = max((row.difference(column, other).n for column in compared), default=0)
        if shared < max((len(seeds) for seeds in row.values.values()), default=0):
            yield f"{row.label}: {shared} of its seeds paired with {other.label}"
    if any(row.difference(column, other).n == 1 for row, other in pairs for column in compared):
        yield "? one pair: its spread is not known, it may be noise"
    if pairs:
        yield "≈ within the noise: the interval of the paired difference includes 0 (uncorrected)"
    elif len(table.rows) > 1:
        yield f"no differences: no row, or more than one, is the baseline {table.config.baseline!r}"
    if any(len(seeds) == 1 for row in table.rows for seeds in row.values.values()):
        yield "one seed has no interval: its spread over seeds is not known"
    for what, values in (("commit", _commits(runs)), ("device", _devices(runs))):
        if len(values) > 1:
            yield f"runs of more than one {what}: {', '.join(sorted(values))}"
    for run in runs:
        name = f"{run.config.dilation.label} ({run.run_id}, seeds {list(run.config.seeds)})"
        match run.state:
            case "failed":
                yield f"failed: {name}: {run.failure.get('error')}"
            case "interrupted":
                yield f"not finished: {name}: interrupted or still running"
            case "planned":
                yield f"missing: {name}: planned and never started"


def _commits(runs: Sequence[Run]) -> set[str]:
    found = [run.info.get("git") for run in runs if run.state == "done"]
    return {git["commit"][:10] + (" with changes" if git["dirty"] else "") for git in found if git}


def _devices(runs: Sequence[Run]) -> set[str]:
    return {run.info["device"]["kind"] for run in runs if run.state == "done" and "device" in run.info}


def _flatten(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{place}{key}.") if isinstance(value, Mapping) else {f"{place}{key}": value}
    return flat


def _plain(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
