"""What a change buys: quality against gridding beside the baseline, each row named with its time."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hdc.errors import InputError
from hdc.lab.records.run import Run
from hdc.lab.report.figures import style
from hdc.lab.report.figures.config import FigureConfig
from hdc.lab.report.figures.scatter import label
from hdc.lab.report.tables.rows import Row

_SECONDS = "train/seconds"
# Colour and marker.
_KINDS = {"baseline": ("black", "*"), "other rates": ("#0072B2", "o"), "other layers": ("#E69F00", "D")}


def tradeoff(config: FigureConfig, runs: Sequence[Run]) -> Figure:
    """Quality against the first measured gridding number, a panel for each baseline.

    A row is named by what it changes of its baseline, the schedule or values of other keys, and by the
    seconds of an epoch as a multiple of the baseline's.

    Raises:
        InputError: where one of the two is not measured, or no row has a baseline.
    """
    good, gridding = style.quality(runs), config.measured[0]
    table = style.table_of(config, runs, [good, gridding, _SECONDS])
    if not {good, gridding} <= {*table.measured}:
        raise InputError(f"tradeoff needs {good} and {gridding} in the same runs")
    panels: dict[str, list[Row]] = {}
    for row in table.rows:
        if all(math.isfinite(row.estimate(name).mean) for name in (good, gridding)):
            baseline = table.baseline(row) or row
            panels.setdefault(baseline.label, []).append(row)
    panels = {name: rows for name, rows in panels.items() if len(rows) > 1}
    if not panels:
        raise InputError(f"study {config.study!r} has no row that can be compared with {config.baseline!r}")
    figure, axes = style.beside(0.6 + 5.4 * len(panels), 5.4, len(panels), 3.0)
    for axis, (name, rows) in zip(axes, panels.items(), strict=True):
        baseline = next(row for row in rows if row.label == name)
        for row in rows:
            x, y, (colour, marker) = (
                style.scaled(row, gridding),
                style.scaled(row, good),
                _kind(row, baseline),
            )
            axis.errorbar(
                *(x.mean, y.mean, y.half_width or None, x.half_width or None),
                **{"fmt": marker, "color": colour, "markersize": 11 if row is baseline else 6.5},
                **{"markeredgecolor": "0.2", "ecolor": "0.75", "elinewidth": 0.8},
            )
        axis.set(
            xlabel=f"{style.axis_title(gridding, table)}  (less is better)",
            ylabel=f"{style.axis_title(good, table)}  (more is better)",
        )
        kept = (other for other in baseline.others if other not in config.baseline.split(", "))
        title = ", ".join(other.rpartition(".")[2].replace("=", " ").removeprefix("name ") for other in kept)
        axis.set_title(style.literal(title), fontsize=style.size(9))
        style.frame(axis)
    style.legend(
        figure,
        3,
        [
            Line2D([], [], color=colour, marker=marker, markeredgecolor="0.2", linestyle="", label=words)
            for words, (colour, marker) in _KINDS.items()
        ],
        points=9,
    )
    seeds = style.seeds([row for rows in panels.values() for row in rows], [good])
    style.caption(
        figure,
        config,
        runs,
        f"Mean and 95 % interval of {seeds}.\n×: seconds of an epoch, as a multiple of the baseline's.",
    )
    for axis, (name, rows) in zip(axes, panels.items(), strict=True):
        baseline = next(row for row in rows if row.label == name)
        points = np.array([(style.scaled(row, gridding).mean, style.scaled(row, good).mean) for row in rows])
        label(axis, points, {place: _name(row, baseline) for place, row in enumerate(rows)})
    return figure


def _kind(row: Row, baseline: Row) -> tuple[str, str]:
    """Colour and marker of a row."""
    changed = "other layers" if row.schedule == baseline.schedule else "other rates"
    return _KINDS["baseline" if row is baseline else changed]


def _name(row: Row, baseline: Row) -> str:
    """What a row changes of its baseline, and its seconds as a multiple."""
    changed = [other.partition("=")[2] for other in row.others if other not in baseline.others]
    if row.schedule != baseline.schedule or row is baseline:
        changed.insert(0, row.schedule)
    times = row.estimate(_SECONDS).mean / baseline.estimate(_SECONDS).mean
    cost = f" ×{times:.1f}" if math.isfinite(times) and row is not baseline else ""
    return style.literal(", ".join(changed)) + cost
