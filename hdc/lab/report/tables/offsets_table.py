"""The positive controls: what networks learn at each offset, beside what `hdc.receptive` says they see.

In `data=offsets` the images are independent noise, and a pixel's label is the value of the pixel
`data.offset` to its right; in `data=copy_memory` it is one of eight symbols, `data.steps` + 10 steps before.
A network without a path to that place can only guess. The rule was fixed before anything was measured: an
offset that the analysis counts as seen must be learnt by every seed to more than 99 % accuracy, and at one
that it does not every seed must stay within 2 points of chance, 50 % or 12.5 %.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from hdc.errors import InputError
from hdc.lab.data import copy_memory
from hdc.lab.records.run import Run
from hdc.lab.report.tables.columns import seen
from hdc.lab.report.tables.rendering import Document
from hdc.lab.report.tables.rows import Row, group
from hdc.lab.report.tables.study import network_notes
from hdc.lab.terminal import Rows

LEARNT = 0.99
GUESSED = 0.02  # from chance

_COLUMN = "test/accuracy"


@dataclass(frozen=True)
class Control:
    """A data set whose labels are copied from one place.

    Attributes:
        key: of the configuration, on which the place depends.
        offset: where that place is, by the value of the key.
        chance: the accuracy of guessing.
        place: the key in words.
    """

    key: str
    offset: Callable[[int], int]
    chance: float
    place: str


CONTROLS = {
    "offsets": Control("data.offset", lambda offset: offset, 1 / 2, "offset, in pixels"),
    "copy_memory": Control(
        *("data.steps", lambda steps: -copy_memory.offset(steps), 1 / copy_memory.SYMBOLS),
        "pause, in steps",
    ),
}


@dataclass(frozen=True)
class Cell:
    """One schedule at one offset.

    Attributes:
        row: the schedule and the other keys that distinguish the network, without the offset.
        control: the data set.
        place: the value of its key: pixels to the right for `offsets`.
        reachable: whether the network sees that pixel; None where its record does not say so.
        accuracies: on the test split, one per seed; none before a run is done.
    """

    row: str
    control: Control
    place: int
    reachable: bool | None
    accuracies: tuple[float, ...]

    @property
    def offset(self) -> int:
        """Where the label is taken from: in pixels to the right, or steps later."""
        return self.control.offset(self.place)

    @property
    def worst(self) -> float:
        """The accuracy to judge: the smallest if the pixel is seen, else the one farthest from chance."""
        if any(math.isnan(value) for value in self.accuracies):
            return math.nan
        return min(self.accuracies) if self.reachable else max(self.accuracies, key=self._from_chance)

    @property
    def agrees(self) -> bool:
        """Whether every seed does what the analysis predicts; an accuracy that is not finite never agrees."""
        return self.worst > LEARNT if self.reachable else self._from_chance(self.worst) < GUESSED

    def _from_chance(self, accuracy: float) -> float:
        return abs(accuracy - self.control.chance)

    @property
    def judged(self) -> bool:
        """Whether there is a measurement and something to compare it with."""
        return bool(self.accuracies) and self.reachable is not None


def cells(runs: Sequence[Run]) -> tuple[Cell, ...]:
    """Every schedule at every planned offset, rows and offsets in the order of the runs.

    Raises:
        InputError: for runs on other data, and where runs of one row differ in versions, device or data.
    """
    return tuple(_cell(row) for row in group(runs, [_COLUMN]))


def _cell(row: Row) -> Cell:
    data = row.runs[0].config.data.name
    if data not in CONTROLS:
        allowed = " or ".join(f"data={name}" for name in CONTROLS)
        raise InputError(f"row {row.label}: a table of offsets needs runs on {allowed}, got data={data}")
    control = CONTROLS[data]
    place, found = int(row.keys[control.key]), seen(row.runs)
    offset = control.offset(place)
    reachable = None if found is None else any(first <= offset <= last for first, last in found["row"])
    name = ", ".join(
        (row.schedule, *(other for other in row.others if not other.startswith(f"{control.key}=")))
    )
    return Cell(name, control, place, reachable, tuple(row.values[_COLUMN].values()))


def document(study: str, runs: Sequence[Run]) -> Document:
    """The matrix: one line per schedule, one column per offset."""
    found = cells(runs)
    places = sorted({cell.place for cell in found})
    by_place = {(cell.row, cell.place): cell for cell in found}
    body = tuple(
        (row, *(_text(by_place.get((row, place))) for place in places))
        for row in dict.fromkeys(cell.row for cell in found)
    )
    control, judged = found[0].control, [cell for cell in found if cell.judged]
    agreeing = sum(cell.agrees for cell in judged)
    notes = [
        f"agrees in {agreeing} of {len(judged)} cells with what the built network can see",
        f"✓ seen, and every seed learns it: test accuracy above {LEARNT:.0%}",
        f"· not seen, and every seed guesses: within {GUESSED * 100:.0f} points of {100 * control.chance:g}%",
        "✗ does not agree: accuracy of the seed that is farthest off, in %",
        *network_notes(study, group(runs, [])),
    ]
    if missing := sum(not cell.accuracies for cell in found):
        notes.append(f"– {missing} of {len(found)} cells have no finished run")
    frame = pl.DataFrame(
        [
            {
                "row": cell.row,
                "offset": cell.offset,
                "reachable": cell.reachable,
                "n": len(cell.accuracies),
                "mean": sum(cell.accuracies) / len(cell.accuracies) if cell.accuracies else None,
                "judged": cell.worst if cell.judged else None,
                "agrees": cell.agrees if cell.judged else None,
            }
            for cell in found
        ],
        infer_schema_length=None,
    ).fill_nan(None)
    head = ("schedule", *map(str, places))
    title = f"{study}: what is learnt at each {control.place}"
    return Document((Rows(head, body, title=title, notes=tuple(notes)),), frame)


def _text(cell: Cell | None) -> str:
    if cell is None or not cell.judged:
        return "–"
    if not cell.agrees:
        return f"✗ {100 * cell.worst:.1f}"
    return "✓" if cell.reachable else "·"
