"""What all figures share: colours, markers, words and files."""

import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from hdc.errors import InputError, printable
from hdc.lab import store as files
from hdc.lab.data.dataset import QUALITY
from hdc.lab.records.run import Run, task_of
from hdc.lab.report import tables
from hdc.lab.report.figures.config import PAPER, FigureConfig
from hdc.lab.report.statistics import Estimate
from hdc.lab.report.tables import Table, TableConfig, columns, rendering
from hdc.lab.report.tables.rows import Row

# The colours of Okabe and Ito, safe for the colour-blind; the first six differ in grey, too.
COLOURS = ("#0072B2", "#009E73", "#F0E442", "#E69F00", "#CC79A7", "#F5F5F5", "#56B4E9", "#D55E00")
# Colour and marker for each kind of schedule; the colours differ in grey, too.
KINDS = {"plain": ("#E69F00", "s"), "dilated": ("#D55E00", "^"), "hdc": ("#0072B2", "o")}
# For lines; neighbours differ in grey.
LINES = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#D55E00", "#009E73", "#CC79A7")
MARKERS = "osD^vP*X"
DPI = 110
_GREY = 0.4  # the median of an image that is shown, at least, where it can be had
_PICTURE = 1.15  # inches of a picture with its lines of type, at least
_SIZE, _PER_INCH = 8.5, 16  # of captions: size in points, and characters per inch


# The width of the figure in a paper, in inches; None on a screen.
_paper: ContextVar[float | None] = ContextVar("_paper", default=None)


@contextmanager
def of(config: FigureConfig) -> Iterator[None]:
    """Draw in the style that is asked for: for a paper in its column's width, with type to match."""
    width = PAPER[config.width] if config.style == "paper" else None
    token = _paper.set(width)
    try:
        with matplotlib.rc_context({"font.size": 10 if width is None else 7.5}):
            yield
    finally:
        _paper.reset(token)


def size(points: float) -> float:
    """A size of type in points, smaller in a paper."""
    return points * matplotlib.rcParams["font.size"] / 10


def new(width: float, height: float, columns: int = 1, **shared: Any) -> tuple[Figure, Any]:
    """A figure of this size in inches, or of a paper's width; and its axes `[rows, columns]`.

    `shared` goes to `Figure.subplots`.

    Raises:
        InputError: where a paper's width has no room for so many columns of pictures.
    """
    if (most := _paper.get()) is not None and width > most:
        if columns * _PICTURE > most:
            wide = columns * _PICTURE <= PAPER["double"]
            raise InputError(
                f"{columns} pictures side by side have no room in {most} inches: "
                + ("use width=double" if wide else "use style=screen")
            )
        height *= max(most / width, 0.6)  # lines of type shrink less than pictures do
        width = most
    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    return figure, figure.subplots(ncols=columns, squeeze=False, **shared)


