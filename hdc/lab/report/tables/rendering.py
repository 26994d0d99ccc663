"""A table as data, drawn for the terminal, as Markdown, CSV or LaTeX.

Names of data sets, classes and errors come from outside: whatever they hold is shown as it is, and neither
obeyed by the terminal nor taken for Markdown, HTML or LaTeX.
"""

import re
from dataclasses import dataclass

import polars as pl
from rich.console import Group, RenderableType
from rich.text import Text

from hdc.errors import InputError, printable
from hdc.lab.terminal import Rows

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
    sections = (Rows(one.head, one.body, one.words, one.title) for one in document.sections)
    return Group(*sections, *(Text(printable(note)) for note in document.notes))


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
        lines += [f"**{markdown(section.title)}**", ""]
        head, *body = ([markdown(cell) for cell in cells] for cells in (section.head, *section.body))
        lines += ["| " + " | ".join(cells) + " |" for cells in (head, align, *body)]
        lines.append("")
    return "\n".join([*lines, *(f"- {markdown(note)}" for note in document.notes)]) + "\n"


def markdown(text: str) -> str:
    """A text as one line of Markdown that shows it as it is; ordinary words and numbers stay unchanged."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", printable(text))
    text = re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text)
    return re.sub(r"[\\`*|$~]|(?<!\w)_|_(?!\w)|](?=[(\[:])", r"\\\g<0>", text)


def _latex(document: Document) -> str:
    import great_tables

    parts = []
    for section in document.sections:
        columns = {
            name: [printable(cells[i]) for cells in section.body] for i, name in enumerate(section.head)
        }
        drawn = great_tables.GT(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)))
        drawn = drawn.tab_header(title=section.title).cols_align(
            "right", [name for name in section.head if not section.is_words(name)]
        )
        parts.append(drawn.as_latex())
    notes = [f"% {printable(note)}" for note in document.notes]
    return "\n".join([*parts, *notes]) + "\n"
