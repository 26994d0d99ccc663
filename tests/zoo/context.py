"""The context module (Yu and Koltun, ICLR 2016; arXiv:1511.07122)."""

from flax import nnx
from jax import Array

from zoo.parts import conv


class ContextModule(nnx.Module):
    """Rates 1, 1, 2, 4, 8, 16 and 1, then 1 x 1; the basic one, of constant width."""

    def __init__(self, width: int = 21, *, rngs: nnx.Rngs):
        rates = (1, 1, 2, 4, 8, 16, 1)
        self.layers = nnx.List([conv(width, width, 3, rate=rate, bias=True, rngs=rngs) for rate in rates])
        self.last = conv(width, width, 1, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.last(x)
