"""`net=tcn`: the temporal convolutional network of Bai, Kolter and Koltun 2018."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import InputError, in_range
from hdc.layers import PointwiseConv, dilated
from hdc.networks.blocks import MAX_WIDTH
from hdc.registry import Signals, Task
from hdc.schedules import DilationSchedule


@dataclass(frozen=True)
class TcnOptions:
    """What can be chosen.

    Attributes:
        width: channels of every layer.
        causal: whether no output sees later steps; False pads both sides alike.
        weight_norm: whether the kernels of the dilated layers are normalised, see `WeightNorm`.
        dropout: share of the values that are dropped after each dilated layer.
    """

    width: int = 16
    causal: bool = True
    weight_norm: bool = True
    dropout: float = 0.2

    def __post_init__(self) -> None:
        in_range("width", self.width, 1, MAX_WIDTH)
        in_range("dropout", self.dropout, 0.0, 0.95)


class WeightNorm(nnx.Module):
    """A layer whose kernels are used as direction times length, the length a parameter of its own.

    Each output channel of a kernel has its length (Salimans and Kingma 2016, arXiv 1602.07868). At the start
    it is the kernel's own, so that the layer computes what it did.
    """

    def __init__(self, layer: nnx.Module):
        self.layer = layer
        self.lengths = nnx.List([nnx.Param(_length(kernel)) for kernel in _kernels(layer)])

    def __call__(self, x: Array) -> Array:
        layer: Any = nnx.clone(self.layer)
        for kernel, length in zip(_kernels(layer), self.lengths, strict=True):
            scale = length[...] / _length(kernel)
            kernel.set_value(kernel[...] * scale.reshape(*(1,) * (kernel.ndim - 1), -1))
        return layer(x)


def _kernels(layer: nnx.Module) -> list[nnx.Param]:
    """The parameters of several axes: not biases."""
    return [one for _, one in nnx.iter_graph(layer) if isinstance(one, nnx.Param) and one.ndim > 1]


def _length(kernel: nnx.Param) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(kernel[...]), axis=tuple(range(kernel.ndim - 1))))


class TcnBlock(nnx.Module):
    """Twice a dilated convolution, ReLU and dropout; then ReLU of the sum with the input.

    Args:
        in_features, features: channels in and out. If they differ, the shortcut is a convolution of size 1.
        kernel_size: taps.
        rates: of the two convolutions.
        causal, weight_norm, dropout: see `TcnOptions`.
        rngs: `params` and `dropout` are used.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        kernel_size: int,
        rates: tuple[int, int],
        *,
        causal: bool = True,
        weight_norm: bool = True,
        dropout: float = 0.2,
        rngs: nnx.Rngs,
    ):
        convs, channels, padding = [], in_features, "CAUSAL" if causal else "SAME"
        for rate in rates:
            conv = dilated(channels, features, (kernel_size,), rate=rate, padding=padding, rngs=rngs)
            convs.append(WeightNorm(conv) if weight_norm else conv)
            channels = features
        self.convs = nnx.List(convs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        alike = in_features == features
        self.shortcut = None if alike else PointwiseConv(in_features, features, axes=1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = x
        for conv in self.convs:
            y = self.dropout(nnx.relu(conv(y)))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Tcn(nnx.Module):
    """The temporal convolutional network of Bai, Kolter and Koltun 2018 (arXiv 1803.01271), figure 1.

    Residual blocks of two dilated convolutions each, and a linear head: at every step for dense prediction;
    for classification at the last step, which sees the most, or after the mean over all steps if the network
    is not causal. There is no stem, so that the network sees what its schedule sees. The paper's rates are
    1, 1, 2, 2, 4, 4, ...; kernels start He-normal here, the paper's with a standard deviation of 0.01.

    Args:
        schedule: the rates, two for each block, and the kernel size.
        in_channels, classes: channels of the signals, number of logits.
        task: "dense", "classification" or "regression".
        width, causal, weight_norm, dropout: see `TcnOptions`.
        rngs: `params` and `dropout` are used.

    Raises:
        InputError: for an odd number of rates.
    """

    def __init__(
        self,
        schedule: DilationSchedule,
        *,
        in_channels: int,
        classes: int,
        task: Task,
        width: int = 16,
        causal: bool = True,
        weight_norm: bool = True,
        dropout: float = 0.2,
        rngs: nnx.Rngs,
    ):
        rates = schedule.layer_rates
        if len(rates) % 2:
            raise InputError(
                f"net=tcn has two layers in each block and needs an even number of rates, got {list(rates)}: "
                "give each twice, such as [1,1,2,2,4,4]"
            )
        blocks, channels = [], in_channels
        for pair in zip(rates[::2], rates[1::2], strict=True):
            block = TcnBlock(
                *(channels, width, schedule.kernel_size, pair),
                **{"causal": causal, "weight_norm": weight_norm, "dropout": dropout, "rngs": rngs},
            )
            blocks.append(block)
            channels = width
        self.blocks = nnx.List(blocks)
        self.whole, self.causal = task == "classification", causal
        self.head = nnx.Linear(width, classes, rngs=rngs)

    def features(self, x: Array) -> Array:
        """The last feature maps: `[b, length, channels]` to `[b, length, width]`."""
        for block in self.blocks:
            x = block(x)
        return x

    def __call__(self, x: Array) -> Array:
        """Logits `[b, length, classes]` (dense) or `[b, classes]`."""
        x = self.features(x)
        if self.whole:
            x = x[:, -1] if self.causal else x.mean(axis=1)
        return self.head(x)


@registry.network("tcn", TcnOptions, takes=("signals",))
def tcn(options: TcnOptions, schedule: DilationSchedule, signals: Signals, *, rngs: nnx.Rngs) -> Tcn:
    """A `Tcn` for these signals."""
    return Tcn(
        schedule,
        in_channels=signals.channels,
        classes=signals.classes,
        task=signals.task,
        width=options.width,
        causal=options.causal,
        weight_norm=options.weight_norm,
        dropout=options.dropout,
        rngs=rngs,
    )
