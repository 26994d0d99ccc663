"""A contact sheet: some images or signals of each split of a data set, with what is known of them."""

import io
import itertools

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hdc.lab.data.dataset import Dataset
from hdc.lab.report.figures import style

_IMAGES = 8  # of each split
_NAMED = 24  # classes in the legend


def sheet(dataset: Dataset) -> Figure:
    """Images of each split, spread evenly over it, each above its labels.

    Label maps lie half transparent over the grey image, pixels without a label stay grey. Below are the
    colours of the classes. Of regression the lower row shows the targets. Signals are curves, a colour for
    each channel, above a band with the colours of their labels.
    """
    maps = dataset.task != "classification"
    splits = dataset.splits
    signals = dataset.kind == "signals"
    height = 0.7 if signals else dataset.image_shape[0] / dataset.image_shape[1]
    rows = len(splits) * (2 if maps else 1)
    side = 1.5 * min(max(height, 0.5), 2)
    figure, axes = style.new(
        1.5 * _IMAGES + 0.4,
        rows * (side + (0 if maps else 0.25)) + 0.9,
        _IMAGES,
        nrows=rows,
        height_ratios=[3, 1] * len(splits) if signals and dataset.task == "dense" else None,
    )
    colours = ListedColormap(_colours(len(dataset.classes)))
    for place, (name, split) in enumerate(splits.items()):
        chosen = np.unique(np.linspace(0, len(split) - 1, _IMAGES).astype(int))
        images, labels = split.images[chosen], split.labels[chosen]
        upper = axes[place * (2 if maps else 1)]
        upper[0].set_ylabel(f"{name}\n{len(split)} {dataset.kind}", fontsize=style.size(9))
        for column, (image, label) in enumerate(zip(images, labels, strict=True)):
            _draw(upper[column], image)
            if not maps:
                upper[column].set_xlabel(style.literal(dataset.classes[label]), fontsize=style.size(8))
            elif dataset.task == "dense":
                _overlay(axes[2 * place + 1, column], image, label, colours)
            else:
                _draw(axes[2 * place + 1, column], label)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    if dataset.task == "dense":
        named = list(itertools.islice(zip(dataset.classes, colours.colors, strict=True), _NAMED))  # type: ignore[arg-type]
        patches = [Patch(facecolor=of, edgecolor="0.4", label=style.literal(name)) for name, of in named]
        if (rest := len(dataset.classes) - _NAMED) > 0:
            patches.append(Patch(facecolor="none", label=f"and {rest} more"))
        style.legend(figure, 8, patches)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axis: Axes, image: np.ndarray) -> None:
    if image.ndim == 2:
        style.draw_signal(axis, image)
    else:
        axis.imshow(style.displayed(image), cmap="gray", interpolation="nearest")


def _overlay(axis: Axes, image: np.ndarray, labels: np.ndarray, colours: ListedColormap) -> None:
    known = np.ma.masked_outside(labels, 0, colours.N - 1)
    if labels.ndim == 1:
        style.draw_steps(axis, known, cmap=colours, vmin=-0.5, vmax=colours.N - 0.5)
        return
    shown = style.displayed(image)
    axis.imshow(shown if shown.ndim == 2 else shown.mean(axis=-1), cmap="gray", interpolation="nearest")
    axis.imshow(known, cmap=colours, vmin=-0.5, vmax=colours.N - 0.5, alpha=0.55, interpolation="nearest")


def _colours(count: int) -> list:
    """A colour for each class, all different."""
    if count <= len(style.COLOURS):
        return [style.colour(place) for place in range(count)]
    return list(matplotlib.colormaps["turbo"](np.linspace(0, 1, count)))
