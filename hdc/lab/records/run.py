"""What a run is to those who read it, wherever it is kept. No JAX."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import polars as pl

from hdc.errors import InputError
from hdc.lab.config import Config
from hdc.lab.store import line, read, sha256
from hdc.registry import Task

Form = Callable[[Any], bool]  # whether a JSON value is like that
State = Literal["planned", "running", "interrupted", "failed", "done"]

METRICS = {
    "run_id": pl.String,
    "seed": pl.Int64,
    "step": pl.Int64,
    "epoch": pl.Int64,
    "split": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
}

# What `hdc.lab.commands.time` measures of a training step, in seconds and bytes.
TIMES = {"run_id": pl.String, "repeat": pl.Int64, "step_seconds": pl.Float64, "step_bytes": pl.Int64}


class Run(Protocol):
    """One run, in whatever state: of a results folder, or of packed findings."""

    @property
    def config(self) -> Config:
        """All that can change its numbers."""
        ...

    @property
    def run_id(self) -> str:
        """The short hash of the configuration."""
        ...

    @property
    def state(self) -> State:
        """Where the run stands."""
        ...

    @property
    def defaults(self) -> frozenset[str]:
        """Keys of the configuration that have their default and were left out of the run_id."""
        ...

    @property
    def info(self) -> Mapping[str, Any]:
        """Network, data, versions, device, git and command; empty for a run that never began."""
        ...

    @property
    def failure(self) -> Mapping[str, Any]:
        """Of a failed run: `error`, one line."""
        ...

    @property
    def seconds(self) -> float | None:
        """Wall time of a run that is done, without its interruptions."""
        ...

    def metrics(self) -> pl.DataFrame:
        """The measurements, one a row, columns as `METRICS`; none for a run that never began."""
        ...

    def artifact(self, name: str, seed: int) -> dict[str, np.ndarray]:
        """The arrays saved under `name` for one seed; InputError where they are not there or damaged."""
        ...

    def weights(self, seed: int) -> Path:
        """The file with the trained network of one seed; InputError where it is not there."""
        ...


def content(folder: Path, name: str, digests: Any, as_it_was: str, missing: str = "") -> bytes:
    """The content of a file of a run or of a packed study.

    Args:
        folder, name: of the file.
        digests: the SHA-256 of each file by name; empty where an older version wrote none.
        as_it_was: when the digests were written, for the message.
        missing: what a missing file means, for the message.

    Raises:
        InputError: where it is not there, cannot be read, or is not as it was.
    """
    path = folder / name
    try:
        found = read(path)
    except FileNotFoundError:
        raise InputError(f"{path} is not there{missing}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {line(error)}") from None
    if digests and digests.get(name) != sha256(found):
        raise InputError(f"{path} is damaged: it is not as it was {as_it_was}, by its SHA-256")
    return found


def digests_in(path: Path, values: Mapping[str, Any]) -> dict[str, str]:
    """By file, the SHA-256 that `path` keeps among its `values`; empty where an older version wrote none."""
    digests = values.get("files", {})
    if not isinstance(digests, dict):
        raise InputError(f"{path} is damaged: its files are no group of digests")
    return digests


def check_info(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """What a file says of a run, where every part that is read has the form it is written in.

    Raises:
        InputError: naming the file and the first part that has not.
    """
    for name, has_form in _FORMS.items():
        if name in values and not has_form(values[name]):
            raise InputError(f"{path} is damaged: {name} is not what a run writes")
    return values


def check_metrics(path: Path, frame: pl.DataFrame, config: Config) -> None:
    """InputError for a measurement of another run, of a seed that was not planned, or of nothing."""
    named = frame.drop("value")
    if any(named.null_count().row(0)):
        raise InputError(f"{path} is damaged: a measurement lacks one of {', '.join(named.columns)}")
    if foreign := set(frame["run_id"]) - {config.run_id}:
        raise InputError(f"{path} is damaged: it has measurements of run {min(foreign)}")
    if foreign := set(frame["seed"]) - set(config.seeds):
        raise InputError(f"{path} is damaged: seed {min(foreign)} was not planned")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(kind: Any, low: float = -math.inf, high: float = math.inf) -> Form:
    """Whether a JSON value is a number of that type and not out of these bounds."""
    return lambda value: isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high


def _group(has_form: Form, **needed: Form) -> Form:
    """Whether a value is a group of such values, with some that it needs."""

    def check(value: Any) -> bool:
        if not isinstance(value, Mapping):
            return False
        forms = dict.fromkeys(value, has_form) | needed
        return all(name in value and of(value[name]) for name, of in forms.items())

    return check


def _anything(_: Any) -> bool:
    return True


def _list(has_form: Form) -> Form:
    return lambda value: isinstance(value, list) and bool(value) and all(map(has_form, value))


_COUNT, _OFFSET, _SHARE = _number(int, 0), _number(int), _number(int | float, 0, 1)
_SEEN = _group(
    _anything,
    size=_list(_COUNT),
    origin=_list(_OFFSET),
    coverage=_list(_SHARE),
    gridding=_SHARE,
    frequency=lambda value: value is None or _SHARE(value),
    row=lambda value: value == [] or _list(lambda pair: _list(_OFFSET)(pair) and len(pair) == 2)(value),
)


def _is_stride(value: Any) -> bool:
    """One number per axis, or null where there is none; older records have no such key."""
    return value is None or _list(_number(int | float, 0))(value)


def _is_network(value: Any) -> bool:
    """Counts by name, and what the network sees, see `hdc.lab.seen`."""
    own = {
        "seen": lambda value: value is None or (_SEEN(value) and _is_stride(value.get("output_stride"))),
        "unseen": _text,
        "weights": _group(_anything, file=_text, sha256=_text),
    }
    return isinstance(value, Mapping) and all(own.get(name, _COUNT)(one) for name, one in value.items())


def task_of(runs: Sequence[Run]) -> Task:
    """What the networks of a study predict: dense if any of them labels pixels; classification where no run
    was started."""
    found = {run.info.get("data", {}).get("task") for run in runs}
    return "dense" if "dense" in found else "regression" if "regression" in found else "classification"


def are_signals(runs: Sequence[Run]) -> bool:
    """Whether the networks of a study are for signals; False where no run was started."""
    shapes = [run.info.get("data", {}).get("image_shape") for run in runs]
    return any(isinstance(shape, list) and len(shape) == 2 for shape in shapes)


_FORMS: dict[str, Form] = {
    "network": _is_network,
    "data": _group(_anything, task=lambda value: value in get_args(Task)),
    "versions": _group(_text),
    "device": _group(lambda value: _text(value) or _COUNT(value), kind=_text),
    "native": _text,
    "git": lambda value: (
        value is None or _group(_anything, commit=_text, dirty=lambda v: isinstance(v, bool))(value)
    ),
    "changed": _group(lambda value: isinstance(value, list) and len(value) == 2),
    "command": _list(_text),
}
