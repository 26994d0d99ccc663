"""Test metrics over a whole split, exact: integer counts, no batch dropped."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from hdc.data.dataset import Split
from hdc.networks import crop

EVALUATION_BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """A model's counts over one split.

    Attributes:
        confusion: `[classes, classes]` int64, rows the truth, columns the prediction; per pixel
            for dense prediction, per image for classification.
        loss: mean cross-entropy, nats.
        speckles, speckle_sites: see `speckle_maps`; both 0 for classification.
        predictions: `[n, ...]` int32, shaped as the labels (cropped where VALID layers shrink).
    """

    confusion: np.ndarray
    loss: float
    speckles: int
    speckle_sites: int
    predictions: np.ndarray

    def summary(self) -> dict[str, float]:
        """The metrics by name: loss, accuracy; for dense prediction also mean_iou and speckle."""
        values = {"loss": self.loss, "accuracy": accuracy(self.confusion)}
        if self.predictions.ndim > 1:
            values["mean_iou"] = mean_iou(self.confusion)
            # Maps of fewer than three pixels a side have no inside to look at.
            values["speckle"] = self.speckles / self.speckle_sites if self.speckle_sites else math.nan
        return values


def accuracy(confusion: np.ndarray) -> float:
    """The share of pixels (dense) or images that are right."""
    return float(np.trace(confusion) / confusion.sum())


def mean_iou(confusion: np.ndarray) -> float:
    """Intersection over union, averaged over the classes that occur in truth or prediction."""
    both = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return float(np.mean(both[union > 0] / union[union > 0]))


def speckle_maps(predictions: Array, labels: Array) -> tuple[Array, Array]:
    """Where the speckles are, and where they can be: two boolean maps `[b, h - 2, w - 2]`.

    A site is a pixel inside the border whose true label agrees with at least one of its four
    neighbours; it is a speckle where its prediction differs from those of all four.

    Args:
        predictions, labels: integers `[b, h, w]`.
    """
    sites = ~_isolated(labels)
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
    graph: nnx.GraphDef, normalise: Callable[[Array], Array], classes: int
) -> Callable[[nnx.State, Split], Evaluation]:
    """A function that evaluates a state of the model `graph` on a whole split, compiled once.

    The last batch is filled up and the filling masked out, so every image counts exactly once.
    """

    @jax.jit
    def count(state: nnx.State, images: Array, labels: Array, valid: Array) -> tuple[Array, ...]:
        logits = nnx.merge(graph, state)(normalise(images))  # type: ignore[operator]
        predictions = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        speckles = sites = jnp.zeros((), jnp.int32)
        if labels.ndim > 1:
            labels = crop(labels, *predictions.shape[1:])
            valid = valid[:, None, None]
            speckled, possible = speckle_maps(predictions, labels)
            speckles, sites = jnp.sum(speckled & valid), jnp.sum(possible & valid)
        weight = jnp.broadcast_to(valid, labels.shape)
        pairs = labels * classes + predictions
        confusion = jnp.zeros(classes * classes, jnp.int32).at[pairs].add(weight.astype(jnp.int32))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return confusion, jnp.sum(jnp.where(weight, losses, 0)), speckles, sites, predictions

    def evaluate(state: nnx.State, split: Split) -> Evaluation:
        # A split smaller than a batch compiles a shape of its own rather than computing filling.
        batch = min(EVALUATION_BATCH, len(split))
        totals = [np.zeros(classes * classes, np.int64), np.float64(0), np.int64(0), np.int64(0)]
        predictions = []
        for start in range(0, len(split), batch):
            chosen = np.arange(start, start + batch)
            valid = chosen < len(split)
            chosen = np.where(valid, chosen, 0)
            *counts, predicted = jax.device_get(
                count(state, split.images[chosen], split.labels[chosen], valid)
            )
            totals = [total + part for total, part in zip(totals, counts, strict=True)]
            predictions.append(predicted[valid])
        confusion, loss, speckles, sites = totals
        return Evaluation(
            confusion.reshape(classes, classes),
            float(loss) / int(confusion.sum()),
            int(speckles),
            int(sites),
            np.concatenate(predictions),
        )

    return evaluate
