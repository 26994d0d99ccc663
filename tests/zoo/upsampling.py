"""Super-resolution by pixel shuffle: ESPCN (Shi et al., CVPR 2016; arXiv:1609.05158).

And a generator of transposed convolutions whose kernel is no multiple of their stride, after DCGAN (Radford
et al., ICLR 2016; arXiv:1511.06434), which Odena et al. (Distill, 2016) criticise for its checkerboards.
"""

from collections.abc import Sequence

from flax import nnx
from jax import Array

from zoo.parts import conv, depth_to_space, up_conv


class ESPCN(nnx.Module):
    def __init__(self, widths: Sequence[int] = (64, 32), by: int = 3, *, rngs: nnx.Rngs):
        self.by = by
        self.first = conv(1, widths[0], 5, bias=True, rngs=rngs)
        self.second = conv(widths[0], widths[1], 3, bias=True, rngs=rngs)
        self.last = conv(widths[1], by**2, 3, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return depth_to_space(self.last(nnx.tanh(self.second(nnx.tanh(self.first(x))))), self.by)


class Generator(nnx.Module):
    """Args: `kernel` of the transposed convolutions, of stride 2."""

    def __init__(self, widths: Sequence[int] = (512, 256, 128), kernel: int = 5, *, rngs: nnx.Rngs):
        self.layers = nnx.List()
        for ins, outs in zip((100, *widths), (*widths, 3), strict=True):
            self.layers.append(up_conv(ins, outs, kernel, rngs=rngs))

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x
