"""`net=fcn`: a residual network and a convolutional head at every pixel of its last map."""

from typing import Any

from flax import nnx
from jax import Array

from hdc import registry
from hdc.layers import Conv, PointwiseConv
from hdc.networks.blocks import ConvNorm, per_pixel, resized
from hdc.networks.resnet import Encoder, ResnetOptions, encoder_keys
from hdc.registry import Images
from hdc.schedules import DilationSchedule


class FCN(nnx.Module):
    """Logits for every pixel by a 3x3 and a 1x1 convolution of a residual network's last map.

    Long, Shelhamer and Darrell 2015 (arXiv 1411.4038), with the encoder and the head that torchvision has: a
    quarter of the encoder's channels, dropout of 0.1, interpolated to the size of the images.

    Args:
        schedule, encoder: see `hdc.networks.resnet.Encoder`.
        classes: number of logits.
        rngs: `params` and `dropout` are used.
    """

    def __init__(self, schedule: DilationSchedule, *, classes: int, rngs: nnx.Rngs, **encoder: Any):
        self.backbone = Encoder(schedule, rngs=rngs, **encoder)
        channels = self.backbone.widths[-1]
        width = max(1, channels // 4)
        self.last = ConvNorm(Conv(channels, width, use_bias=False, rngs=rngs), width, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.classes = PointwiseConv(width, classes, rngs=rngs)

    @property
    def torch_names(self) -> dict[str, str]:
        """What torchvision calls the modules whose names differ."""
        return {"last.conv": "classifier.0", "last.norm": "classifier.1", "classes": "classifier.4"}

    def features(self, x: Array) -> Array:
        """The last feature maps, at the output stride: `[b, h, w, c]` to `[b, h', w', channels]`."""
        return self.last(self.backbone.features(x))

    def __call__(self, x: Array) -> Array:
        """Logits `[b, h, w, classes]`."""
        return resized(self.classes(self.dropout(self.features(x))), x)


@registry.network("fcn", ResnetOptions)
def fcn(options: ResnetOptions, schedule: DilationSchedule, images: Images, *, rngs: nnx.Rngs) -> FCN:
    """An `FCN` for these images."""
    per_pixel("fcn", images)
    return FCN(schedule, classes=images.classes, rngs=rngs, **encoder_keys(options, images))
