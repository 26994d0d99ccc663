"""`net.layer=hff`: parallel rates whose maps are added one after the other before they are joined."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.cures.branches import BranchesOptions, branch, halved
from hdc.layers import Conv, PointwiseConv, axes_of
from hdc.ops.convolution import Padding, Padding1d, Pair, per_axis


class FusedConv(nnx.Module):
    """The efficient spatial pyramid of ESPNet, with hierarchical feature fusion (HFF).

    After Mehta et al. 2018, "ESPNet" (arXiv 1803.06815): a pointwise convolution reduces the channels to a
    share of one branch, parallel convolutions of several rates follow, and each map is added to that of the
    next larger rate before all are joined. The smallest rate is joined as it is, as in their code. With K
    branches it has about a K-th of the parameters of one convolution.

    Args:
        branches: K at most, see `BranchesOptions`.
        Others: as `hdc.layers.Conv`, except `groups`. Strides are those of the branches.

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
        axes = axes_of(kernel_size)
        self.rate = per_axis("rate", rate, axes)
        rates = halved(self.rate, branches)[-features:]
        share = features // len(rates)
        shares = [features - share * (len(rates) - 1), *[share] * (len(rates) - 1)]
        self.reduce = PointwiseConv(in_features, share, axes=axes, use_bias=False, rngs=rngs)
        self.convs = nnx.List(
            Conv(
                share,
                own,
                kernel_size,
                rate=one,
                strides=strides,
                padding=padding,
                use_bias=use_bias,
                rngs=rngs,
            )
            for one, own in zip(rates, shares, strict=True)
        )

    def __call__(self, x: Array, *, relu: bool = False) -> Array:
        """`[b, h, w, in_features]` to `[b, h', w', features]`, or signals; `relu` as in `Conv`."""
        x = self.reduce(x)
        first, *others = [branch(conv, x, self.rate) for conv in self.convs]
        joined, total = [first], jnp.zeros((), x.dtype)
        for maps in others:
            total = total + maps
            joined.append(total)
        result = jnp.concatenate(joined, axis=-1)
        return nnx.relu(result) if relu else result


@registry.layer("hff", BranchesOptions)
def hff(options: BranchesOptions, *features: int, **keywords: Any) -> FusedConv:
    """Parallel rates with hierarchical feature fusion, `FusedConv`."""
    return FusedConv(*features, branches=options.branches, **keywords)
