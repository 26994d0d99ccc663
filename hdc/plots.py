"""The picture of path counts: a map in grey, what is never seen in orange. No JAX."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from hdc.fields import PathCounts

HOLE = "#D55E00"  # Okabe and Ito's vermilion: safe for the colour-blind, dark in grey


def draw(axis: Axes, paths: np.ndarray) -> None:
    """Path counts `[h, w]` around their centre, on axes in pixels; brighter is more, by a power law."""
    colours = matplotlib.colormaps["Greys_r"].with_extremes(bad=HOLE)
    height, width = paths.shape
    extent = (-width / 2, width / 2, height / 2, -height / 2)
    norm = PowerNorm(0.3, vmin=0, vmax=paths.max())
    axis.imshow(np.ma.masked_equal(paths, 0), cmap=colours, norm=norm, extent=extent)


def figure(fields: Sequence[tuple[str, PathCounts]]) -> Figure:
    """One column for each field: its map, and its counts along the width (along the axis, for signals)."""
    drawn = Figure(figsize=(max(4.2, 3.2 * len(fields)), 4.6), layout="constrained", dpi=110)
    axes = drawn.subplots(2, len(fields), squeeze=False, height_ratios=[3, 1])
    for (title, paths), (upper, lower) in zip(fields, axes.T, strict=True):
        counts = paths.counts if paths.counts.ndim == 2 else paths.along(paths.counts.ndim - 1)[None]
        draw(upper, counts)
        upper.set_title(title, fontsize=9)
        upper.tick_params(labelsize=7)
        for ticks in (upper.xaxis, upper.yaxis, lower.xaxis):
            ticks.set_major_locator(MaxNLocator(5, integer=True))
        upper.set_aspect("equal" if len(counts) > 1 else "auto")
        if len(counts) == 1:
            upper.set_yticks([])
        _profile(lower, counts.sum(axis=0), upper.get_xlim())
    drawn.legend(
        handles=[
            Patch(facecolor=HOLE, label="never seen"),
            Patch(facecolor="0.75", label="paths: more is brighter"),
        ],
        loc="outside lower center",
        ncols=2,
        fontsize=8,
        frameon=False,
    )
    return drawn


def _profile(axis: Axes, counts: np.ndarray, limits: tuple[float, float]) -> None:
    position = np.arange(len(counts)) - (len(counts) - 1) / 2
    axis.bar(position, counts / counts.max(), width=1.0, color="0.45")
    holes = position[counts == 0]
    axis.vlines(holes, 0, 1, colors=HOLE, linewidth=max(0.5, 160 / len(counts)), alpha=0.6)
    axis.set(xlim=limits, ylim=(0, 1.05))
    axis.set_yticks([0, 1])
    axis.set_xlabel("pixels from the centre", fontsize=8)
    axis.set_ylabel("paths, of the most", fontsize=8)
    axis.tick_params(labelsize=7)
