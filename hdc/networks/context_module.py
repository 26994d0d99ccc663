"""`net=context_module`: the context module of Yu and Koltun 2016 behind a small front end."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import InputError, in_range, one_of
from hdc.layers import Conv, PointwiseConv, dilated
from hdc.networks.blocks import MAX_WIDTH, Block, check_rates, padded, per_pixel, refuse_small, resized
from hdc.registry import Images
from hdc.schedules import DilationSchedule

WIDTHS = {
    "none": (),
    "basic": (1,),
    "large": (2, 2, 4, 8, 16, 32, 32),
}  # of dilated layers, times the classes
STRIDES = (1, 2, 4, 8)
PUBLISHED = (1, 1, 2, 4, 8, 16, 1)
NOISE = 0.01  # of the large module's start, as a share of the weights that pass maps on


@dataclass(frozen=True)
class ContextModuleOptions:
    """What can be chosen.

    Attributes:
        width: channels of the front end.
        output_stride: image pixels from one pixel of the front end's maps to the next: 1, 2, 4 or 8.
        module: "basic" has as many channels as there are classes, "large" up to 32 times as many; with
            "none" the front end predicts alone.
        identity: whether the module starts as the identity, see `ContextModule`; otherwise He-normal.
    """

    width: int = 16
    output_stride: int = 1
    module: str = "basic"
    identity: bool = True

    def __post_init__(self) -> None:
        in_range("width", self.width, 1, MAX_WIDTH)
        one_of("output_stride", self.output_stride, STRIDES)
        one_of("module", self.module, tuple(WIDTHS))


class ContextModule(nnx.Module):
    """The context module of Yu and Koltun 2016 (arXiv 1511.07122), table 1, behind a small front end.

    The front end has three 3x3 layers, the first ones with a stride of 2 where there is an output stride, and
    a 1x1 convolution to the classes. It stands for the paper's, which is VGG-16. The module takes these maps:
    a dilated layer with ReLU for each rate (published: 1, 1, 2, 4, 8, 16, 1), then a 1x1 convolution. Logits
    are interpolated to the size of the images. The paper pads the maps once, by 33 pixels, and trains the
    front end first; here each layer pads its own input, and all layers are trained together.

    With `identity`, the module starts by passing on the front end's maps, cut at 0 by the ReLU. For C
    classes, a kernel from c channels to d is C / d at its centre, between channels a and b with
    floor(a C / c) = floor(b C / d): in the basic module, 1 from each channel to itself. Elsewhere it is 0, in
    the large module normal noise of 0.01 C / d. Biases start at 0.

    Args:
        schedule: the module's rates, with their kernel size; the single rate 1 without a module.
        in_channels, classes: channels of the images, number of logits.
        width, output_stride, module, identity: see `ContextModuleOptions`.
        rngs: `params` is used.

    Raises:
        InputError: for rates that the module does not take, and for layers that cannot start as the identity.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        in_channels: int,
        classes: int,
        width: int = 16,
        output_stride: int = 1,
        module: str = "basic",
        identity: bool = True,
        rngs: nnx.Rngs,
    ):
        rates = schedule.layer_rates
        _check_rates(schedule, module)
        self.output_stride = output_stride
        front, channels = [], in_channels
        for number in range(3):
            stride = 2 if output_stride > 1 << number else 1
            front.append(padded(channels, width, stride=stride, use_bias=True, rngs=rngs))
            channels = width
        self.front = nnx.List(front)
        self.scores = None if module == "none" else PointwiseConv(width, classes, rngs=rngs)
        times = WIDTHS[module] if module != "basic" else WIDTHS[module] * len(rates)
        self.blocks = nnx.List()
        channels = classes
        for rate, more in zip(rates, times, strict=False):
            conv = dilated(channels, more * classes, schedule.kernel_size, rate=rate, rngs=rngs)
            self.blocks.append(Block(conv, more * classes, norm="none", rngs=rngs))
            channels = more * classes
        self.head = PointwiseConv(width if self.scores is None else channels, classes, rngs=rngs)
        if identity and self.scores is not None:
            for layer in (*(block.conv for block in self.blocks), self.head):
                _start_as_identity(layer, classes, NOISE if module == "large" else 0)

    def features(self, x: Array) -> Array:
        """The maps before the last 1x1 convolution: `[b, h, w, channels]` to `[b, h', w', c]`.

        Sides are those of the images divided by the output stride, rounded up. c is the width of the module's
        last dilated layer, or of the front end where there is no module.
        """
        refuse_small(x, self.output_stride)
        for layer in self.front:
            x = layer(x, relu=True)
        if self.scores is not None:
            x = self.scores(x)
        for block in self.blocks:
            x = block(x)
        return x

    def __call__(self, x: Array) -> Array:
        """Logits `[b, h, w, classes]`."""
        return resized(self.head(self.features(x)), x)


def _check_rates(schedule: DilationSchedule, module: str) -> None:
    """InputError unless the module has a layer for each rate."""
    if module == "none" and schedule.layer_rates != (1,):
        raise InputError(
            f"net.module=none has no dilated layers, but the schedule is {schedule.label}: "
            "give schedule.repeat=1 'schedule.rates=[1]'"
        )
    if module == "large":
        check_rates(schedule, PUBLISHED, "net.module=large")


def _start_as_identity(layer: nnx.Module, classes: int, noise: float) -> None:
    """Overwrite a layer's kernel; its own start, of variance 2 / fan-in, becomes the noise."""
    if not isinstance(layer, Conv):
        raise InputError(
            "net.identity=true is for layers of net.layer=standard: give net.identity=false for others"
        )
    *taps, ins, outs = layer.kernel.shape
    alike = np.zeros(layer.kernel.shape, np.float32)
    alike[*(count // 2 for count in taps)] = (
        np.arange(ins)[:, None] * classes // ins == np.arange(outs) * classes // outs
    )
    spread = np.float32(noise * math.sqrt(math.prod(taps) * ins / 2))
    passed_on = np.float32(classes / outs)
    noisy = jnp.asarray(passed_on * spread * (1 - alike)) * layer.kernel[...]
    layer.kernel.set_value(noisy + passed_on * alike)


@registry.network("context_module", ContextModuleOptions)
def context_module(
    options: ContextModuleOptions, schedule: DilationSchedule, images: Images, *, rngs: nnx.Rngs
) -> ContextModule:
    """A `ContextModule` for these images; InputError for one label per image."""
    per_pixel("context_module", images)
    return ContextModule(
        schedule,
        in_channels=images.channels,
        classes=images.classes,
        width=options.width,
        output_stride=options.output_stride,
        module=options.module,
        identity=options.identity,
        rngs=rngs,
    )
