"""How far a run and its sweep have come: two lines that change on a terminal, a few plain ones elsewhere."""

import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import current_process
from pathlib import Path

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

_VARIABLE = "HDC_SWEEP"  # by which the processes of a launcher know the whole sweep
_MOST = 100_000  # characters of it: Linux starts no process with one of 128 kB
_EVERY, _ASKED = 60.0, 2.0  # seconds between two plain lines, and between two looks at the records
# XLA says in a few lines that it compiles slowly; each message of its log starts with letter and date.
_ALARM, _MESSAGE = re.compile(rb"slow_operation_alarm|Very slow compile"), re.compile(rb"[IWEF]\d{4}")


@dataclass(frozen=True)
class Sweep:
    """The runs of one launch.

    Attributes:
        folder: of the study.
        started: when it was launched, in seconds of `time.time`.
        work: by run_id, in the order of the launch, the run's number of epochs over all seeds.
        names: by run_id, the run's schedule with the keys in which the runs differ.
    """

    folder: Path
    started: float
    work: Mapping[str, int]
    names: Mapping[str, str] = field(default_factory=dict)

    def announce(self) -> None:
        """Let this process and those that it starts know the sweep."""
        values = {"folder": str(self.folder.absolute()), "started": self.started, "work": dict(self.work)}
        text = json.dumps({**values, "names": dict(self.names)})
        os.environ[_VARIABLE] = text if len(text) < _MOST else json.dumps({**values, "names": {}})

    @staticmethod
    def announced(run_id: str) -> "Sweep | None":
        """The sweep that a run of this process belongs to; None where it is not known, as in a search."""
        values = json.loads(os.environ.get(_VARIABLE) or "null")
        if not values or run_id not in values["work"]:
            return None
        return Sweep(Path(values["folder"]), values["started"], values["work"], values["names"])

    def place(self, run_id: str) -> str:
        """`run 2 of 9`, in the order of the launch; empty for a single run."""
        ids = list(self.work)
        return f"run {ids.index(run_id) + 1} of {len(ids)}" if len(ids) > 1 and run_id in ids else ""

    def left(self, at_once: int, done: Mapping[str, int] = {}) -> float | None:
        """The seconds to the end of the sweep, from what its finished runs have taken for an epoch of a seed.

        Args:
            at_once: how many runs are trained side by side.
            done: by run_id, the epochs that a run under way has behind it.

        Returns:
            None before a run has finished since the launch, or where none is left.
        """
        finished, seconds, rest, runs = 0, 0.0, 0.0, 0
        for run_id, work in self.work.items():
            end = self.folder / run_id / "done.json"
            if end.exists():
                if end.stat().st_mtime >= self.started:
                    finished += work
                    seconds += json.loads(end.read_bytes())["seconds"]
            elif not (self.folder / run_id / "failed.json").exists():
                rest, runs = rest + work - done.get(run_id, 0), runs + 1
        return rest * seconds / finished / min(at_once, runs) if finished and rest else None


def about(seconds: float) -> str:
    """A time in words that do not pretend to know it well: `about 40 s`, `about 12 min`, `about 3.5 h`."""
    if seconds < 90:
        return f"about {max(10, 10 * math.ceil(seconds / 10))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 90 * 60 else f"about {seconds / 3600:.1f} h"


class Report:
    """What a run does now, and how far it has come."""

    def __init__(
        self, name: str, total: int, done: int, left: Callable[[int], float | None], place: str = ""
    ):
        """Start to report.

        Args:
            name: of the run.
            total, done: epochs over all seeds, in all and from before.
            left: seconds to the end of the sweep after so many epochs of this run.
            place: of the run in the sweep.
        """
        self._name, self._place, self._left = name, place, left
        self._total, self._done = total, done
        self._asked, self.sweep = -math.inf, ""
        self._ask()

    def does(self, what: str, advance: int = 0) -> None:
        """Say what the run does now, after `advance` more epochs."""
        self._done += advance
        self._ask()

    def _ask(self) -> None:
        """Ask once in a while what is left: `sweep` is `run 2 of 9, about 12 min left`, as far as known."""
        if time.monotonic() - self._asked > _ASKED:
            seconds, self._asked = self._left(self._done), time.monotonic()
            known = (self._place, f"{about(seconds)} left" if seconds else "")
            self.sweep = ", ".join(filter(None, known))


class _Lines(Report):
    """A line now and then, for a log file, a notebook and the workers of a sweep."""

    def __init__(self, *arguments, say: Callable[[str], None]):
        super().__init__(*arguments)
        self._say, self._last = say, time.monotonic()
        if self._place:
            say(self._place)

    def does(self, what: str, advance: int = 0) -> None:
        super().does(what, advance)
        if advance and time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            self._say(f"{self._done} of {self._total} epochs: {what}")


class _Bar(Report, Progress):
    """Two lines on a terminal: the sweep and the run, then the bar with what the run does now."""

    def __init__(self, *arguments, console: Console):
        Report.__init__(self, *arguments)
        text = TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        )
        columns = (BarColumn(bar_width=10), TimeRemainingColumn(), text)
        Progress.__init__(self, *columns, console=console, transient=True, expand=True)
        self._task = self.add_task("compiling", total=self._total, completed=self._done)

    def does(self, what: str, advance: int = 0) -> None:
        super().does(what, advance)
        self.update(self._task, advance=advance, description=what)

    def get_renderables(self) -> Iterator[RenderableType]:
        head = ", ".join(filter(None, (self.sweep, self._name)))
        yield Text(head, no_wrap=True, overflow="ellipsis")
        yield self.make_tasks_table(self.tasks)


@contextmanager
def reported(
    console: Console,
    say: Callable[[str], None],
    name: str,
    total: int,
    done: int = 0,
    left: Callable[[int], float | None] = lambda _: None,
    place: str = "",
) -> Iterator[Report]:
    """Report on a run: with a bar on a terminal, else with a line when it starts and one a minute.

    Args:
        console: where the bar is drawn.
        say: prints a line about the run.
        name, total, done, left, place: as for `Report`.
    """
    asked = (name, total, done, left, place)
    # A notebook keeps every line that a bar has drawn; several workers would draw over one another.
    notebook = console.is_jupyter or "JPY_PARENT_PID" in os.environ
    if not console.is_terminal or notebook or current_process().name != "MainProcess":
        yield _Lines(*asked, say=say)
        return
    with _Bar(*asked, console=console) as bar, _native_lines_above(bar.console):
        yield bar


@contextmanager
def _native_lines_above(console: Console) -> Iterator[None]:
    """Print above the bar what native code writes to stderr; XLA's alarms of slow compiling are left out."""
    sys.stderr.flush()
    kept = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)

    def copy() -> None:
        alarm = False
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                alarm = bool(_ALARM.search(line)) or (alarm and not _MESSAGE.match(line))
                if not alarm:
                    console.print(line.decode(errors="replace").rstrip(), markup=False, soft_wrap=True)

    copying = threading.Thread(target=copy, daemon=True)
    copying.start()
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        copying.join(timeout=2)  # a process that still runs may hold the pipe open
