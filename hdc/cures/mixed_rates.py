"""`net.layer=per_group`: a rate for each group of output channels."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.cures.branches import BranchesOptions, branch, halved
from hdc.layers import Conv, axes_of
from hdc.ops.convolution import Padding, Padding1d, Pair, per_axis


class MixedRatesConv(nnx.Module):
    """A convolution whose output channels have different rates, in groups.

    As in Inception Convolution (Liu et al. 2021, arXiv 2012.13587), where every channel has a rate of its
    own: here the rate, its half, its quarter and so on, each for an equal share of the channels; what cannot
    be divided goes to the largest rates. As many parameters and multiply-adds as one convolution.

    Args:
        branches: how many rates at most, see `BranchesOptions`.
        Others: as `hdc.layers.Conv`, except `groups`.

    Raises:
        InputError: for explicit padding.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        kernel_size: Pair = 3,
        *,
        branches: int = 4,
        rate: Pair = 1,
        strides: Pair = 1,
        padding: Padding | Padding1d = "SAME",
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        self.rate = per_axis("rate", rate, axes_of(kernel_size))
        rates = halved(self.rate, branches)[-features:]
        shares = [
            features // len(rates) + (place >= len(rates) - features % len(rates))
            for place in range(len(rates))
        ]
        self.convs = nnx.List(
            Conv(
                in_features,
                share,
                kernel_size,
                rate=one,
                strides=strides,
                padding=padding,
                use_bias=use_bias,
                rngs=rngs,
            )
            for one, share in zip(rates, shares, strict=True)
        )

    def __call__(self, x: Array, *, relu: bool = False) -> Array:
        """`[b, h, w, in_features]` to `[b, h', w', features]`, or signals; `relu` as in `Conv`."""
        return jnp.concatenate([branch(conv, x, self.rate, relu) for conv in self.convs], axis=-1)


@registry.layer("per_group", BranchesOptions)
def per_group(options: BranchesOptions, *features: int, **keywords: Any) -> MixedRatesConv:
    """A convolution with a rate for each group of output channels, `MixedRatesConv`."""
    return MixedRatesConv(*features, branches=options.branches, **keywords)
