"""MLflow: a run per seed, in the experiment of the study, on the server that MLFLOW_TRACKING_URI names."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hdc import registry
from hdc.lab.records.names import flatten, plain
from hdc.lab.records.run import State
from hdc.lab.tracking.track import Point, Track, installed

if TYPE_CHECKING:
    from mlflow.entities import Run

# MLflow's own patience with a server is of minutes, and it prints lines for every seed.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_METRICS, _PARAMS = 1000, 100  # of one request, at most
_STATUS = {"done": "FINISHED", "failed": "FAILED"}


@registry.tracker("mlflow")
class MLflow:
    """Finds the run of its seed by two tags."""

    def __init__(self, track: Track):
        self._track = track
        self._tags = {"hdc.run_id": track.run_id, "hdc.seed": str(track.seed)}

    @staticmethod
    def ready() -> None:
        """As `Tracker.ready`."""
        installed("mlflow")

    def start(self, points: Sequence[Point]) -> int:
        """As `Tracker.start`."""
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        import mlflow
        from mlflow.entities import Param

        self._client, track = mlflow.MlflowClient(), self._track
        experiment = mlflow.set_experiment(track.study).experiment_id
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in self._tags.items())
        for run in self._client.search_runs([experiment], query):
            count = self._count(run, points)
            if count is not None:
                self._id = run.info.run_id
                self._client.update_run(self._id, status="RUNNING")
                return count
            self._client.delete_run(run.info.run_id)
        start = _milliseconds(points[0].time) if points else None
        tags = {**self._tags, "hdc.schedule": track.label}
        self._id = self._client.create_run(experiment, start, tags, track.name).info.run_id
        config = [Param(key, plain(value)) for key, value in flatten(track.config).items()]
        for first in range(0, len(config), _PARAMS):
            self._client.log_batch(self._id, params=config[first : first + _PARAMS])
        return 0

    def _count(self, run: "Run", points: Sequence[Point]) -> int | None:
        """How many points from the first on a run has; None where it has anything else."""
        there = {
            (name, one.step, one.value)
            for name in run.data.metrics
            for one in self._client.get_metric_history(run.info.run_id, name)
        }
        if not there <= {(name, point.step, v) for point in points for name, v in point.values.items()}:
            return None
        whole = (all((name, one.step, v) in there for name, v in one.values.items()) for one in points)
        return next((count for count, is_whole in enumerate(whole) if not is_whole), len(points))

    def log(self, points: Sequence[Point]) -> None:
        """As `Tracker.log`; what the server has already is not doubled, since it has the same time."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, _milliseconds(point.time), point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for first in range(0, len(metrics), _METRICS):
            self._client.log_batch(self._id, metrics[first : first + _METRICS])

    def end(self, state: State) -> None:
        """As `Tracker.end`."""
        self._client.set_terminated(self._id, _STATUS.get(state, "KILLED"))


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
