"""What each schedule sees, predicts and gets wrong, at one scale: holes beside what they do."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hdc import plots
from hdc.errors import InputError
from hdc.lab.records import packed
from hdc.lab.records.run import Run
from hdc.lab.report.figures import style
from hdc.lab.report.figures.config import FigureConfig
from hdc.lab.report.figures.panels import absent, finished, mean_of

_POINTS = 72 * 2  # the width of a panel, about
_WRONG, _RIGHT, _UNLABELLED = "black", "0.93", "0.75"


def errors(config: FigureConfig, runs: Sequence[Run]) -> Figure:
    """One column per schedule: path counts, prediction and errors; before them the test image and its labels.

    The image is the one of those kept with the runs whose truth has the most borders. What is shown of it is
    as large as the widest field, where the borders are densest; it is brightened, and points of one pixel are
    enlarged.

    Raises:
        InputError: where no run is done, or none with the seed that is asked for; for labels that are not
            maps, and for runs that were tested on different images.
    """
    done = list(finished(config, runs).values())
    seeds = [run.config.seeds[0] if config.seed is None else config.seed for run in done]
    kept = [packed.predictions(run, seed) for run, seed in zip(done, seeds, strict=True)]
    samples = [packed.shown_sample(one) for one in kept]
    image, truth = (kept[0][name][samples[0]] for name in ("images", "labels"))
    if image.ndim != 3 or truth.ndim != 2:
        of_image = "one label per image" if image.ndim == 3 else "signals"
        has = "targets, no labels" if truth.ndim == 3 else of_image
        raise InputError(f"study {config.study!r} has {has}: errors are drawn of label maps")
    for one, sample in zip(kept, samples, strict=True):
        if not np.array_equal(one["images"][sample], image) or not np.array_equal(
            one["labels"][sample], truth
        ):
            raise InputError(f"study {config.study!r} has runs on different images: errors are drawn of one")
    fields = [_paths(run) for run in done]
    size = min(*truth.shape, max(map(len, fields)))
    top, left = _busiest(truth, size)
    shown = np.s_[top : top + size, left : left + size]
    figure, axes = style.new(2.2 * (1 + len(done)) + 0.3, 7.2, 1 + len(done), nrows=3)
    _draw_image(axes[0, 0], image, (top, left), size, enlarge=done[0].config.data.name == "points")
    axes[0, 0].set_title("test image", fontsize=style.size(10))
    colours = ListedColormap([style.colour(i) for i in range(len(kept[0]["classes"]))])
    _draw_labels(axes[1, 0], truth[shown], colours)
    axes[1, 0].set_title("true labels", fontsize=style.size(10))
    axes[2, 0].set_axis_off()
    named = [(style.literal(str(name)), style.colour(i)) for i, name in enumerate(kept[0]["classes"])]
    named += [("hole: never seen", plots.HOLE), ("too far to see", "white"), ("predicted wrongly", _WRONG)]
    patches = [Patch(facecolor=colour, edgecolor="0.4", label=name) for name, colour in named]
    axes[2, 0].legend(handles=patches, loc="center", fontsize=style.size(9), frameon=False)
    for column, run, counts, one, sample in zip(axes[:, 1:].T, done, fields, kept, samples, strict=True):
        schedule, predicted = run.config.dilation, np.full(truth.shape, -1)
        height, width = one["predictions"][sample].shape
        above, before = (truth.shape[0] - height) // 2, (truth.shape[1] - width) // 2
        predicted[above : above + height, before : before + width] = one["predictions"][sample]
        plots.draw(column[0], np.outer(counts, counts))
        column[0].set(xlim=(-size / 2, size / 2), ylim=(size / 2, -size / 2), facecolor="white")
        column[0].set_title(f"{schedule.label}  ({schedule.kind})", fontsize=style.size(10))
        _draw_labels(column[1], predicted[shown], colours)
        column[1].set_xlabel(
            f"{100 * mean_of(run, 'accuracy'):.2f} % of pixels right", fontsize=style.size(9)
        )
        known = (truth >= 0) & (truth < colours.N) & (predicted >= 0)
        wrong = np.where(known, predicted != truth, -1)
        _draw_labels(column[2], wrong[shown], ListedColormap([_RIGHT, _WRONG]))
    for axis, name in zip(axes[:, 1], ("what it can see", "what it predicts", "its errors"), strict=True):
        axis.set_ylabel(name, fontsize=style.size(10))
    for axis in axes[:, :].flat:
        axis.set(xticks=[], yticks=[])
    style.write(figure, _caption(config, runs, done, size))
    return figure


def _paths(run: Run) -> np.ndarray:
    """Paths along one axis: of the layers, with the 3x3 stem where there are no shortcuts."""
    counts = run.config.dilation.path_counts.astype(float)
    return np.convolve(counts, np.ones(3)) if _has_stem(run) else counts


def _has_stem(run: Run) -> bool:
    return run.config.net.name == "context" and not run.config.net.residual


def _busiest(labels: np.ndarray, size: int) -> tuple[int, int]:
    """Top and left of the window of `size` x `size` pixels with the most borders between labels."""
    borders = np.zeros(labels.shape, int)
    borders[1:] += np.diff(labels, axis=0) != 0
    borders[:, 1:] += np.diff(labels, axis=1) != 0
    windows = np.lib.stride_tricks.sliding_window_view(borders, (size, size)).sum(axis=(2, 3))
    top, left = np.unravel_index(windows.argmax(), windows.shape)
    return int(top), int(left)


def _draw_image(axis: Axes, image: np.ndarray, corner: tuple[int, int], size: int, *, enlarge: bool) -> None:
    """A window of an image, brightened."""
    top, left = corner
    pixels = style.displayed(image[top : top + size, left : left + size])
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if enlarge:
        rows, columns = np.nonzero(pixels.any(axis=-1))
        axis.imshow(np.zeros_like(pixels))
        width = max(5, 1.5 * _POINTS / size)
        axis.scatter(columns, rows, s=width**2, c=pixels[rows, columns] / 255, linewidths=0)
    else:
        axis.imshow(pixels, interpolation="nearest")


def _draw_labels(axis: Axes, labels: np.ndarray, colours: ListedColormap) -> None:
    axis.set_facecolor(_UNLABELLED)
    known = np.ma.masked_outside(labels, 0, colours.N - 1)
    axis.imshow(known, cmap=colours, vmin=-0.5, vmax=colours.N - 0.5, interpolation="nearest")


def _caption(config: FigureConfig, runs: Sequence[Run], done: Sequence[Run], size: int) -> str:
    counts = style.counts([len(run.config.seeds) for run in done], "seeds")
    pictured = "the first seed" if config.seed is None else f"seed {config.seed}"
    points = " Each point is one pixel, drawn enlarged." if done[0].config.data.name == "points" else ""
    stem = ", with the network's 3x3 stem" if all(map(_has_stem, done)) else ", without stem and shortcuts"
    return (
        f"{config.study}: {done[0].config.data.name}, test split; {size} x {size} pixels of one tile, all "
        f"panels at one scale.{points} Top: paths from an output to each pixel, known from the rates "
        f"alone{stem}. "
        f"Pixels right: mean over the test split and {counts}; maps: {pictured}."
        f"{absent(runs, {run.config.dilation.label for run in done})}"
    )
