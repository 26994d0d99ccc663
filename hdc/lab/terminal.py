"""One way to print rows in the terminal: a table if it fits, otherwise a paragraph per row."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from hdc.errors import printable

_NAME = 24  # characters of a row's name that stay on one line
_WORDS = 12  # characters that another column of words needs, or a quarter of its longest cell


@dataclass(frozen=True)
class Rows:
    """Rows of text, drawn for the width of the terminal: `Console().print(Rows(...))`.

    Numbers are never broken. Columns of words wrap at spaces and after the commas of a list. Cells may come
    from files: they are shown as they are, without markup and without what would steer a terminal.

    Attributes:
        head: the column headings.
        body: the rows. The first cell is the row's name.
        words: the columns, besides the first, that hold words and not numbers.
        title: a heading above the rows.
    """

    head: Sequence[str]
    body: Sequence[Sequence[str]]
    words: Sequence[str] = ()
    title: str = ""

    def is_words(self, name: str) -> bool:
        """Whether a column is left-aligned."""
        return name == self.head[0] or name in self.words

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head, *body = ([printable(cell) for cell in cells] for cells in (self.head, *self.body))
        columns = list(zip(head, *body, strict=True))
        most = [max(map(cell_len, column)) for column in columns]
        is_words = list(map(self.is_words, self.head))
        least = [
            min(longest, max(_WORDS, longest // 4))
            if words
            else max(cell_len(word) for cell in column for word in cell.split(" "))
            for words, longest, column in zip(is_words, most, columns, strict=True)
        ]
        least[0] = min(most[0], _NAME)
        # Two spaces between columns, a space at either end and one of padding.
        spare = options.max_width - sum(least) - 2 * len(head) - 1
        if spare < 0:
            yield from self._paragraphs(head, body, options.max_width)
            return
        widths = list(least)
        while spare > 0 and (growing := [i for i, longest in enumerate(most) if widths[i] < longest]):
            widths[min(growing, key=widths.__getitem__)] += 1
            spare -= 1
        title = Text(printable(self.title)) if self.title else None
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        (heads, *rows) = (
            [Text("\n".join(wrapped(cell, width))) for cell, width in zip(cells, widths, strict=True)]
            for cells in (head, *body)
        )
        for name, words, width in zip(heads, is_words, widths, strict=True):
            table.add_column(name, justify="left" if words else "right", width=width)
        for row in rows:
            table.add_row(*row)
        yield table

    def _paragraphs(self, head: Sequence[str], body: Sequence[Sequence[str]], width: int) -> RenderResult:
        if self.title:
            yield Text(printable(self.title))
        for name, *cells in body:
            values = ", ".join(f"{what} {cell}" for what, cell in zip(head[1:], cells, strict=True))
            first, *rest = wrapped(f"{name}: {values}", width, 2)
            yield Text("\n".join([first, *(f"  {line}" for line in rest)]))


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """A text in lines of at most `width` characters, broken at spaces and after commas of a list.

    Only a piece that is longer than a line is broken inside.

    Args:
        indent: characters to leave free in every line but the first.
    """
    lines = [""]
    for piece in re.findall(r"[^\s,]*,+\s*|[^\s,]+\s*|\s+", text):
        while cell_len(lines[-1] + piece.rstrip()) > (room := width - (indent if len(lines) > 1 else 0)):
            if lines[-1]:
                lines.append("")
            else:
                lines[-1], piece = piece[:room], piece[room:]
                lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]
