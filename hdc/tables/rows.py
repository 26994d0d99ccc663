"""Runs to rows: one for each configuration that differs in more than its seeds; mixed ones are refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from hdc.errors import InputError
from hdc.records.run import Run
from hdc.statistics import Estimate
from hdc.tables.columns import DESCRIBED

# What `run.json` says that can change a run's numbers beside its configuration.
_CIRCUMSTANCES = ("versions", "device.platform", "device.kind", "native", "backends", "data")


@dataclass(frozen=True)
class Row:
    """One configuration, all its seeds.

    Attributes:
        schedule, kind: of the dilation schedule.
        others: what else differs between the rows, as key=value; of keys that differ together, one.
        runs: the runs behind it, in every state.
        values: value per seed, by column; a metric that was not finite is NaN.
        tested: the seeds of finished runs that have measurements of the test split.
    """

    schedule: str
    kind: str
    others: tuple[str, ...]
    runs: tuple[Run, ...]
    values: Mapping[str, Mapping[int, float]]
    tested: frozenset[int]

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
        return str(len(planned)) if self.tested == planned else f"{len(self.tested)} of {len(planned)}"

    @cached_property
    def keys(self) -> dict[str, str]:
        """Its configuration, as `net.padding` -> `SAME`; that of its first run, seeds and spelling apart."""
        return {key: plain(value) for key, value in flatten(self.runs[0].config.to_dict()).items()}

    @cached_property
    def circumstances(self) -> dict[str, str]:
        """Versions, device and data of its first run that is done."""
        return next((circumstances(run) for run in self.runs if run.state == "done"), {})

    def estimate(self, column: str) -> Estimate:
        """Over the seeds that are done; undefined where one of them was not finite."""
        return Estimate.of(list(self.values.get(column, {}).values()))

    def differences(self, column: str, other: "Row") -> list[float]:
        """This row minus `other`, seed by seed, over the seeds that both have."""
        mine, theirs = self.values.get(column, {}), other.values.get(column, {})
        return [mine[seed] - theirs[seed] for seed in mine if seed in theirs]


def group(runs: Sequence[Run], columns: Sequence[str]) -> tuple[Row, ...]:
    """The rows of these runs, with their values of `columns` (split/metric; others are passed over).

    The keys that differ between runs are found, not declared, so runs of other data, lengths or
    networks never share a row.

    Raises:
        InputError: where runs of one row differ in versions, device or data.
    """
    flat = {run: flatten(run.config.to_dict()) for run in runs}
    keys = sorted(varying(runs))
    groups: dict[tuple[str, ...], list[Run]] = {}
    labels: dict[tuple[int, ...], str] = {}
    for run in runs:
        others = tuple(f"{key}={plain(flat[run][key])}" for key in keys)
        # 2-2x3 and 2x6 are the same schedule: the first one's label stands for both.
        schedule = labels.setdefault(run.config.dilation.layer_rates, run.config.dilation.label)
        groups.setdefault((schedule, *others), []).append(run)
    rows = tuple(
        Row(key[0], members[0].config.dilation.kind, key[1:], tuple(members), *_values(members, columns))
        for key, members in groups.items()
    )
    for row in rows:
        _refuse_mixed(row)
    return rows


def varying(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    """The configuration's keys that differ between runs, seeds and schedules apart, and with each the later
    ones that always differ together with it, as the flips do with the data set: naming one is enough."""
    values: dict[str, list[str]] = {}
    for run in runs:
        for key, value in flatten(run.config.to_dict()).items():
            values.setdefault(key, []).append(str(value))
    together: dict[str, tuple[str, ...]] = {}
    for key, mine in values.items():
        if key == "seeds" or key.startswith("schedule.") or len(set(mine)) < 2:
            continue
        for first in together:
            pairs = set(zip(values[first], mine, strict=True))
            if len(pairs) == len(set(values[first])) == len(set(mine)):
                together[first] += (key,)
                break
        else:
            together[key] = ()
    return together


def circumstances(run: Run) -> dict[str, str]:
    """What can change a run's numbers beside its configuration, as `versions.jax` -> `0.10.0`."""
    found = {key: plain(value) for key, value in flatten(run.info).items()}
    return {
        key: value
        for key, value in found.items()
        if any(key == name or key.startswith(f"{name}.") for name in _CIRCUMSTANCES)
    }


def differing(values: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """The keys that these mappings do not agree on, each with its values in order; `none` where it lacks."""
    keys = sorted({key for one in values for key in one})
    found = {key: list(dict.fromkeys(one.get(key, "none") for one in values)) for key in keys}
    return {key: distinct for key, distinct in found.items() if len(distinct) > 1}


def flatten(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Nested groups as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{place}{key}.") if isinstance(value, Mapping) else {f"{place}{key}": value}
    return flat


def plain(value: Any) -> str:
    """A value as the command line has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _refuse_mixed(row: Row) -> None:
    done = [run for run in row.runs if run.state == "done"]
    for other in done[1:]:
        if found := differing([circumstances(done[0]), circumstances(other)]):
            told = "; ".join(f"{key}: {' and '.join(values)}" for key, values in found.items())
            raise InputError(
                f"row {row.label} mixes runs {done[0].run_id} and {other.run_id} that differ in {told}: "
                f"delete the folder of one and launch it again, or launch one under another name="
            )


def _values(
    runs: Sequence[Run], columns: Sequence[str]
) -> tuple[dict[str, dict[int, float]], frozenset[int]]:
    """Value per seed, for each measured column, of the runs that are done; and the seeds that were tested."""
    frames = [run.metrics() for run in runs if run.state == "done"]
    values: dict[str, dict[int, float]] = {column: {} for column in columns if column not in DESCRIBED}
    for column in values:
        split, metric = column.split("/", 1)
        for frame in frames:
            chosen = frame.filter(pl.col("split") == split, pl.col("metric") == metric)
            value = pl.col("value").fill_null(float("nan"))
            # An epoch's time is typical as a median; of anything else the last value is the run's.
            value = value.median() if metric == "seconds" else value.sort_by("step").last()
            for seed, number in chosen.group_by("seed", maintain_order=True).agg(value).iter_rows():
                values[column].setdefault(seed, number)
    tested = [frame.filter(pl.col("split") == "test")["seed"].unique() for frame in frames]
    return values, frozenset(seed for seeds in tested for seed in seeds)
