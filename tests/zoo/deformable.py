"""Deformable convolution (Dai et al., ICCV 2017; arXiv:1703.06211): it reads where the image tells it."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.scipy.ndimage import map_coordinates

from zoo.parts import conv


class Deformable(nnx.Module):
    def __init__(self, ins: int, outs: int, *, rngs: nnx.Rngs):
        self.offsets = conv(ins, 18, 3, bias=True, rngs=rngs)
        self.weight = nnx.Linear(9 * ins, outs, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        batch, height, width, _ = x.shape
        moves = self.offsets(x).reshape(batch, height, width, 9, 2)
        grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1)
        taps = jnp.stack(jnp.meshgrid(jnp.arange(3), jnp.arange(3), indexing="ij"), axis=-1).reshape(9, 2) - 1
        places = grid[None, :, :, None] + taps[None, None, None] + moves

        def read(image: Array, at: Array) -> Array:
            one = lambda channel: map_coordinates(channel, [at[..., 0], at[..., 1]], order=1)  # noqa: E731
            return jax.vmap(one, in_axes=-1, out_axes=-1)(image)

        return self.weight(jax.vmap(read)(x, places).reshape(batch, height, width, -1))
