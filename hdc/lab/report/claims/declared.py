"""Reads and checks `claims.toml`: the claims, and the lines by which `ledger` judges each.

A claim is a table with a text, `claim`, and a list of `lines`. A line has a `kind`:

- `exact`: a function of `hdc.lab.report.claims.facts`, named by `fact`;
- `paired`: `metric` (split/metric) of `treatment` against `control`, paired by seed;
- `count`: the same for `column`, which is counted and not measured (parameters, flops_per_image, ...);
- `time`, `memory`: the same for the time or memory of a training step, from `hdc time`;
- `correlation`: of a `predicted` column with `metric`, over the rows of a study;
- `matrix`: the study of offsets beside what its networks see.

Every line but an exact one names a `study`. Every line but exact and matrix ones says what it `expect`s:
`higher` or `lower`; `equal` for counts; for paired lines also `not_higher` or `not_lower`, by more than a
`margin`. A paired line can have a `share`, such as 0.5: the treatment is compared with half of the control.

`treatment` and `control` each select one row of the study, by `schedule`, in any spelling of its label, and
by keys of the configuration: `{schedule = "2x6", "net.residual" = false}`; null is "null". `study`, `metric`,
`column`, `treatment` and `control` can be lists, and `each = {"net.padding" = ["SAME", "VALID"]}` adds keys
to both selectors: such an entry stands for one line per combination. `by_construction = true` marks a line
that could not have come out otherwise and is no evidence, such as the comb that equal rates leave.
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

_LISTS = ("study", "metric", "column", "treatment", "control")  # keys that can be lists
_SIDES = ("study", "treatment", "control")
# For each kind of line: the keys that it needs, and what it can expect.
_KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "exact": (("fact",), ()),
    "paired": ((*_SIDES, "metric"), ("higher", "lower", "not_higher", "not_lower")),
    "count": ((*_SIDES, "column"), ("higher", "lower", "equal")),
    "time": (_SIDES, ("higher", "lower")),
    "memory": (_SIDES, ("higher", "lower", "equal")),
    "correlation": (("study", "predicted", "metric"), ("higher", "lower")),
    "matrix": (("study",), ()),
}
_KEYS = FIRST_KEYS - {"schedule.rates", "schedule.repeat"} | {"net.layer"}


@dataclass(frozen=True)
class Selector:
    """Selects a row of a study by its schedule and other keys; `rates` has the rate of every layer."""

    schedule: str = ""
    rates: tuple[int, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join((self.schedule, *(f"{key}={value}" for key, value in self.keys.items())))


@dataclass(frozen=True)
class Line:
    """One line; what its kind does not have is empty."""

    kind: str
    fact: str = ""
    study: str = ""
    metric: str = ""
    column: str = ""
    predicted: str = ""
    expect: str = ""
    margin: float = 0.0
    share: float = 1.0
    by_construction: bool = False
    treatment: Selector = field(default_factory=Selector)
    control: Selector = field(default_factory=Selector)


@dataclass(frozen=True)
class Claim:
    """A claim: its name, its text, and the lines it is judged by."""

    name: str
    text: str
    lines: tuple[Line, ...]


def claims() -> tuple[Claim, ...]:
    """The claims of the package's `claims.toml`, in its order.

    Raises:
        InputError: as `parse`.
    """
    return parse(resources.files("hdc.lab.report.claims").joinpath("claims.toml").read_text(encoding="utf-8"))


def parse(text: str) -> tuple[Claim, ...]:
    """The claims of a TOML text.

    Raises:
        InputError: naming the claim and the line, for text that is not TOML, a missing or unknown key, or a
            value that is not allowed.
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
    kind, expect = values.get("kind", ""), values.get("expect", "")
    _one_of(place, "kind", kind, _KINDS)
    needs, expects = _KINDS[kind]
    margin = ["margin"] if str(expect).startswith("not_") else []
    needed = sorted({"kind", *needs, *(["expect"] if expects else []), *margin})
    also = [
        "by_construction",
        *(["each"] if "control" in needs else []),
        *(["share"] if kind == "paired" else []),
    ]
    for key in values:
        _one_of(place, "key", key, [*needed, *also])
    if missing := [key for key in needed if key not in values]:
        raise InputError(f"{place}: a line of kind {kind} needs {missing[0]}")
    given: dict[str, list[Any]] = {
        key: _listed(values[key]) if key in _LISTS else [values[key]]
        for key in Line.__dataclass_fields__
        if key in values
    }
    known = {"expect": expects, "fact": FACTS, "predicted": DESCRIBED, "column": DESCRIBED}
    for key, value in ((key, value) for key, some in given.items() for value in some):
        if key in known:
            _one_of(place, key, value, known[key])
        if key == "study" and not (value and isinstance(value, str)):
            raise InputError(f"{place}: study must be a name, got {value!r}")
        if key == "metric" and not re.fullmatch(r"[^/]+/[^/]+", str(value)):
            raise InputError(f"{place}: metric must be split/metric, such as test/accuracy, got {value!r}")
        if key == "by_construction" and not isinstance(value, bool):
            raise InputError(f"{place}: by_construction must be true or false, got {value!r}")
        if key == "margin" and not (isinstance(value, float) and value >= 0):
            raise InputError(f"{place}: margin must be a number from 0.0 on, got {value!r}")
        if key == "share" and not (isinstance(value, float) and 0 < value <= 1):
            raise InputError(f"{place}: share must be a number above 0.0 and up to 1.0, got {value!r}")
    each = values.get("each", {})
    for setting in product(*([(key, value) for value in _listed(some)] for key, some in each.items())):
        selectors: dict[str, list[Any]] = {
            side: [_selector(f"{place}, {side}", one, setting) for one in given[side]]
            for side in ("treatment", "control")
            if side in given
        }
        for chosen in product(*(given | selectors).values()):
            yield Line(**dict(zip(given, chosen, strict=True)))


def _selector(place: str, values: Any, setting: tuple[tuple[str, Any], ...]) -> Selector:
    if not isinstance(values, dict) or "schedule" not in values:
        raise InputError(f'{place} must be a table with schedule and keys, such as {{schedule = "2x6"}}')
    keys = {key: value for key, value in values.items() if key != "schedule"} | dict(setting)
    for key in keys:
        if key not in _KEYS:
            raise InputError(f"{place}: {unknown('key', key, sorted(_KEYS))}")
    try:
        schedule = DilationSchedule.from_label(str(values["schedule"]))
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    return Selector(
        values["schedule"], schedule.layer_rates, {key: plain(value) for key, value in keys.items()}
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _one_of(place: str, key: str, value: Any, allowed: Any) -> None:
    if value not in list(allowed):
        raise InputError(f"{place}: {unknown(key, str(value), list(allowed))}")
