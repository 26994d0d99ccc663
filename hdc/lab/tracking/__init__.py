"""Trackers: services that show a run's measurements beside those of other programs. No JAX.

The records are the truth; a tracker gets copies of them, while a run is trained or afterwards. Each seed of a
run is one track, under a name that is the same whenever it is sent.
"""

import hdc.lab.tracking.mlflow
import hdc.lab.tracking.tensorboard
import hdc.lab.tracking.wandb  # noqa: F401
from hdc import registry
from hdc.lab.tracking.listener import NONE, Listener
from hdc.lab.tracking.track import Point, Sender, Track, Tracker, points, tracks


def require(name: str) -> None:
    """Check that `track=NAME` can be used.

    Raises:
        InputError: for an unknown tracker, or one that is not installed or not set up.
    """
    if name != NONE:
        ready = getattr(registry.find("tracker", name).make, "ready", None)
        if ready is not None:
            ready()


__all__ = ["NONE", "Listener", "Point", "Sender", "Track", "Tracker", "points", "require", "tracks"]
