"""The networks of a configuration for tests, without a data set."""

from typing import Any

from flax import nnx

from hdc import layers
from hdc.lab import parts
from hdc.lab.config import from_dict
from hdc.networks import ContextNetwork
from hdc.registry import Images, Task
from hdc.schedules import DilationSchedule


def build(
    options: dict[str, Any],
    schedule: DilationSchedule,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    task: Task,
    rngs: nnx.Rngs,
) -> Any:
    """The network of `net` options and a schedule, as a run of theirs makes it."""
    rates = {"rates": list(schedule.rates), "repeat": schedule.repeat}
    config = from_dict({"net": {**options, "kernel_size": schedule.kernel_size}, "schedule": rates})
    return parts.network(config, Images(*image_shape, classes, task), rngs=rngs)


def context(schedule: DilationSchedule, *, separable: bool = False, **keywords: Any) -> ContextNetwork:
    """A context network, of depthwise separable layers where asked for."""
    with layers.layer("separable" if separable else "standard"):
        return ContextNetwork(schedule, **keywords)
