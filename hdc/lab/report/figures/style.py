"""What all figures share: colours, markers, words and files."""

import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from hdc.errors import InputError, printable
from hdc.lab import store as files
from hdc.lab.records.run import Run
from hdc.lab.report import tables
from hdc.lab.report.figures.config import FigureConfig
from hdc.lab.report.tables import Table, TableConfig, columns
from hdc.lab.report.tables.rows import Row

# Okabe and Ito's colours, safe for the colour-blind, in an order whose first six differ in grey too.
COLOURS = ("#0072B2", "#009E73", "#F0E442", "#E69F00", "#CC79A7", "#F5F5F5", "#56B4E9", "#D55E00")
# Of a kind of schedule: colours whose grey differs, and another shape for each.
KINDS = {"plain": ("#E69F00", "s"), "dilated": ("#D55E00", "^"), "hdc": ("#0072B2", "o")}
# For lines, in an order whose neighbours differ in grey.
LINES = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#D55E00", "#009E73", "#CC79A7")
MARKERS = "osD^vP*X"
DPI = 110
_SIZE, _PER_INCH = 8.5, 16  # of captions: points, and characters that an inch holds


def colour(position: int) -> str:
    """One after the other, from the start again after the last."""
    return COLOURS[position % len(COLOURS)]


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write a figure as `<folder>/<name>.<format>`; the same figure gives the same bytes."""
    paths = []
    for kind in formats:
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "hdc"}):
            dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
            figure.savefig(buffer, format=kind, metadata=dated)
        paths.append(folder / f"{name}.{kind}")
        files.write_out(paths[-1], _few_colours(buffer) if kind == "png" else buffer.getvalue())
    return paths


def _few_colours(png: io.BytesIO) -> bytes:
    """The same picture in 256 colours of its own, a third of the size."""
    smaller = io.BytesIO()
    with Image.open(png) as image:
        few = image.convert("RGB").quantize(
            256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
        )
        few.save(smaller, "png", optimize=True)
    return smaller.getvalue()


def table_of(config: FigureConfig, runs: Sequence[Run], wanted: Sequence[str]) -> Table:
    """The study's table of such columns, for a figure to draw; those that no run has are left out.

    Raises:
        InputError: where no run is done, or none has any of the columns.
    """
    table = tables.build(
        TableConfig(
            study=config.study, measured=tuple(wanted), described=("gridding",), baseline=config.baseline
        ),
        runs,
    )
    if not any(run.state == "done" for run in runs):
        raise InputError(f"study {config.study!r} has no finished run to draw")
    if not table.measured:
        raise InputError(f"no run of study {config.study!r} has any of {', '.join(wanted)}")
    return table


def quality(runs: Sequence[Run]) -> str:
    """The column that says how good a network is: mean IoU where it is measured, else accuracy."""
    dense = any(run.info.get("data", {}).get("task") == "dense" for run in runs)
    return "test/mean_iou" if dense else "test/accuracy"


def axis_title(column: str, table: Table) -> str:
    """The column's name and unit."""
    heading = columns.title(column, table.dense)
    if heading == column:  # it has no heading of its own
        return literal(column.partition("/")[2].replace("_", " "))
    name, _, unit = heading.rpartition(" ")
    return f"{name}, {unit}" if unit in ("%", "dB", "px²") else heading


def literal(text: str) -> str:
    """A text from outside, such as a class's name, as it is drawn: without formulas between dollars."""
    return re.sub(r"(?<!\\)\$", r"\$", printable(text))


def counts(numbers: Sequence[int], what: str) -> str:
    """`n = 3 seeds`, or the range where they differ."""
    low, high = min(numbers), max(numbers)
    return f"n = {low} {what}" if low == high else f"n = {low} to {high} {what}"


def row_name(row: Row) -> str:
    """The row's label with keys shortened to their last word."""
    others = (other.rpartition(".")[2].replace("=", " ") for other in row.others)
    return literal(", ".join((row.schedule, *others)))


def caption(figure: Figure, config: FigureConfig, runs: Sequence[Run], text: str) -> None:
    """Write above the figure its study and data, then `text`, then how many runs are not there."""
    names = ", ".join(dict.fromkeys(run.config.data.name for run in runs))
    absent = sum(run.state != "done" for run in runs)
    missing = f"\nNot drawn: {absent} of {len(runs)} runs, not done." if absent else ""
    write(figure, f"{config.study}: {names}, test split. {text}{missing}")


def write(figure: Figure, text: str) -> None:
    """Write above the figure, in lines that are not longer than it is wide."""
    width = int(_PER_INCH * figure.get_figwidth())
    lines = (textwrap.fill(literal(line), width) for line in text.splitlines())
    figure.suptitle("\n".join(lines), fontsize=_SIZE)


def frame(axis: Axes) -> None:
    """Lines at the left and below, ticks small, a light grid."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.grid(color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
