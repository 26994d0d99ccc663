"""What each schedule can see, what its trained network sees and what that predicts, side by side."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hdc import plots
from hdc.errors import InputError
from hdc.lab.records import packed
from hdc.lab.records.run import Run, task_of
from hdc.lab.report.figures import style
from hdc.lab.report.figures.config import FigureConfig
from hdc.lab.report.tables.rows import group


def panels(config: FigureConfig, runs: Sequence[Run]) -> Figure:
    """One row per schedule: path counts, effective receptive field, a test image, truth and prediction; for
    regression also the error, averaged over the channels.

    Each schedule's row shows its first finished run; the caption names the schedules without one, and the
    settings that are shown. All rows show the same test image, the one of those kept with the runs whose
    truth has the most borders.

    Raises:
        InputError: where no run is done, or none with the seed that is asked for, or those are of several
            tasks.
    """
    done = finished(config, runs)
    shown = []
    for run in done.values():
        seed = run.config.seeds[0] if config.seed is None else config.seed
        shown.append((run, packed.gridding(run, seed), packed.predictions(run, seed)))
    widest = max(run.config.dilation.receptive_field for run in done.values())
    first = shown[0][2]
    labels, signals = first["labels"].ndim, first["images"].ndim == 3
    regression = labels == first["images"].ndim
    dense = not regression and labels > 1
    pixel, image = ("step", "signal") if signals else ("pixel", "image")
    titles = (
        f"paths to each {pixel}",
        "effective field, dB",
        f"test {image}",
        "truth",
        "prediction",
        "error",
    )
    count = 5 if dense else 6 if regression else 3
    figure, axes = style.new(2.1 * count, 2.35 * len(done) + 0.9, count, nrows=len(done))
    largest = max(np.quantile(np.abs(_error(one)), 0.99) for *_, one in shown) if regression else 0.0
    for row, (run, gridding, predictions) in zip(axes, shown, strict=True):
        _draw_paths(row[0], run, widest, signals)
        _draw_erf(row[1], gridding["erf"], widest)
        row[1].set_xlabel(f"ripple {mean_of(run, 'erf_ripple'):+.1f} dB", fontsize=style.size(9))
        if regression:
            _draw_regression(row[2:], predictions, largest)
            row[4].set_xlabel(f"PSNR {mean_of(run, 'psnr'):.2f} dB", fontsize=style.size(9))
        else:
            _draw_sample(row[2:], predictions)
        if dense:
            row[4].set_xlabel(f"speckle {100 * mean_of(run, 'speckle'):.2f} %", fontsize=style.size(9))
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=style.size(10))
    if dense:
        colours = [(style.literal(str(name)), style.colour(i)) for i, name in enumerate(first["classes"])]
        colours.append(("hole: never seen", plots.HOLE))
        style.legend(figure, 7, [Patch(facecolor=c, edgecolor="0.4", label=name) for name, c in colours])
    style.write(figure, _caption(config, runs, done, signals))
    return figure


def finished(config: FigureConfig, runs: Sequence[Run]) -> dict[str, Run]:
    """The first finished run of each schedule, by its label; only runs with the seed that is asked for.

    Raises:
        InputError: where there is none, or they are of several tasks.
    """
    done: dict[str, Run] = {}
    tasks: dict[str, str] = {}
    for run in runs:
        if run.state == "done" and (config.seed is None or config.seed in run.config.seeds):
            done.setdefault(run.config.dilation.label, run)
            if task := run.info.get("data", {}).get("task"):
                tasks.setdefault(task, run.config.data.name)
    if len(tasks) > 1:
        found = ", ".join(f"{task} (data={name})" for task, name in sorted(tasks.items()))
        raise InputError(
            f"study {config.study!r} has runs of several tasks, which are not drawn in one picture: {found}; "
            "train each task under a name=... of its own"
        )
    if not done:
        seed = "" if config.seed is None else f" with seed {config.seed}"
        raise InputError(f"study {config.study!r} has no finished run{seed} to draw")
    return done


def _draw_paths(axis: Axes, run: Run, widest: int, signals: bool) -> None:
    schedule = run.config.dilation
    counts = schedule.path_counts.astype(float)
    plots.draw(axis, counts[None] if signals else np.outer(counts, counts))
    _frame(axis, widest, signals)
    axis.set_ylabel(f"{schedule.label}  ({schedule.kind})", fontsize=style.size(10))
    axis.set_xlabel(
        f"{schedule.receptive_field} px, {schedule.coverage:.0%} seen, G {schedule.gridding.index:.2f}",
        fontsize=style.size(9),
    )


def _draw_erf(axis: Axes, erf: np.ndarray, widest: int) -> None:
    """In dB below the strongest pixel, centred like the path counts."""
    erf = erf.astype(np.float32)  # packed findings keep single precision: draw both alike
    level = 20 * np.log10(np.maximum(erf / max(erf.max(), 1e-30), 1e-4))
    if level.ndim == 1:
        axis.plot(np.arange(len(level)) - len(level) // 2, level, color=style.LINES[0], linewidth=0.8)
        _frame(axis, widest + 2, signal=True)
        axis.set(ylim=(-60, 2), facecolor="white")
        axis.set_yticks([-60, -30, 0], ["-60", "-30", "0"], fontsize=style.size(7))
        return
    height, width = erf.shape
    extent = (-width // 2 - 0.5, width - width // 2 - 0.5, height - height // 2 - 0.5, -height // 2 - 0.5)
    image = axis.imshow(level, cmap="magma", vmin=-60, vmax=0, extent=extent)
    _frame(axis, widest + 2)  # the stem widens the schedule's field by 2 px
    bar = axis.get_figure().colorbar(image, ax=axis, shrink=0.7, ticks=[-60, -30, 0])  # type: ignore[union-attr]
    bar.ax.tick_params(labelsize=style.size(7))


def _frame(axis: Axes, widest: int, signal: bool = False) -> None:
    limit = widest / 2 + 1
    axis.set(xlim=(-limit, limit), facecolor="0.75")
    if signal:
        axis.set(aspect="auto", yticks=[])
    else:
        axis.set_ylim(limit, -limit)
    ticks = [-(widest // 2), 0, widest // 2]
    for set_ticks in (axis.set_xticks,) if signal else (axis.set_xticks, axis.set_yticks):
        set_ticks(ticks, [str(tick) for tick in ticks], fontsize=style.size(7))


def _draw_sample(axes: np.ndarray, predictions: dict[str, np.ndarray]) -> None:
    sample = packed.shown_sample(predictions)
    image, label = predictions["images"][sample], predictions["labels"][sample]
    predicted = predictions["predictions"][sample]
    _draw_image(axes[0], image)
    if predicted.ndim == 0:
        names = [str(name) if len(str(name)) <= 18 else f"{name:.17}…" for name in predictions["classes"]]
        true, said = (style.literal(names[place]) for place in (label, predicted))
        axes[0].set_xlabel(f"{true},\npredicted {said}", fontsize=style.size(9))
    else:
        colours = ListedColormap([style.colour(i) for i in range(len(predictions["classes"]))])
        for axis, values in zip(axes[1:], (label, predicted), strict=True):
            axis.set_facecolor("0.75")  # pixels without a label
            known = np.ma.masked_outside(values, 0, colours.N - 1)
            ends: dict[str, Any] = {"vmin": -0.5, "vmax": colours.N - 0.5}
            if known.ndim == 1:
                style.draw_steps(axis, known, cmap=colours, **ends)
            else:
                axis.imshow(known, cmap=colours, interpolation="nearest", **ends)
    for axis in axes:
        axis.set(xticks=[], yticks=[])


def _draw_image(axis: Axes, image: np.ndarray, **ends: Any) -> None:
    if image.ndim == 2:
        style.draw_signal(axis, image)
    else:
        axis.imshow(style.displayed(image), cmap="gray", **ends)


def _error(predictions: dict[str, np.ndarray]) -> np.ndarray:
    """Prediction minus target of the sample that is shown, mean over the channels, `[h, w]` or `[length]`."""
    sample = packed.shown_sample(predictions)
    truth, predicted = predictions["labels"][sample], predictions["predictions"][sample]
    return (predicted - centre(truth, *predicted.shape[:-1])).mean(axis=-1)


def centre(image: np.ndarray, *sides: int) -> np.ndarray:
    """The central pixels of an image, `[h, w, ...]`, or of a signal; what VALID layers leave."""
    starts = [(length - side) // 2 for length, side in zip(image.shape, sides, strict=False)]
    return image[tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))]


def _draw_regression(axes: np.ndarray, predictions: dict[str, np.ndarray], largest: float) -> None:
    """Image, target and prediction, these two on the target's own scale, and the error up to `largest`."""
    sample = packed.shown_sample(predictions)
    truth = predictions["labels"][sample]
    _draw_image(axes[0], predictions["images"][sample], vmin=0, vmax=255)
    for axis, values in zip(axes[1:], (truth, predictions["predictions"][sample]), strict=False):
        _draw_values(axis, values, truth.min(), truth.max())
    error = _error(predictions)
    colours: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    if error.ndim == 1:
        style.draw_steps(axes[3], error, **colours)
    else:
        axes[3].imshow(error, interpolation="nearest", **colours)
    for axis in axes:
        axis.set(xticks=[], yticks=[])


