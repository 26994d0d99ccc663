"""The claims of `claims.toml` and the lines that each is judged by, read and checked. `ledger` judges them.

A claim is a table of the file with a text, `claim`, and a list of `lines`. A line has a `kind`:

- `exact`: a function of `hdc.lab.report.claims.facts`, named by `fact`;
- `paired`: `metric` (split/metric) of `treatment` against `control`, paired by seed;
- `count`: `column`, counted and not measured (parameters, flops_per_image, ...), likewise compared;
- `time`, `memory`: a training step's, as `hdc.lab.commands.time` measures and counts it, likewise compared;
- `correlation`: of a `predicted` column with `metric`, over the rows of a study;
- `matrix`: the study of offsets beside the certificate.

All but the exact ones name a `study`, and all but exact and matrix what they `expect`: higher or lower;
`not_higher` and `not_lower` than the control, for paired lines, by more than a `margin`; `equal` for counts.

`treatment` and `control` select one row of the study each: `schedule`, in any spelling of its label, and keys
of the configuration, `{schedule = "2x6", "net.residual" = false}`; null is "null". `study`, `metric`,
`column`, `treatment` and `control` can be lists, and `each = {"net.padding" = ["SAME", "VALID"]}` adds keys
to both selectors: such an entry is one line for each combination.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from itertools import product
from typing import Any

from hdc.errors import InputError, unknown
from hdc.lab.config import FIRST_KEYS
from hdc.lab.records.names import plain
from hdc.lab.report.claims.facts import FACTS
from hdc.lab.report.tables.columns import DESCRIBED
from hdc.schedules import DilationSchedule

_COMPARED = frozenset(("study", "treatment", "control", "expect"))
_NEEDS = {
    "exact": frozenset(("fact",)),
    "paired": _COMPARED | {"metric"},
    "count": _COMPARED | {"column"},
    "time": _COMPARED,
    "memory": _COMPARED,
    "correlation": frozenset(("study", "predicted", "metric", "expect")),
    "matrix": frozenset(("study",)),
}
_EXPECTS = {
    "paired": ("higher", "lower", "not_higher", "not_lower"),
    "count": ("higher", "lower", "equal"),
    "time": ("higher", "lower"),
    "memory": ("higher", "lower", "equal"),
    "correlation": ("higher", "lower"),
}
_KEYS = FIRST_KEYS - {"schedule.rates", "schedule.repeat"}


@dataclass(frozen=True)
class Selector:
    """One row of a study: its schedule as labelled, the rate of every layer, keys of the configuration."""

    schedule: str = ""
    rates: tuple[int, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join((self.schedule, *(f"{key}={value}" for key, value in self.keys.items())))


@dataclass(frozen=True)
class Line:
    """One line, as the module's text has it; what a line of its kind does not have is empty."""

    kind: str
    fact: str = ""
    study: str = ""
    metric: str = ""
    column: str = ""
    predicted: str = ""
    expect: str = ""
    margin: float = 0.0
    treatment: Selector = field(default_factory=Selector)
    control: Selector = field(default_factory=Selector)


@dataclass(frozen=True)
class Claim:
    """A claim: its name, its text, and the lines it is judged by."""

    name: str
    text: str
    lines: tuple[Line, ...]


def claims() -> tuple[Claim, ...]:
    """Those of the package's `claims.toml`, in its order.

    Raises:
        InputError: as `parse`.
    """
    return parse(resources.files(__package__).joinpath("claims.toml").read_text(encoding="utf-8"))


def parse(text: str) -> tuple[Claim, ...]:
    """The claims of a TOML text.

    Raises:
        InputError: for what is no TOML, a missing or unknown key, or a value that is not allowed; it names
            the claim and the line.
    """
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"claims.toml: {error}") from None
    return tuple(_claim(name, entry) for name, entry in entries.items())


def _claim(name: str, entry: Any) -> Claim:
    place = f"claims.toml: {name}"
    if not isinstance(entry, dict) or set(entry) != {"claim", "lines"} or not entry["lines"]:
        raise InputError(f"{place} must have claim, a text, and lines, a list with at least one")
    lines = [
        line
        for number, values in enumerate(entry["lines"], start=1)
        for line in _lines(values, f"{place}, line {number}")
    ]
    return Claim(name, entry["claim"], tuple(lines))


