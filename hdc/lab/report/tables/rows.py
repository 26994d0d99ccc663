"""Runs to rows: runs that differ only in their seeds share one; runs that do not compare are refused."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.records.names import flatten, names, plain, settings
from hdc.lab.records.run import Run
from hdc.lab.report.statistics import Estimate
from hdc.lab.report.tables.columns import DESCRIBED, column, is_plugin

# What `run.json` says, beside the configuration, that can change a run's numbers.
_CIRCUMSTANCES = ("versions", "device.platform", "device.kind", "native", "backends", "data")
_FINGERPRINT = "data.fingerprint"  # older records have none


@dataclass(frozen=True)
class Row:
    """One configuration with all its seeds.

    Attributes:
        schedule, kind: the dilation schedule's.
        others: the other keys that distinguish the row, as key=value; see `hdc.lab.records.names`.
        keys: its configuration, as `net.padding` -> `SAME`; that of its first run.
        runs: the runs behind it, in every state.
        values: value per seed, by column; a metric that was not finite is NaN.
        tested: the seeds of finished runs that have measurements of the test split.
    """

    schedule: str
    kind: str
    others: tuple[str, ...]
    keys: Mapping[str, str]
    runs: tuple[Run, ...]
    values: Mapping[str, Mapping[int, float]]
    tested: frozenset[int]

    @property
    def label(self) -> str:
        """The schedule's label, then the other keys that distinguish this row."""
        return ", ".join((self.schedule, *self.others))

    @property
    def layers(self) -> int:
        """How many layers its schedule has."""
        return len(self.runs[0].config.dilation)

    @property
    def seeds(self) -> str:
        """The number of seeds, as `3`, or as `2 of 3` while some are not done."""
        planned = {seed for run in self.runs for seed in run.config.seeds}
        return str(len(planned)) if self.tested == planned else f"{len(self.tested)} of {len(planned)}"

    @cached_property
    def circumstances(self) -> dict[str, str]:
        """Versions, device and data of its first finished run."""
        return next((circumstances(run) for run in self.runs if run.state == "done"), {})

    def estimate(self, name: str) -> Estimate:
        """Mean and interval over the finished seeds; NaN where one of them was not finite.

        A described column is known and not estimated: its value, from no seed and without an interval.
        """
        if (of := column(name).of) is not None:
            value = of(self.runs)
            return Estimate(0, math.nan if value is None else float(value), math.nan)
        return Estimate.of(list(self.values.get(name, {}).values()))

    def text(self, name: str) -> str:
        """A cell of the table: a known value, or mean ± half of the interval."""
        style = column(name)
        if style.of is not None:
            return style.text(style.of(self.runs))
        one = self.estimate(name)
        if not math.isfinite(one.mean):
            return "undefined" if one.n else "–"
        text = f"{one.mean * style.factor:.{style.digits}f}"
        return text if one.n == 1 else f"{text} ±{one.half_width * style.factor:.{style.digits}f}"

    def differences(self, name: str, other: "Row") -> list[float]:
        """This row minus `other`, seed by seed, over the seeds that both have."""
        mine, theirs = self.values.get(name, {}), other.values.get(name, {})
        return [mine[seed] - theirs[seed] for seed in mine if seed in theirs]


def group(runs: Sequence[Run], columns: Sequence[str]) -> tuple[Row, ...]:
    """The rows of these runs, with their values of `columns` and of every measure of a plugin.

    Args:
        runs: of one study.
        columns: as split/metric; names without a split are ignored.

    Raises:
        InputError: where runs of one row differ in versions, device or data, or the files behind one `data`
            have changed between two runs.
    """
    _refuse_changed_data(runs)
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, name in enumerate(names(runs)):
        groups.setdefault(name, []).append(place)
    row_of = {place: number for number, places in enumerate(groups.values()) for place in places}
    values, tested = _values(runs, [column for column in columns if column not in DESCRIBED], row_of)
    keys = settings(runs)
    rows = tuple(
        Row(
            name[0],
            runs[places[0]].config.dilation.kind,
            name[1:],
            keys[places[0]],
            tuple(runs[place] for place in places),
            {column: of[number] for column, of in values.items()},
            frozenset(tested[number]),
        )
        for number, (name, places) in enumerate(groups.items())
    )
    for row in rows:
        _refuse_mixed(row)
    return rows


