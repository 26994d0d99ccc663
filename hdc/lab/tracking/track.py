"""What a tracker gets: for each seed of a run its measurements, a point per step."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from hdc import registry
from hdc.errors import InputError
from hdc.lab.records.run import Run, State


@dataclass(frozen=True)
class Point:
    """All that was measured of one seed after one training step.

    Attributes:
        step: of training.
        time: seconds since 1970, from the start of the run and the wall time of its epochs.
        values: by name, such as `validation/loss`, and `epoch`.
    """

    step: int
    time: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Track:
    """One seed of a run.

    Attributes:
        study, run_id, seed: of the records.
        label: of the run's schedule.
        config: of the run, nested.
        folder: of the study, where a tracker without a server makes a folder of its own.
    """

    study: str
    run_id: str
    seed: int
    label: str
    config: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """Such as `1-2-5x2 seed 0`."""
        return f"{self.label} seed {self.seed}"


class Tracker(Protocol):
    """Where a track is sent. An exception of its methods is reported, and costs the run nothing.

    Registered with `hdc.registry.tracker(NAME)` as a class that is called with a `Track`, which must not
    take long; the methods may, since they are called in a thread of their own.
    """

    @staticmethod
    def ready() -> None:
        """Raise InputError where the tracker cannot be used; called before training."""
        ...

    def start(self, points: Sequence[Point]) -> int:
        """Open the track, or continue one that was sent before, and return how many of `points` it has.

        It must hold nothing else: where it does, it is replaced. Called again after an exception.
        """
        ...

    def log(self, points: Sequence[Point]) -> None:
        """Add points; called again with the same ones after an exception."""
        ...

    def end(self, state: State) -> None:
        """Close the track of a run that is done, failed or interrupted."""
        ...


def installed(name: str) -> None:
    """Raise InputError unless the package of that name is there, which is also an extra of ours."""
    if find_spec(name) is None:
        raise InputError(f"track={name}: {name} is not installed: pip install 'hdc-jax[{name}]'")


def tracks(run: Run, study: str, folder: Path) -> list[Track]:
    """The tracks of a run, one per seed."""
    config = run.config.to_dict()
    return [
        Track(study, run.run_id, seed, run.config.dilation.label, config, folder) for seed in run.config.seeds
    ]


class Sender:
    """Sends the measurements of a run to a tracker, those that it has not sent before.

    Args:
        name: of the tracker.
        tracks: of the run.

    Raises:
        InputError: where there is no such tracker.
    """

    def __init__(self, name: str, tracks: Sequence[Track]):
        self._make, self._tracks = registry.find("tracker", name).make, tracks
        self._trackers: dict[int, Tracker] = {}  # by seed, once it has been started
        self._counts: dict[int, int] = {}  # of points that it has

    def send(self, run: Run, measured: pl.DataFrame, state: State | None) -> None:
        """Send what is new. A seed without measurements has no track, but for the first.

        Args:
            run: whose measurements they are.
            measured: all so far.
            state: of a run that has ended.

        Raises:
            Exception: whatever the tracker raises. Then call this again.
        """
        found = points(run, measured)
        for track in self._tracks:
            own, seed = found.get(track.seed, []), track.seed
            if seed not in self._trackers and (own or not self._trackers):
                tracker = self._make(track)
                self._counts[seed] = tracker.start(own)
                self._trackers[seed] = tracker
            if seed in self._trackers:
                self._trackers[seed].log(own[self._counts[seed] :])
                self._counts[seed] = len(own)
                if state is not None:
                    self._trackers[seed].end(state)


def points(run: Run, measured: pl.DataFrame) -> dict[int, list[Point]]:
    """The points of each seed that has any, in order; values that are not finite are left out.

    Args:
        measured: the run's measurements, or the first of them.
    """
    started = run.info.get("started")  # packed findings have no dates
    start = time.time() if started is None else datetime.fromisoformat(started).timestamp()
    found: dict[int, dict[int, dict[str, float]]] = {}
    for seed, step, epoch, split, metric, value in measured.drop("run_id").iter_rows():
        values = found.setdefault(seed, {}).setdefault(step, {"epoch": epoch})
        if value is not None:
            values[f"{split}/{metric}"] = value
    ordered = {}
    for seed, steps in found.items():
        ordered[seed], at = [], start
        for step, values in sorted(steps.items()):
            at += values.get("train/seconds", 0.0)
            ordered[seed].append(Point(step, at, values))
    return ordered
