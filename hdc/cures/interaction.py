"""`net.layer=gi`: the sub-grids that a dilated convolution keeps apart exchange what they have."""

import math
from typing import Any, Unpack

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import InputError
from hdc.layers import Conv, Geometry
from hdc.ops.convolution import Pair


class InteractedConv(nnx.Module):
    """A dilated convolution whose r x r interleaved maps are mixed by one matrix, the same for all channels.

    The group interaction (GI) layer of Wang & Ji 2018, "Smoothed Dilated Convolutions for Improved Dense
    Prediction" (arXiv 1808.08931): a convolution of rate r computes r^2 maps that have no pixel in common;
    each becomes a weighted sum of all. The matrix starts as the identity and has r^4 parameters (r^2 of
    signals). At a rate of 1 there is nothing to mix.

    Args:
        As `hdc.layers.Conv`, except `groups`.

    Raises:
        InputError: for strides above 1, which have no interleaved maps, and for causal padding, since the
            mixed outputs look ahead.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        kernel_size: Pair = 3,
        *,
        use_bias: bool = True,
        rngs: nnx.Rngs,
        **geometry: Unpack[Geometry],
    ):
        self.conv = Conv(in_features, features, kernel_size, use_bias=use_bias, rngs=rngs, **geometry)
        if max(self.conv.strides) > 1:
            raise InputError(
                f"net.layer=gi takes strides of 1, got {self.conv.strides}: choose a net.output_stride at "
                "which no dilated layer has a stride, such as 8 of a ResNet"
            )
        if self.conv.padding == "CAUSAL":
            raise InputError("net.layer=gi mixes neighbours on both sides, which causal padding rules out")
        self.matrix = nnx.Param(jnp.eye(math.prod(self.conv.rate)))

    def __call__(self, x: Array, *, relu: bool = False) -> Array:
        """`[b, h, w, in_features]` to `[b, h', w', features]`, or signals; `relu` as in `Conv`."""
        maps = self.conv(x)
        batch, *sides, channels = maps.shape
        rates = self.conv.rate
        missing = [-side % rate for side, rate in zip(sides, rates, strict=True)]
        whole = jnp.pad(maps, [(0, 0), *((0, more) for more in missing), (0, 0)])
        cells = [(side + more) // rate for side, more, rate in zip(sides, missing, rates, strict=True)]
        split = whole.reshape(batch, *(n for pair in zip(cells, rates, strict=True) for n in pair), channels)
        axes = len(sides)
        # The positions within a cell last but one, as one axis, and the cells before them.
        order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
        groups = split.transpose(order).reshape(batch, *cells, math.prod(rates), channels)
        mixed = jnp.einsum("...gc,ig->...ic", groups, self.matrix[...])
        back = mixed.reshape(batch, *cells, *rates, channels).transpose(
            tuple(order.index(n) for n in range(len(order)))
        )
        result = back.reshape(whole.shape)[:, *(slice(side) for side in sides)]
        return nnx.relu(result) if relu else result


@registry.layer("gi")
def gi(options: registry.NoOptions, *features: int, **keywords: Any) -> InteractedConv:
    """A dilated convolution whose interleaved maps are mixed, `InteractedConv`."""
    return InteractedConv(*features, **keywords)
