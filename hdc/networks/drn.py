"""`net=drn`: dilated residual networks, with layers against gridding at their end."""

from dataclasses import dataclass

from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import InputError, in_range
from hdc.layers import dilated
from hdc.networks.blocks import MAX_WIDTH, ConvNorm, check_rates, padded, refuse_small, resized, scaled
from hdc.networks.resnet import BasicBlock, Bottleneck, ResNet
from hdc.registry import Images, Task
from hdc.schedules import DilationSchedule

# Blocks of levels 1 to 8 by variant and depth; variant A is a residual network of output stride 8.
LEVELS = {
    "C": {26: (1, 1, 2, 2, 2, 2, 1, 1), 42: (1, 1, 3, 4, 6, 3, 1, 1), 58: (1, 1, 3, 4, 6, 3, 1, 1)},
    "D": {
        **{22: (1, 1, 2, 2, 2, 2, 1, 1), 38: (1, 1, 3, 4, 6, 3, 1, 1)},
        **{54: (1, 1, 3, 4, 6, 3, 1, 1), 105: (1, 1, 3, 4, 23, 3, 1, 1)},
    },
}
_RESIDUAL = {"A": (18, 34, 50)}
_WIDTHS = (16, 32, 64, 128, 256, 512, 512, 512)
_STRIDES = (1, 2, 2, 2, 1, 1, 1, 1)
_RATES = (1, 1, 1, 1, 2, 4, 2, 1)  # as published
_STRIDE = 8


@dataclass(frozen=True)
class DrnOptions:
    """What can be chosen.

    Attributes:
        variant: "A", a residual network with rates for its last two strides; "C", with convolutions for the
            max pooling, and two levels of falling rates without shortcuts at the end; "D", with one
            convolution each in place of the outer levels' blocks.
        depth: 18, 34 or 50 of A; 26, 42 or 58 of C; 22, 38, 54 or 105 of D.
        width_multiplier: of the number of channels everywhere; 1 is as published.
    """

    variant: str = "C"
    depth: int = 26
    width_multiplier: float = 1.0

    def __post_init__(self) -> None:
        depths = {**_RESIDUAL, **{variant: tuple(levels) for variant, levels in LEVELS.items()}}
        if self.depth not in depths.get(self.variant, ()):
            known = "; ".join(f"{name} with {', '.join(map(str, of))}" for name, of in depths.items())
            raise InputError(
                f"variant={self.variant} with depth={self.depth} does not exist: there are {known}"
            )
        in_range("width_multiplier", self.width_multiplier, 1 / 64, MAX_WIDTH / 2048)


class DRN(nnx.Module):
    """DRN-C or DRN-D of Yu, Koltun and Funkhouser 2017 (arXiv 1705.09914); output stride 8.

    Args:
        schedule: a rate for each 3x3 layer of levels 5 to 8, see `usual_rates`, and their kernel size.
        in_channels, classes: channels of the images, number of logits.
        task: "classification"; or "dense" or "regression", where the head's map is interpolated (bilinear).
        variant, depth, width_multiplier: see `DrnOptions`.
        rngs: `params` is used.

    Raises:
        InputError: for another number of rates.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        in_channels: int,
        classes: int,
        task: Task,
        variant: str = "C",
        depth: int = 26,
        width_multiplier: float = 1.0,
        rngs: nnx.Rngs,
    ):
        check_rates(schedule, usual_rates(variant, depth), f"DRN-{variant}-{depth}")
        rates, kernel_size = list(schedule.layer_rates), schedule.kernel_size
        channels = scaled(_WIDTHS[0], width_multiplier)
        self.stem = ConvNorm(padded(in_channels, channels, 7, stride=1, rngs=rngs), channels, rngs=rngs)
        self.levels = nnx.List()
        for level, (count, width, stride) in enumerate(
            zip(LEVELS[variant][depth], _WIDTHS, _STRIDES, strict=True), 1
        ):
            features, late = scaled(width, width_multiplier), level > 4
            for number in range(count):
                step = stride if number == 0 else 1
                block = _block(variant, depth, level)
                own = [rates.pop(0) if late else 1 for _ in range(block.layers if block else _plain(variant))]
                if block is None:
                    for rate in own:
                        conv = _conv(channels, features, step, rate, kernel_size if late else 0, rngs)
                        self.levels.append(ConvNorm(conv, features, rngs=rngs))
                        channels = features
                    continue
                size = kernel_size if late else 3
                keys = {"stride": step, "rates": own, "kernel_size": size, "late": late}
                self.levels.append(block(channels, features, **keys, rngs=rngs))
                channels = block.expansion * features
        self.whole = task == "classification"
        self.fc = nnx.Linear(channels, classes, rngs=rngs)

    def features(self, x: Array) -> Array:
        """The last feature maps: `[b, h, w, c]` to `[b, h / 8, w / 8, channels]`, rounded up."""
        refuse_small(x, _STRIDE)
        x = self.stem(x)
        for level in self.levels:
            x = level(x)
        return x

    def __call__(self, x: Array) -> Array:
        """Logits `[b, classes]`, or `[b, h, w, classes]`."""
        y = self.features(x)
        return self.fc(y.mean(axis=(1, 2))) if self.whole else resized(self.fc(y), x)


def usual_rates(variant: str, depth: int) -> tuple[int, ...]:
    """The published rates of levels 5 to 8, layer by layer.

    >>> usual_rates("C", 26)
    (2, 2, 2, 2, 4, 4, 4, 4, 2, 2, 1, 1)
    >>> usual_rates("D", 22)
    (2, 2, 2, 2, 4, 4, 4, 4, 2, 1)
    """
    rates = []
    for level in (5, 6, 7, 8):
        block = _block(variant, depth, level)
        layers = block.layers if block else _plain(variant)
        rates += [_RATES[level - 1]] * (LEVELS[variant][depth][level - 1] * layers)
    return tuple(rates)


def _block(variant: str, depth: int, level: int) -> type[BasicBlock] | type[Bottleneck] | None:
    """The kind of a level's blocks; None where they are convolutions without shortcuts."""
    if level > 6 or (variant == "D" and level < 3):
        return None
    return BasicBlock if level < 3 or depth < 50 else Bottleneck


def _plain(variant: str) -> int:
    """Convolutions in place of a block: C has its blocks without shortcuts, D single ones."""
    return 2 if variant == "C" else 1


def _conv(
    in_features: int, features: int, stride: int, rate: int, kernel_size: int, rngs: nnx.Rngs
) -> nnx.Module:
    """A late layer of that kernel size, or an early one if it is 0."""
    if kernel_size:
        return dilated(in_features, features, kernel_size, rate=rate, use_bias=False, rngs=rngs)
    return padded(in_features, features, stride=stride, rngs=rngs)


@registry.network("drn", DrnOptions)
def drn(options: DrnOptions, schedule: DilationSchedule, images: Images, *, rngs: nnx.Rngs) -> nnx.Module:
    """A `DRN` for these images; of variant A a `ResNet`."""
    keys = {
        **{"in_channels": images.channels, "classes": images.classes, "task": images.task},
        **{"depth": options.depth, "width_multiplier": options.width_multiplier, "rngs": rngs},
    }
    if options.variant == "A":
        return ResNet(schedule, output_stride=_STRIDE, **keys)
    return DRN(schedule, variant=options.variant, **keys)
