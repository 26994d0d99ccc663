"""`net.layer=ksac` and `net.layer=soft_rate`: one kernel that is used at several rates."""

import math
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.cures.branches import BranchesOptions, aligned, halved
from hdc.layers import Conv, Geometry
from hdc.ops import conv1d, conv2d
from hdc.ops.convolution import Pair


class SharedKernelConv(nnx.Module):
    """A convolution whose kernel is used at several rates: the weighted sum of the maps.

    With `mixture=False` as kernel-sharing atrous convolution (KSAC; Huang et al. 2019, "See More Than Once",
    arXiv 1908.09443): all rates count alike; the sum of n maps is divided by sqrt(n), which keeps its
    variance, where theirs are normalised one by one. With `mixture=True` the weights are a softmax of one
    parameter per rate, so that training chooses the rate; they start alike. As many parameters as one
    convolution (and one more per rate), times the rates in multiply-adds.

    Args:
        branches: how many rates at most, see `BranchesOptions`.
        mixture: see above.
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
        mixture: bool = False,
        use_bias: bool = True,
        rngs: nnx.Rngs,
        **geometry: Unpack[Geometry],
    ):
        self.conv = Conv(in_features, features, kernel_size, use_bias=use_bias, rngs=rngs, **geometry)
        self.rates = tuple(halved(self.conv.rate, branches))
        several = len(self.rates) > 1
        self.preference = nnx.Param(jnp.zeros(len(self.rates))) if mixture and several else None

    @property
    def weights(self) -> Array:
        """Of the rates, ascending."""
        if self.preference is None:
            return jnp.full(len(self.rates), 1 / math.sqrt(len(self.rates)))
        return jax.nn.softmax(self.preference[...])

    def __call__(self, x: Array, *, relu: bool = False) -> Array:
        """`[b, h, w, in_features]` to `[b, h', w', features]`, or signals; `relu` as in `Conv`."""
        conv, kernel = self.conv, self.conv.kernel[...]
        convolve: Any = conv1d if kernel.ndim == 3 else conv2d
        total: Any = 0 if conv.bias is None else conv.bias[...].reshape((1,) * (x.ndim - 1) + (-1,))
        for rate, weight in zip(self.rates, self.weights, strict=True):
            maps = aligned(x, kernel.shape, rate, conv.rate, conv.padding)
            total = total + weight * convolve(
                maps, kernel, rate=rate, strides=conv.strides, padding=conv.padding
            )
        return nnx.relu(total) if relu else total


@registry.layer("ksac", BranchesOptions)
def ksac(options: BranchesOptions, *features: int, **keywords: Any) -> SharedKernelConv:
    """One kernel at several rates, added, `SharedKernelConv`."""
    return SharedKernelConv(*features, branches=options.branches, **keywords)


@registry.layer("soft_rate", BranchesOptions)
def soft_rate(options: BranchesOptions, *features: int, **keywords: Any) -> SharedKernelConv:
    """One kernel at several rates, in a mixture that is learnt, `SharedKernelConv`."""
    return SharedKernelConv(*features, branches=options.branches, mixture=True, **keywords)
