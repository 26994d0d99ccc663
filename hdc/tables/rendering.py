"""A table as data, drawn for the terminal, as Markdown, CSV or LaTeX."""

from dataclasses import dataclass

import polars as pl
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hdc.errors import InputError

_NAME = 24  # characters

FORMATS = ("terminal", "markdown", "csv", "latex")


@dataclass(frozen=True)
class Section:
    """One block of the table as text.

    Attributes:
        title: its heading.
        head: column headings.
        body: lines of cells.
        words: the columns, beside the first, that hold words and not numbers.
    """

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    words: tuple[str, ...] = ()

    def is_words(self, name: str) -> bool:
        """Whether a column is set flush left."""
        return name == self.head[0] or name in self.words


@dataclass(frozen=True)
class Document:
    """A whole table.

    Attributes:
        sections: its blocks.
        notes: the lines under them.
        frame: the same as data, for CSV.
    """

    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    frame: pl.DataFrame


def render(document: Document) -> RenderableType:
    """The table for the terminal."""
    parts: list[RenderableType] = []
    for section in document.sections:
        drawn = Table(title=section.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for position, name in enumerate(section.head):
            # A row's name stays in one piece while the other columns can be wrapped.
            whole = position == 0 and max((len(cells[0]) for cells in section.body), default=0) <= _NAME
            justify = "left" if section.is_words(name) else "right"
            drawn.add_column(name, justify=justify, overflow="fold", no_wrap=whole)
        for cells in section.body:
            drawn.add_row(*cells)
        parts.append(drawn)
    return Group(*parts, *(Text(note) for note in document.notes))


def to_text(document: Document, kind: str) -> str:
    """The table as `markdown`, `csv` or `latex`."""
    match kind:
        case "csv":
            return document.frame.write_csv()
        case "markdown":
            return _markdown(document)
        case "latex":
            return _latex(document)
        case _:
            raise InputError(f"format must be one of {', '.join(FORMATS)}, got {kind!r}")


def _markdown(document: Document) -> str:
    lines = []
    for section in document.sections:
        align = [":--" if section.is_words(name) else "--:" for name in section.head]
        lines += [f"**{section.title}**", ""]
        for cells in (section.head, align, *section.body):
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join([*lines, *(f"- {note}" for note in document.notes)]) + "\n"


def _latex(document: Document) -> str:
    import great_tables

    parts = []
    for section in document.sections:
        columns = {name: [cells[i] for cells in section.body] for i, name in enumerate(section.head)}
        drawn = great_tables.GT(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)))
        drawn = drawn.tab_header(title=section.title).cols_align(
            "right", [name for name in section.head if not section.is_words(name)]
        )
        parts.append(drawn.as_latex())
    notes = [f"% {note}" for note in document.notes]
    return "\n".join([*parts, *notes]) + "\n"
