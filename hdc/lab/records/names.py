"""What tells the runs of a study apart: the keys that differ are found, not declared. No JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

from hdc.lab.records.run import Run


def names(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Of each run the schedule's label, then what else tells it apart, as key=value; of keys that differ
    together, one. Runs that differ in their seeds alone have the same."""
    keys = sorted(varying(runs))
    labels: dict[tuple[int, ...], str] = {}
    found = []
    for run in runs:
        flat = flatten(run.config.to_dict())
        # 2-2x3 and 2x6 are the same schedule: the first one's label stands for both.
        schedule = labels.setdefault(run.config.dilation.layer_rates, run.config.dilation.label)
        found.append((schedule, *(f"{key}={plain(flat[key])}" for key in keys)))
    return found


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


def flatten(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Nested groups as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{place}{key}.") if isinstance(value, Mapping) else {f"{place}{key}": value}
    return flat


def plain(value: Any) -> str:
    """A value as the command line has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
