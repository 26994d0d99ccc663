"""Metrics of a whole split: no image is left out. Those of classes are exact, from integer counts."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax

from hdc.lab.data.dataset import IGNORE, Dataset, Split
from hdc.lab.data.stream import rows_of
from hdc.layers import crop

EVALUATION_BATCH = 32
_PIXELS = EVALUATION_BATCH * 128 * 128  # of a batch; of larger images there are fewer, down to one
BAND = 2  # pixels on either side of a boundary, for `boundary_iou`


@dataclass(frozen=True)
class Evaluation:
    """A model's counts over one split, without pixels whose label is `IGNORE`.

    Attributes:
        confusion: `[classes, classes]` int64, rows the truth, columns the prediction; per pixel
            for dense prediction, per image for classification.
        loss: mean cross-entropy in nats, whatever was minimised.
        speckles, speckle_sites: see `speckle_maps`; both 0 for classification.
        predictions: `[n, ...]` int32, shaped like the labels (cropped if VALID layers shrink the maps).
        strata: `confusion` within each stratum, by name; empty without strata.
        background: the class that a stratum's IoU leaves out, or None.
        bands: `[2, 2, classes, classes]` int64, `confusion` by whether the pixel is near a boundary of the
            truth (first axis) and of the prediction (second), see `near_boundary`; None for classification.
    """

    confusion: np.ndarray
    loss: float
    speckles: int
    speckle_sites: int
    predictions: np.ndarray
    strata: Mapping[str, np.ndarray] = field(default_factory=dict)
    background: int | None = None
    bands: np.ndarray | None = None

    def summary(self) -> dict[str, float]:
        """The metrics by name: loss and accuracy; for dense prediction also mean_iou, boundary_iou, speckle
        and, for each stratum, `iou_<stratum>`, its mean IoU without the background."""
        values = {"loss": self.loss, "accuracy": accuracy(self.confusion)}
        if self.predictions.ndim > 1:
            values["mean_iou"] = mean_iou(self.confusion)
            if self.bands is not None:
                values["boundary_iou"] = boundary_iou(self.bands)
            # Maps with fewer than three pixels a side have no sites.
            values["speckle"] = self.speckles / self.speckle_sites if self.speckle_sites else math.nan
            for name, confusion in self.strata.items():
                values[f"iou_{name}"] = mean_iou(confusion, self.background)
        return values


@dataclass(frozen=True)
class Errors:
    """A model's errors over one split, for regression.

    Attributes:
        squared, absolute: means over all values of all images, in the square of the target's unit and in it.
        peak: the target's range, from 0 to this.
        predictions: `[n, h, w, c]` float32, shaped like the targets (cropped if VALID layers shrink the
            maps).
    """

    squared: float
    absolute: float
    peak: float
    predictions: np.ndarray

    def summary(self) -> dict[str, float]:
        """The metrics by name: loss (the mean squared error), psnr in dB and mae."""
        psnr = 10 * math.log10(self.peak**2 / self.squared) if self.squared else math.inf
        return {"loss": self.squared, "psnr": psnr, "mae": self.absolute}


def accuracy(confusion: np.ndarray) -> float:
    """The share of correct pixels (dense) or images."""
    return float(np.trace(confusion) / confusion.sum())


def mean_iou(confusion: np.ndarray, left_out: int | None = None) -> float:
    """Intersection over union, averaged over the classes that occur in truth or prediction, except
    `left_out`; NaN without any class."""
    both = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    counted = (union > 0) & (np.arange(len(union)) != left_out)
    return float(np.mean(both[counted] / union[counted])) if counted.any() else math.nan


def boundary_iou(bands: np.ndarray) -> float:
    """Boundary IoU (Cheng et al. 2021, arXiv 2103.16562), averaged over classes; NaN without any boundary.

    For each class, the pixels of its mask that are near the mask's boundary, in the truth and in the
    prediction: intersection over union of these two sets, counted over the whole split. Classes without
    such pixels are left out.

    Args:
        bands: as `Evaluation` has them.
    """
    both = np.diag(bands[1, 1])
    union = bands[1].sum(axis=(0, 2)) + bands[:, 1].sum(axis=(0, 1)) - both
    counted = union > 0
    return float(np.mean(both[counted] / union[counted])) if counted.any() else math.nan


def near_boundary(maps: Array, counted: Array | None = None) -> Array:
    """Where a pixel of another class is at most `BAND` pixels away, `[b, h, w]` boolean.

    The distance is the larger one of rows and columns (chessboard). The frame of the image is no boundary,
    since a tile is cut anywhere, nor is that of a region which does not count. Signals have one axis.

    Args:
        maps: classes, integers `[b, h, w]` or `[b, length]`.
        counted: of the same shape, the pixels that count; None for all.
    """
    low = high = maps
    if counted is not None:
        low, high = jnp.where(counted, maps, _MORE), jnp.where(counted, maps, _LESS)
    for axis in range(1, maps.ndim):  # one after the other: XLA's window over both takes 100 times as long
        window, strides = [1] * maps.ndim, (1,) * maps.ndim
        window[axis] = 2 * BAND + 1
        low = lax.reduce_window(low, _MORE, lax.min, window, strides, "SAME")
        high = lax.reduce_window(high, _LESS, lax.max, window, strides, "SAME")
    return low < high


_LESS, _MORE = np.int32(-1), np.int32(2**31 - 1)  # than every class


def speckle_maps(predictions: Array, labels: Array, counted: Array | None = None) -> tuple[Array, Array]:
    """Where the speckles are, and where they can be: two boolean maps `[b, h - 2, w - 2]`.

    A site is a pixel inside the border whose true label agrees with at least one of its four
    neighbours; it is a speckle where its prediction differs from those of all four. A step of a
    signal has two neighbours.

    Args:
        predictions, labels: integers `[b, h, w]` or `[b, length]`.
        counted: of the same shape, the pixels that count, as sites and as neighbours; None for all.
    """
    if counted is not None:
        # -1 agrees with no neighbour that counts.
        predictions, labels = jnp.where(counted, predictions, -1), jnp.where(counted, labels, -1)
    sites = ~_isolated(labels)
    if counted is not None:
        sites &= _inner(counted)
    return _isolated(predictions) & sites, sites


def _isolated(maps: Array) -> Array:
    """Where a value inside the border differs from all neighbours."""
    centre, axes = _inner(maps), range(1, maps.ndim)
    sides = [_inner(jnp.roll(maps, step, axis)) for axis in axes for step in (1, -1)]
    return reduce(jnp.logical_and, [centre != side for side in sides])


def _inner(maps: Array) -> Array:
    return maps[:, *(slice(1, -1),) * (maps.ndim - 1)]


def evaluator(
    graph: nnx.GraphDef,
    normalise: Callable[[Array], Array],
    classes: int,
    strata: Sequence[str] = (),
    background: int | None = None,
) -> Callable[..., Evaluation]:
    """A function that evaluates a state of the classifying model `graph` on a split; it is compiled once.

    The last batch is padded and the padding masked, so every image counts exactly once. `strata` and
    `background` are those of the data set. The function takes as a third argument the positions, in ascending
    order, whose predictions are kept; without it, all are.
    """

    @partial(jax.jit, static_argnames="ignores")
    def count(
        state: nnx.State, images: Array, labels: Array, regions: Array | None, valid: Array, ignores: bool
    ) -> tuple[Array, ...]:
        logits = nnx.merge(graph, state)(normalise(images))  # type: ignore[operator]
        predictions = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        speckles = sites = jnp.zeros((), jnp.int32)
        band = jnp.zeros_like(predictions)
        if labels.ndim > 1:
            labels = crop(labels, *predictions.shape[1:])
            valid = valid.reshape(-1, *(1,) * (labels.ndim - 1))
            counted = labels != IGNORE if ignores else None
            speckled, possible = speckle_maps(predictions, labels, counted)
            speckles, sites = jnp.sum(speckled & valid), jnp.sum(possible & valid)
            band = 2 * near_boundary(labels, counted).astype(jnp.int32)
            band += near_boundary(predictions, counted).astype(jnp.int32)
            if counted is not None:
                valid, labels = valid & counted, jnp.where(counted, labels, 0)
        weight = jnp.broadcast_to(valid, labels.shape)
        pairs = (band * classes + labels) * classes + predictions
        if regions is not None:
            size = math.prod(tables(labels.ndim)[1:])
            pairs += crop(regions, *predictions.shape[1:]).astype(jnp.int32) * size
        places = math.prod(tables(labels.ndim))
        confusion = jnp.zeros(places, jnp.int32).at[pairs].add(weight.astype(jnp.int32))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return confusion, jnp.sum(jnp.where(weight, losses, 0)), speckles, sites, predictions

    def tables(axes: int) -> tuple[int, ...]:
        return (max(1, len(strata)), *((2, 2) if axes > 1 else (1, 1)), classes, classes)

    def evaluate(state: nnx.State, split: Split, keep: np.ndarray | None = None) -> Evaluation:
        shape = tables(split.labels.ndim)
        totals = [np.zeros(math.prod(shape), np.int64), np.float64(0), np.int64(0), np.int64(0)]
        predictions = []
        for valid, kept, (images, labels, *regions) in _batches(split, keep):
            *counts, predicted = jax.device_get(
                count(state, images, labels, regions[0] if regions else None, valid, split.ignores)
            )
            totals = [total + part for total, part in zip(totals, counts, strict=True)]
            predictions.append(predicted[kept])
        counted, loss, speckles, sites = totals
        counted = counted.reshape(shape)
        by_stratum = counted.sum(axis=(1, 2))
        return Evaluation(
            by_stratum.sum(axis=0),
            float(loss) / int(counted.sum()),
            int(speckles),
            int(sites),
            np.concatenate(predictions),
            dict(zip(strata, by_stratum, strict=False)),
            background,
            counted.sum(axis=0) if split.labels.ndim > 1 else None,
        )

    return evaluate


def regression_evaluator(
    graph: nnx.GraphDef, normalise: Callable[[Array], Array], peak: float
) -> Callable[..., Errors]:
    """As `evaluator`, for a model of regression; `peak` is that of the data set."""

    @jax.jit
    def count(state: nnx.State, images: Array, targets: Array, valid: Array) -> tuple[Array, ...]:
        predictions = nnx.merge(graph, state)(normalise(images))  # type: ignore[operator]
        errors = predictions - crop(targets, *predictions.shape[1:-1])
        inside = tuple(range(1, errors.ndim))
        squared, absolute = (jnp.mean(some, axis=inside) for some in (errors**2, jnp.abs(errors)))
        return jnp.sum(squared, where=valid), jnp.sum(absolute, where=valid), predictions

    def evaluate(state: nnx.State, split: Split, keep: np.ndarray | None = None) -> Errors:
        totals, predictions = np.zeros(2), []
        for valid, kept, (images, targets) in _batches(split, keep):
            *sums, predicted = jax.device_get(count(state, images, targets, valid))
            totals += sums
            predictions.append(predicted[kept])
        squared, absolute = (totals / len(split)).tolist()
        return Errors(squared, absolute, peak, np.concatenate(predictions))

    return evaluate


def evaluator_of(
    graph: nnx.GraphDef, normalise: Callable[[Array], Array], dataset: Dataset
) -> Callable[..., Evaluation | Errors]:
    """The evaluator that fits a data set's task."""
    if dataset.task == "regression":
        return regression_evaluator(graph, normalise, dataset.peak)
    return evaluator(graph, normalise, len(dataset.classes), dataset.strata, dataset.background)


def _batches(
    split: Split, keep: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]]:
    """Of each batch: which items are not padding, which of them are in `keep`, and the split's arrays.

    A split smaller than a batch gets a program of its own, which computes no padding.
    """
    length, pixels = len(split), math.prod(split.images.shape[1:-1])
    batch = min(EVALUATION_BATCH, length, max(1, _PIXELS // pixels))
    groups = [np.arange(start, start + batch) for start in range(0, length, batch)]
    columns = [array for array in (split.images, split.labels, split.strata) if array is not None]
    inside = [np.where(group < length, group, 0) for group in groups]
    for group, arrays in zip(groups, rows_of(columns, inside), strict=True):
        valid = group < length
        yield valid, valid if keep is None else valid & np.isin(group, keep), arrays
