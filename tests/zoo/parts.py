"""What several architectures share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


def conv(
    ins: int,
    outs: int,
    kernel: int | tuple[int, ...] = 3,
    stride: int = 1,
    rate: int = 1,
    groups: int = 1,
    *,
    bias: bool = False,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A convolution of an image with the padding that PyTorch's models have: as much on both sides."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = [(rate * (taps // 2),) * 2 for taps in size]
    return nnx.Conv(
        ins,
        outs,
        size,
        strides=stride,
        kernel_dilation=rate,
        feature_group_count=groups,
        padding=padding,
        use_bias=bias,
        rngs=rngs,
    )


class ConvNorm(nnx.Module):
    """Convolution, batch normalisation and, unless it is None, an activation."""

    def __init__(
        self,
        ins: int,
        outs: int,
        kernel: int | tuple[int, ...] = 3,
        stride: int = 1,
        rate: int = 1,
        groups: int = 1,
        *,
        act: Callable[[Array], Array] | None = nnx.relu,
        rngs: nnx.Rngs,
    ):
        self.conv = conv(ins, outs, kernel, stride, rate, groups, rngs=rngs)
        self.norm = nnx.BatchNorm(outs, rngs=rngs)
        self.act = act

    def __call__(self, x: Array) -> Array:
        x = self.norm(self.conv(x))
        return x if self.act is None else self.act(x)


class SqueezeExcite(nnx.Module):
    """Channels weighted by a summary of the whole map (Hu et al. 2018)."""

    def __init__(
        self,
        channels: int,
        squeezed: int,
        act: Callable[[Array], Array] = nnx.relu,
        gate: Callable[[Array], Array] = nnx.sigmoid,
        *,
        rngs: nnx.Rngs,
    ):
        self.down = nnx.Linear(channels, squeezed, rngs=rngs)
        self.up = nnx.Linear(squeezed, channels, rngs=rngs)
        self.act, self.gate = act, gate

    def __call__(self, x: Array) -> Array:
        summary = x.mean(axis=(1, 2), keepdims=True)
        return x * self.gate(self.up(self.act(self.down(summary))))


class ImagePooling(nnx.Module):
    """The mean of the map, in new channels, at each of its pixels (Liu et al. 2015)."""

    def __init__(self, ins: int, outs: int, *, rngs: nnx.Rngs):
        self.reduce = ConvNorm(ins, outs, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return resize(self.reduce(x.mean(axis=(1, 2), keepdims=True)), x.shape[1:3])


def scores(queries: Array, keys: Array) -> Array:
    """`[..., heads, queries, keys]` from `[..., places, heads, channels]`."""
    return jnp.einsum("...qhc,...khc->...hqk", queries, keys) / keys.shape[-1] ** 0.5


def weighed(weights: Array, values: Array) -> Array:
    """`[..., queries, heads, channels]` from `scores` and `[..., keys, heads, channels]`."""
    return jnp.einsum("...hqk,...khc->...qhc", weights, values)


def gated(x: Array, gate: Array) -> Array:
    """Two maps multiplied."""
    return x * gate


def again(x: Array) -> Array:
    """A map that is added to itself, or to what it is entry by entry: the same path."""
    return x


def resize(x: Array, size: tuple[int, ...], method: str = "bilinear") -> Array:
    """A map interpolated to a height and width."""
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), method)


def nearest(x: Array, by: int = 2) -> Array:
    """Each pixel repeated."""
    return jnp.repeat(jnp.repeat(x, by, axis=1), by, axis=2)


def max_pool(x: Array, size: int = 3, stride: int = 2, padding: int = 1) -> Array:
    return nnx.max_pool(x, (size, size), (stride, stride), ((padding, padding),) * 2)


def up_conv(ins: int, outs: int, kernel: int = 2, stride: int = 2, *, rngs: nnx.Rngs) -> nnx.ConvTranspose:
    """A transposed convolution to a map `stride` times as large."""
    return nnx.ConvTranspose(ins, outs, (kernel, kernel), strides=(stride, stride), rngs=rngs)


def depth_to_space(x: Array, by: int) -> Array:
    """`by * by` channels become a block of pixels (pixel shuffle)."""
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height, width, by, by, channels // by**2)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * by, width * by, -1)
