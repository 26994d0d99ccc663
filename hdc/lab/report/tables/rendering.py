"""A table as data, written for the terminal, as Markdown, CSV or LaTeX.

Names of data sets, classes and errors come from outside. They are shown as they are: the terminal does not
obey them, and they are not taken for Markdown, HTML or LaTeX.
"""

import fnmatch
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import polars as pl
from rich.console import Group, RenderableType
from rich.text import Text

from hdc.errors import InputError, printable, unknown
from hdc.lab.terminal import Rows, wrapped

FORMATS = ("terminal", "markdown", "csv", "latex")


@dataclass(frozen=True)
class Document:
    """A whole table.

    Attributes:
        sections: its blocks, each with its notes.
        frame: the same table as data, for CSV.
        found: the sentence above them that says what was found; empty for none.
    """

    sections: tuple[Rows, ...]
    frame: pl.DataFrame
    found: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """The lines under the blocks."""
        return tuple(note for section in self.sections for note in section.notes)

    def chosen(self, columns: Sequence[str], rows: Sequence[str]) -> "Document":
        """The document with these columns and rows only, in this order; without either, with all.

        Args:
            columns: names; the first column of a block always stays.
            rows: labels, the parts of labels before their first comma, or patterns of these such as `1-2-*`.

        Raises:
            InputError: for a column that no block has, or what no row matches.
        """
        if not columns and not rows:
            return self
        columns = [*dict.fromkeys(columns)]
        known = dict.fromkeys(name for one in self.sections for name in (one.names or one.head)[1:])
        labels = dict.fromkeys(cells[0] for one in self.sections for cells in one.body)
        for column in columns:
            if column not in known:
                raise InputError(unknown("column", column, known))
        for row in rows:
            if not any(_matches(label, row) for label in labels):
                raise InputError(unknown("row", row, labels))
        sections = []
        for section in self.sections:
            names = list(section.names or section.head)
            places = [names.index(name) for name in columns if name in names[1:]] or range(1, len(names))
            body = [cells for row in rows for cells in section.body if _matches(cells[0], row)]
            if (not columns or {*columns} & {*names}) and (not rows or body):
                shown = replace(section, body=tuple(dict.fromkeys(body))) if rows else section
                sections.append(shown.chosen([0, *places]))
        if not sections:
            raise InputError(f"no block has both columns={list(columns)} and rows={list(rows)}")
        note = "not all columns and rows are shown: what is said of tests is of the whole table"
        sections[-1] = replace(sections[-1], notes=(*sections[-1].notes, note))
        return replace(self, sections=tuple(sections))


def _matches(label: str, pattern: str) -> bool:
    texts = (label, label.partition(", ")[0])
    return pattern in texts or any(fnmatch.fnmatchcase(text, pattern) for text in texts)


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
    """Floats for pdflatex: a block that is too wide or too long for a page in several of them."""
    text = [r"\begin{sloppypar}", latex(document.found), r"\end{sloppypar}", ""]
    found = text if document.found else []
    floats = [line for section in document.sections for line in _floats(section)]
    packages = ["array", "booktabs", "threeparttable"]
    for package, command in (("amssymb", r"\checkmark"), ("rotating", "{sidewaystable}")):
        packages += [package] if any(command in line for line in floats) else []
    head = [
        rf"% \usepackage{{{','.join(packages)}}}",
        f"% For lines of {_WIDTH} pt, as in article. Wider tables are cut: columns= and rows= choose less.",
    ]
    return "\n".join([*head, "", *found, *floats]) + "\n"


def _floats(section: Rows) -> Iterator[str]:
    parts = section.parts(_CHARACTERS)
    upright, most = bool(parts), _LINES if parts else _LINES_SIDEWAYS
    parts = parts or [section]
    lengths = [max(lines) for lines in zip(*map(_lines, parts), strict=True)]
    starts = [0]
    for place, length in enumerate(lengths):
        if sum(lengths[starts[-1] : place]) + length > most:
            starts.append(place)
    cuts = [
        replace(part, body=part.body[start:end])
        for start, end in zip(starts, [*starts[1:], len(lengths)], strict=True)
        for part in parts
    ]
    for number, cut in enumerate(cuts, 1):
        last = number == len(cuts)
        notes = section.notes if last else [f"The notes are under part {len(cuts)}."]
        title = section.title + (f" (part {number} of {len(cuts)})" if len(cuts) > 1 else "")
        yield from _float(cut, title, notes if section.notes else (), "table" if upright else "sidewaystable")
    if len(cuts) > 1:
        yield from (r"\clearpage  % or LaTeX has too many floats to place", "")


