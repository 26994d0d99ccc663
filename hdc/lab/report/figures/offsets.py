"""The positive control: which offsets each network sees, beside what it learnt."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from hdc.errors import InputError
from hdc.lab.records.run import Run
from hdc.lab.report.figures import style
from hdc.lab.report.figures.config import FigureConfig
from hdc.lab.report.tables import offsets_table

_FEW = 24  # schedules up to which every cell has its number


def offsets(config: FigureConfig, runs: Sequence[Run]) -> Figure:
    """Schedules by offsets: the colour is the accuracy; hatched where the network does not see the offset.

    With many schedules the rows are narrow, and only cells that do not agree with the analysis have numbers.

    Raises:
        InputError: where the runs are on data without such offsets, or none is done.
    """
    cells = offsets_table.cells(runs)
    measured = [cell for cell in cells if cell.judged]
    if not measured:
        raise InputError(
            f"study {config.study!r} has no finished run whose record says what its network sees "
            f"('hdc runs {config.study} --analyse' adds it)"
        )
    schedules = list(dict.fromkeys(cell.row for cell in cells))
    places, control = sorted({cell.place for cell in cells}), cells[0].control
    means = np.full((len(schedules), len(places)), np.nan)
    seen, agrees = np.ones(means.shape, bool), np.ones(means.shape, bool)
    for cell in cells:
        at = schedules.index(cell.row), places.index(cell.place)
        seen[at], agrees[at] = cell.reachable is not False, not cell.judged or cell.agrees
        means[at] = np.mean(cell.accuracies) if cell.accuracies else np.nan
    many = len(schedules) > _FEW
    height = 1.9 + (0.17 if many else 0.42) * len(schedules)
    figure, ((axis,),) = style.new(max(6.4, 2.6 + 0.52 * len(places)), height)
    image = axis.imshow(100 * means, cmap="cividis", vmin=100 * control.chance, vmax=100, aspect="auto")
    for (row, column), mean in np.ndenumerate(means):
        if not seen[row, column]:
            corner = (column - 0.5, row - 0.5)
            axis.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="0.75", linewidth=0))
        if np.isfinite(mean) and (not many or not agrees[row, column]):
            dark = mean < (1 + control.chance) / 2
            axis.text(
                *(column, row, f"{100 * mean:.0f}"),
                **{
                    "ha": "center",
                    "va": "center",
                    "fontsize": style.size(8),
                    "color": "white" if dark else "black",
                },
                bbox={"boxstyle": "square,pad=0.15", "linewidth": 0, "facecolor": image.to_rgba(100 * mean)},
            )
    axis.set_xticks(range(len(places)), [str(place) for place in places], fontsize=style.size(8))
    axis.set_yticks(
        range(len(schedules)), [style.literal(name) for name in schedules], fontsize=style.size(8)
    )
    axis.set(xlabel=control.place, ylabel="schedule")
    axis.tick_params(labeltop=many)
    ticks = np.linspace(100 * control.chance, 100, 3)
    figure.colorbar(image, ax=axis, label="accuracy, %", ticks=ticks, format="{x:g}")
    said = "not seen: no path of the built network leads to that offset"
    lacks = Patch(facecolor="0.4", edgecolor="0.75", hatch="////", label=said)
    style.legend(figure, 1, [lacks], points=8.5)
    agree = sum(cell.agrees for cell in measured)
    seeds = style.counts([len(cell.accuracies) for cell in measured], "seeds")
    text = (
        f"Chance is {100 * control.chance:g} %; mean of {seeds}.\n"
        f"Prediction and network agree in {agree} of {len(measured)} cells: every seed above "
        f"{offsets_table.LEARNT:.0%} where seen, at chance where not."
        + (" Numbers: cells that do not agree." if many else "")
    )
    style.caption(figure, config, runs, text)
    return figure
