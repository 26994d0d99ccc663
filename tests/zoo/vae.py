"""The decoder of an image autoencoder (Rombach et al., Latent Diffusion, CVPR 2022; arXiv:2112.10752)."""

from collections.abc import Sequence

from flax import nnx
from jax import Array

from zoo import parts
from zoo.parts import conv, nearest


class Residual(nnx.Module):
    def __init__(self, ins: int, outs: int, groups: int, *, rngs: nnx.Rngs):
        self.norm = nnx.GroupNorm(ins, num_groups=groups, rngs=rngs)
        self.first = conv(ins, outs, 3, bias=True, rngs=rngs)
        self.renorm = nnx.GroupNorm(outs, num_groups=groups, rngs=rngs)
        self.second = conv(outs, outs, 3, bias=True, rngs=rngs)
        self.shortcut = conv(ins, outs, 1, bias=True, rngs=rngs) if ins != outs else None

    def __call__(self, x: Array) -> Array:
        y = self.first(nnx.silu(self.norm(x)))
        y = self.second(nnx.silu(self.renorm(y)))
        return y + (x if self.shortcut is None else self.shortcut(x))


class Attention(nnx.Module):
    """One head over the whole map."""

    def __init__(self, width: int, groups: int, *, rngs: nnx.Rngs):
        self.norm = nnx.GroupNorm(width, num_groups=groups, rngs=rngs)
        self.query, self.key, self.value, self.out = (nnx.Linear(width, width, rngs=rngs) for _ in range(4))

    def __call__(self, x: Array) -> Array:
        batch, _, _, channels = x.shape
        y = self.norm(x).reshape(batch, -1, 1, channels)
        weights = nnx.softmax(parts.scores(self.query(y), self.key(y)))
        return x + self.out(parts.weighed(weights, self.value(y)).reshape(x.shape))


class Decoder(nnx.Module):
    """From a latent map of 4 channels to an image 8 times as large.

    Args:
        attention: whether the map in the middle asks all of itself.
    """

    def __init__(
        self,
        width: int = 128,
        times: Sequence[int] = (4, 4, 2, 1),
        blocks: int = 3,
        groups: int = 32,
        *,
        attention: bool = True,
        rngs: nnx.Rngs,
    ):
        ins = times[0] * width
        self.first = conv(4, ins, 3, bias=True, rngs=rngs)
        self.enter = Residual(ins, ins, groups, rngs=rngs)
        self.attention = Attention(ins, groups, rngs=rngs) if attention else None
        self.leave = Residual(ins, ins, groups, rngs=rngs)
        self.levels, self.up = nnx.List(), nnx.List()
        for level, by in enumerate(times):
            residuals = nnx.List()
            for _ in range(blocks):
                residuals.append(Residual(ins, by * width, groups, rngs=rngs))
                ins = by * width
            self.levels.append(residuals)
            self.up.append(conv(ins, ins, 3, bias=True, rngs=rngs) if level < len(times) - 1 else None)
        self.norm = nnx.GroupNorm(ins, num_groups=groups, rngs=rngs)
        self.last = conv(ins, 3, 3, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.enter(self.first(x))
        x = x if self.attention is None else self.attention(x)
        x = self.leave(x)
        for residuals, up in zip(self.levels, self.up, strict=True):
            for residual in residuals:
                x = residual(x)
            x = x if up is None else up(nearest(x))
        return self.last(nnx.silu(self.norm(x)))
