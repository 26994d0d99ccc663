"""The objectives of a search over schedules, on the validation split: quality up, gridding down.

Gridding is the ripple of the trained network's effective receptive field, as measured. The predicted ripple
is known without training, so `hdc search` finds its best schedules exhaustively.
"""

import math

import numpy as np
from flax import nnx
from rich.console import Console

from hdc import gridding, ops
from hdc.errors import InputError
from hdc.lab import experiment
from hdc.lab import trained as networks
from hdc.lab.launchers import trials
from hdc.lab.records import RunFolder


def of(run: RunFolder, console: Console) -> tuple[float, float] | None:
    """The objectives of a run, for Optuna; None with a printed reason makes it a failed trial."""
    if run.state != "done":
        return None
    try:
        return measure(run)
    except InputError as error:
        text = f"{run.config.dilation.label} ({run.run_id}): failed in the search: {error}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        return None


def measure(run: RunFolder) -> tuple[float, float]:
    """Quality and ERF ripple in dB of a finished run, each the mean over its seeds.

    Quality is taken from the last epoch. The ripple is measured with the trained weights on
    `gridding.images` images, evenly spread over the split.

    Raises:
        InputError: if records or weights are missing or damaged, or an objective is not finite.
    """
    config = run.config
    dataset = experiment.data_of(config.data)
    column = trials.quality_column(dataset.task)
    images = dataset.validation.images
    images = images[experiment.spread(len(images), config.gridding.images)]
    ripples = []
    for seed in config.seeds:
        trained = networks.load(run, seed)
        graph, state = nnx.split(trained.model)
        with ops.backend(config.ops.backend):
            erf = gridding.effective_receptive_field(graph, state, trained.normalise, images)
        ripples.append(gridding.ripple(erf, config.gridding.max_period).peak)
    values = {column: _last(run, column), "validation ERF ripple": float(np.mean(ripples))}
    for name, value in values.items():
        if not math.isfinite(value):
            raise InputError(f"{run.folder}: its {name} is not a number")
    good, ripple = values.values()
    return good, ripple


def _last(run: RunFolder, column: str) -> float:
    """A column's mean over seeds in the last epoch; NaN if a seed has no value."""
    split, metric = column.split("/")
    rows = run.metrics().filter(split=split, metric=metric, epoch=run.config.train.epochs)
    values = rows["value"].to_list()
    if len(values) != len(run.config.seeds) or None in values:
        return math.nan
    return float(np.mean(values))
