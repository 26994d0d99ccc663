"""Seconds and planned memory of training steps, measured alternately in one process."""

import math
import time
from collections.abc import Sequence

import polars as pl

from hdc import ops
from hdc.lab import parts, signals
from hdc.lab.config import Config
from hdc.lab.data.dataset import Dataset
from hdc.lab.records.run import TIMES, Run
from hdc.lab.training import Step, Trainer

_LOOP = 0.05  # seconds


def measure(runs: Sequence[Run], repeats: int) -> pl.DataFrame:
    """Seconds and bytes of a step of each run: one row per run and repeat, columns as in `run.TIMES`.

    Every round measures each program once, so that other load on the machine affects all alike. A measurement
    is the mean of as many consecutive steps as fill 50 ms, after the same number of untimed steps. Runs with
    the same compiled step, such as those that differ only in seeds or training images, share a measurement.

    Raises:
        InputError: if configuration and data do not fit each other; nothing is measured then.
    """
    programs: dict[tuple, Step] = {}
    keys = {}
    for run in runs:
        dataset = _few(run.config)
        keys[run.run_id] = key = _program(run.config, dataset)
        if key not in programs:
            with ops.backend(run.config.ops.backend), signals.deferred():
                programs[key] = Trainer(run.config, dataset).step_program()
    seconds = {key: [] for key in programs}
    counts = {key: math.ceil(_LOOP / _seconds(step, 3)) for key, step in programs.items()}
    for _ in range(repeats):
        for key, step in programs.items():
            _seconds(step, counts[key])  # warms caches and threads up
            seconds[key].append(_seconds(step, counts[key]))
    rows = [
        (run.run_id, repeat, taken, programs[keys[run.run_id]].bytes)
        for run in runs
        for repeat, taken in enumerate(seconds[keys[run.run_id]])
    ]
    return pl.DataFrame(rows, schema=TIMES, orient="row")


def _seconds(step: Step, count: int) -> float:
    """Mean seconds of `count` consecutive steps."""
    start = time.perf_counter()
    for _ in range(count):
        step.take()
    return (time.perf_counter() - start) / count


def _few(config: Config) -> Dataset:
    """The data set with only as many training images as needed, since every program keeps a copy."""
    most = len(parts.dataset(config.data).train)
    count = min(most, config.train.batch_size * (getattr(config.optim, "warmup_steps", 0) + 1))
    return parts.dataset(config.data.with_option("train_size", count))


def _program(config: Config, dataset: Dataset) -> tuple:
    """Everything that a compiled step depends on."""
    labels = dataset.train.labels.shape[1:]
    return (
        *(dataset.image_shape, dataset.train.images.dtype, labels, len(dataset.classes)),
        *(dataset.train.ignores, config.data.flips),
        *(config.net, config.dilation.layer_rates, config.optim, config.train.batch_size, config.ops),
    )