def _widths(section: Rows) -> list[int]:
    """The width of each column in characters; sideways, columns of words share what numbers leave."""
    if found := section.widths(_CHARACTERS):
        return found
    columns = zip(section.head, *section.body, strict=True)
    widths = [max(map(len, column)) for column in columns]
    widths[0] = min(widths[0], 24)
    words = [place for place, name in enumerate(section.head) if name in section.words]
    others = sum(width for place, width in enumerate(widths) if place not in words)
    share = max(12, (_CHARACTERS_SIDEWAYS - others - 2 * len(widths)) // max(1, len(words)))
    return [min(width, share) if place in words else width for place, width in enumerate(widths)]


def _lines(section: Rows) -> list[int]:
    """How many lines each row has."""
    widths = _widths(section)
    return [
        max(len(wrapped(cell, width)) for cell, width in zip(cells, widths, strict=True))
        for cells in section.body
    ]


def _float(section: Rows, title: str, notes: Sequence[str], kind: str) -> Iterator[str]:
    columns = [*zip(section.head, *section.body, strict=True)]
    widths = _widths(section)
    align = "".join(
        "r"
        if not section.is_words(head)
        else "l"
        if max(map(len, cells), default=0) <= width
        else rf">{{\raggedright\arraybackslash}}p{{{width * _CHARACTER:g}pt}}"
        for (head, *cells), width in zip(columns, widths, strict=True)
    )
    side = ("l" if section.is_words(name) else "r" for name in section.head)
    stacks = (
        r"\\".join(map(latex, wrapped(head, width))) for head, width in zip(section.head, widths, strict=True)
    )
    heads = (
        rf"\shortstack[{at}]{{{text}}}" if r"\\" in text else text
        for at, text in zip(side, stacks, strict=True)
    )
    rows = (" & ".join(map(latex, cells)) for cells in section.body)
    yield from (rf"\begin{{{kind}}}[!htbp]", r"\centering\footnotesize\setlength{\tabcolsep}{4pt}")
    yield from (
        r"\begin{threeparttable}",
        rf"\caption{{{latex(title)}}}",
    )
    yield from (
        rf"\begin{{tabular*}}{{\linewidth}}{{@{{\extracolsep{{\fill}}}}{align}@{{}}}}",
        r"\toprule",
        rf"{' & '.join(heads)} \\",
        r"\midrule",
    )
    yield from (rf"{'{}' if row.startswith(('[', '*')) else ''}{row} \\" for row in rows)
    yield from (r"\bottomrule", r"\end{tabular*}")
    if notes:
        items = (rf"\item {{}}{latex(note)}" for note in notes)
        yield from (r"\begin{tablenotes}[flushleft]\footnotesize\raggedright", *items, r"\end{tablenotes}")
    yield from (r"\end{threeparttable}", rf"\end{{{kind}}}", "")


_WIDTH = 345  # of a line, in points
_CHARACTER = 4.25  # the width of a digit in \footnotesize, in points
_CHARACTERS = int(_WIDTH / _CHARACTER) - 1
_LINES = 40  # of a float, at most
_CHARACTERS_SIDEWAYS, _LINES_SIDEWAYS = int(540 / _CHARACTER), 24

_IN_LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
_IN_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
_IN_LATEX |= {character: f"${character}$" for character in "<>|"} | {
    "\u200b": r"\allowbreak{}",
    "\u2060": "{}",
}
_IN_LATEX |= dict(zip("“”‘’—…", ("``", "''", "`", "'", "---", r"\ldots{}"), strict=True))
_IN_LATEX |= dict(
    zip("²³ßøØæÆ", (r"$^2$", r"$^3$", r"\ss{}", r"\o{}", r"\O{}", r"\ae{}", r"\AE{}"), strict=True)
)
_MATHEMATICS = {"±": "pm", "×": "times", "·": "cdot", "≈": "approx", "≤": "leq", "≥": "geq", "−": "-"}
_MATHEMATICS |= {"✓": "checkmark", "✗": "times", "→": "rightarrow", "ρ": "rho", "σ": "sigma", "µ": "mu"}
_IN_LATEX |= {one: "$-$" if name == "-" else rf"$\{name}$" for one, name in _MATHEMATICS.items()}
_ACCENTS = dict(zip("\u0300\u0301\u0302\u0303\u0308\u0327\u030c\u030a", "`'^~\"cvr", strict=True))


def latex(text: str) -> str:
    """A text for LaTeX in ASCII; a letter that it does not know, such as a Chinese one, by its code."""
    text = re.sub(r"(?<![\w.)\]-])-(?=[\d.])", "−", printable(text))
    text = re.sub(r"(?:\d+,){3,}\d+", lambda rates: rates[0].replace(",", ",\u200b"), text)
    return "".join(map(_latex_letter, text.replace("--", "-\u2060-")))


def _latex_letter(letter: str) -> str:
    if letter in _IN_LATEX or letter.isascii():
        return _IN_LATEX.get(letter, letter)
    base, *marks = unicodedata.normalize("NFD", letter)
    if len(marks) == 1 and base.isascii() and marks[0] in _ACCENTS:
        return rf"\{_ACCENTS[marks[0]]}{{{base}}}"
    return f"[U+{ord(letter):04X}]"
