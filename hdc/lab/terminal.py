"""One way to print rows: a table, or several side by side where it is too wide, or a paragraph per row."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from hdc.errors import printable

_NAME = 24  # characters of a row's name that stay on one line
_WORDS = 12  # characters that another column of words needs, or a quarter of its longest cell
# What stays on one line: an interval, a mean with its half width, a number with its mark.
_WHOLE = r"\[[^\s,\]]+, [^\s,\]]+\]|(?:[≈?✗] )?[^\s,]+ ±[^\s,]+|[≈?✗] [^\s,]+"
_PIECE = re.compile(rf"(?:{_WHOLE}),*\s*|[^\s,]*,+\s*|[^\s,]+\s*|\s+")
_THOUSANDS, _COMMA = re.compile(r"(?<=\d),(?=\d{3}\b)"), "\ue000"  # after it no line ends


@dataclass(frozen=True)
class Rows:
    """Rows of text, drawn for the width of the terminal: `Console().print(Rows(...))`.

    Columns of numbers that do not fit beside each other follow in a second table with the same names. Numbers
    are never broken. Columns of words wrap at spaces and after the commas of a list. Cells may come
    from files: they are shown as they are, without markup and without what would steer a terminal.

    Attributes:
        head: the column headings.
        body: the rows. The first cell is the row's name.
        words: the columns, besides the first, that hold words and not numbers.
        title: a heading above the rows.
        names: of the columns, by which they are chosen; the headings by default.
        notes: lines that explain the rows, which are not drawn here.
    """

    head: Sequence[str]
    body: Sequence[Sequence[str]]
    words: Sequence[str] = ()
    title: str = ""
    names: Sequence[str] = ()
    notes: Sequence[str] = ()

    def is_words(self, name: str) -> bool:
        """Whether a column is left-aligned."""
        return name == self.head[0] or name in self.words

    def widths(self, room: int) -> list[int] | None:
        """The width of each column in characters, with two spaces beside each; None if they do not fit."""
        columns = [list(map(printable, cells)) for cells in zip(self.head, *self.body, strict=True)]
        most = [max(map(cell_len, column)) for column in columns]
        widths = [
            max(min(longest, max(_WORDS, longest // 4)), *map(_longest_whole, column))
            if self.is_words(name)
            else max(map(cell_len, [*column[1:], *column[0].split(" ")]))
            for name, longest, column in zip(self.head, most, columns, strict=True)
        ]
        widths[0] = min(most[0], _NAME)
        spare = room - sum(widths) - 2 * len(widths)
        if spare < 0:
            return None
        while spare > 0 and (growing := [i for i, longest in enumerate(most) if widths[i] < longest]):
            widths[min(growing, key=widths.__getitem__)] += 1
            spare -= 1
        return widths

    def parts(self, room: int) -> "list[Rows]":
        """The rows in as few tables as fit the width, side by side; none where one column does not fit.

        Each has the names and some of the columns. Rows with words, which read better in one, are not split.
        """
        numbers = range(1, len(self.head))
        for count in range(1, 2 if self.words else max(2, len(self.head))):
            size = max(1, math.ceil(len(numbers) / count))
            parts = [self.chosen([0, *numbers[i : i + size]]) for i in range(0, len(numbers) or 1, size)]
            if all(part.widths(room) for part in parts):
                return parts
        return []

    def chosen(self, columns: Sequence[int]) -> "Rows":
        """The same rows with these columns only, by their positions."""
        head, names, *body = (
            tuple(cells[i] for i in columns) for cells in (self.head, self.names or self.head, *self.body)
        )
        return replace(self, head=head, names=names, body=tuple(body))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # A space at the left end.
        parts = self.parts(options.max_width - 1)
        for part in parts:
            titled = part if part is parts[0] else replace(part, title="")
            yield titled._table(part.widths(options.max_width - 1) or ())
        if not parts:
            yield from self._paragraphs(options.max_width)

    def _table(self, widths: Sequence[int]) -> Table:
        title = Text(printable(self.title)) if self.title else None
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        head, *body = (
            [
                Text("\n".join(wrapped(printable(cell), width)))
                for cell, width in zip(cells, widths, strict=True)
            ]
            for cells in (self.head, *self.body)
        )
        for cell, name, width in zip(head, self.head, widths, strict=True):
            table.add_column(cell, justify="left" if self.is_words(name) else "right", width=width)
        for row in body:
            table.add_row(*row)
        return table

    def _paragraphs(self, width: int) -> RenderResult:
        head, *body = ([printable(cell) for cell in cells] for cells in (self.head, *self.body))
        if self.title:
            yield Text(printable(self.title))
        for name, *cells in body:
            whole = (
                cell if what in self.words else _THOUSANDS.sub(_COMMA, cell)
                for what, cell in zip(self.head[1:], cells, strict=True)
            )
            values = ", ".join(f"{what} {cell}" for what, cell in zip(head[1:], whole, strict=True))
            first, *rest = wrapped(f"{name}: {values}", width, 2)
            yield Text("\n".join([first, *(f"  {line}" for line in rest)]).replace(_COMMA, ","))


def _longest_whole(text: str) -> int:
    """The width of the longest interval or number with its mark, on whose spaces no line ends."""
    return max((cell_len(whole) for whole in re.findall(_WHOLE, text)), default=0)


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """A text in lines of at most `width` characters, broken at spaces and after commas of a list.

    Intervals such as `[0.79, 0.83]` and means such as `0.81 ±0.02` stay whole. Only a piece that is longer
    than a line is broken inside.

    Args:
        indent: characters to leave free in every line but the first.
    """
    lines = [""]
    for piece in _PIECE.findall(text):
        while cell_len(lines[-1] + piece.rstrip()) > (
            room := max(1, width - (indent if len(lines) > 1 else 0))
        ):
            if lines[-1]:
                lines.append("")
            else:
                lines[-1], piece = piece[:room], piece[room:]
                lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]
