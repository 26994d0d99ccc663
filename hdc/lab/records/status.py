"""The state of a study's runs, for `hdc runs`."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from hdc.errors import InputError, printable
from hdc.lab import records
from hdc.lab.records import Run, RunFolder
from hdc.lab.records import names as apart
from hdc.lab.terminal import Rows

T = TypeVar("T")

_STATES = ("done", "running", "interrupted", "failed", "planned")  # in the order in which they are listed


@dataclass(frozen=True)
class Standing:
    """One run of a study.

    Attributes:
        name: the schedule's label, then the keys that distinguish the run, as key=value.
        run: the run itself.
        state: of the run, when it was looked at.
        reached: seed and epoch of the newest measurement, None without one.
        seconds: wall time of a finished run.
        written: the time of the newest measurement; None for a run that never started, and for packed runs.
        error: in one line, what ended a failed run, or which of the run's files cannot be read.
    """

    name: tuple[str, ...]
    run: Run
    state: str
    reached: tuple[int, int] | None
    seconds: float | None
    written: datetime | None
    error: str | None

    @property
    def folder(self) -> Path | None:
        """The run's; None for packed runs."""
        return self.run.folder if isinstance(self.run, RunFolder) else None

    @property
    def traceback(self) -> Path | None:
        """The file with a failed run's traceback."""
        return self.folder / "failed.json" if self.folder and self.state == "failed" else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: times in UTC, paths as text."""
        return {
            "run_id": self.run.run_id,
            "schedule": self.name[0],
            "keys": dict(key.split("=", 1) for key in self.name[1:]),
            "seeds": list(self.run.config.seeds),
            "state": self.state,
            "epochs": self.run.config.train.epochs,
            "reached": self.reached and dict(zip(("seed", "epoch"), self.reached, strict=True)),
            "seconds": self.seconds,
            "written": self.written and self.written.isoformat(timespec="seconds"),
            "error": self.error,
            "folder": self.folder and str(self.folder),
            "traceback": self.traceback and str(self.traceback),
        }


def standings(study: str, results: str | Path) -> list[Standing]:
    """Where every run of a study stands, in the order of planning.

    Raises:
        InputError: where there is no such study, or the list of its runs cannot be read.
    """
    runs = records.load(study, results)
    return [_standing(run, name) for run, name in zip(runs, apart.names(runs), strict=True)]


def counts(states: Iterable[str]) -> dict[str, int]:
    """The number of runs in each state that occurs, in the order of listing."""
    found = Counter(states)
    return {state: found[state] for state in dict.fromkeys((*_STATES, *found)) if found[state]}


def summary(counted: dict[str, int]) -> str:
    """`12 runs: 9 done, 1 running, 1 failed, 1 planned`."""
    total = sum(counted.values())
    told = ", ".join(f"{number} {state}" for state, number in counted.items())
    return f"{total} {'run' if total == 1 else 'runs'}: {told}"


def report(found: Sequence[Standing], now: datetime) -> RenderableType:
    """The runs, one row each, and the errors of those that have one.

    Args:
        found: the runs.
        now: the moment that "ago" counts from.
    """
    head = ("run", "run_id", "seeds", "state", "epoch", "seed", "time")
    body = [
        (
            ", ".join(one.name),
            one.run.run_id,
            _ranges(one.run.config.seeds),
            one.state,
            *(_reached(one) or ("–", "–")),
            _time(one, now),
        )
        for one in found
    ]
    wrong = [_text(f"{one.state}: {_named(one)}: {one.error}") for one in found if one.error]
    return Group(Rows(head, body, words=("run_id", "seeds", "state", "epoch", "seed", "time")), *wrong)


def failures(found: Sequence[Standing]) -> RenderableType:
    """Each failed run with its error and where its traceback is."""
    parts: list[RenderableType] = []
    for one in found:
        parts.append(_text(", ".join((_named(one), *_far(one)))))
        parts.append(_indented(one.error or ""))
        if one.traceback:
            parts.append(_indented(f"traceback: {one.traceback}"))
    return Group(*parts)


def overview(counted: dict[str, dict[str, int] | str]) -> RenderableType:
    """The studies, one row each.

    Args:
        counted: for each study the counts of its states, or why the study cannot be read.
    """
    told = [one if isinstance(one, str) else summary(one) for one in counted.values()]
    return Rows(("study", "runs"), list(zip(counted, told, strict=True)), words=("runs",))


def _standing(run: Run, name: tuple[str, ...]) -> Standing:
    state, errors = run.state, []

    def read(what: Callable[[], T]) -> T | None:
        """A damaged file is noted, so that the rest of the study can still be shown."""
        try:
            return what()
        except InputError as error:
            errors.append(str(error))
            return None

    def newest() -> tuple[int, int] | None:
        last = run.metrics().select("seed", "epoch").tail(1).rows()
        if last and last[0][0] not in run.config.seeds:
            raise InputError(f"the measurements of run {run.run_id} have seed {last[0][0]}, not planned")
        return last[0] if last else None

    # A finished run has reached the end; its measurements, which may be many, need not be read.
    complete = run.config.seeds[-1], run.config.train.epochs
    reached = complete if state == "done" else read(newest)
    if state == "failed" and (failure := read(lambda: run.failure)):
        errors.insert(0, failure["error"])
    return Standing(
        name,
        run,
        state,
        reached,
        read(lambda: run.seconds),
        _written(run.folder) if isinstance(run, RunFolder) else None,
        "; ".join(errors) or None,
    )


def _written(folder: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp((folder / "metrics.jsonl").stat().st_mtime, UTC)
    except OSError:
        return None


def _reached(one: Standing) -> tuple[str, str] | None:
    """The epoch of how many, and the seed of how many, as text."""
    if one.reached is None:
        return None
    (seed, epoch), config = one.reached, one.run.config
    return f"{epoch} of {config.train.epochs}", f"{config.seeds.index(seed) + 1} of {len(config.seeds)}"


def _far(one: Standing) -> list[str]:
    return [f"{what} {which}" for what, which in zip(("epoch", "seed"), _reached(one) or (), strict=False)]


def _named(one: Standing) -> str:
    seeds = one.run.config.seeds
    what = "seed" if len(seeds) == 1 else "seeds"
    return f"{', '.join(one.name)} ({one.run.run_id}, {what} {_ranges(seeds)})"


def _time(one: Standing, now: datetime) -> str:
    if one.seconds is not None:
        return f"took {_duration(one.seconds)}"
    return "–" if one.written is None else f"{_duration((now - one.written).total_seconds())} ago"


def _duration(seconds: float) -> str:
    """In its two largest units."""
    for size, unit, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} {seconds % size // part:.0f} {smaller}"
    return f"{max(0, seconds):.0f} s"


def _ranges(seeds: Sequence[int]) -> str:
    """0, 1, 2, 5 as `0-2,5`."""
    runs = itertools.groupby(enumerate(seeds), lambda one: one[1] - one[0])
    spans = [[seed for _, seed in members] for _, members in runs]
    return ",".join(f"{span[0]}-{span[-1]}" if len(span) > 2 else ",".join(map(str, span)) for span in spans)


def _text(words: str) -> Text:
    """Text from a file, without markup and terminal control characters."""
    return Text(printable(words), overflow="fold")


def _indented(words: str) -> RenderableType:
    return Padding(_text(words), (0, 0, 0, 2))
