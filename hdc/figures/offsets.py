"""The positive control: what a schedule's certificate says it sees, beside what its network learnt."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from hdc.columns import network_counts
from hdc.config import Config
from hdc.errors import InputError
from hdc.figures import style
from hdc.figures.config import FigureConfig
from hdc.run import Run

LEARNT = 0.99  # accuracy from which on the offset counts as seen


def offsets(config: FigureConfig, runs: Sequence[Run]) -> Figure:
    """Schedules by offsets: the colour is the accuracy, hatched where the support lacks the offset.

    Raises:
        InputError: where the runs are not of the data set `offsets`, or none is done.
    """
    if any(run.config.data.name != "offsets" for run in runs):
        raise InputError(f"study {config.study!r} is not all about data.name=offsets")
    table = style.table_of(config, runs, ["test/accuracy"])
    schedules = list(dict.fromkeys(_name(row.schedule, row.others) for row in table.rows))
    places = sorted({row.runs[0].config.data.offset for row in table.rows})
    means = np.full((len(schedules), len(places)), np.nan)
    seen = np.zeros(means.shape, bool)
    seeds = []
    for row in table.rows:
        cell = schedules.index(_name(row.schedule, row.others)), places.index(row.runs[0].config.data.offset)
        means[cell] = row.estimate("test/accuracy").mean
        seen[cell] = reaches(row.runs[0].config)
        if row.values["test/accuracy"]:
            seeds.append(row.estimate("test/accuracy").n)
    figure = Figure(
        figsize=(2.6 + 0.52 * len(places), 1.9 + 0.42 * len(schedules)), layout="constrained", dpi=style.DPI
    )
    axis = figure.subplots()
    image = axis.imshow(100 * means, cmap="cividis", vmin=50, vmax=100, aspect="auto")
    for (row, column), mean in np.ndenumerate(means):
        if not seen[row, column]:
            corner = (column - 0.5, row - 0.5)
            axis.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="0.75", linewidth=0))
        if np.isfinite(mean):
            dark = mean < 0.75
            axis.text(
                *(column, row, f"{100 * mean:.0f}"),
                **{"ha": "center", "va": "center", "fontsize": 8, "color": "white" if dark else "black"},
                bbox={"boxstyle": "square,pad=0.15", "linewidth": 0, "facecolor": image.to_rgba(100 * mean)},
            )
    axis.set_xticks(range(len(places)), [str(place) for place in places], fontsize=8)
    axis.set_yticks(range(len(schedules)), schedules, fontsize=8)
    axis.set(xlabel="offset of the pixel to predict, pixels")
    figure.colorbar(image, ax=axis, label="pixel accuracy, %", ticks=[50, 75, 100])
    lacks = Patch(
        facecolor="0.4", edgecolor="0.75", hatch="////", label="certificate: the support lacks the offset"
    )
    figure.legend(handles=[lacks], loc="outside lower center", fontsize=8.5, frameon=False)
    done = np.isfinite(means)
    agree = np.sum((means >= LEARNT)[done] == seen[done])
    text = (
        f"Chance is 50 %; mean of {style.counts(seeds, 'seeds')}.\nCertificate and network (accuracy ≥ "
        f"{LEARNT:.0%}) agree in {agree} of {done.sum()} cells."
    )
    figure.suptitle(style.caption(config, runs, text), fontsize=8.5)
    return figure


def reaches(config: Config) -> bool:
    """Whether the support of a context network, its 3x3 stem and its schedule, has the offset of the data.

    Raises:
        InputError: for another network, whose support this is not.
    """
    seen = network_counts(config)
    if seen is None:
        raise InputError(f"net.name={config.net.name}: the figure of offsets is about net.name=context")
    place = config.data.offset - seen.origin[0]
    return 0 <= place < len(seen.counts) and bool(seen.counts[place] > 0)


def _name(schedule: str, others: Sequence[str]) -> str:
    """The row without its offset."""
    rest = (other for other in others if not other.startswith("data.offset="))
    return ", ".join((schedule, *rest))
