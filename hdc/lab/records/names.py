"""What distinguishes the runs of a study, found from their configurations. No JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

from hdc.lab.records.run import Run


def names(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """For each run: its schedule label, then the keys that distinguish it, as key=value.

    Keys that always vary together are represented by the first. Runs that differ only in their seeds have
    the same name, and so have two spellings of one schedule, such as 2-2x3 and 2x6.
    """
    settled = settings(runs)
    keys = sorted(_varying(settled))
    labels: dict[tuple[int, ...], str] = {}
    schedules = [run.config.dilation for run in runs]
    return [
        (labels.setdefault(schedule.layer_rates, schedule.label), *(f"{key}={values[key]}" for key in keys))
        for schedule, values in zip(schedules, settled, strict=True)
    ]


def varying(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    """The keys that differ between runs, seeds and schedule excepted, each with the keys that vary with it.

    Two keys vary together where each value of one always comes with the same value of the other, as
    `data.flips` does with `data.name`. The first of them stands for all.
    """
    return _varying(settings(runs))


def settings(runs: Sequence[Run]) -> list[dict[str, str]]:
    """For each run: the configuration as text by dotted key, the same keys for all.

    Records of another version, or of a plugin, have other keys. A run that lacks a key had its default if the
    record of another run with the same part says that its own value is the default; else the value is "none".
    """
    flat = [{key: plain(value) for key, value in flatten(run.config.to_dict()).items()} for run in runs]
    if any(values.get("net.layer", "standard") != "standard" for values in flat):
        for values in flat:  # then the first version's word for one of the layers is no key of its own
            if values.pop("net.separable", "false") == "true":
                values["net.layer"] = "separable"
    defaults: dict[tuple[str, str], str] = {}  # by part and key: another part may have the same key
    for run, values in zip(runs, flat, strict=True):
        for key in getattr(run, "defaults", ()):
            if key in values:
                defaults[_part(key, values), key] = values[key]
    keys = dict.fromkeys(key for values in flat for key in values)
    return [
        {key: values.get(key, defaults.get((_part(key, values), key), "none")) for key in keys}
        for values in flat
    ]


def _part(key: str, values: Mapping[str, str]) -> str:
    """The part that a key is an option of, by name; empty for keys of ours."""
    return values.get(f"{key.partition('.')[0]}.name", "")


def _varying(settled: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    columns: dict[str, list[str]] = {}
    found: dict[str, tuple[str, ...]] = {}
    for key in settled[0] if settled else ():
        column = [values[key] for values in settled]
        if key == "seeds" or key.startswith("schedule.") or len(set(column)) < 2:
            continue
        for first, other in columns.items():
            if len(set(zip(other, column, strict=True))) == len(set(other)) == len(set(column)):
                found[first] += (key,)
                break
        else:
            columns[key], found[key] = column, ()
    return found


def flatten(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Nested groups as one mapping, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{place}{key}.") if isinstance(value, Mapping) else {f"{place}{key}": value}
    return flat


def plain(value: Any) -> str:
    """A value as it is written on the command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
