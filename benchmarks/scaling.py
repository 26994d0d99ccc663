"""How a training step's time grows: `python -m benchmarks.scaling [--json FILE] [--figure FILE]`.

The network is `net=context` with rates 1, 2, 5, 1, 2, 5, ... on tiles, one logit per pixel, and Adam; one of
batch, side, width and layers is varied at a time. Beside the times stand two bounds, measured in the same
run: the multiplications of all passes at a matrix product's speed (those that fall into the padding count
too), and every map read and written once a pass at the speed of a copy.
"""

from pathlib import Path

from benchmarks import conv, timing

USUAL = {"batch": 8, "side": 64, "width": 32, "layers": 6}
VARIED = {
    "batch": (1, 2, 4, 8, 16, 32, 64),
    "side": (32, 64, 128, 256),
    "width": (8, 16, 32, 64, 128),
    "layers": (2, 4, 8, 16, 24),
}
UNITS = {"batch": "images a step", "side": "pixels of a side", "width": "channels", "layers": "layers"}


def measure(args):
    """A row for each point, here."""
    matmul, copy = conv.peaks()
    rows = []
    for name, values in VARIED.items():
        for value in values:
            sizes = USUAL | {name: value}
            times = timing.interleaved({"hdc": step(**sizes)}, args.repeats)
            work, moved = cost(**sizes)
            bounds = {"product": 1000 * work / matmul, "copy": 1000 * moved / copy}
            rows.append({"what": f"{name} {value}", "varied": name, "value": value, "times": times} | bounds)
    return rows


def cost(batch, side, width, layers):
    """Operations and bytes of a step: forward, and two passes backward, but for the images' gradient."""
    pixels = batch * side * side
    taps = 9 * width * (3 * 2 + width * 3 * layers) + 3 * width
    return 2 * pixels * taps, 4 * pixels * width * (layers + 1) * 6


def step(batch, side, width, layers):
    """A step, as a call that waits for its end."""
    import jax
    import numpy as np
    import optax
    from flax import nnx

    from hdc import ops
    from hdc.networks import ContextNetwork
    from hdc.schedules import DilationSchedule

    rates = tuple((1, 2, 5)[k % 3] for k in range(layers))
    model = ContextNetwork(
        DilationSchedule(rates), in_channels=3, classes=1, task="dense", width=width, rngs=nnx.Rngs(0)
    )
    graph, params = nnx.split(model)
    optimizer = optax.adam(1e-3)
    generator = np.random.default_rng(0)
    images = jax.numpy.asarray(generator.standard_normal((batch, side, side, 3), dtype=np.float32))
    labels = jax.numpy.asarray(generator.integers(0, 2, (batch, side, side, 1)).astype(np.float32))

    @jax.jit
    def one(state):
        params, moments = state

        def loss(params):
            return optax.sigmoid_binary_cross_entropy(nnx.merge(graph, params)(images), labels).mean()

        updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments

    kept = [(params, optimizer.init(params))]

    def call():
        with ops.winograd():
            kept[0] = jax.block_until_ready(one(kept[0]))

    return call


def draw(rows, path):
    """The figure of all rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.3), layout="constrained")
    panels = figure.subplots(1, len(VARIED), sharey=True)
    for panel, name in zip(panels, VARIED, strict=True):
        for count, marker in zip(sorted({row["threads"] for row in rows}), "os", strict=False):
            mine = [row for row in rows if row["varied"] == name and row["threads"] == count]
            where = [row["value"] for row in mine]
            (line,) = panel.loglog(
                where,
                [row["times"]["hdc"]["median"] for row in mine],
                marker,
                label=f"step, threads: {count}",
            )
            colour = line.get_color()
            panel.loglog(
                where, [row["product"] for row in mine], "-", color=colour, label="products alone, direct"
            )
            panel.loglog(where, [row["copy"] for row in mine], ":", color=colour, label="copies alone")
        panel.set_xlabel(UNITS[name])
        panel.set_xticks(VARIED[name], [str(value) for value in VARIED[name]])
        panel.minorticks_off()
    panels[0].set_ylabel("ms")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    options = timing.parser("scaling", __doc__)
    options.add_argument("--figure", type=Path, help="a file for the figure")
    rows = timing.run("scaling", options, measure, baseline="torch")
    if rows and options.parse_args().figure:
        draw(rows, options.parse_args().figure)
