"""The positive control: what networks learn at each offset, beside what the certificate says they can see.

The label of a pixel is the value of the pixel `data.offset` to its right, of independent noise, so that a
network without a path to that offset can only guess. The rule, fixed before anything was measured: an
offset that the certificate says is reachable must be learnt by every seed to more than 99 % accuracy, one
that it says is not must leave every seed within 2 points of 50 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from hdc.errors import InputError
from hdc.lab.records.run import Run
from hdc.lab.report.tables.columns import network_counts
from hdc.lab.report.tables.rendering import Document, Section
from hdc.lab.report.tables.rows import Row, group

LEARNT = 0.99
GUESSED = 0.02  # from 50 %

_COLUMN = "test/accuracy"
_KEY = "data.offset"


@dataclass(frozen=True)
class Cell:
    """One schedule at one offset.

    Attributes:
        row: what sets the network apart, the offset aside.
        offset: in pixels to the right.
        reachable: whether the certificate counts a path from the output to that input.
        accuracies: on the test split, one a seed; none before a run is done.
    """

    row: str
    offset: int
    reachable: bool
    accuracies: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The accuracy that is judged: the smallest where reachable, else the farthest from 50 %."""
        if any(math.isnan(value) for value in self.accuracies):
            return math.nan
        return min(self.accuracies) if self.reachable else max(self.accuracies, key=lambda a: abs(a - 0.5))

    @property
    def agrees(self) -> bool:
        """Whether every seed does what the certificate says; what is not finite does not."""
        return self.worst > LEARNT if self.reachable else abs(self.worst - 0.5) < GUESSED


def cells(runs: Sequence[Run]) -> tuple[Cell, ...]:
    """Every schedule at every offset that was planned, rows and offsets in the order of the runs.

    Raises:
        InputError: for a network that is not net=context, whose paths are not those of stem and schedule;
            and where runs of one row are mixed.
    """
    return tuple(_cell(row) for row in group(runs, [_COLUMN]))


def _cell(row: Row) -> Cell:
    config = row.runs[0].config
    paths = network_counts(config)
    if paths is None or config.data.name != "offsets":
        raise InputError(
            f"row {row.label}: a table of offsets is of net=context on data=offsets, got "
            f"net={config.net.name} on data={config.data.name}"
        )
    offset = int(row.keys[_KEY])
    place = offset - paths.origin[0]
    reachable = place < paths.size[0] and bool(paths.seen[place])
    name = ", ".join((row.schedule, *(other for other in row.others if not other.startswith(f"{_KEY}="))))
    return Cell(name, offset, reachable, tuple(row.values[_COLUMN].values()))


def document(study: str, runs: Sequence[Run]) -> Document:
    """The matrix: a line for each schedule, a column for each offset."""
    found = cells(runs)
    offsets = sorted({cell.offset for cell in found})
    by_place = {(cell.row, cell.offset): cell for cell in found}
    body = tuple(
        (row, *(_text(by_place.get((row, offset))) for offset in offsets))
        for row in dict.fromkeys(cell.row for cell in found)
    )
    measured = [cell for cell in found if cell.accuracies]
    agreeing = sum(cell.agrees for cell in measured)
    notes = [
        f"agrees in {agreeing} of {len(measured)} cells with the certificate of stem and schedule",
        f"✓ a path leads there, and every seed learns it: test accuracy above {LEARNT:.0%}",
        f"· none does, and every seed guesses: within {GUESSED * 100:.0f} points of 50%",
        "✗ does not agree: the accuracy of the seed farthest from that, in %",
    ]
    if missing := len(found) - len(measured):
        notes.append(f"– {missing} of {len(found)} cells have no finished run")
    frame = pl.DataFrame(
        [
            {
                "row": cell.row,
                "offset": cell.offset,
                "reachable": cell.reachable,
                "n": len(cell.accuracies),
                "mean": _mean(cell) if cell.accuracies else None,
                "judged": cell.worst if cell.accuracies else None,
                "agrees": cell.agrees if cell.accuracies else None,
            }
            for cell in found
        ],
        infer_schema_length=None,
    ).fill_nan(None)
    head = ("schedule", *map(str, offsets))
    title = f"{study}: what is learnt at each offset, pixels"
    return Document((Section(title, head, body),), tuple(notes), frame)


def _mean(cell: Cell) -> float:
    return sum(cell.accuracies) / len(cell.accuracies)


def _text(cell: Cell | None) -> str:
    if cell is None or not cell.accuracies:
        return "–"
    if not cell.agrees:
        return f"✗ {100 * cell.worst:.1f}"
    return "✓" if cell.reachable else "·"
