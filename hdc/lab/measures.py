"""Measures of our own that are taken only where a configuration names them in `measures`."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from hdc import registry
from hdc.errors import InputError
from hdc.lab.data.dataset import IGNORE
from hdc.lab.data.stream import read_ahead

_BATCH = 256


@registry.measure("train_accuracy")
def train_accuracy(trained: Any, images: np.ndarray) -> dict[str, float]:
    """Accuracy of the trained network on its own training split, in evaluation: without dropout.

    The accuracy that is logged while training is that of networks that still change, dropout included.
    """
    assert trained.dataset is not None  # a measure is taken where the network was trained
    split = trained.dataset.train
    if trained.dataset.task == "regression":
        raise InputError("measures=[train_accuracy] is for classes, not for regression")
    groups = np.array_split(np.arange(len(split)), -(-len(split) // _BATCH))
    found = sum(
        np.array(_counts()(trained.model, trained.normalise(some), labels))
        for some, labels in read_ahead([split.images, split.labels], groups)
    )
    right, counted = np.asarray(found).tolist()
    return {"train_accuracy": right / counted}


@cache
def _counts() -> Callable[..., Any]:
    """The compiled function that counts the right ones and all: per pixel where the labels are maps."""
    import jax.numpy as jnp
    from flax import nnx

    from hdc.layers import crop

    @nnx.jit
    def counts(model: nnx.Module, images: Any, labels: Any) -> tuple[Any, Any]:
        found = jnp.argmax(model(images), axis=-1)  # type: ignore[operator]
        counted = jnp.ones(labels.shape, bool)
        if labels.ndim > 1:
            labels = crop(labels, *found.shape[1:])
            counted = labels != IGNORE
        return jnp.sum((found == labels) & counted), jnp.sum(counted)

    return counts
