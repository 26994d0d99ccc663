"""`net.layer=ssc`: a shared smoothing filter before the dilated convolution."""

import math
from typing import Any, Unpack

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.layers import Conv, Geometry
from hdc.ops import conv1d, conv2d
from hdc.ops.convolution import Pair


class SmoothedConv(nnx.Module):
    """A dilated convolution of maps that are smoothed by one filter, the same for all channels.

    The separable and shared convolution (SSC) of Wang & Ji 2018, "Smoothed Dilated Convolutions for Improved
    Dense Prediction" (arXiv 1808.08931): at rate r the filter has 2r - 1 taps per axis, so that each tap of
    the convolution sees what lies between it and the next ones. It starts as the identity and costs
    (2r - 1)^2 parameters ((2r - 1) of signals) and as many multiply-adds per pixel and channel.

    Args:
        As `hdc.layers.Conv`, except `groups`.
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
        window = tuple(2 * rate - 1 for rate in self.conv.rate)
        causal = self.conv.padding == "CAUSAL"
        self.padding = "CAUSAL" if causal else "SAME"
        here = -1 if causal else math.prod(window) // 2
        self.filter = nnx.Param(jnp.zeros(math.prod(window)).at[here].set(1.0).reshape(window))

    def __call__(self, x: Array, *, relu: bool = False) -> Array:
        """`[b, h, w, in_features]` to `[b, h', w', features]`, or signals; `relu` as in `Conv`."""
        taps = self.filter[...]
        kernel = jnp.broadcast_to(taps[..., None, None], (*taps.shape, 1, x.shape[-1]))
        convolve: Any = conv1d if taps.ndim == 1 else conv2d
        return self.conv(convolve(x, kernel, groups=x.shape[-1], padding=self.padding), relu=relu)


@registry.layer("ssc")
def ssc(options: registry.NoOptions, *features: int, **keywords: Any) -> SmoothedConv:
    """A dilated convolution behind a shared smoothing filter, `SmoothedConv`."""
    return SmoothedConv(*features, **keywords)
