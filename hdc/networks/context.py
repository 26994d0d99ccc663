"""`net=context`: a stem, one dilated layer per rate at constant width, and a head."""

from dataclasses import dataclass

from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import in_range, one_of
from hdc.layers import Conv, PointwiseConv, dilated
from hdc.networks.blocks import MAX_WIDTH, NORMS, PADDINGS, Block
from hdc.registry import Images, Signals, Task
from hdc.schedules import DilationSchedule


@dataclass(frozen=True)
class ContextOptions:
    """What can be chosen.

    Attributes:
        width: channels of the stem and of every dilated layer.
        residual: whether each dilated layer's input is added to its output.
        norm: none, batch or group normalisation after every convolution.
        padding: SAME keeps the size of the maps, VALID does not pad.
    """

    width: int = 16
    residual: bool = False
    norm: str = "none"
    padding: str = "SAME"

    def __post_init__(self) -> None:
        in_range("width", self.width, 1, MAX_WIDTH)
        one_of("norm", self.norm, NORMS)
        one_of("padding", self.padding, PADDINGS)


class ContextNetwork(nnx.Module):
    """A 3x3 stem, one dilated layer per rate at constant width and stride 1, and a head.

    The head is a 1x1 convolution for dense prediction, global average pooling and a dense layer
    for classification. The number of parameters depends on the schedule's length alone. For signals,
    kernels have one axis.

    Args:
        schedule: the dilation rates; its kernel size is that of the dilated layers.
        in_channels, classes: channels of the images, number of logits.
        task: "dense" or "classification".
        axes: 2 for images, 1 for signals.
        width, residual, norm, padding: see `ContextOptions`.
        rngs: `params` is used.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        in_channels: int,
        classes: int,
        task: Task,
        axes: int = 2,
        width: int = 16,
        residual: bool = False,
        norm: str = "none",
        padding: str = "SAME",
        rngs: nnx.Rngs,
    ):
        bias = norm == "none"
        stem = Conv(in_channels, width, (3,) * axes, padding=padding, use_bias=bias, rngs=rngs)
        self.stem = Block(stem, width, norm=norm, rngs=rngs)
        blocks = []
        for rate in schedule.layer_rates:
            taps = schedule.kernel_size if axes == 2 else (schedule.kernel_size,)
            conv = dilated(width, width, taps, rate=rate, padding=padding, use_bias=bias, rngs=rngs)
            blocks.append(Block(conv, width, norm=norm, residual=residual, rngs=rngs))
        self.blocks = nnx.List(blocks)
        self.pool = task == "classification"
        self.head = (
            nnx.Linear(width, classes, rngs=rngs)
            if self.pool
            else PointwiseConv(width, classes, axes=axes, rngs=rngs)
        )

    def features(self, x: Array) -> Array:
        """The last feature maps: `[b, h, w, channels]` to `[b, h', w', width]`, or of signals likewise."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x

    def __call__(self, x: Array) -> Array:
        """Logits `[b, h', w', classes]` (dense; of signals `[b, length, classes]`) or `[b, classes]`."""
        x = self.features(x)
        return self.head(x.mean(axis=tuple(range(1, x.ndim - 1))) if self.pool else x)


@registry.network("context", ContextOptions, takes=("images", "signals"))
def context(
    options: ContextOptions, schedule: DilationSchedule, images: Images | Signals, *, rngs: nnx.Rngs
) -> ContextNetwork:
    """A `ContextNetwork` for these images or signals."""
    return ContextNetwork(
        schedule,
        in_channels=images.channels,
        classes=images.classes,
        task=images.task,
        axes=len(images.shape) - 1,
        width=options.width,
        residual=options.residual,
        norm=options.norm,
        padding=options.padding,
        rngs=rngs,
    )
