"""`net=wavenet`: the gated network of van den Oord et al. 2016."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import in_range
from hdc.layers import PointwiseConv, dilated
from hdc.networks.blocks import MAX_WIDTH
from hdc.registry import Signals, Task
from hdc.schedules import DilationSchedule


@dataclass(frozen=True)
class WavenetOptions:
    """What can be chosen.

    Attributes:
        width: channels of every layer, between the layers and behind them.
        causal: whether no output sees later steps; False pads both sides alike.
    """

    width: int = 16
    causal: bool = True

    def __post_init__(self) -> None:
        in_range("width", self.width, 1, MAX_WIDTH)


class GatedLayer(nnx.Module):
    """A dilated convolution with a gate, and two pointwise ones behind it, for the skip and the residual.

    The gate is a sigmoid that multiplies the filter's tanh. Filter and gate are one dilated layer of
    2 * `width` channels, and the first half of them is the filter.

    Args:
        width: channels in and out.
        kernel_size, rate: of the dilated layer.
        causal: see `WavenetOptions`.
        last: whether no layer follows: then there is no residual.
        rngs: `params` is used.
    """

    def __init__(
        self,
        width: int,
        kernel_size: int,
        rate: int,
        *,
        causal: bool = True,
        last: bool = False,
        rngs: nnx.Rngs,
    ):
        padding = "CAUSAL" if causal else "SAME"
        self.conv = dilated(width, 2 * width, (kernel_size,), rate=rate, padding=padding, rngs=rngs)
        self.skip = PointwiseConv(width, width, axes=1, rngs=rngs)
        self.residual = None if last else PointwiseConv(width, width, axes=1, rngs=rngs)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """The next layer's input and the skip, both `[b, length, width]`."""
        values, gates = jnp.split(self.conv(x), 2, axis=-1)
        gated = jnp.tanh(values) * nnx.sigmoid(gates)
        return x if self.residual is None else x + self.residual(gated), self.skip(gated)


class Wavenet(nnx.Module):
    """WaveNet, van den Oord et al. 2016 (arXiv 1609.03499), figure 4: gated layers, one for each rate.

    The skips of all layers are added; ReLU, a pointwise convolution and ReLU turn the sum into the last
    feature maps, and a linear head these into logits: at every step for dense prediction and regression; for
    classification at the last step, which sees the most, or after the mean over all steps if the network is
    not causal. The paper's layers have kernel size 2 and the rates 1, 2, 4, ..., 512, repeated.

    What differs from the paper: its first layer is a causal convolution, here a pointwise one, so that the
    network sees what its schedule sees; and the last layer has no residual, since nothing would use it. The
    paper does not say how wide its layers are.

    Args:
        schedule: the rates, one for each gated layer, and the kernel size.
        in_channels, classes: channels of the signals, number of logits.
        task: "dense", "classification" or "regression".
        width, causal: see `WavenetOptions`.
        rngs: `params` is used.
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
        rngs: nnx.Rngs,
    ):
        *before, end = schedule.layer_rates
        self.stem = PointwiseConv(in_channels, width, axes=1, rngs=rngs)
        layers = [GatedLayer(width, schedule.kernel_size, rate, causal=causal, rngs=rngs) for rate in before]
        layers.append(GatedLayer(width, schedule.kernel_size, end, causal=causal, last=True, rngs=rngs))
        self.layers = nnx.List(layers)
        self.mix = PointwiseConv(width, width, axes=1, rngs=rngs)
        self.whole, self.causal = task == "classification", causal
        self.head = nnx.Linear(width, classes, rngs=rngs)

    def features(self, x: Array) -> Array:
        """The last feature maps: `[b, length, channels]` to `[b, length, width]`."""
        x, skips = self.stem(x), []
        for layer in self.layers:
            x, skip = layer(x)
            skips.append(skip)
        return self.mix(nnx.relu(sum(skips)), relu=True)

    def __call__(self, x: Array) -> Array:
        """Logits `[b, length, classes]` (dense) or `[b, classes]`."""
        x = self.features(x)
        if self.whole:
            x = x[:, -1] if self.causal else x.mean(axis=1)
        return self.head(x)


@registry.network("wavenet", WavenetOptions, takes=("signals",))
def wavenet(
    options: WavenetOptions, schedule: DilationSchedule, signals: Signals, *, rngs: nnx.Rngs
) -> Wavenet:
    """A `Wavenet` for these signals."""
    return Wavenet(
        schedule,
        in_channels=signals.channels,
        classes=signals.classes,
        task=signals.task,
        width=options.width,
        causal=options.causal,
        rngs=rngs,
    )
