"""TensorBoard: an event file per seed, in single precision."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hdc import registry
from hdc.lab.records.run import State
from hdc.lab.tracking.track import Point, Track, installed

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter


@registry.tracker("tensorboard")
class TensorBoard:
    """Writes `tensorboard/<label> <run_id>/seed<N>/`, all of it at every start: points cannot be removed."""

    def __init__(self, track: Track):
        self._folder = track.folder / "tensorboard" / f"{track.label} {track.run_id}" / f"seed{track.seed}"
        self._writer: EventFileWriter | None = None

    @staticmethod
    def ready() -> None:
        """As `Tracker.ready`."""
        installed("tensorboard")

    def start(self, points: Sequence[Point]) -> int:
        """As `Tracker.start`."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.end("interrupted")
        for old in self._folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = EventFileWriter(str(self._folder))
        return 0

    def log(self, points: Sequence[Point]) -> None:
        """As `Tracker.log`."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        assert self._writer is not None  # `start` has come before
        for point in points:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
            summary = Summary(value=values)
            self._writer.add_event(Event(wall_time=point.time, step=point.step, summary=summary))
        self._writer.flush()

    def end(self, state: State) -> None:
        """As `Tracker.end`."""
        if self._writer is not None:
            self._writer.close()
