"""A table as data, written for the terminal, as Markdown, CSV or LaTeX.

Names of data sets, classes and errors come from outside. They are shown as they are: the terminal does not
obey them, and they are not taken for Markdown, HTML or LaTeX.
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
class Document:
    """A whole table.

    Attributes:
        sections: its blocks.
        notes: the lines under them.
        frame: the same table as data, for CSV.
        found: the sentence above them that says what was found; empty for none.
    """

    sections: tuple[Rows, ...]
    notes: tuple[str, ...]
    frame: pl.DataFrame
    found: str = ""


def render(document: Document) -> RenderableType:
    """The table for the terminal."""
    found = [Text(printable(document.found))] if document.found else []
    return Group(*found, *document.sections, *(Text(printable(note)) for note in document.notes))


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
    lines = [markdown(document.found), ""] if document.found else []
    for section in document.sections:
        align = [":--" if section.is_words(name) else "--:" for name in section.head]
        lines += [f"**{markdown(section.title)}**", ""]
        head, *body = ([markdown(cell) for cell in cells] for cells in (section.head, *section.body))
        lines += ["| " + " | ".join(cells) + " |" for cells in (head, align, *body)]
        lines.append("")
    return "\n".join([*lines, *(f"- {markdown(note)}" for note in document.notes)]) + "\n"


def markdown(text: str) -> str:
    """A text escaped as one line of Markdown; ordinary words and numbers stay unchanged."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", printable(text))
    text = re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text)
    return re.sub(r"[\\`*|$~]|(?<!\w)_|_(?!\w)|](?=[(\[:])", r"\\\g<0>", text)


def _latex(document: Document) -> str:
    parts = [_latex_text(document.found), ""] if document.found else []
    for section in document.sections:
        align = "".join("l" if section.is_words(name) else "r" for name in section.head)
        head, *body = (
            " & ".join(map(_latex_text, cells)) + r" \\" for cells in (section.head, *section.body)
        )
        parts += [
            r"\begin{table}[!t]",
            rf"\caption*{{{_latex_text(section.title)}}}",
            rf"\begin{{tabular*}}{{\linewidth}}{{@{{\extracolsep{{\fill}}}}{align}}}",
            *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
            *(r"\end{tabular*}", r"\end{table}", ""),
        ]
    return "\n".join([*parts, *(f"% {printable(note)}" for note in document.notes)]) + "\n"


_IN_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_IN_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def _latex_text(text: str) -> str:
    return printable(text).translate(str.maketrans(_IN_LATEX))
