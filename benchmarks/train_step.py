"""One training step, ours and PyTorch's: `python -m benchmarks.train_step [--json FILE]`.

The models are those of `benchmarks.models`. PyTorch, where it is installed, is measured eager in both of its
layouts, and with --compiled through its compiler as well.
"""

from benchmarks import timing
from benchmarks.models import MODELS, batch_of, ours, theirs


def measure(args):
    """Times of every model, here."""
    rows = []
    for name in args.models.split(","):
        images, labels = batch_of(name, args.batch)
        calls = {f"hdc {b}": compiled_step(name, images, labels, b) for b in args.backends.split(",")}
        calls |= theirs(name, images, labels)
        if args.compiled:
            calls |= theirs(name, images, labels, compiled=True)
        rows.append({"what": name, "times": timing.interleaved(calls, args.repeats)})
    return rows


def compiled_step(name, images, labels, backend, dtype="float32"):
    """Our step, as a call that waits for its end."""
    import jax
    import jax.numpy as jnp

    from hdc import ops

    step, state = ours(name, dtype)
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    kept = [state]
    with ops.backend(backend), ops.winograd():
        compiled = jax.jit(step).lower(state, images, labels).compile()

    def call():
        kept[0], _ = jax.block_until_ready(compiled(kept[0], images, labels))

    return call


if __name__ == "__main__":
    parser = timing.parser("train_step", __doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="of a, b, c, q")
    parser.add_argument("--backends", default="lax,jax,native", help="of lax, jax, native")
    parser.add_argument("--batch", type=int, default=128, help="images a step (q: 8)")
    parser.add_argument("--compiled", action="store_true", help="PyTorch's compiler too")
    timing.run("train_step", parser, measure, baseline="torch")
