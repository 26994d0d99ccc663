"""Learnable spacings (DCLS, Khalfaoui-Hassani et al., ICLR 2023; arXiv:2112.03740) in residual blocks."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array


class Spaced(nnx.Module):
    """A depthwise convolution of `count` taps anywhere in `size` x `size`, interpolated between places."""

    def __init__(self, width: int, count: int, size: int, *, rngs: nnx.Rngs):
        self.size = size
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (count, width)))
        self.places = nnx.Param(jax.random.uniform(rngs.params(), (2, count, width)) * (size - 1))

    def kernel(self) -> Array:
        """`[size, size, 1, width]`: each tap's weight, shared by the four places around it."""
        axis = jnp.arange(self.size)[:, None, None]
        down, across = (jnp.maximum(0, 1 - jnp.abs(axis - place[None])) for place in self.places)
        return jnp.einsum("hkc,wkc,kc->hwc", down, across, self.weight[...])[:, :, None]

    def __call__(self, x: Array) -> Array:
        return depthwise(x, self.kernel())


def depthwise(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1]
    )


class DCLS(nnx.Module):
    def __init__(self, width: int = 96, blocks: int = 3, count: int = 34, size: int = 17, *, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, width, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.spaced = nnx.List([Spaced(width, count, size, rngs=rngs) for _ in range(blocks)])
        self.mix = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(blocks)])

    def __call__(self, x: Array) -> Array:
        x = self.stem(x)
        for spaced, mix in zip(self.spaced, self.mix, strict=True):
            x = x + mix(nnx.gelu(spaced(x)))
        return x


def placed(model: DCLS, seed: int) -> None:
    """Give each tap a place, none of them a whole number, and the weight 1."""
    rng = np.random.default_rng(seed)
    for spaced in model.spaced:
        spaced.weight[...] = jnp.ones(spaced.weight.shape)
        shape = spaced.places.shape
        whole = rng.integers(0, spaced.size - 1, shape)
        spaced.places[...] = jnp.asarray(whole + rng.uniform(0.2, 0.8, shape), jnp.float32)
