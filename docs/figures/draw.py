"""Draw the figures of the page on the mathematics: `python docs/figures/draw.py`."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hdc import DilationSchedule
from hdc.plots import HOLE

BLUE, GREY = "#0072B2", "0.65"
FOLDER = Path(__file__).parent


def ladder() -> Figure:
    """Rates in ascending order beside what the smaller ones fill: a step above the bar leaves a hole."""
    figure = Figure(figsize=(8, 2.9), layout="constrained", dpi=120)
    for axis, rates in zip(figure.subplots(1, 3), ((1, 2, 5), (1, 2, 9), (2, 2, 2)), strict=True):
        filled = [1 + 2 * sum(sorted(rates)[:index]) for index in range(len(rates))]
        place = np.arange(len(rates))
        axis.bar(place, filled, width=0.75, color=GREY, label="largest rate without a hole")
        for at, rate, most in zip(place, sorted(rates), filled, strict=True):
            axis.plot(
                at, rate, "D" if rate > most else "o", color=HOLE if rate > most else BLUE, markersize=9
            )
        axis.set_xticks(place, [f"{rate}" for rate in sorted(rates)])
        axis.set(title=",".join(map(str, rates)), xlabel="rate, ascending", ylim=(0, 10.5))
    axis = figure.axes[0]
    axis.set_ylabel("pixels")
    axis.plot([], [], "o", color=BLUE, label="rate: no hole")
    axis.plot([], [], "D", color=HOLE, label="rate: a hole")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def spectra() -> Figure:
    """The spectrum of the path counts, whose strongest peak at a period of whole pixels is G."""
    figure = Figure(figsize=(8, 2.9), layout="constrained", dpi=120)
    for axis, rates in zip(
        figure.subplots(1, 3, sharey=True), ((1, 2, 5), (1, 2, 4), (2, 2, 2)), strict=True
    ):
        schedule = DilationSchedule(rates)
        counts = schedule.path_counts / schedule.path_counts.sum()
        frequency = np.linspace(0, 0.5, 501)
        waves = np.exp(-2j * np.pi * np.outer(frequency, np.arange(len(counts))))
        axis.plot(frequency, abs(waves @ counts), color=BLUE)
        found = schedule.gridding
        axis.plot(float(found.frequency), found.index, "D", color=HOLE, markersize=9)
        axis.set(
            title=f"{','.join(map(str, rates))}: G = {found.index:.3f}",
            xlabel="cycles per pixel",
            ylim=(0, 1.08),
        )
    figure.axes[0].set_ylabel("size, of the mean")
    return figure


if __name__ == "__main__":
    for draw in (ladder, spectra):
        draw().savefig(FOLDER / f"{draw.__name__}.png")