def _draw_values(axis: Axes, values: np.ndarray, low: float, high: float) -> None:
    """An image with `low` black and `high` white, or curves between these."""
    if values.ndim == 2:
        style.draw_signal(axis, values)
        axis.set_ylim(low - 1e-9, high + 1e-9)
        return
    shown = np.clip((values.astype(float) - low) / max(high - low, 1e-9), 0, 1)
    axis.imshow(shown if shown.shape[-1] == 3 else shown[..., 0], cmap="gray", vmin=0, vmax=1)


def mean_of(run: Run, metric: str) -> float:
    """A test metric's mean over the seeds of a run; NaN if it was not measured."""
    chosen = run.metrics().filter(pl.col("split") == "test", pl.col("metric") == metric)["value"]
    return float(np.mean(chosen.to_numpy())) if len(chosen) else float("nan")


def _caption(config: FigureConfig, runs: Sequence[Run], done: dict[str, Run], signals: bool) -> str:
    first = next(iter(done.values()))
    counts = sorted({len(run.config.seeds) for run in done.values()})
    pictured = "the first seed" if config.seed is None else f"seed {config.seed}"
    task = task_of(list(done.values()))
    also = {"regression": " and PSNR", "dense": " and speckle"}.get(task, "")
    text = (
        f"{config.study}: {first.config.data.name}, test split. Ripple{also}: mean of "
        f"n = {', '.join(map(str, counts))} seeds; maps: {pictured}. Axes in "
        f"{'steps' if signals else 'pixels'}."
    )
    if task == "regression":
        scale = "have one scale" if signals else "are brightened alike"
        text += (
            f" Truth and prediction {scale}. Error: prediction minus truth, mean over the "
            "channels, red above, blue below, all rows on one scale."
        )
    if first.config.net.name == "context":
        stem = "stem of 3 steps" if signals else "3x3 stem"
        text += f" Paths are the schedule's own, without the network's {stem}."
    drawn = {run.run_id for run in done.values()}
    rows = [row for row in group(runs, []) if drawn & {run.run_id for run in row.runs}]
    if settings := dict.fromkeys(", ".join(row.others) for row in rows if row.others):
        text += f"\nSettings shown: {' | '.join(settings)}."
    return text + absent(runs, done)


def absent(runs: Sequence[Run], drawn: Collection[str]) -> str:
    """A last line for a caption: the schedules that are not drawn, with their state; empty for none."""
    names = {
        f"{run.config.dilation.label} ({run.state})"
        for run in runs
        if run.state != "done" or run.config.dilation.label not in drawn
    }
    return f"\nNot drawn: {', '.join(sorted(names))}." if names else ""
