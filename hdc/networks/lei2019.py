"""`net=lei2019`: the classifier in the figure of Lei, Pan and Huang 2019."""

import math
from dataclasses import dataclass

from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import InputError, in_range, one_of
from hdc.layers import dilated
from hdc.networks.blocks import MAX_WIDTH, NORMS, PADDINGS, Block
from hdc.ops import max_pool
from hdc.registry import Images
from hdc.schedules import DilationSchedule


@dataclass(frozen=True)
class Lei2019Options:
    """What can be chosen.

    Attributes:
        width: channels of the first stage; the second has twice as many.
        norm: none, batch or group normalisation after every convolution.
        padding: SAME keeps the size of the maps, VALID does not pad.
        hidden: units of the first fully connected layer.
        dropout: share of the units that are dropped before each fully connected layer.
    """

    width: int = 16
    norm: str = "none"
    padding: str = "SAME"
    hidden: int = 128
    dropout: float = 0.25

    def __post_init__(self) -> None:
        in_range("width", self.width, 1, MAX_WIDTH)
        one_of("norm", self.norm, NORMS)
        one_of("padding", self.padding, PADDINGS)
        in_range("hidden", self.hidden, 1, MAX_WIDTH)
        in_range("dropout", self.dropout, 0.0, 0.95)


class Lei2019(nnx.Module):
    """The classifier in the figure of Lei, Pan and Huang 2019 (IEEE Access 7:124087).

    Two stages of convolution and 2x2 max pooling, the second twice as wide, then two fully
    connected layers, each after dropout. The paper gives no widths. A schedule of two rates is
    the paper's network; of a longer one the first stage gets the larger half of the layers.

    Raises:
        InputError: for fewer than two rates, and for images that VALID padding leaves no pixel of.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        image_shape: tuple[int, int, int],
        classes: int,
        width: int = 16,
        norm: str = "none",
        padding: str = "SAME",
        hidden: int = 128,
        dropout: float = 0.25,
        rngs: nnx.Rngs,
    ):
        rates, taps = schedule.layer_rates, schedule.kernel_size
        if len(rates) < 2:
            raise InputError(
                f"net=lei2019 has two convolution stages and needs at least two rates, got {list(rates)}"
            )
        height, pixels_wide, channels = image_shape
        first = math.ceil(len(rates) / 2)
        shrink = taps - 1 if padding == "VALID" else 0
        stages = []
        for stage, features in ((rates[:first], width), (rates[first:], 2 * width)):
            blocks = []
            for rate in stage:
                bias = norm == "none"
                conv = dilated(channels, features, taps, rate=rate, padding=padding, use_bias=bias, rngs=rngs)
                blocks.append(Block(conv, features, norm=norm, rngs=rngs))
                channels, height, pixels_wide = features, height - shrink * rate, pixels_wide - shrink * rate
            stages.append(nnx.List(blocks))
            height, pixels_wide = height // 2, pixels_wide // 2
            if min(height, pixels_wide) < 1:
                raise InputError(
                    f"net=lei2019 with rates {list(rates)} and padding={padding} leaves no pixel of a "
                    f"{image_shape[0]} x {image_shape[1]} image"
                )
        self.stages = nnx.List(stages)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.hidden = nnx.Linear(height * pixels_wide * channels, hidden, rngs=rngs)
        self.head = nnx.Linear(hidden, classes, rngs=rngs)

    def features(self, x: Array) -> Array:
        """The maps before the fully connected layers: `[b, h, w, channels]` to `[b, h/4, w/4, 2 width]`."""
        for stage in self.stages:
            for block in stage:
                x = block(x)
            x = max_pool(x, 2)
        return x

    def __call__(self, x: Array) -> Array:
        """Logits `[b, classes]`."""
        x = self.features(x)
        x = self.dropout(x.reshape(len(x), -1))
        x = self.dropout(nnx.relu(self.hidden(x)))
        return self.head(x)


@registry.network("lei2019", Lei2019Options)
def lei2019(
    options: Lei2019Options, schedule: DilationSchedule, images: Images, *, rngs: nnx.Rngs
) -> Lei2019:
    """A `Lei2019` for these images; InputError for dense prediction."""
    if images.task != "classification":
        raise InputError(
            "net=lei2019 gives one label per image and the data has one per pixel: "
            "use net=context, or a classification set such as data=terrain_patches"
        )
    return Lei2019(
        schedule,
        image_shape=(images.height, images.width, images.channels),
        classes=images.classes,
        width=options.width,
        norm=options.norm,
        padding=options.padding,
        hidden=options.hidden,
        dropout=options.dropout,
        rngs=rngs,
    )
