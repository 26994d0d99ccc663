"""Metrics of a whole split, exact: integer counts, and no image left out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from hdc.lab.data.dataset import IGNORE, Split
from hdc.layers import crop

EVALUATION_BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """A model's counts over one split, without pixels whose label is `IGNORE`.

    Attributes:
        confusion: `[classes, classes]` int64, rows the truth, columns the prediction; per pixel
            for dense prediction, per image for classification.
        loss: mean cross-entropy, nats.
        speckles, speckle_sites: see `speckle_maps`; both 0 for classification.
        predictions: `[n, ...]` int32, shaped like the labels (cropped if VALID layers shrink the maps).
        strata: `confusion` within each stratum, by name; empty without strata.
        background: the class that a stratum's IoU leaves out, or None.
    """

    confusion: np.ndarray
    loss: float
    speckles: int
    speckle_sites: int
    predictions: np.ndarray
    strata: Mapping[str, np.ndarray] = field(default_factory=dict)
    background: int | None = None

    def summary(self) -> dict[str, float]:
        """The metrics by name: loss and accuracy; for dense prediction also mean_iou, speckle and, for each
        stratum, `iou_<stratum>`, its mean IoU without the background."""
        values = {"loss": self.loss, "accuracy": accuracy(self.confusion)}
        if self.predictions.ndim > 1:
            values["mean_iou"] = mean_iou(self.confusion)
            # Maps with fewer than three pixels a side have no sites.
            values["speckle"] = self.speckles / self.speckle_sites if self.speckle_sites else math.nan
            for name, confusion in self.strata.items():
                values[f"iou_{name}"] = mean_iou(confusion, self.background)
        return values


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


def speckle_maps(predictions: Array, labels: Array, counted: Array | None = None) -> tuple[Array, Array]:
    """Where the speckles are, and where they can be: two boolean maps `[b, h - 2, w - 2]`.

    A site is a pixel inside the border whose true label agrees with at least one of its four
    neighbours; it is a speckle where its prediction differs from those of all four.

    Args:
        predictions, labels: integers `[b, h, w]`.
        counted: `[b, h, w]`, the pixels that count, as sites and as neighbours; None for all.
    """
    if counted is not None:
        # -1 agrees with no neighbour that counts.
        predictions, labels = jnp.where(counted, predictions, -1), jnp.where(counted, labels, -1)
    sites = ~_isolated(labels)
    if counted is not None:
        sites &= counted[:, 1:-1, 1:-1]
    return _isolated(predictions) & sites, sites


def _isolated(maps: Array) -> Array:
    centre = maps[:, 1:-1, 1:-1]
    return (
        (centre != maps[:, :-2, 1:-1])
        & (centre != maps[:, 2:, 1:-1])
        & (centre != maps[:, 1:-1, :-2])
        & (centre != maps[:, 1:-1, 2:])
    )


def evaluator(
    graph: nnx.GraphDef,
    normalise: Callable[[Array], Array],
    classes: int,
    strata: Sequence[str] = (),
    background: int | None = None,
) -> Callable[[nnx.State, Split], Evaluation]:
    """A function that evaluates a state of the model `graph` on a split; it is compiled once.

    The last batch is padded and the padding masked, so every image counts exactly once. `strata` and
    `background` are those of the data set.
    """
    tables = (max(1, len(strata)), classes, classes)

    @partial(jax.jit, static_argnames="ignores")
    def count(
        state: nnx.State, images: Array, labels: Array, regions: Array | None, valid: Array, ignores: bool
    ) -> tuple[Array, ...]:
        logits = nnx.merge(graph, state)(normalise(images))  # type: ignore[operator]
        predictions = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        speckles = sites = jnp.zeros((), jnp.int32)
        if labels.ndim > 1:
            labels = crop(labels, *predictions.shape[1:])
            valid = valid[:, None, None]
            counted = labels != IGNORE if ignores else None
            speckled, possible = speckle_maps(predictions, labels, counted)
            speckles, sites = jnp.sum(speckled & valid), jnp.sum(possible & valid)
            if counted is not None:
                valid, labels = valid & counted, jnp.where(counted, labels, 0)
        weight = jnp.broadcast_to(valid, labels.shape)
        pairs = labels * classes + predictions
        if regions is not None:
            pairs += crop(regions, *predictions.shape[1:]).astype(jnp.int32) * classes**2
        confusion = jnp.zeros(math.prod(tables), jnp.int32).at[pairs].add(weight.astype(jnp.int32))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return confusion, jnp.sum(jnp.where(weight, losses, 0)), speckles, sites, predictions

    def evaluate(state: nnx.State, split: Split) -> Evaluation:
        # A split smaller than a batch gets a program of its own, which computes no padding.
        batch = min(EVALUATION_BATCH, len(split))
        totals = [np.zeros(math.prod(tables), np.int64), np.float64(0), np.int64(0), np.int64(0)]
        predictions = []
        for start in range(0, len(split), batch):
            chosen = np.arange(start, start + batch)
            valid = chosen < len(split)
            chosen = np.where(valid, chosen, 0)
            regions = None if split.strata is None else split.strata[chosen]
            *counts, predicted = jax.device_get(
                count(state, split.images[chosen], split.labels[chosen], regions, valid, split.ignores)
            )
            totals = [total + part for total, part in zip(totals, counts, strict=True)]
            predictions.append(predicted[valid])
        counted, loss, speckles, sites = totals
        by_stratum = counted.reshape(tables)
        return Evaluation(
            by_stratum.sum(axis=0),
            float(loss) / int(counted.sum()),
            int(speckles),
            int(sites),
            np.concatenate(predictions),
            dict(zip(strata, by_stratum, strict=False)),
            background,
        )

    return evaluate
