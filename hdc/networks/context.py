"""`net=context`: a stem, one dilated layer per rate at constant width, and a head."""

from flax import nnx
from jax import Array

from hdc.layers import PointwiseConv
from hdc.networks.blocks import Block
from hdc.registry import Task
from hdc.schedules import DilationSchedule


class ContextNetwork(nnx.Module):
    """A 3x3 stem, one dilated layer per rate at constant width and stride 1, and a head.

    The head is a 1x1 convolution for dense prediction, global average pooling and a dense layer
    for classification. The number of parameters depends on the schedule's length alone.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        in_channels: int,
        classes: int,
        task: Task,
        width: int = 16,
        separable: bool = False,
        residual: bool = False,
        norm: str = "none",
        padding: str = "SAME",
        rngs: nnx.Rngs,
    ):
        self.stem = Block(
            in_channels,
            width,
            3,
            rate=1,
            separable=False,
            residual=False,
            norm=norm,
            padding=padding,
            rngs=rngs,
        )
        self.blocks = nnx.List(
            Block(
                width,
                width,
                schedule.kernel_size,
                rate=rate,
                separable=separable,
                residual=residual,
                norm=norm,
                padding=padding,
                rngs=rngs,
            )
            for rate in schedule.layer_rates
        )
        dense = task == "dense"
        self.head = (
            PointwiseConv(width, classes, rngs=rngs) if dense else nnx.Linear(width, classes, rngs=rngs)
        )
        self.pool = not dense

    def features(self, x: Array) -> Array:
        """The last feature maps: `[b, h, w, channels]` to `[b, h', w', width]`."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x

    def __call__(self, x: Array) -> Array:
        """Logits `[b, h', w', classes]` (dense) or `[b, classes]`."""
        x = self.features(x)
        return self.head(x.mean(axis=(1, 2)) if self.pool else x)
