"""The positive control: what networks learn at each offset, beside what `hdc.receptive` says they see.

The images are independent noise, and a pixel's label is the value of the pixel `data.offset` to its right, so
a network without a path to that pixel can only guess. The rule was fixed before anything was measured: an
offset that the analysis counts as seen must be learnt by every seed to more than 99 % accuracy, and at one
that it does not every seed must stay within 2 points of 50 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from hdc.errors import InputError
from hdc.lab.records.run import Run
from hdc.lab.report.tables.columns import seen
from hdc.lab.report.tables.rendering import Document
from hdc.lab.report.tables.rows import Row, group
from hdc.lab.report.tables.study import network_notes
from hdc.lab.terminal import Rows

LEARNT = 0.99
GUESSED = 0.02  # from 50 %

_COLUMN = "test/accuracy"
_KEY = "data.offset"


@dataclass(frozen=True)
class Cell:
    """One schedule at one offset.

    Attributes:
        row: the schedule and the other keys that distinguish the network, without the offset.
        offset: in pixels to the right.
        reachable: whether the network sees that pixel; None where its record does not say so.
        accuracies: on the test split, one per seed; none before a run is done.
    """

    row: str
    offset: int
    reachable: bool | None
    accuracies: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The accuracy to judge: the smallest if the pixel is seen, else the one farthest from 50 %."""
        if any(math.isnan(value) for value in self.accuracies):
            return math.nan
        return min(self.accuracies) if self.reachable else max(self.accuracies, key=lambda a: abs(a - 0.5))

    @property
    def agrees(self) -> bool:
        """Whether every seed does what the analysis predicts; an accuracy that is not finite never agrees."""
        return self.worst > LEARNT if self.reachable else abs(self.worst - 0.5) < GUESSED

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
    name = row.runs[0].config.data.name
    if name != "offsets":
        raise InputError(f"row {row.label}: a table of offsets needs runs on data=offsets, got data={name}")
    offset = int(row.keys[_KEY])
    found = seen(row.runs)
    reachable = None if found is None else any(first <= offset <= last for first, last in found["row"])
    name = ", ".join((row.schedule, *(other for other in row.others if not other.startswith(f"{_KEY}="))))
    return Cell(name, offset, reachable, tuple(row.values[_COLUMN].values()))


def document(study: str, runs: Sequence[Run]) -> Document:
    """The matrix: one line per schedule, one column per offset."""
    found = cells(runs)
    offsets = sorted({cell.offset for cell in found})
    by_place = {(cell.row, cell.offset): cell for cell in found}
    body = tuple(
        (row, *(_text(by_place.get((row, offset))) for offset in offsets))
        for row in dict.fromkeys(cell.row for cell in found)
    )
    judged = [cell for cell in found if cell.judged]
    agreeing = sum(cell.agrees for cell in judged)
    notes = [
        f"agrees in {agreeing} of {len(judged)} cells with what the built network can see",
        f"✓ seen, and every seed learns it: test accuracy above {LEARNT:.0%}",
        f"· not seen, and every seed guesses: within {GUESSED * 100:.0f} points of 50%",
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
    head = ("schedule", *map(str, offsets))
    title = f"{study}: what is learnt at each offset, in pixels"
    return Document((Rows(head, body, title=title),), tuple(notes), frame)


def _text(cell: Cell | None) -> str:
    if cell is None or not cell.judged:
        return "–"
    if not cell.agrees:
        return f"✗ {100 * cell.worst:.1f}"
    return "✓" if cell.reachable else "·"