def beside(width: float, height: float, count: int, least: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure of this size with so many axes side by side; in a paper, in several rows where each would be
    narrower than `least` inches.

    `shared` goes to `Figure.subplots`.
    """
    most = _paper.get()
    columns = count if most is None else max(1, min(count, int(most / least)))
    rows = math.ceil(count / columns)
    width *= columns / count
    if most is not None and rows > 1:
        width, height = most, 0.6 * rows * height
    figure, axes = new(width, height, columns, nrows=rows, **shared)
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, list(axes.flat[:count])


def legend(figure: Figure, columns: int, handles: list[Any] | None = None, points: float = 8) -> None:
    """A legend below the axes, in so many columns or as there is room for; without handles, of what has a
    label."""
    handles = handles or [one for axis in figure.axes for one in axis.get_legend_handles_labels()[0]]
    letters = max((len(str(handle.get_label())) for handle in handles), default=0) + 6  # with its mark
    room = int(figure.get_figwidth() * 72 / (0.55 * size(points) * letters))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(columns, room)),
        fontsize=size(points),
        frameon=False,
    )


def scaled(row: Row, column: str) -> Estimate:
    """The row's estimate in the units of the axis; a half width of 0 where there is no interval."""
    estimate, factor = row.estimate(column), columns.column(column).factor
    half_width = 0.0 if math.isnan(estimate.half_width) else estimate.half_width
    return Estimate(estimate.n, estimate.mean * factor, half_width * factor)


def colour(position: int) -> str:
    """The colour of a class by its number; after the last colour the first is used again."""
    return COLOURS[position % len(COLOURS)]


def displayed(image: np.ndarray) -> np.ndarray:
    """An image `[h, w, channels]` as uint8, to be shown: its first three channels, or the first as `[h, w]`.

    It is stretched, from the darkest to the brightest hundredth of what is shown; where these are equal, as
    in an image of few points, from the darkest to the brightest. A dark one is brightened to a medium grey.
    """
    shown = image[..., :3] if image.shape[-1] >= 3 else image[..., 0]
    low, high = np.percentile(shown, (1, 99))
    if low == high:
        low, high = float(shown.min()), float(shown.max())
    stretched = (shown.astype(np.float64) - low) / (high - low or 1.0)
    stretched = stretched.clip(0, 1)
    if 0 < (middle := float(np.median(stretched))) < _GREY:
        stretched **= max(0.5, math.log(_GREY) / math.log(middle))
    return np.rint(255 * stretched).astype(np.uint8)


def draw_signal(axis: Axes, signal: np.ndarray) -> None:
    """A signal `[length, channels]` as curves, a colour for each channel."""
    for channel, values in enumerate(signal.T):
        axis.plot(values, color=LINES[channel % len(LINES)], linewidth=0.7)
    axis.margins(x=0)


def draw_steps(axis: Axes, values: np.ndarray, **colours: Any) -> None:
    """A value for each step of a signal, `[length]`, as a band of colours."""
    axis.imshow(values[None], aspect="auto", interpolation="nearest", **colours)


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write a figure as `<folder>/<name>.<format>`; the same figure gives the same bytes.

    A figure for a paper has its caption in `<name>.tex`, which shows the figure.
    """
    paths = []
    for kind in formats:
        paths.append(folder / f"{name}.{kind}")
        files.write_out(paths[-1], content(figure, kind))
    if caption := figure.get_label():
        paths.append(folder / f"{name}.tex")
        files.write_out(paths[-1], _float(name, str(caption)).encode())
    return paths


def content(figure: Figure, kind: str) -> bytes:
    """A figure as png, svg or pdf."""
    buffer = io.BytesIO()
    dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    # Type 42, as journals ask: whole TrueType fonts, which can be searched and copied.
    with matplotlib.rc_context({"svg.hashsalt": "hdc", "pdf.fonttype": 42}):
        figure.savefig(buffer, format=kind, metadata=dated)
    return _few_colours(buffer) if kind == "png" else buffer.getvalue()


def _float(name: str, caption: str) -> str:
    star = "*" if _paper.get() == PAPER["double"] else ""
    lines = (rf"\includegraphics[width=\linewidth]{{{name}}}", rf"\caption{{{rendering.latex(caption)}}}")
    parts = (
        r"% \usepackage{graphicx}",
        rf"\begin{{figure{star}}}",
        r"\centering",
        *lines,
        rf"\end{{figure{star}}}",
    )
    return "\n".join(parts) + "\n"


def _few_colours(png: io.BytesIO) -> bytes:
    """The same picture with a palette of 256 colours, a third of the size."""
    smaller = io.BytesIO()
    with Image.open(png) as image:
        few = image.convert("RGB").quantize(
            256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
        )
        few.save(smaller, "png", optimize=True)
    return smaller.getvalue()


def table_of(config: FigureConfig, runs: Sequence[Run], wanted: Sequence[str]) -> Table:
    """The study's table of the wanted columns that some run has, for a figure to draw.

    Measures of plugins follow where `config.measured` is the default and part of what is wanted.

    Raises:
        InputError: where no run is done, or none has any of the columns.
    """
    wanted = tuple(dict.fromkeys(wanted))
    asked = TableConfig(
        study=config.study, measured=wanted, described=("gridding",), baseline=config.baseline
    )
    table = tables.build(asked, runs)
    if not any(run.state == "done" for run in runs):
        raise InputError(f"study {config.study!r} has no finished run to draw")
    if not {*FigureConfig.measured} <= {*wanted}:
        table = replace(table, measured=tuple(name for name in table.measured if name in wanted))
    if not table.measured:
        raise InputError(f"no run of study {config.study!r} has any of {', '.join(wanted)}")
    return table


def quality(runs: Sequence[Run]) -> str:
    """The column for quality: accuracy, for dense prediction mean IoU, for regression PSNR."""
    return f"test/{QUALITY[task_of(runs)]}"


def axis_title(column: str, table: Table) -> str:
    """The column's name with its unit after a comma."""
    name, unit = columns.name_and_unit(column, table.dense, table.signals)
    return literal(f"{name}, {unit}" if unit else name)


def literal(text: str) -> str:
    """A text from outside, such as a class name, escaped so that dollars do not make formulas."""
    return re.sub(r"(?<!\\)\$", r"\$", printable(text))


def counts(numbers: Sequence[int], what: str) -> str:
    """`n = 3 seeds`, or the range where they differ."""
    low, high = min(numbers), max(numbers)
    return f"n = {low} {what}" if low == high else f"n = {low} to {high} {what}"


def seeds(rows: Sequence[Row], names: Sequence[str]) -> str:
    """How many seeds are behind these cells, as `counts` says it."""
    return counts([row.estimate(name).n for row in rows for name in names], "seeds")


def row_name(row: Row) -> str:
    """The row's label with keys shortened to their last word."""
    others = (other.rpartition(".")[2].replace("=", " ") for other in row.others)
    return literal(", ".join((row.schedule, *others)))


def caption(figure: Figure, config: FigureConfig, runs: Sequence[Run], text: str) -> None:
    """Write the study and its data above the figure, then `text`, then how many runs are missing."""
    names = ", ".join(dict.fromkeys(run.config.data.name for run in runs))
    absent = sum(run.state != "done" for run in runs)
    missing = f"\nNot drawn: {absent} of {len(runs)} runs, which are not done." if absent else ""
    write(figure, f"{config.study}: {names}, test split. {text}{missing}")


def write(figure: Figure, text: str) -> None:
    """Write above the figure, in lines no longer than it is wide; for a paper into its LaTeX file."""
    if _paper.get() is not None:
        figure.set_label(text)
        return
    width = int(_PER_INCH * figure.get_figwidth())
    lines = (textwrap.fill(literal(line), width) for line in text.splitlines())
    figure.suptitle("\n".join(lines), fontsize=_SIZE)


def frame(axis: Axes) -> None:
    """Axis lines at the left and below only, small ticks, a light grid."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=size(8))
    axis.grid(color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
