"""Measures of our own that are taken only where a configuration names them in `measures`."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hdc import registry

if TYPE_CHECKING:
    from hdc.lab.trained import Trained


@registry.measure("train_accuracy")
def train_accuracy(trained: "Trained", images: np.ndarray) -> dict[str, float]:
    """Accuracy of the trained network on its own training split, in evaluation: without dropout.

    The accuracy that is logged while training is that of networks that still change, dropout included.
    """
    from flax import nnx

    from hdc.lab import metrics
    from hdc.lab.experiment import data_of

    dataset = data_of(trained.config.data)
    graph, state = nnx.split(trained.model)
    evaluate = _evaluator(graph, trained.normalise, len(dataset.classes))
    return {"train_accuracy": metrics.accuracy(evaluate(state, dataset.train).confusion)}


@lru_cache(maxsize=1)
def _evaluator(graph: Any, normalise: Any, classes: int) -> Any:
    """That of a run: compiled once for all of its seeds."""
    from hdc.lab import metrics

    return metrics.evaluator(graph, normalise, classes)
