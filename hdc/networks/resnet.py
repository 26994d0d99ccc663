"""`net=resnet`: residual networks of 18 to 152 layers, with an output stride and rates for late layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import InputError, in_range, one_of
from hdc.layers import Conv, PointwiseConv, dilated, normalised
from hdc.networks.blocks import MAX_WIDTH, batch_norm, check_rates, padded, refuse_small, resized, scaled
from hdc.ops import max_pool
from hdc.registry import Images, Task
from hdc.schedules import DilationSchedule

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STEMS = {"imagenet": 4, "small": 1}  # the output stride of each


@dataclass(frozen=True)
class ResnetOptions:
    """What can be chosen.

    Attributes:
        depth: 18 or 34, of basic blocks, or 50, 101 or 152, of bottlenecks.
        output_stride: input pixels from one pixel of the last map to the next. Later strides are left out.
        stem: "imagenet" is a 7x7 convolution and max pooling, each of stride 2; "small", for small images, a
            3x3 convolution.
        width_multiplier: of the number of channels everywhere; 1 is as published, 64 in the first stage.
        weights: a safetensors file with weights of torchvision or timm to start from, see
            `hdc.lab.pretrained`.
    """

    depth: int = 18
    output_stride: int = 8
    stem: str = "imagenet"
    width_multiplier: float = 1.0
    weights: str | None = None

    def __post_init__(self) -> None:
        one_of("depth", self.depth, tuple(DEPTHS))
        one_of("stem", self.stem, tuple(STEMS))
        start = STEMS[self.stem]
        strides = tuple(start * 2**stage for stage in range(4))
        if self.output_stride not in strides:
            raise InputError(
                f"output_stride={self.output_stride} is not possible with stem={self.stem}: "
                f"it has {', '.join(map(str, strides))}"
            )
        in_range("width_multiplier", self.width_multiplier, 1 / 64, MAX_WIDTH / 2048)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut; `rates` has one for each.

    Args:
        in_features, features: channels in and out.
        stride: of the first convolution and of the shortcut.
        rates: dilation rates of the two convolutions.
        kernel_size: of both.
        late: whether they are made as `net.layer` says.
        rngs: `params` is used.
    """

    expansion: ClassVar[int] = 1
    layers: ClassVar[int] = 2  # that take a rate

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        stride: int,
        rates: Sequence[int],
        kernel_size: int = 3,
        late: bool = True,
        rngs: nnx.Rngs,
    ):
        first, second = rates
        self.conv1 = _conv(in_features, features, kernel_size, stride, first, late, rngs)
        self.bn1 = batch_norm(features, rngs)
        self.conv2 = _conv(features, features, kernel_size, 1, second, late, rngs)
        self.bn2 = batch_norm(features, rngs)
        self.downsample = _shortcut(in_features, features, stride, rngs)

    def __call__(self, x: Array) -> Array:
        y = self.conv2(normalised(self.bn1, self.conv1(x)))
        return normalised(self.bn2, y, residual=_shortcut_of(self, x))


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; `features` out are 4 times as many. See `BasicBlock`.

    The stride is that of the 3x3 convolution, as in torchvision and timm; He et al. have it in the first 1x1.
    """

    expansion: ClassVar[int] = 4
    layers: ClassVar[int] = 1

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        stride: int,
        rates: Sequence[int],
        kernel_size: int = 3,
        late: bool = True,
        rngs: nnx.Rngs,
    ):
        (rate,) = rates
        self.conv1 = PointwiseConv(in_features, features, use_bias=False, rngs=rngs)
        self.bn1 = batch_norm(features, rngs)
        self.conv2 = _conv(features, features, kernel_size, stride, rate, late, rngs)
        self.bn2 = batch_norm(features, rngs)
        self.conv3 = PointwiseConv(features, 4 * features, use_bias=False, rngs=rngs)
        self.bn3 = batch_norm(4 * features, rngs)
        self.downsample = _shortcut(in_features, 4 * features, stride, rngs)

    def __call__(self, x: Array) -> Array:
        y = normalised(self.bn2, self.conv2(normalised(self.bn1, self.conv1(x))))
        return normalised(self.bn3, self.conv3(y), residual=_shortcut_of(self, x))


class Encoder(nnx.Module):
    """The stem and four stages of a residual network: `[b, h, w, c]` to `[b, h', w', widths[-1]]`.

    He, Zhang, Ren and Sun 2016 (arXiv 1512.03385); the output stride after Chen et al. 2017 (arXiv
    1706.05587): beyond it, stages have a stride of 1. The names are those of torchvision's modules.

    Args:
        schedule: a rate for each layer of the last two stages, see `usual_rates`, and their kernel size.
        in_channels: channels of the images.
        depth, output_stride, stem, width_multiplier: see `ResnetOptions`.
        rngs: `params` is used.

    Attributes:
        widths: channels of the last map of each stage.
        output_stride: as above.

    Raises:
        InputError: for another number of rates.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        in_channels: int,
        depth: int = 18,
        output_stride: int = 8,
        stem: str = "imagenet",
        width_multiplier: float = 1.0,
        rngs: nnx.Rngs,
    ):
        ResnetOptions(depth, output_stride, stem, width_multiplier)
        block = block_of(depth)
        check_rates(schedule, usual_rates(depth, output_stride, stem), f"a residual network of depth {depth}")
        channels = scaled(64, width_multiplier)
        self.conv1 = (
            padded(in_channels, channels, 7, stride=2, rngs=rngs)
            if stem == "imagenet"
            else Conv(in_channels, channels, use_bias=False, rngs=rngs)
        )
        self.bn1 = batch_norm(channels, rngs)
        self.pooled = stem == "imagenet"
        self.output_stride = output_stride
        self.widths: tuple[int, ...] = ()
        rates, reached = list(schedule.layer_rates), STEMS[stem]
        for stage, count in enumerate(DEPTHS[depth]):
            late = stage >= 2
            width, blocks = scaled(64 << stage, width_multiplier), []
            for number in range(count):
                stride = 1
                if stage > 0 and number == 0 and reached < output_stride:
                    stride, reached = 2, 2 * reached
                own = [rates.pop(0) if late else 1 for _ in range(block.layers)]
                kernel_size = schedule.kernel_size if late else 3
                blocks.append(
                    block(
                        *(channels, width),
                        **{"stride": stride, "rates": own, "kernel_size": kernel_size},
                        late=late,
                        rngs=rngs,
                    )
                )
                channels = block.expansion * width
            setattr(self, f"layer{stage + 1}", nnx.List(blocks))
            self.widths += (channels,)

    def maps(self, x: Array) -> list[Array]:
        """The last map of each stage."""
        refuse_small(x, self.output_stride)
        x = normalised(self.bn1, self.conv1(x))
        if self.pooled:
            x = max_pool(x, 3, strides=2, padding=((1, 1), (1, 1)))
        found = []
        for stage in range(1, 5):
            for block in getattr(self, f"layer{stage}"):
                x = block(x)
            found.append(x)
        return found

    def features(self, x: Array) -> Array:
        """The last feature maps: `[b, h, w, c]` to `[b, h', w', widths[-1]]`, at the output stride."""
        return self.maps(x)[-1]


