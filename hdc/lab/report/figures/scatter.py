"""Scatter plots: does predicted gridding predict the measured one, and what does it cost in quality?"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from hdc.errors import InputError
from hdc.lab.records.run import Run
from hdc.lab.report import tables
from hdc.lab.report.figures import style
from hdc.lab.report.figures.config import FigureConfig
from hdc.lab.report.statistics import Correlation, Estimate
from hdc.lab.report.tables.rows import Row

_LABELS = {"gridding": "predicted gridding index G", "predicted_ripple": "predicted ripple, dB"}
_FEW = 8  # points up to which all are named
# Where a name can stand, relative to its point, in points: the nearest place first.
_OFFSETS = sorted(
    ((right, up) for right in (6, -6, 40, -40) for up in (*range(5, 96, 10), *range(-11, -102, -10))),
    key=lambda offset: abs(offset[0]) + abs(offset[1]),
)


def prediction(config: FigureConfig, runs: Sequence[Run]) -> Figure:
    """What is predicted against each measured gridding number and against quality, a point per configuration.

    G is the schedule's alone: its rank correlation is given where the configurations differ only in their
    schedules. The predicted ripple is every configuration's own; against the measured one the diagonal is
    drawn and the root mean square error given.

    Raises:
        InputError: where nothing is measured.
    """
    table = style.table_of(config, runs, [*config.measured, style.quality(runs)])
    rows = [row for row in table.rows if any(row.values.values())]
    measured, predicted = table.measured, config.predicted
    figure, axes = style.beside(3.1 * len(measured), 3.7, len(measured), 1.75)
    for axis, column in zip(axes, measured, strict=True):
        for row in rows:
            _point(axis, row.kind, style.scaled(row, predicted), style.scaled(row, column))
        # Rows that differ in other keys too would count one schedule several times.
        alike = predicted != "gridding" or len({row.others for row in rows}) == 1
        correlation = tables.correlation(rows if alike else [], predicted, column)
        title = _spearman(correlation) if alike else f"{len(rows)} configurations"
        axis.set(xlabel=_LABELS[predicted], ylabel=style.axis_title(column, table))
        if predicted == "gridding":
            axis.set_xlim(-0.05, 1.05)
        elif column == "test/erf_ripple":
            title += f", error {_diagonal(axis, rows, predicted, column):.1f} dB"
        axis.set_title(title, fontsize=style.size(9))
        style.frame(axis)
    style.legend(figure, 3, _kinds(rows), points=9)
    seeds = style.seeds(rows, measured)
    text = f"A point per configuration: mean and 95 % interval of {seeds}."
    error = "" if predicted == "gridding" else "\nLine: measured as predicted; error: root mean square."
    style.caption(figure, config, runs, f"{text} ρ: Spearman, 95 % bootstrap interval.{error}")
    return figure


def _diagonal(axis: Axes, rows: Sequence[Row], predicted: str, column: str) -> float:
    """Draw where the measured value is the predicted one; the root mean square of what it is off."""
    pairs = np.array([(row.estimate(predicted).mean, row.estimate(column).mean) for row in rows])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    axis.axline((0, 0), slope=1, color="0.35", linewidth=1, linestyle="--", zorder=1)
    return float(np.sqrt(np.mean((pairs[:, 0] - pairs[:, 1]) ** 2))) if len(pairs) else math.nan


def pareto(config: FigureConfig, runs: Sequence[Run]) -> Figure:
    """Quality against the first measured gridding number, with the Pareto front.

    Raises:
        InputError: where one of the two is not measured.
    """
    good = style.quality(runs)
    table = style.table_of(config, runs, [good, *config.measured])
    if len(table.measured) < 2 or table.measured[0] != good:
        raise InputError(f"pareto needs {good} and one of {', '.join(config.measured)} in the same runs")
    gridding = table.measured[1]
    rows = [row for row in table.rows if all(math.isfinite(row.estimate(c).mean) for c in (good, gridding))]
    points = np.array([(style.scaled(row, gridding).mean, style.scaled(row, good).mean) for row in rows])
    figure, ((axis,),) = style.new(6.2, 4.6)
    for row in rows:
        _point(axis, row.kind, style.scaled(row, gridding), style.scaled(row, good))
    best = front(points)
    axis.plot(*points[best].T, color="0.35", linewidth=1, linestyle="--", zorder=1)
    axis.set(
        xlabel=f"{style.axis_title(gridding, table)}  (less is better)",
        ylabel=f"{style.axis_title(good, table)}  (more is better)",
    )
    style.frame(axis)
    line = Line2D([], [], color="0.35", linestyle="--", label="Pareto front")
    style.legend(figure, 4, [*_kinds(rows), line], points=9)
    few = len(rows) <= _FEW
    named = [i for i, row in enumerate(rows) if few or i in best or row.kind == "plain"]
    which = "" if few else " Only the front and plain schedules are named."
    text = (
        f"{len(rows)} configurations, mean and 95 % interval of {style.seeds(rows, [good])}.\n"
        f"Front: means that no other mean beats in both, whatever their intervals.{which}"
    )
    style.caption(figure, config, runs, text)
    label(axis, points, {i: style.row_name(rows[i]) for i in named})
    return figure


def front(points: np.ndarray) -> list[int]:
    """The positions of the points `[n, 2]` on the Pareto front, by ascending first coordinate.

    Less of the first coordinate and more of the second is better.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i, 0], -points[i, 1]))
    kept: list[int] = []
    for i in order:
        if not kept or points[i, 1] > points[kept[-1], 1]:
            kept.append(i)
    return kept


