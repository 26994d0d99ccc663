"""Steps in one compiled call against a loop of compiled steps: `python -m benchmarks.epoch [--json FILE]`."""

from benchmarks import timing
from benchmarks.models import MODELS, batch_of, ours

STEPS = 8


def measure(args):
    """Times of every model, here."""
    rows = []
    for name in args.models.split(","):
        for backend in args.backends.split(","):
            calls = both(name, backend, args.batch)
            rows.append({"what": f"{name} {backend}", "times": timing.interleaved(calls, args.repeats)})
    return rows


def both(name, backend, batch):
    """`STEPS` steps as a loop in Python and as one call."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from hdc import ops

    step, start = ours(name)
    images, labels = map(jnp.asarray, batch_of(name, batch))

    def many(state, images, labels, count):
        return lax.fori_loop(0, count, lambda _, state: step(state, images, labels)[0], state)

    with ops.backend(backend):
        one = jax.jit(step).lower(start, images, labels).compile()
        all_ = jax.jit(many).lower(start, images, labels, jnp.int32(0)).compile()

    def loop():
        state = start
        for _ in range(STEPS):
            state, _ = one(state, images, labels)
        jax.block_until_ready(state)

    return {
        "loop of steps": loop,
        "one call": lambda: jax.block_until_ready(all_(start, images, labels, jnp.int32(STEPS))),
    }


if __name__ == "__main__":
    parser = timing.parser("epoch", __doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="of a, b, c, q")
    parser.add_argument("--backends", default="jax,native", help="of lax, jax, native")
    parser.add_argument("--batch", type=int, default=128, help="images a step (q: 8)")
    timing.run("epoch", parser, measure, baseline="loop")
