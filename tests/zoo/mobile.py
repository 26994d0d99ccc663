"""Inverted residuals: MobileNetV2, MobileNetV3 and EfficientNet.

Sandler et al., CVPR 2018 (arXiv:1801.04381); Howard et al., ICCV 2019 (arXiv:1905.02244); Tan and Le, ICML
2019 (arXiv:1905.11946). With MobileNet (Howard et al. 2017; arXiv:1704.04861), which came before.
"""

from collections.abc import Callable, Sequence

from flax import nnx
from jax import Array

from zoo.parts import ConvNorm, SqueezeExcite

Act = Callable[[Array], Array]


class MobileNet(nnx.Module):
    """Depthwise and 1 x 1 convolutions in turn."""

    def __init__(self, width: int = 32, *, rngs: nnx.Rngs):
        self.layers = nnx.List([ConvNorm(3, width, 3, 2, rngs=rngs)])
        ins = width
        for times, stride in zip(
            (2, 4, 4, 8, 8, *[16] * 6, 32, 32), (1, 2, 1, 2, 1, 2, *[1] * 5, 2, 1), strict=True
        ):
            self.layers.append(ConvNorm(ins, ins, 3, stride, groups=ins, rngs=rngs))
            self.layers.append(ConvNorm(ins, times * width, 1, rngs=rngs))
            ins = times * width

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x


class Inverted(nnx.Module):
    """Widened, depthwise, excited where `squeezed` is above 0, narrowed, added where the shape stays."""

    def __init__(
        self,
        ins: int,
        wide: int,
        outs: int,
        kernel: int,
        stride: int,
        rate: int = 1,
        squeezed: int = 0,
        act: Act = nnx.relu6,
        gate: Act = nnx.sigmoid,
        *,
        rngs: nnx.Rngs,
    ):
        self.widen = ConvNorm(ins, wide, 1, act=act, rngs=rngs) if wide != ins else None
        self.depthwise = ConvNorm(wide, wide, kernel, stride, rate, groups=wide, act=act, rngs=rngs)
        inner = nnx.relu if gate is nnx.hard_sigmoid else act
        self.excite = SqueezeExcite(wide, squeezed, inner, gate, rngs=rngs) if squeezed else None
        self.narrow = ConvNorm(wide, outs, 1, act=None, rngs=rngs)
        self.adds = ins == outs and stride == 1

    def __call__(self, x: Array) -> Array:
        y = x if self.widen is None else self.widen(x)
        y = self.depthwise(y)
        if self.excite is not None:
            y = self.excite(y)
        y = self.narrow(y)
        return x + y if self.adds else y


class MobileNetV2(nnx.Module):
    """Args: `rows` of (expansion, channels, blocks, stride); `output_stride` as for ResNet."""

    ROWS = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(
        self,
        rows: Sequence[tuple[int, int, int, int]] = ROWS,
        stem: int = 32,
        output_stride: int = 32,
        *,
        rngs: nnx.Rngs,
    ):
        self.stem = ConvNorm(3, stem, 3, 2, act=nnx.relu6, rngs=rngs)
        self.blocks = nnx.List()
        ins, total, rate = stem, 2, 1
        for times, outs, blocks, stride in rows:
            before = rate
            if total * stride > output_stride:
                rate, stride = rate * stride, 1
            total *= stride
            for number in range(blocks):
                step, here = (stride, before) if number == 0 else (1, rate)
                self.blocks.append(Inverted(ins, times * ins, outs, 3, step, here, rngs=rngs))
                ins = outs

    def __call__(self, x: Array) -> Array:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x


class MobileNetV3(nnx.Module):
    """MobileNetV3-Large. Args: `rows` of (kernel, widened, channels, excited, hard swish, stride)."""

    ROWS = (
        (3, 16, 16, False, False, 1),
        (3, 64, 24, False, False, 2),
        (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2),
        (5, 120, 40, True, False, 1),
        (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 480, 112, True, True, 1),
        (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2),
        (5, 960, 160, True, True, 1),
        (5, 960, 160, True, True, 1),
    )

    def __init__(self, rows: Sequence[tuple] = ROWS, stem: int = 16, *, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, stem, 3, 2, act=nnx.hard_swish, rngs=rngs)
        self.blocks = nnx.List()
        ins = stem
        for kernel, wide, outs, excited, hard, stride in rows:
            act = nnx.hard_swish if hard else nnx.relu
            squeezed = max(1, wide // 4) if excited else 0
            self.blocks.append(
                Inverted(ins, wide, outs, kernel, stride, 1, squeezed, act, nnx.hard_sigmoid, rngs=rngs)
            )
            ins = outs

    def __call__(self, x: Array) -> Array:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x


class EfficientNet(nnx.Module):
    """EfficientNet-B0. Args: `rows` of (expansion, channels, blocks, stride, kernel)."""

    ROWS = (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )

    def __init__(
        self, rows: Sequence[tuple[int, int, int, int, int]] = ROWS, stem: int = 32, *, rngs: nnx.Rngs
    ):
        self.stem = ConvNorm(3, stem, 3, 2, act=nnx.silu, rngs=rngs)
        self.blocks = nnx.List()
        ins = stem
        for times, outs, blocks, stride, kernel in rows:
            for number in range(blocks):
                step, squeezed = stride if number == 0 else 1, max(1, ins // 4)
                self.blocks.append(
                    Inverted(ins, times * ins, outs, kernel, step, 1, squeezed, nnx.silu, rngs=rngs)
                )
                ins = outs

    def __call__(self, x: Array) -> Array:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x
