"""On an NVIDIA GPU: our layers, training steps and seeds side by side, beside PyTorch's, in one process and
one call of at most six minutes: `python -m benchmarks.gpu [--json FILE]`.

Ours are measured as `auto` (Triton kernels where they serve) and as `lax` (XLA and cuDNN); PyTorch's eager,
with cuDNN's own search, and through torch.compile. Dense convolutions of float32 may use TF32, as is the
default of both. When the time is up, what is left is named.
"""

import argparse
import json
import sys
import time
from functools import partial

import numpy as np

from benchmarks import models, timing
from benchmarks.epoch import both

# name: (batch, side, channels in, channels out, kernel size, rate, kind)
LAYERS = {
    **{f"depthwise 128, 3x3 rate {r}": (32, 128, 128, 128, 3, r, "depthwise") for r in (1, 2, 5, 9)},
    **{f"depthwise 128, 5x5 rate {r}": (32, 128, 128, 128, 5, r, "depthwise") for r in (1, 2, 5, 9)},
    **{f"separable 128-128, 3x3 rate {r}": (32, 128, 128, 128, 3, r, "separable") for r in (1, 5)},
    **{f"dense 128-128, 3x3 rate {r}": (32, 128, 128, 128, 3, r, "dense") for r in (1, 2, 5, 9)},
    "dense 128-128, 5x5 rate 2": (32, 128, 128, 128, 5, 2, "dense"),
    **{f"dense {c}-{c}, 3x3 rate {r}": (8, 64, c, c, 3, r, "dense") for c in (16, 32) for r in (1, 2)},
}
TYPES = ("float32", "bfloat16")
SEEDS, SEVERAL = (1, 4, 16, 64), ("q", "c")  # numbers of seeds, and models


def layer(name, dtype, device):
    """Calls of a layer, forward and backward: ours and PyTorch's."""
    import jax
    import jax.numpy as jnp

    from hdc import ops

    batch, side, ins, outs, k, rate, kind = LAYERS[name]
    draw = np.random.default_rng(0).standard_normal
    shapes = {
        "depthwise": [(k, k, 1, outs)],
        "separable": [(k, k, 1, ins), (1, 1, ins, outs)],
        "dense": [(k, k, ins, outs)],
    }[kind]
    given = [draw((batch, side, side, ins), np.float32), *(draw(s, np.float32) for s in shapes)]
    x, *kernels = (jnp.asarray(a, dtype) for a in given)

    def compiled(backend):
        def apply(x, *kernels):
            if kind == "separable":
                return ops.separable_conv2d(x, *kernels, rate=rate)
            return ops.conv2d(x, *kernels, rate=rate, groups=outs if kind == "depthwise" else 1)

        def both(x, dy, *kernels):
            y, pullback = jax.vjp(apply, x, *kernels)
            return y, pullback(dy)

        with ops.backend(backend):
            call = jax.jit(both).lower(x, dy, *kernels).compile()
        return lambda: jax.block_until_ready(call(x, dy, *kernels))

    dy = jnp.asarray(draw((batch, side, side, outs), np.float32), dtype)
    calls = {f"hdc {backend}": compiled(backend) for backend in ("auto", "lax")}
    return calls | _torch_layer(LAYERS[name], dtype, given, np.asarray(dy, np.float32), device)


