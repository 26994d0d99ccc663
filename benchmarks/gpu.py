"""The layers and steps of `benchmarks.conv` and `benchmarks.train_step` on an NVIDIA GPU, ours through XLA
and PyTorch's of a CUDA build, in one call: `python -m benchmarks.gpu [--json FILE]`."""

import argparse
import sys

from benchmarks import conv, models, timing
from benchmarks.train_step import compiled_step


def measure(device, repeats, batch):
    """Times of every layer and model on JAX's device, and on PyTorch's `device`."""
    rows = []
    for name, layer in conv.LAYERS.items():
        calls = {"hdc": conv.ours(layer, "auto")} | conv.theirs(layer, device)
        rows.append({"what": name, "threads": "-", "times": timing.interleaved(calls, repeats)})
    for name in models.MODELS:
        images, labels = models.batch_of(name, batch)
        calls = {"hdc": compiled_step(name, images, labels, "auto")}
        calls |= models.theirs(name, images, labels, device=device)
        rows.append({"what": f"step {name}", "threads": "-", "times": timing.interleaved(calls, repeats)})
    return rows


def main():
    """The command."""
    import jax

    options = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    options.add_argument("--batch", type=int, default=128, help="images a step (q: 8)")
    timing.add_output(options)
    args = options.parse_args()
    if jax.default_backend() != "gpu":
        print(
            f"benchmarks.gpu: error: JAX has no GPU here, it runs on {jax.default_backend()}", file=sys.stderr
        )
        raise SystemExit(2)
    timing.report(measure("cuda", args.repeats, args.batch), "torch", args)


if __name__ == "__main__":
    main()
