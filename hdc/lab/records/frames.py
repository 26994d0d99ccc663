"""The measurements of many runs as one data frame, parsed in batches. No JAX."""

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import polars as pl

from hdc.lab.records.live import RunFolder
from hdc.lab.records.run import METRICS, Run

_BATCH = 2**24  # bytes of files to parse at once


def frame(runs: Sequence[Run]) -> pl.DataFrame:
    """The measurements of all runs, each with the run's `state` and its schedule's `label` and `kind`."""
    schedules = [run.config.dilation for run in runs]
    about = pl.DataFrame(
        {
            "state": [run.state for run in runs],
            "label": [schedule.label for schedule in schedules],
            "kind": [schedule.kind for schedule in schedules],
        },
        schema=dict.fromkeys(("state", "label", "kind"), pl.String),
    )
    parts = [part.drop("run").hstack(about[part["run"]]) for part in measurements(runs)]
    return pl.concat([pl.DataFrame(schema=METRICS | about.schema), *parts])


def measurements(runs: Sequence[Run]) -> Iterator[pl.DataFrame]:
    """The measurements of all runs in order, many runs per frame.

    Returns:
        Frames with the columns of `METRICS` and `run`, the run's position in `runs`.

    Raises:
        InputError: naming the file that is damaged.
    """
    start, size = 0, 0
    contents: list[bytes] = []
    for place, run in enumerate(runs):
        contents.append(run.lines() if isinstance(run, RunFolder) else b"")
        size += len(contents[-1])
        if size > _BATCH or place == len(runs) - 1:
            yield _parsed(runs[start : place + 1], contents, start)
            start, size, contents = place + 1, 0, []


def _parsed(runs: Sequence[Run], contents: Sequence[bytes], start: int) -> pl.DataFrame:
    lines = [content.count(b"\n") for content in contents]
    found = None
    if any(lines):
        with suppress(pl.exceptions.PolarsError):  # the damaged file is found and named below
            found = pl.read_ndjson(io.BytesIO(b"".join(contents)), schema=METRICS)
    expected = _repeated([run.run_id for run in runs], lines)
    if found is None or not found["run_id"].equals(expected) or not _planned(found, runs):
        parts = [run.metrics() for run in runs]  # packed, damaged, or copied from another run: one by one
        found, lines = pl.concat(parts), [part.height for part in parts]
    return found.with_columns(_repeated(range(start, start + len(runs)), lines).alias("run"))


def _planned(found: pl.DataFrame, runs: Sequence[Run]) -> bool:
    """Whether every measurement is complete and belongs to a seed of its run."""
    seeds = {(run.run_id, seed) for run in runs for seed in run.config.seeds}
    missing = sum(found.drop("value").null_count().row(0))
    return not missing and set(found.select("run_id", "seed").unique().iter_rows()) <= seeds


def _repeated(values: Sequence[object], times: Sequence[int]) -> pl.Series:
    return pl.Series(values)[np.repeat(np.arange(len(times)), times)]