def _torch_layer(shape, dtype, given, dy, device):
    try:
        import torch
    except ImportError:
        return {}
    from torch.nn import functional

    _, _, ins, _, k, rate, kind = shape
    kinds = {"device": device, "dtype": getattr(torch, dtype)}
    pads = {"padding": rate * (k - 1) // 2, "dilation": rate}

    def forward(x, *kernels):
        if kind == "separable":
            return functional.conv2d(functional.conv2d(x, kernels[0], groups=ins, **pads), kernels[1])
        return functional.conv2d(x, *kernels, groups=ins if kind == "depthwise" else 1, **pads)

    calls = {}
    for layout, form in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
        x, cotangent = (
            torch.from_numpy(a).permute(0, 3, 1, 2).to(**kinds).contiguous(memory_format=form)
            for a in (given[0], dy)
        )
        kernels = [
            torch.from_numpy(w).permute(3, 2, 0, 1).to(**kinds).contiguous(memory_format=form)
            for w in given[1:]
        ]
        leaves = [leaf.requires_grad_() for leaf in (x, *kernels)]
        forms = {"torch": forward}
        # In one row alone: it is slow to compile and calls cuDNN's kernel as well.
        if layout == "nhwc" and (k, rate, kind) == (3, 2, "depthwise"):
            forms["torch compiled"] = torch.compile(forward, dynamic=False)
        for name, apply in forms.items():

            def call(apply=apply, leaves=leaves, cotangent=cotangent):
                for leaf in leaves:
                    leaf.grad = None
                apply(*leaves).backward(cotangent)
                _wait(device)

            calls[f"{name} {layout}"] = call
    return calls


def _wait(device):
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def share_of_copy(name, dtype, times, bandwidth):
    """Bytes that a depthwise layer must move (x and y; dy twice, x and dx), over its time, of a copy's."""
    batch, side, channels, *_ = LAYERS[name]
    moved = 6 * batch * side * side * channels * (2 if dtype == "bfloat16" else 4)
    return f"{moved / (times['hdc auto']['median'] / 1000) / bandwidth:.0%} of copy"


def copy_bandwidth():
    """Bytes a second, read and written, of a copy of 1 GiB on the device."""
    import jax
    import jax.numpy as jnp

    x = jnp.zeros(2**28, jnp.float32)
    copy = jax.jit(lambda x: x + 1).lower(x).compile()
    times = timing.interleaved({"copy": lambda: jax.block_until_ready(copy(x))}, 5)
    return 2 * x.nbytes / (times["copy"]["median"] / 1000)


def step(name, dtype, device, batch):
    """Calls of a training step, ours and PyTorch's."""
    from benchmarks.train_step import compiled_step

    images, labels = models.batch_of(name, batch)
    kinds = {"device": device, "dtype": dtype}
    backends = ("auto", "lax")
    if name == "deeplab":  # minutes of compiling, and NCHW was the slower one by far
        backends, kinds = ("auto",), kinds | {"layouts": ("nhwc",)}
    calls = {f"hdc {b}": compiled_step(name, images, labels, b, dtype) for b in backends}
    calls |= models.theirs(name, images, labels, **kinds)
    return calls | models.theirs(name, images, labels, compiled=True, **kinds | {"layouts": ("nhwc",)})


def seeds(name, batch):
    """A step of several seeds side by side, as one compiled call."""
    import jax
    import jax.numpy as jnp

    one, start = models.ours(name)
    images, labels = (jnp.asarray(a) for a in models.batch_of(name, batch))
    calls = {}
    for count in SEEDS:
        state = jax.tree.map(lambda a, count=count: jnp.stack([a] * count), start)
        compiled = jax.jit(jax.vmap(one, in_axes=(0, None, None))).lower(state, images, labels).compile()
        label = f"{count} seed{'s' if count > 1 else ''}"
        calls[label] = lambda compiled=compiled, state=state: jax.block_until_ready(
            compiled(state, images, labels)
        )
    return calls


def jobs(device, batch):
    """What is measured, in the order of its weight: names, and what prepares the calls."""
    layers = {f"{name}, {t}": partial(layer, name, t, device) for t in TYPES for name in LAYERS}
    first = [what for what in layers if "3x3 rate 2" in what]
    found = {what: layers[what] for what in first}
    if device == "cuda":
        found["step deeplab, bfloat16"] = partial(step, "deeplab", "bfloat16", device, batch)
    found |= {f"step {name}": partial(step, name, "float32", device, batch) for name in models.MODELS}
    found |= {f"seeds of {name}": partial(seeds, name, batch) for name in SEVERAL}
    found |= {f"8 steps of {name}": partial(both, name, "auto", batch) for name in SEVERAL[:1]}
    return found | layers


def measure(device, repeats, batch, seconds):
    """Rows of times until the time is up; what is left out is named."""
    end = time.monotonic() + seconds
    bandwidth = copy_bandwidth()
    print(f"copy: {bandwidth / 1e12:.2f} TB/s", flush=True)
    rows = []
    for what, prepare in jobs(device, batch).items():
        if time.monotonic() > end:
            print(f"the time is up, left out: {what}", file=sys.stderr)
            continue
        row = {"what": what, "threads": "-", "times": timing.interleaved(prepare(), repeats)}
        if what.startswith("depthwise"):
            row["notes"] = share_of_copy(*what.rsplit(", ", 1), row["times"], bandwidth)
        rows.append(row)
        medians = {key: round(t["median"], 3) for key, t in row["times"].items()}
        print(what, json.dumps(medians), row.get("notes", ""), flush=True)
    return rows


def main():
    """The command."""
    import jax

    options = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    options.add_argument("--batch", type=int, default=128, help="images a step (q and deeplab: 8)")
    options.add_argument("--seconds", type=float, default=330, help="start no row after these")
    timing.add_output(options)
    args = options.parse_args()
    if jax.default_backend() != "gpu":
        print(
            f"benchmarks.gpu: error: JAX has no GPU here, it runs on {jax.default_backend()}", file=sys.stderr
        )
        raise SystemExit(2)
    try:
        import torch

        torch.backends.cudnn.benchmark = True
    except ImportError:
        print("PyTorch is not installed, nothing to compare with", file=sys.stderr)
    timing.report(measure("cuda", args.repeats, args.batch, args.seconds), "torch", args)


if __name__ == "__main__":
    main()
