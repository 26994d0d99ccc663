"""Layers forward and backward, ours and PyTorch's: `python -m benchmarks.conv [--json FILE]`.

As the networks have them: dense and separable ones with a bias and ReLU, depthwise ones without.

The last column compares the native layer with what the machine can do, measured in the same run: its
operations a second with a matrix product's, and its bytes a second, each array counted once a pass, with a
copy's.
"""

import os
import time
from typing import NamedTuple

import numpy as np

from benchmarks import timing


class Layer(NamedTuple):
    """A layer: dense, separable or depthwise; first (without the images' gradient), or pooling."""

    batch: int
    side: int
    ins: int
    outs: int
    size: int
    rate: int
    kind: str
    stride: int = 1
    groups: int = 1

    @property
    def sides(self):
        """Pixels of padding on each side."""
        return self.rate * (self.size - 1) // 2

    @property
    def out(self):
        """Pixels of a side of the outputs."""
        return (self.side - 1) // self.stride + 1 if self.kind != "pooling" else self.side // 2

    @property
    def split(self):
        """Feature groups."""
        return self.outs if self.kind == "depthwise" else self.groups


LAYERS = {
    "first 1-32": Layer(128, 28, 1, 32, 3, 1, "first"),
    "first 3-16": Layer(8, 64, 3, 16, 3, 1, "first"),
    "first 7x7 3-64 stride 2": Layer(8, 64, 3, 64, 7, 1, "first", stride=2),
    "dense 32-64, 14x14": Layer(128, 14, 32, 64, 3, 1, "dense"),
    "dense 64-64, 7x7": Layer(128, 7, 64, 64, 3, 1, "dense"),
    "dense 64-64 rate 5": Layer(128, 28, 64, 64, 3, 5, "dense"),
    "dense 16-16 rate 2": Layer(8, 64, 16, 16, 3, 2, "dense"),
    "dense 64-128 stride 2": Layer(8, 32, 64, 128, 3, 1, "dense", stride=2),
    "dense 512-512 rate 4, 8x8": Layer(8, 8, 512, 512, 3, 4, "dense"),
    "8 groups 64-64": Layer(8, 32, 64, 64, 3, 1, "dense", groups=8),
    "1x1 64-64": Layer(128, 28, 64, 64, 1, 1, "dense"),
    "1x1 64-128 stride 2": Layer(8, 32, 64, 128, 1, 1, "dense", stride=2),
    "depthwise 64 rate 1": Layer(128, 28, 64, 64, 3, 1, "depthwise"),
    "depthwise 64 rate 5": Layer(128, 28, 64, 64, 3, 5, "depthwise"),
    "depthwise 64 stride 2": Layer(128, 28, 64, 64, 3, 1, "depthwise", stride=2),
    "depthwise 64 5x5 rate 2": Layer(128, 28, 64, 64, 5, 2, "depthwise"),
    "separable 64-64 rate 5": Layer(128, 28, 64, 64, 3, 5, "separable"),
    "2x2 max pooling 32": Layer(128, 28, 32, 32, 2, 1, "pooling"),
}


def measure(args):
    """Times of every layer, here."""
    matmul, copy = peaks()
    rows = []
    for name, layer in LAYERS.items():
        if args.layers not in name:
            continue
        calls = {f"hdc {b}": ours(layer, b) for b in args.backends.split(",")} | theirs(layer)
        times = timing.interleaved(calls, args.repeats)
        row = {"what": name, "times": times}
        if "hdc native" in times:
            seconds = times["hdc native"]["median"] / 1000
            work, moved = cost(layer)
            row["notes"] = f"{work / seconds / matmul:.0%} of matmul, {moved / seconds / copy:.0%} of copy"
        rows.append(row)
    return rows


def peaks():
    """Operations a second of a matrix product, and bytes a second of a copy larger than the caches."""
    import jax
    import jax.numpy as jnp

    def best(call):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    a = np.ones((2048, 2048), np.float32)
    source = np.ones(2**26, np.float32)
    target = np.empty_like(source)
    by_jax, square = jax.jit(jnp.matmul), jnp.asarray(a)
    product = min(best(lambda: a @ a), best(lambda: by_jax(square, square).block_until_ready()))
    return 2 * 2048**3 / product, 2 * source.nbytes / best(lambda: np.copyto(target, source))