def _point(axis: Axes, kind: str, x: Estimate, y: Estimate) -> None:
    colour, marker = style.KINDS[kind]
    axis.errorbar(
        *(x.mean, y.mean, y.half_width, x.half_width or None),
        **{"fmt": marker, "color": colour, "markersize": 5.5, "markeredgecolor": "0.2"},
        **{"ecolor": "0.7", "elinewidth": 0.8},
    )


def _kinds(rows: Sequence[Row]) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, marker=marker, markeredgecolor="0.2", linestyle="", label=kind)
        for kind, (colour, marker) in style.KINDS.items()
        if any(row.kind == kind for row in rows)
    ]


def _spearman(found: Correlation) -> str:
    if not math.isfinite(found.rho):
        return f"n = {found.n} configurations"
    return f"ρ = {found.rho:.2f} [{found.low:.2f}, {found.high:.2f}], n = {found.n}"


def label(axis: Axes, points: np.ndarray, names: dict[int, str]) -> None:
    """Write each name near its point, with a line to it, where it covers no point and no other name."""
    figure = axis.get_figure()
    figure.draw_without_rendering()  # type: ignore[union-attr]  # places the axes
    at = axis.transData.transform(points)
    inside = axis.get_window_extent()
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in at]
    for i, name in names.items():
        text = axis.annotate(
            name,
            tuple(points[i]),
            xytext=_OFFSETS[0],
            **{"textcoords": "offset points", "fontsize": style.size(8)},
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.8, "linewidth": 0},
            arrowprops={"arrowstyle": "-", "color": "0.2", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
        )
        best = min(_OFFSETS, key=lambda offset, text=text: _covers(text, offset, inside, taken))
        taken.append(_put(text, best))


def _covers(text: Annotation, offset: tuple[int, int], inside: Bbox, taken: Sequence[Bbox]) -> int:
    """How many boxes a name would cover at an offset; more than all of them if it leaves the axes."""
    box = _put(text, offset)
    within = all(inside.contains(x, y) for x, y in (box.min, box.max))
    return box.count_overlaps(taken) if within else len(taken) + 1


def _put(text: Annotation, offset: tuple[int, int]) -> Bbox:
    """Put a name at an offset from its point; its box, without the line."""
    text.xyann = offset
    text.set_horizontalalignment("left" if offset[0] > 0 else "right")
    text.get_window_extent()  # moves it
    return Text.get_window_extent(text)
