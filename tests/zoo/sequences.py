"""WaveNet (van den Oord et al. 2016; arXiv:1609.03499)."""

from flax import nnx
from jax import Array

from zoo import parts


def causal(ins: int, outs: int, taps: int, rate: int = 1, *, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(ins, outs, (taps,), kernel_dilation=rate, padding="CAUSAL", rngs=rngs)


class Gated(nnx.Module):
    def __init__(self, width: int, skip: int, rate: int, *, rngs: nnx.Rngs):
        self.filter = causal(width, width, 2, rate, rngs=rngs)
        self.gate = causal(width, width, 2, rate, rngs=rngs)
        self.residual = nnx.Linear(width, width, rngs=rngs)
        self.skip = nnx.Linear(width, skip, rngs=rngs)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        y = parts.gated(nnx.tanh(self.filter(x)), nnx.sigmoid(self.gate(x)))
        return x + self.residual(y), self.skip(y)


class WaveNet(nnx.Module):
    """Args: `repeats` times rates 1, 2, 4, ... up to `2 ** (layers - 1)`."""

    def __init__(
        self,
        width: int = 32,
        skip: int = 512,
        layers: int = 10,
        repeats: int = 3,
        values: int = 256,
        *,
        rngs: nnx.Rngs,
    ):
        self.first = causal(1, width, 2, rngs=rngs)
        self.layers = nnx.List()
        for _ in range(repeats):
            self.layers += [Gated(width, skip, 2**layer, rngs=rngs) for layer in range(layers)]
        self.hidden, self.last = nnx.Linear(skip, skip, rngs=rngs), nnx.Linear(skip, values, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x, total = self.first(x), None
        for layer in self.layers:
            x, skip = layer(x)
            total = skip if total is None else total + skip
        return self.last(nnx.relu(self.hidden(nnx.relu(total))))
