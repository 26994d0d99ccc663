"""`net.layer=dcls`: dilated convolution with learnable spacings."""

from dataclasses import dataclass
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from hdc import registry
from hdc.errors import one_of
from hdc.layers import Conv, Geometry
from hdc.ops import conv1d, conv2d
from hdc.ops.convolution import Pair

INTERPOLATIONS = ("bilinear", "gauss")
_LEAST_WIDTH, _MORE_WIDTH = (
    0.27,
    0.23,
)  # of a Gaussian, and what is learnt of it at the start; as in their code


@dataclass(frozen=True)
class SpacingsOptions:
    """Of learnable spacings.

    Attributes:
        interpolation: how a tap between pixels is spread over them: bilinear, or gauss with a learnt width.
    """

    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        one_of("interpolation", self.interpolation, INTERPOLATIONS)


class LearnableSpacingsConv(nnx.Module):
    """A convolution whose taps have real-valued positions that are learnt, for each pair of channels.

    Dilated convolution with learnable spacings (DCLS; Khalfaoui-Hassani et al. 2023, arXiv 2112.03740; with
    Gaussians 2306.00817). The kernel covers the window of the dilated one, (K - 1) r + 1 pixels per axis, and
    starts as it (bilinear) or as it blurred (gauss). Positions beyond the window count as its edge. Per axis,
    a tap at p gives the share max(0, 1 - |x - p|) of its weight to pixel x; with gauss it is
    exp(-((x - p) / s)^2 / 2), divided by its sum over the window, with a width s that is learnt, at least
    0.27 and 0.5 at the start. Parameters: 1 + axes (bilinear) or 1 + 2 axes (gauss) times those of one
    convolution. The multiply-adds are those of the whole window.

    Args:
        interpolation: one of `INTERPOLATIONS`.
        Others: as `hdc.layers.Conv`, except `groups`.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        kernel_size: Pair = 3,
        *,
        interpolation: str = "bilinear",
        use_bias: bool = True,
        rngs: nnx.Rngs,
        **geometry: Unpack[Geometry],
    ):
        one_of("interpolation", interpolation, INTERPOLATIONS)
        conv = Conv(in_features, features, kernel_size, use_bias=use_bias, rngs=rngs, **geometry)
        self.strides, self.padding, self.kernel, self.bias = (
            conv.strides,
            conv.padding,
            conv.kernel,
            conv.bias,
        )
        taps = conv.kernel.shape[:-2]
        self.window = tuple((count - 1) * rate + 1 for count, rate in zip(taps, conv.rate, strict=True))
        places = np.indices(taps) * np.reshape(conv.rate, (-1, *(1,) * len(taps)))
        start = np.broadcast_to(places[..., None, None], (len(taps), *conv.kernel.shape))
        self.positions = nnx.Param(jnp.asarray(start, jnp.float32))
        self.widths = nnx.Param(jnp.full(start.shape, _MORE_WIDTH)) if interpolation == "gauss" else None

    def dense_kernel(self) -> Array:
        """The kernel on the pixels of its window, `[*window, in_features, features]`."""
        axes = len(self.window)
        taps = self.kernel[...].reshape(-1, *self.kernel.shape[-2:])
        whole: Any = taps
        for axis, size in enumerate(self.window):
            place = jnp.clip(self.positions[axis], 0, size - 1).reshape(1, *taps.shape)
            pixels = jnp.arange(size, dtype=jnp.float32).reshape(
                -1, 1, 1, 1
            )  # shares are [size, taps, in, out]
            if self.widths is None:
                # By the pixel before, so that a tap on a pixel has a gradient, too.
                before = jnp.clip(jnp.floor(place), 0, max(0, size - 2))
                share = jnp.where(pixels == before, 1 - (place - before), 0.0)
                share += jnp.where(pixels == before + 1, place - before, 0.0)
            else:
                width = _LEAST_WIDTH + jnp.abs(self.widths[axis]).reshape(1, *taps.shape)
                share = jax.nn.softmax(-(((pixels - place) / width) ** 2) / 2, axis=0)
            whole = whole[..., None, :, :, :] * share.reshape((1,) * axis + share.shape)
        return whole.sum(axis=axes)

    def __call__(self, x: Array, *, relu: bool = False) -> Array:
        """`[b, h, w, in_features]` to `[b, h', w', features]`, or signals; `relu` as in `Conv`."""
        convolve: Any = conv1d if len(self.window) == 1 else conv2d
        bias = None if self.bias is None else self.bias[...]
        return convolve(x, self.dense_kernel(), bias, relu=relu, strides=self.strides, padding=self.padding)


@registry.layer("dcls", SpacingsOptions)
def dcls(options: SpacingsOptions, *features: int, **keywords: Any) -> LearnableSpacingsConv:
    """A convolution with learnable spacings, `LearnableSpacingsConv`."""
    return LearnableSpacingsConv(*features, interpolation=options.interpolation, **keywords)
