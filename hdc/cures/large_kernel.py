"""`net.layer=reparam`: dilated branches that become one large kernel when training is over."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hdc import registry
from hdc.cures.branches import BranchesOptions, halved
from hdc.errors import InputError
from hdc.layers import DepthwiseConv, PointwiseConv, axes_of, normalised
from hdc.ops import conv1d, conv2d
from hdc.ops.convolution import Padding, Padding1d, Pair, per_axis


class LargeKernelConv(nnx.Module):
    """A depthwise convolution without holes, dilated ones beside it, and a pointwise one behind them.

    The dilated reparam block of UniRepLKNet (Ding et al. 2024, arXiv 2311.15599): a large kernel of
    (K - 1) r + 1 taps per axis without holes, and K-tap kernels at the rate, its half and so on, each with
    batch normalisation, are added. In evaluation all of them are one large kernel, `merged`. For other
    numbers of channels a pointwise convolution follows, as in a depthwise separable one.

    Args:
        branches: how many dilated ones at most, see `BranchesOptions`.
        Others: as `hdc.layers.Conv`, except `groups`.

    Raises:
        InputError: for kernels of an even number of taps, and for padding that is not SAME.
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
        taps, rates = per_axis("kernel_size", kernel_size, axes), per_axis("rate", rate, axes)
        if not all(count % 2 for count in taps):
            raise InputError(f"net.layer=reparam takes kernels with a middle tap, got kernel_size={taps}")
        if padding != "SAME":
            raise InputError(f"net.layer=reparam takes padding SAME, got {padding}")
        window = tuple((count - 1) * one + 1 for count, one in zip(taps, rates, strict=True))
        # At a rate of 1 the large kernel is the small one.
        shapes = [(window, 1), *((taps, one) for one in halved(rates, branches) if max(rates) > 1)]
        self.convs = nnx.List(
            DepthwiseConv(in_features, size, rate=one, strides=strides, use_bias=False, rngs=rngs)
            for size, one in shapes
        )
        self.norms = nnx.List(nnx.BatchNorm(in_features, rngs=rngs) for _ in shapes)
        self.pointwise = PointwiseConv(in_features, features, axes=axes, use_bias=use_bias, rngs=rngs)

    def merged(self) -> tuple[Array, Array]:
        """One depthwise kernel `[*window, 1, in_features]` and bias that equal all branches in evaluation."""
        large: Any = self.convs[0]
        kernel = jnp.zeros(large.kernel.shape)
        bias = jnp.zeros(kernel.shape[-1])
        norm: Any
        for conv, norm in zip(self.convs, self.norms, strict=True):
            scale = norm.scale[...] / jnp.sqrt(norm.var[...] + norm.epsilon)
            starts = [
                (size - ((taps - 1) * rate + 1)) // 2
                for size, taps, rate in zip(kernel.shape, conv.kernel.shape, conv.rate, strict=False)
            ]
            places = tuple(
                slice(start, size - start, rate)
                for start, size, rate in zip(starts, kernel.shape, conv.rate, strict=False)
            )
            kernel = kernel.at[places].add(conv.kernel[...] * scale.reshape((1,) * (kernel.ndim - 1) + (-1,)))
            bias = bias + norm.bias[...] - norm.mean[...] * scale
        return kernel, bias

    def __call__(self, x: Array, *, relu: bool = False) -> Array:
        """`[b, h, w, in_features]` to `[b, h', w', features]`, or signals; `relu` as in `Conv`."""
        if self.norms[0].use_running_average:
            kernel, bias = self.merged()
            convolve: Any = conv1d if kernel.ndim == 3 else conv2d
            strides = self.convs[0].strides
            maps = convolve(x, kernel, bias, groups=x.shape[-1], strides=strides)
        else:
            parts = [
                normalised(norm, conv(x), relu=False)
                for conv, norm in zip(self.convs, self.norms, strict=True)
            ]
            maps = sum(parts[1:], parts[0])
        return self.pointwise(maps, relu=relu)


@registry.layer("reparam", BranchesOptions)
def reparam(options: BranchesOptions, *features: int, **keywords: Any) -> LargeKernelConv:
    """A large kernel with dilated branches that merge into it, `LargeKernelConv`."""
    return LargeKernelConv(*features, branches=options.branches, **keywords)
