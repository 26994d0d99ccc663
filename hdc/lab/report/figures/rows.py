"""Figures with a line per row: differences to a baseline with intervals, and IoU by the size of objects."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hdc.errors import InputError
from hdc.lab.records.run import Run
from hdc.lab.report.figures import style
from hdc.lab.report.figures.config import FigureConfig
from hdc.lab.report.tables.columns import column as column_of

_CLEAR, _UNSURE, _NOISE = style.COLOURS[0], "0.8", "white"
_FACES = {
    _CLEAR: "clear: adjusted p < 0.05",
    _UNSURE: "interval excludes 0, adjusted p ≥ 0.05",
    _NOISE: "interval includes 0",
}
_SIZES = ("small", "medium", "large")


def differences(config: FigureConfig, runs: Sequence[Run]) -> Figure:
    """Each row minus its baseline, paired by seed: mean and 95 % interval, one panel per column.

    Raises:
        InputError: where nothing is measured, or no row has a baseline.
    """
    table = style.table_of(config, runs, [style.quality(runs), *config.measured])
    pairs = [
        (row, other)
        for row in table.rows
        if (other := table.baseline(row))
        and any(table.differences[row.label, column].paired.n for column in table.compared)
    ]
    if not pairs:
        raise InputError(f"study {config.study!r} has no row that can be compared with {config.baseline!r}")
    columns = table.measured
    longest = max(len(style.row_name(row)) for row, _ in pairs)
    size = (max(2.2, 0.4 + 0.07 * longest) + 2.6 * len(columns), 1.9 + 0.3 * len(pairs))
    figure, axes = style.beside(*size, len(columns), 1.5 + 0.04 * longest, sharey=True)
    for axis, column in zip(axes, columns, strict=True):
        factor = column_of(column).factor
        axis.axvline(0, color="0.4", linewidth=1)
        for place, (row, _) in enumerate(pairs):
            difference = table.differences[row.label, column]
            found = difference.paired
            if not math.isfinite(found.mean):
                told = "undefined" if found.n else ""
                axis.text(
                    0, place, told, fontsize=style.size(7), ha="center", va="center", backgroundcolor="white"
                )
                continue
            ends = np.nan_to_num([found.low, found.high], nan=found.mean)  # a single pair has no interval
            axis.plot(factor * ends, [place, place], color="0.35", linewidth=1.4)
            face = _CLEAR if not difference.mark else _NOISE if found.low <= 0 <= found.high else _UNSURE
            axis.plot(
                factor * found.mean, place, marker="o", markersize=6, markerfacecolor=face, color=_CLEAR
            )
        unit = style.axis_title(column, table).replace(", %", ",\npercentage points").replace(", dB", ",\ndB")
        axis.set_xlabel(f"difference in {unit}", fontsize=style.size(8.5))
        axis.locator_params(axis="x", nbins=5)
        style.frame(axis)
    handles = [
        Line2D([], [], color=_CLEAR, markerfacecolor=face, marker="o", linestyle="", label=meaning)
        for face, meaning in _FACES.items()
    ]
    style.legend(figure, 3, handles)
    axes[0].set_yticks(range(len(pairs)), [style.row_name(row) for row, _ in pairs], fontsize=style.size(8))
    axes[0].set_ylim(len(pairs) - 0.5, -0.5)
    seeds = style.counts(
        [table.differences[row.label, c].paired.n for row, _ in pairs for c in columns], "pairs"
    )
    to = {style.row_name(other) for _, other in pairs}
    name = to.pop() if len(to) == 1 else f"the {config.baseline} row of the same setting"
    text = (
        f"Difference to {name}, paired by seed: mean and 95 % interval, {seeds}.\n"
        "Adjusted by Holm's correction over all tests of this figure."
    )
    style.caption(figure, config, runs, text)
    return figure


def strata(config: FigureConfig, runs: Sequence[Run]) -> Figure:
    """The IoU of small, medium and large objects, one line per configuration.

    Raises:
        InputError: where no run has an IoU by size.
    """
    table = style.table_of(config, runs, [f"test/iou_{size}" for size in _SIZES])
    columns = table.measured
    rows = [row for row in table.rows if any(row.values[column] for column in columns)]
    figure, ((axis,),) = style.new(6.2, 3.6 + 0.22 * math.ceil(len(rows) / 2))
    spread = np.linspace(-0.25, 0.25, len(rows)) if len(rows) > 1 else [0.0]
    for position, (row, shift) in enumerate(zip(rows, spread, strict=True)):
        estimates = [style.scaled(row, column) for column in columns]
        axis.errorbar(
            np.arange(len(columns)) + shift,
            [estimate.mean for estimate in estimates],
            yerr=[estimate.half_width for estimate in estimates],
            label=style.row_name(row),
            marker=style.MARKERS[position % len(style.MARKERS)],
            color=style.LINES[position % len(style.LINES)],
            **{"markeredgecolor": "0.2", "markersize": 7, "linewidth": 0.8, "ecolor": "0.4"},
        )
    axis.set_xticks(range(len(columns)), [column.removeprefix("test/iou_") for column in columns])
    axis.set(xlabel="size of the objects", ylabel="mean IoU of the objects, %")
    style.frame(axis)
    axis.grid(visible=False, axis="x")
    style.legend(figure, 2)
    style.caption(figure, config, runs, f"Mean and 95 % interval of {style.seeds(rows, columns)}.")
    return figure