def circumstances(run: Run) -> dict[str, str]:
    """What can change a run's numbers beside its configuration, as `versions.jax` -> `0.10.0`."""
    groups = {name.split(".")[0] for name in _CIRCUMSTANCES}
    found = flatten({key: value for key, value in run.info.items() if key in groups})
    return {
        key: plain(value)
        for key, value in found.items()
        if any(key == name or key.startswith(f"{name}.") for name in _CIRCUMSTANCES) and key != _FINGERPRINT
    }


def commits_of(runs: Sequence[Run]) -> list[str]:
    """The commits of the finished runs, each once."""
    gits = [git for run in runs if run.state == "done" and (git := run.info.get("git"))]
    return list(dict.fromkeys(git["commit"][:10] + (" with changes" if git["dirty"] else "") for git in gits))


def differing(values: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Keys whose values differ, with their distinct values in order ('none' if missing)."""
    keys = sorted({key for one in values for key in one})
    found = {key: list(dict.fromkeys(one.get(key, "none") for one in values)) for key in keys}
    return {key: distinct for key, distinct in found.items() if len(distinct) > 1}


def _refuse_mixed(row: Row) -> None:
    done = [run for run in row.runs if run.state == "done"]
    for other in done[1:]:
        if found := differing([circumstances(done[0]), circumstances(other)]):
            differences = "; ".join(f"{key}: {' and '.join(values)}" for key, values in found.items())
            raise InputError(
                f"row {row.label} mixes runs {done[0].run_id} and {other.run_id} that differ in "
                f"{differences}: delete one run's folder and launch it again, or launch it with another name="
            )


def _refuse_changed_data(runs: Sequence[Run]) -> None:
    """InputError for two finished runs of the same `data` whose images or labels were not the same."""
    seen: dict[str, tuple[Run, str]] = {}
    for run in runs:
        found = run.info.get("data", {}).get("fingerprint") if run.state == "done" else None
        if found is not None:
            first, known = seen.setdefault(str(run.config.data), (run, found))
            if found != known:
                raise InputError(
                    f"runs {first.run_id} and {run.run_id} have the same data={run.config.data.name}, but "
                    f"other images or labels (fingerprints {known} and {found}): delete one run's folder and "
                    "launch it again, or launch it with another name="
                )


def _values(
    runs: Sequence[Run], columns: Sequence[str], row_of: Mapping[int, int]
) -> tuple[dict[str, list[dict[int, float]]], list[set[int]]]:
    """The value per seed, by column and row, and each row's seeds with a test; none of unfinished runs.

    Args:
        row_of: the row of each run, by its position in `runs`. For a seed that two runs of a row have, the
            first one's value is taken.
    """
    count = len({*row_of.values()})
    values: dict[str, list[dict[int, float]]] = {column: [{} for _ in range(count)] for column in columns}
    tested: list[set[int]] = [set() for _ in range(count)]
    done = [place for place, run in enumerate(runs) if run.state == "done"]
    value = pl.col("value").fill_null(float("nan"))
    # An epoch's typical time is the median; of any other metric the last value is the run's.
    timed = pl.col("metric").first() == "seconds"
    one = pl.when(timed).then(value.median()).otherwise(value.sort_by("step").last())
    for part in records.measurements([runs[place] for place in done]):
        test = part.filter(pl.col("split") == "test")
        for place, seed in test.select("run", "seed").unique().iter_rows():
            tested[row_of[done[place]]].add(seed)
        for metric in test["metric"].unique(maintain_order=True):
            if is_plugin(column := f"test/{metric}"):
                values.setdefault(column, [{} for _ in range(count)])
        wanted = part.with_columns(column=pl.concat_str("split", pl.lit("/"), "metric"))
        wanted = wanted.filter(pl.col("column").is_in([*values]))
        found = wanted.group_by("run", "column", "seed", maintain_order=True).agg(one)
        for place, column, seed, number in found.iter_rows():
            values[column][row_of[done[place]]].setdefault(seed, number)
    return values, tested
