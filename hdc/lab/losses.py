"""What a training step minimises, by name: losses of classes and of regression."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from hdc.errors import InputError
from hdc.lab.config import LOSSES, TrainConfig
from hdc.lab.data.dataset import IGNORE, Dataset, Split
from hdc.lab.data.stream import blocks, kept


def loss_of(config: TrainConfig, dataset: Dataset) -> Callable[[Array, Array], tuple[Array, Array]]:
    """A function of a batch's outputs and labels: the loss, and what is shown beside it.

    That is the accuracy, or for regression the mean absolute error. Pixels whose label is `IGNORE` count in
    neither; where nothing counts, both are 0.

    Raises:
        InputError: for a loss, class weights or label smoothing that do not fit the data set.
    """
    regression = dataset.task == "regression"
    allowed = LOSSES["regression" if regression else "classes"]
    loss = allowed[0] if config.loss == "auto" else config.loss
    if loss not in allowed:
        raise InputError(f"train.loss={loss} does not fit {dataset.name}: use one of {', '.join(allowed)}")
    if loss == "dice" and dataset.task != "dense":
        raise InputError(f"train.loss=dice is of label maps, and {dataset.name} has one label per image")
    if regression:
        for key in ("class_weights", "label_smoothing"):
            if getattr(config, key):
                raise InputError(f"train.{key} is for classes, and {dataset.name} has none: leave it out")
        return _squared if loss == "l2" else _absolute
    weights = _class_weights(config.class_weights, dataset)
    if loss == "dice":
        return lambda logits, labels: _dice(logits, labels, weights)
    focal, smoothing, ignores = loss == "focal", config.label_smoothing, dataset.train.ignores

    def of_each(logits: Array, labels: Array) -> Array:
        if smoothing:
            targets = jax.nn.one_hot(labels, logits.shape[-1])
            losses = optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))
        else:
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses * jnp.expm1(-losses) ** 2 if focal else losses

    def found(logits: Array, labels: Array) -> tuple[Array, Array]:
        if not ignores and weights is None:
            return of_each(logits, labels).mean(), jnp.mean(jnp.argmax(logits, axis=-1) == labels)
        counted = labels != IGNORE if ignores else jnp.ones(labels.shape, bool)
        count = jnp.maximum(jnp.sum(counted), 1)
        # Loss and gradient are not defined for IGNORE; any class can take its place, as it is not counted.
        known = jnp.where(counted, labels, 0)
        losses = of_each(logits, known)
        hits = (jnp.argmax(logits, axis=-1) == labels) & counted
        if weights is None:
            return jnp.sum(losses, where=counted) / count, jnp.sum(hits) / count
        of_label = jnp.asarray(weights)[known]
        total = jnp.sum(of_label, where=counted)
        weighted = jnp.sum(losses * of_label, where=counted)
        return weighted / jnp.where(total > 0, total, 1), jnp.sum(hits) / count

    return found


def _squared(values: Array, targets: Array) -> tuple[Array, Array]:
    return jnp.mean(optax.squared_error(values, targets)), jnp.mean(jnp.abs(values - targets))


def _absolute(values: Array, targets: Array) -> tuple[Array, Array]:
    error = jnp.mean(jnp.abs(values - targets))
    return error, error


def _dice(logits: Array, labels: Array, weights: np.ndarray | None) -> tuple[Array, Array]:
    """1 - (2 both + 2) / (predicted + true + 2) of each class, summed over the batch, and averaged over the
    classes by their weights: `optax.losses.dice_loss` with its defaults, but that pixels can be left out."""
    counted = labels != IGNORE
    chances = jnp.where(counted[..., None], jax.nn.softmax(logits), 0)
    truth = jax.nn.one_hot(jnp.where(counted, labels, -1), logits.shape[-1])
    both, either = (
        jnp.sum(some, axis=tuple(range(labels.ndim))) for some in (chances * truth, chances + truth)
    )
    losses = 1 - (2 * both + 2) / (either + 2)
    hits = (jnp.argmax(logits, axis=-1) == labels) & counted
    return jnp.average(losses, weights=weights), jnp.sum(hits) / jnp.maximum(jnp.sum(counted), 1)


def _class_weights(asked: str | tuple[float, ...] | None, dataset: Dataset) -> np.ndarray | None:
    """The weight of each class `[k]` float32; None where all count alike."""
    if asked is None:
        return None
    classes = len(dataset.classes)
    if not isinstance(asked, str):
        if len(asked) != classes:
            raise InputError(
                f"train.class_weights must have {classes} numbers, one for each class of {dataset.name}, "
                f"got {len(asked)}"
            )
        return np.array(asked, np.float32)
    counts = np.array(class_counts(dataset.train, classes))
    counts = counts / max(1, counts.sum())  # nothing overflows
    present = counts > 0
    balanced = np.where(present, 1 / np.where(present, counts, 1) / max(1, present.sum()), 0)
    return balanced.astype(np.float32)


def class_counts(split: Split, classes: int) -> list[int]:
    """How many images or pixels of a split have each class, without those whose label is `IGNORE`."""

    def counted() -> list[int]:
        total = np.zeros(classes, np.int64)
        for block in blocks(split.labels):
            known = block[block != IGNORE] if split.ignores else block
            total += np.bincount(known.ravel(), minlength=classes)
        return total.tolist()

    return kept(split.labels, f"counts of {classes} classes", counted)
