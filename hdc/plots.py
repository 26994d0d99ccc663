"""The picture of path counts: a map in grey, what is never seen in orange. No JAX."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
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


def erf_figure(
    erf: np.ndarray,
    box: tuple[Sequence[int], Sequence[int]] | None,
    frequencies: np.ndarray,
    decibels: np.ndarray,
) -> Figure:
    """A measured effective receptive field: the map, its profile along the width, and its ripple.

    Args:
        erf: `[height, width]` or `[length]`.
        box: first pixel and size of the exact field, per axis.
        frequencies, decibels: of the ripple, `[f]`.
    """
    drawn = Figure(figsize=(4.2 * erf.ndim, 4.4), layout="constrained", dpi=110)
    grid = drawn.add_gridspec(2, erf.ndim)
    upper, lower = drawn.add_subplot(grid[0, -1]), drawn.add_subplot(grid[1, -1])
    level = 20 * np.log10(np.maximum(erf / max(erf.max(), np.finfo(float).tiny), 1e-4))
    if erf.ndim == 2:
        left = drawn.add_subplot(grid[:, 0])
        shown = left.imshow(level, cmap="magma", vmin=-60, vmax=0)
        bar = drawn.colorbar(shown, ax=left, shrink=0.7, ticks=[-60, -40, -20, 0])
        bar.ax.tick_params(labelsize=7)
        left.set_title("effective receptive field, in dB of its strongest pixel", fontsize=9)
        left.tick_params(labelsize=7)
        if box is not None:
            (top, start), (height, width) = box
            left.add_patch(Rectangle((start - 0.5, top - 0.5), width, height, fill=False, edgecolor=HOLE))
            inside = start >= 0 and top >= 0 and top + height <= len(erf) and start + width <= erf.shape[1]
            where = "is the frame" if inside else f"is {height} x {width} px, more than the image"
            left.set_xlabel(f"the exact receptive field {where}", fontsize=8)
    line = erf if erf.ndim == 1 else erf.sum(axis=0)
    upper.plot(np.arange(len(line)), line / max(line.max(), np.finfo(float).tiny), color="0.3", linewidth=1)
    upper.set_xlabel("pixels along the width" if erf.ndim == 2 else "pixels", fontsize=8)
    upper.set_ylabel("of the most", fontsize=8)
    upper.set_ylim(0)
    if box is not None:
        for edge in (box[0][-1] - 0.5, box[0][-1] + box[1][-1] - 0.5):
            upper.axvline(edge, color=HOLE, linewidth=0.8)
    upper.set_xlim(-0.5, len(line) - 0.5)
    if len(frequencies):
        lower.vlines(frequencies, np.minimum(decibels, 0), np.maximum(decibels, 0), color="0.3")
    lower.axhline(0, color="0.6", linewidth=0.8)
    lower.set_xlabel("cycles per pixel", fontsize=8)
    lower.set_ylabel("ripple, dB", fontsize=8)
    lower.set_xlim(0, 0.52)
    for axis in (upper, lower):
        axis.tick_params(labelsize=7)
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
