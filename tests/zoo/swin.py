"""Swin (Liu et al., ICCV 2021; arXiv:2103.14030): attention in windows, shifted in every second block."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from zoo import parts


def _windows(x: Array, size: int) -> Array:
    """`[windows, size * size, channels]` from `[batch, height, width, channels]`."""
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height // size, size, width // size, size, channels)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(-1, size * size, channels)


def _mask(height: int, width: int, size: int, shift: int) -> np.ndarray:
    """`[windows, places, places]`: -100 between pixels that only the shift brought together."""
    regions = np.zeros((height, width), np.int32)
    for number, rows in enumerate((slice(-size), slice(-size, -shift), slice(-shift, None))):
        for other, columns in enumerate((slice(-size), slice(-size, -shift), slice(-shift, None))):
            regions[rows, columns] = 3 * number + other
    blocks = regions.reshape(height // size, size, width // size, size).transpose(0, 2, 1, 3)
    flat = blocks.reshape(-1, size * size)
    return np.where(flat[:, :, None] == flat[:, None], 0, -100).astype(np.float32)


class Block(nnx.Module):
    def __init__(self, width: int, heads: int, size: int, shift: int, *, rngs: nnx.Rngs):
        self.heads, self.size, self.shift = heads, size, shift
        self.first, self.second = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.triple = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.widen = nnx.Linear(width, 4 * width, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(((2 * size - 1) ** 2, heads)))
        rows = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij")).reshape(2, -1)
        apart = rows[:, :, None] - rows[:, None] + size - 1
        self.index = tuple(int(i) for i in (apart[0] * (2 * size - 1) + apart[1]).ravel())

    def attention(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        size, shift = self.size, self.shift if min(height, width) > self.size else 0
        x = jnp.roll(x, (-shift, -shift), axis=(1, 2)) if shift else x
        flat = _windows(x, size)
        triple = self.triple(flat).reshape(-1, size * size, 3, self.heads, channels // self.heads)
        found = parts.scores(triple[:, :, 0], triple[:, :, 1])
        bias = self.bias[np.asarray(self.index)].reshape(1, size * size, size * size, self.heads)
        found = found + bias.transpose(0, 3, 1, 2)
        if shift:
            mask = _mask(height, width, size, shift)[None, :, None]
            windows = found.reshape(batch, -1, *found.shape[1:])
            found = (windows + mask).reshape(found.shape)
        y = self.out(parts.weighed(nnx.softmax(found), triple[:, :, 2]).reshape(flat.shape))
        y = y.reshape(batch, height // size, width // size, size, size, channels)
        y = y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, channels)
        return jnp.roll(y, (shift, shift), axis=(1, 2)) if shift else y

    def __call__(self, x: Array) -> Array:
        x = x + self.attention(self.first(x))
        return x + self.narrow(nnx.gelu(self.widen(self.second(x))))


class Merge(nnx.Module):
    """Two by two pixels become one, of twice the channels."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(4 * width, rngs=rngs)
        self.reduce = nnx.Linear(4 * width, 2 * width, use_bias=False, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduce(self.norm(jnp.concatenate(corners, axis=-1)))


class Swin(nnx.Module):
    """Swin-T without its head."""

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 6, 2),
        width: int = 96,
        heads: int = 3,
        size: int = 7,
        *,
        rngs: nnx.Rngs,
    ):
        self.patches = nnx.Conv(3, width, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.layers = nnx.List()
        for stage, depth in enumerate(depths):
            if stage:
                self.layers.append(Merge(width << (stage - 1), rngs=rngs))
            for number in range(depth):
                shift = size // 2 if number % 2 else 0
                self.layers.append(Block(width << stage, heads << stage, size, shift, rngs=rngs))

    def __call__(self, x: Array) -> Array:
        x = self.norm(self.patches(x))
        for layer in self.layers:
            x = layer(x)
        return x
