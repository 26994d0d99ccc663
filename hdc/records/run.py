"""What a run is to those who read it, wherever it is kept. No JAX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl

from hdc.config import Config

State = Literal["planned", "running", "interrupted", "failed", "done"]

METRICS = {
    "run_id": pl.String,
    "seed": pl.Int64,
    "step": pl.Int64,
    "epoch": pl.Int64,
    "split": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
}

# What `experiments.time` measures of a training step, in seconds and bytes.
TIMES = {"run_id": pl.String, "repeat": pl.Int64, "step_seconds": pl.Float64, "step_bytes": pl.Int64}


class Run(Protocol):
    """One run, in whatever state: of a results folder, or of packed findings."""

    @property
    def config(self) -> Config:
        """All that can change its numbers."""
        ...

    @property
    def run_id(self) -> str:
        """The short hash of the configuration."""
        ...

    @property
    def state(self) -> State:
        """Where the run stands."""
        ...

    @property
    def info(self) -> Mapping[str, Any]:
        """Network, data, versions, device, git and command; empty for a run that never began."""
        ...

    @property
    def failure(self) -> Mapping[str, Any]:
        """Of a failed run: `error`, one line."""
        ...

    @property
    def seconds(self) -> float | None:
        """Wall time of a run that is done, from its start to its end."""
        ...

    def metrics(self) -> pl.DataFrame:
        """The measurements, one a row, columns as `METRICS`; none for a run that never began."""
        ...

    def artifact(self, name: str, seed: int) -> dict[str, np.ndarray]:
        """The arrays saved under `name` for one seed; InputError where they are not there or damaged."""
        ...

    def weights(self, seed: int) -> Path:
        """The file with the trained network of one seed; InputError where it is not there."""
        ...