def cost(layer):
    """Operations, and bytes, of a forward and backward pass; the images' gradient only where there is one."""
    layer = Layer(*layer)
    pixels, k = layer.batch * layer.out**2, layer.size
    passes = 2 if layer.kind == "first" else 3
    taps = {"separable": (k * k + layer.outs) * layer.ins, "pooling": 0}.get(
        layer.kind, k * k * layer.ins * layer.outs // layer.split
    )
    x, y = 4 * layer.batch * layer.side**2 * layer.ins, 4 * pixels * layer.outs
    return 2 * pixels * taps * passes, (x + y) + (x + y + (0 if layer.kind == "first" else x))


def arrays(layer):
    """Images, and kernels with the bias."""
    batch, side, ins, outs, k, _, kind, _, groups = Layer(*layer)
    draw = np.random.default_rng(0).standard_normal
    biases = [] if kind in ("depthwise", "pooling") else [np.zeros(outs, np.float32)]
    x = draw((batch, side, side, ins), np.float32)
    shapes = {
        "depthwise": [(k, k, 1, outs)],
        "separable": [(k, k, 1, ins), (1, 1, ins, outs)],
        "pooling": [],
    }.get(kind, [(k, k, ins // groups, outs)])
    return x, [*(draw(shape, np.float32) for shape in shapes), *biases]


def ours(layer, backend):
    """Forward and backward in one compiled call."""
    import jax
    import jax.numpy as jnp

    from hdc import ops

    layer = Layer(*layer)
    x, kernels = arrays(layer)
    keys = {"rate": layer.rate, "strides": layer.stride, "padding": ((layer.sides,) * 2,) * 2}

    def apply(x, *kernels):
        match layer.kind:
            case "pooling":
                return ops.max_pool(x, 2)
            case "separable":
                return ops.separable_conv2d(x, *kernels, relu=True, **keys)
            case kind:
                return ops.conv2d(x, *kernels, relu=kind != "depthwise", groups=layer.split, **keys)

    def both(x, dy, *kernels):
        if layer.kind == "first":
            y, pullback = jax.vjp(lambda *kernels: apply(x, *kernels), *kernels)
        else:
            y, pullback = jax.vjp(apply, x, *kernels)
        return y, pullback(dy)

    x, kernels = jnp.asarray(x), [jnp.asarray(kernel) for kernel in kernels]
    with ops.backend(backend):
        dy = jnp.ones(jax.eval_shape(apply, x, *kernels).shape)
        compiled = jax.jit(both).lower(x, dy, *kernels).compile()
    return lambda: jax.block_until_ready(compiled(x, dy, *kernels))


def theirs(layer, device="cpu"):
    """PyTorch's, in both of its layouts; none where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    from torch.nn import functional

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    layer = Layer(*layer)
    kind = layer.kind
    images, given = arrays(layer)
    calls = {}
    for layout, form in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
        x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous(memory_format=form)
        x.requires_grad_(kind != "first")
        kernels = [torch.from_numpy(w).to(device) for w in given]
        kernels = [w.permute(3, 2, 0, 1).contiguous(memory_format=form) if w.ndim > 1 else w for w in kernels]
        for kernel in kernels:
            kernel.requires_grad_()

        def forward(x=x, kernels=kernels):
            if kind == "pooling":
                return functional.max_pool2d(x, 2)
            some = {"padding": layer.sides, "dilation": layer.rate, "stride": layer.stride}
            if kind == "depthwise":
                return functional.conv2d(x, kernels[0], groups=layer.outs, **some)
            if kind == "separable":
                y = functional.conv2d(x, kernels[0], groups=x.shape[1], **some)
                return functional.relu(functional.conv2d(y, *kernels[1:]))
            return functional.relu(functional.conv2d(x, *kernels, groups=layer.groups, **some))

        dy = torch.ones_like(forward())

        def call(forward=forward, dy=dy, leaves=(x, *kernels)):
            for leaf in leaves:
                leaf.grad = None
            forward().backward(dy)
            if device == "cuda":
                torch.cuda.synchronize()

        calls[f"torch {layout}"] = call
    return calls


if __name__ == "__main__":
    parser = timing.parser("conv", __doc__)
    parser.add_argument("--backends", default="lax,jax,native", help="of lax, jax, native")
    parser.add_argument("--layers", default="", help="those with this in their name")
    timing.run("conv", parser, measure, baseline="torch")
