"""`net=lei2019`: the classifier in the figure of Lei, Pan and Huang 2019."""

import math

from flax import nnx
from jax import Array

from hdc.errors import InputError
from hdc.networks.blocks import Block
from hdc.ops import max_pool
from hdc.schedules import DilationSchedule


class Lei2019(nnx.Module):
    """The classifier in the figure of Lei, Pan and Huang 2019 (IEEE Access 7:124087).

    Two stages of convolution and 2x2 max pooling, the second twice as wide, then two fully
    connected layers, each after dropout. The paper gives no widths. A schedule of two rates is
    the paper's network; of a longer one the first stage gets the larger half of the layers.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        image_shape: tuple[int, int, int],
        classes: int,
        width: int = 16,
        separable: bool = False,
        norm: str = "none",
        padding: str = "SAME",
        hidden: int = 128,
        dropout: float = 0.25,
        rngs: nnx.Rngs,
    ):
        rates = schedule.layer_rates
        if len(rates) < 2:
            raise InputError(
                f"net=lei2019 has two convolution stages and needs at least two rates, got {list(rates)}"
            )
        height, pixels_wide, channels = image_shape
        first = math.ceil(len(rates) / 2)
        shrink = (schedule.kernel_size - 1) if padding == "VALID" else 0
        stages = []
        for stage, features in ((rates[:first], width), (rates[first:], 2 * width)):
            blocks = []
            for rate in stage:
                blocks.append(
                    Block(
                        channels,
                        features,
                        schedule.kernel_size,
                        rate=rate,
                        separable=separable,
                        residual=False,
                        norm=norm,
                        padding=padding,
                        rngs=rngs,
                    )
                )
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
