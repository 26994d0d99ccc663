"""One training step with Adam, ours and PyTorch's: `python -m benchmarks.train_step [--json FILE]`.

Models: a, 3x3 1-32-64-64 with pooling and a dense head; b, 3x3 at rates 1, 2, 5, 1-32-64-64, stride 1,
global pooling; c, b with depthwise separable layers; q, the network of study=quickstart on 64x64 tiles.
PyTorch, where it is installed, is measured eager in both of its layouts.
"""

import argparse
import json
from pathlib import Path

MODELS = ("a", "b", "c", "q")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="benchmarks.train_step", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="of a, b, c, q")
    parser.add_argument("--backends", default="lax,jax,native", help="of lax, jax, native")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--batch", type=int, default=128, help="images a step (q: 8)")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args)))
        return
    from benchmarks.timing import on_cores, report

    passed = ["--models", args.models, "--backends", args.backends]
    passed += ["--batch", str(args.batch), "--repeats", str(args.repeats)]
    rows = on_cores("benchmarks.train_step", [int(n) for n in args.threads.split(",")], passed)
    report(rows, "torch")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(args: argparse.Namespace) -> list[dict]:
    """Times of every model, here."""
    from hdc import memory

    memory.keep()  # for both sides, before either is imported
    import numpy as np

    from benchmarks.timing import interleaved

    rows = []
    for name in args.models.split(","):
        batch, size, channels, classes = (8, 64, 3, 6) if name == "q" else (args.batch, 28, 1, 10)
        generator = np.random.default_rng(0)
        images = generator.standard_normal((batch, size, size, channels), dtype=np.float32)
        labels = generator.integers(0, classes, (batch, size, size) if name == "q" else batch)
        calls = {
            f"hdc {backend}": ours(name, images, labels, backend) for backend in args.backends.split(",")
        }
        calls |= theirs(name, images, labels)
        rows.append({"what": name, "times": interleaved(calls, args.repeats)})
    return rows


def ours(name, images, labels, backend):
    """A compiled step of ours, as a call that waits for its end."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from hdc import ops
    from hdc.layers import Conv, SeparableConv
    from hdc.networks import ContextNetwork
    from hdc.schedules import DilationSchedule

    class Classifier(nnx.Module):
        def __init__(self, rngs):
            kind = SeparableConv if name == "c" else Conv
            rates = (1, 1, 1) if name == "a" else (1, 2, 5)
            widths = ((1, 32), (32, 64), (64, 64))
            self.convs = nnx.List(
                kind(i, o, rate=r, rngs=rngs) for (i, o), r in zip(widths, rates, strict=True)
            )
            self.head = nnx.Linear(64 * 49 if name == "a" else 64, 10, rngs=rngs)

        def __call__(self, x):
            for position, conv in enumerate(self.convs):
                x = conv(x, relu=True)
                if name == "a" and position < 2:
                    x = ops.max_pool(x, 2)
            return self.head(x.reshape(len(x), -1) if name == "a" else x.mean(axis=(1, 2)))

    if name == "q":
        schedule = DilationSchedule((1, 2, 5), repeat=2)
        model = ContextNetwork(schedule, in_channels=3, classes=6, task="dense", rngs=nnx.Rngs(0))
    else:
        model = Classifier(nnx.Rngs(0))
    graph, params = nnx.split(model)
    optimizer = optax.adam(1e-3)

    @jax.jit
    def step(params, state, images, labels):
        def loss(params):
            logits = nnx.merge(graph, params)(images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    images, labels = jnp.asarray(images), jnp.asarray(labels)
    kept = [params, optimizer.init(params)]
    with ops.backend(backend):
        compiled = step.lower(*kept, images, labels).compile()

    def call():
        kept[0], kept[1], value = compiled(*kept, images, labels)
        jax.block_until_ready((kept, value))

    return call


def theirs(name, images, labels):
    """PyTorch's eager steps, by layout; none where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    import os

    from torch import nn

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def conv(i, o, rate):
        if name != "c":
            return [nn.Conv2d(i, o, 3, padding=rate, dilation=rate)]
        depthwise = nn.Conv2d(i, i, 3, padding=rate, dilation=rate, groups=i, bias=False)
        return [depthwise, nn.Conv2d(i, o, 1)]

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3))

    def model():
        if name == "q":
            rates = (1, 1, 2, 5, 1, 2, 5)
            layers = [m for k, r in enumerate(rates) for m in (*conv(3 if k == 0 else 16, 16, r), nn.ReLU())]
            return nn.Sequential(*layers, nn.Conv2d(16, 6, 1))
        rates = (1, 1, 1) if name == "a" else (1, 2, 5)
        layers = []
        for position, ((i, o), rate) in enumerate(zip(((1, 32), (32, 64), (64, 64)), rates, strict=True)):
            layers += [*conv(i, o, rate), nn.ReLU()]
            if name == "a" and position < 2:
                layers.append(nn.MaxPool2d(2))
        head = [nn.Flatten(), nn.Linear(64 * 49, 10)] if name == "a" else [Mean(), nn.Linear(64, 10)]
        return nn.Sequential(*layers, *head)

    calls = {}
    for layout, form in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
        net = model().to(memory_format=form)
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=form)
        y = torch.from_numpy(labels)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        loss = nn.CrossEntropyLoss()

        def call(net=net, x=x, y=y, optimizer=optimizer, loss=loss):
            optimizer.zero_grad(set_to_none=True)
            loss(net(x), y).backward()
            optimizer.step()

        calls[f"torch {layout}"] = call
    return calls


if __name__ == "__main__":
    main()
