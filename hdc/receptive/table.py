"""A table of layers that fits the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Layers:
    """Rows of layers, drawn for the width of the terminal; names and numbers are never cut.

    Attributes:
        heads: the column headings; the first is that of the name, which is folded where nothing else helps.
        rows: a text per heading.
        words: the headings of other columns that hold words and not numbers.
        spare: the headings of columns that are left out of a narrow terminal, the first of them first.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str]
    spare: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number in range(len(self.spare) + 1):
            table = self._without(self.spare[:number])
            # Measured as if there were room, since a table does not say that it has too little.
            if Measurement.get(console, options.update(width=10_000), table).maximum <= options.max_width:
                break
        yield table
        if number:
            yield Text(f"a wider terminal shows more: {', '.join(reversed(self.spare[:number]))}")

    def _without(self, hidden: Sequence[str]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        shown = [column for column, head in enumerate(self.heads) if head not in hidden]
        for column in shown:
            name, is_words = column == 0, column == 0 or self.heads[column] in self.words
            table.add_column(
                self.heads[column],
                justify="left" if is_words else "right",
                overflow="fold" if name else "ellipsis",
                no_wrap=not name,
            )
        for row in self.rows:
            table.add_row(*(Text(row[column]) for column in shown))
        return table