def _lines(values: Mapping[str, Any], place: str) -> Iterator[Line]:
    kind = values.get("kind", "")
    if kind not in _NEEDS:
        raise InputError(f"{place}: {unknown('kind', kind, list(_NEEDS))}")
    expect = values.get("expect", "")
    allowed = {"kind"} | _NEEDS[kind] | ({"each"} if "control" in _NEEDS[kind] else set())
    needed = {"kind"} | _NEEDS[kind]
    if str(expect).startswith("not_"):
        allowed, needed = allowed | {"margin"}, needed | {"margin"}
    for key in values:
        if key not in allowed:
            raise InputError(f"{place}: {unknown('key', key, sorted(allowed))}")
    for key in sorted(needed):
        if key not in values:
            raise InputError(f"{place}: a line of kind {kind} needs {key}")
    if kind in _EXPECTS:
        _one_of(place, "expect", expect, _EXPECTS[kind])
    if not isinstance(values.get("margin", 0.0), float) or values.get("margin", 0.0) < 0:
        raise InputError(f"{place}: margin must be a number from 0.0 on, got {values['margin']!r}")
    if "fact" in values:
        _one_of(place, "fact", values["fact"], FACTS)
    if "predicted" in values:
        _one_of(place, "predicted", values["predicted"], DESCRIBED)
    shared: dict[str, Any] = {
        key: values[key] for key in ("kind", "fact", "predicted", "expect", "margin") if key in values
    }
    each = values.get("each", {})
    settings = product(*([(key, value) for value in _listed(options)] for key, options in each.items()))
    choices: dict[str, list[Any]] = {
        "study": [_study(place, one) for one in _listed(values.get("study", []))],
        "metric": [_metric(place, one) for one in _listed(values.get("metric", []))],
        "column": [_column(place, one) for one in _listed(values.get("column", []))],
    }
    for setting in settings:
        selectors: dict[str, list[Any]] = {
            side: [_selector(f"{place}, {side}", one, setting) for one in _listed(values[side])]
            for side in ("treatment", "control")
            if side in values
        }
        present = {key: options for key, options in (choices | selectors).items() if options}
        for chosen in product(*present.values()):
            yield Line(**shared, **dict(zip(present, chosen, strict=True)))


def _selector(place: str, values: Any, setting: tuple[tuple[str, Any], ...]) -> Selector:
    if not isinstance(values, dict) or "schedule" not in values:
        raise InputError(f'{place} must be a table with schedule and keys, such as {{schedule = "2x6"}}')
    keys = {key: value for key, value in values.items() if key != "schedule"} | dict(setting)
    for key in keys:
        if key not in _KEYS:
            raise InputError(f"{place}: {unknown('key', key, sorted(_KEYS))}")
    found = re.fullmatch(r"(\d+(?:-\d+)*)(?:x(\d+))?", str(values["schedule"]))
    if not found:
        raise InputError(f"{place}: schedule must be a label such as 1-2-5x2, got {values['schedule']!r}")
    try:
        schedule = DilationSchedule(tuple(map(int, found[1].split("-"))), repeat=int(found[2] or 1))
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    return Selector(
        values["schedule"], schedule.layer_rates, {key: plain(value) for key, value in keys.items()}
    )


def _study(place: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{place}: study must be a name, got {value!r}")
    return value


def _metric(place: str, value: Any) -> str:
    if not re.fullmatch(r"[^/]+/[^/]+", str(value)):
        raise InputError(f"{place}: metric must be split/metric, such as test/accuracy, got {value!r}")
    return value


def _column(place: str, value: Any) -> str:
    _one_of(place, "column", value, DESCRIBED)
    return value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _one_of(place: str, key: str, value: Any, allowed: Any) -> None:
    if value not in allowed:
        raise InputError(f"{place}: {unknown(key, str(value), list(allowed))}")
