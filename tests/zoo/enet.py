"""ERFNet (Romera et al., T-ITS 2018) and ENet (Paszke et al. 2016; arXiv:1606.02147).

ENet's decoder puts values back to the places of the maxima that its encoder found.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.parts import ConvNorm, conv, max_pool, up_conv


class Down(nnx.Module):
    """A strided convolution beside a max pooling."""

    def __init__(self, ins: int, outs: int, *, rngs: nnx.Rngs):
        self.conv = conv(ins, outs - ins, 3, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(outs, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return nnx.relu(self.norm(jnp.concatenate([self.conv(x), max_pool(x, 2, 2, 0)], axis=-1)))


class Factorised(nnx.Module):
    """3 x 1, 1 x 3, and both again with a rate, added (non-bottleneck-1D)."""

    def __init__(self, width: int, rate: int, *, rngs: nnx.Rngs):
        self.layers = nnx.List()
        for r in (1, rate):
            self.layers.append(nnx.Conv(width, width, (3, 1), kernel_dilation=(r, 1), rngs=rngs))
            self.layers.append(nnx.Conv(width, width, (1, 3), kernel_dilation=(1, r), rngs=rngs))

    def __call__(self, x: Array) -> Array:
        y = x
        for number, layer in enumerate(self.layers):
            y = layer(y)
            y = nnx.relu(y) if number < len(self.layers) - 1 else y
        return nnx.relu(x + y)


class ERFNet(nnx.Module):
    def __init__(
        self,
        widths: Sequence[int] = (16, 64, 128),
        first: int = 5,
        rates: Sequence[int] = (2, 4, 8, 16) * 2,
        classes: int = 20,
        *,
        rngs: nnx.Rngs,
    ):
        a, b, c = widths
        self.layers = nnx.List([Down(3, a, rngs=rngs), Down(a, b, rngs=rngs)])
        self.layers += [Factorised(b, 1, rngs=rngs) for _ in range(first)]
        self.layers.append(Down(b, c, rngs=rngs))
        self.layers += [Factorised(c, rate, rngs=rngs) for rate in rates]
        for ins, outs in ((c, b), (b, a)):
            self.layers.append(up_conv(ins, outs, 3, rngs=rngs))
            self.layers += [Factorised(outs, 1, rngs=rngs) for _ in range(2)]
        self.last = up_conv(a, classes, 2, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return self.last(x)


class ENet(nnx.Module):
    """Its first bottleneck, and the last, which unpools."""

    def __init__(self, width: int = 16, *, rngs: nnx.Rngs):
        self.initial = ConvNorm(3, width, 3, rngs=rngs)
        self.inner = ConvNorm(width, width, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.initial(x)
        batch, height, width, channels = x.shape
        blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 5, 2, 4)
        flat = blocks.reshape(batch, height // 2, width // 2, channels, 4)
        places = jnp.argmax(flat, axis=-1)
        y = self.inner(flat.max(axis=-1))
        put = jnp.zeros(flat.shape).at[(*jnp.indices(places.shape), places)].set(y)
        blocks = put.reshape(batch, height // 2, width // 2, channels, 2, 2).transpose(0, 1, 4, 2, 5, 3)
        return blocks.reshape(batch, height, width, channels)