class ResNet(Encoder):
    """An `Encoder` and a linear head: after the mean over the map, or at every pixel, interpolated.

    Args:
        classes: number of logits.
        task: "classification"; or "dense" or "regression", where the head's map is interpolated to the size
            of the images (bilinear, as PyTorch without `align_corners`).
        schedule, in_channels, depth, output_stride, stem, width_multiplier, rngs: see `Encoder`.
    """

    def __init__(
        self, schedule: DilationSchedule, *, classes: int, task: Task, rngs: nnx.Rngs, **encoder: Any
    ):
        super().__init__(schedule, rngs=rngs, **encoder)
        self.whole = task == "classification"
        self.fc = nnx.Linear(self.widths[-1], classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Logits `[b, classes]`, or `[b, h, w, classes]`."""
        y = self.features(x)
        return self.fc(y.mean(axis=(1, 2))) if self.whole else resized(self.fc(y), x)


def usual_rates(depth: int, output_stride: int, stem: str = "imagenet") -> tuple[int, ...]:
    """The rates of the last two stages, layer by layer, that see what the network with all strides sees.

    Where a stage has no stride, its rate is twice that of the stage before, from its second layer on: as in
    torchvision and DRN-A.

    >>> usual_rates(50, 8)
    (1, 2, 2, 2, 2, 2, 2, 4, 4)
    >>> usual_rates(18, 16)
    (1, 1, 1, 1, 1, 2, 2, 2)
    """
    reached, rate, rates = STEMS[stem], 1, []
    for stage, count in enumerate(DEPTHS[depth]):
        before = rate
        if stage > 0 and reached < output_stride:
            reached *= 2
        elif stage > 0:
            rate *= 2
        if stage >= 2:
            rates += [before] + [rate] * (count * block_of(depth).layers - 1)
    return tuple(rates)


def block_of(depth: int) -> type[BasicBlock] | type[Bottleneck]:
    """The kind of block of a residual network of that depth."""
    return BasicBlock if depth < 50 else Bottleneck


def _conv(
    in_features: int, features: int, kernel_size: int, stride: int, rate: int, late: bool, rngs: nnx.Rngs
) -> Any:
    if not late:
        return padded(in_features, features, kernel_size, stride=stride, rngs=rngs)
    sides = (rate * (kernel_size // 2),) * 2
    padding = "SAME" if stride == 1 else (sides, sides)
    return dilated(
        *(in_features, features, kernel_size),
        **{"rate": rate, "strides": stride, "padding": padding, "use_bias": False},
        rngs=rngs,
    )


def _shortcut(in_features: int, features: int, stride: int, rngs: nnx.Rngs) -> nnx.List | None:
    if stride == 1 and in_features == features:
        return None
    conv = Conv(in_features, features, 1, strides=stride, padding="VALID", use_bias=False, rngs=rngs)
    return nnx.List([conv, batch_norm(features, rngs)])


def _shortcut_of(block: BasicBlock | Bottleneck, x: Array) -> Array:
    if block.downsample is None:
        return x
    conv, norm = block.downsample
    return normalised(norm, conv(x), relu=False)


@registry.network("resnet", ResnetOptions)
def resnet(options: ResnetOptions, schedule: DilationSchedule, images: Images, *, rngs: nnx.Rngs) -> ResNet:
    """A `ResNet` for these images."""
    return ResNet(
        schedule, classes=images.classes, task=images.task, rngs=rngs, **encoder_keys(options, images)
    )


def encoder_keys(options: Any, images: Images) -> dict[str, Any]:
    """The arguments of an `Encoder` that options name."""
    keys = ("depth", "output_stride", "stem", "width_multiplier")
    return {"in_channels": images.channels} | {key: getattr(options, key) for key in keys}
