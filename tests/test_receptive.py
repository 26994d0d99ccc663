"""`hdc.receptive.analyse` against path counts entry by entry, schedules, gradients and sums done by hand."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from hdc.errors import InputError
from hdc.networks import ContextNetwork
from hdc.path_counts import PathCounts
from hdc.receptive import Analysis, analyse
from hdc.schedules import DilationSchedule

Graph = tuple[tuple[str, tuple[int, ...], dict], ...]


class Model(nnx.Module):
    """A function of its parts and an image."""

    def __init__(self, call: Callable, **parts: Any):
        self.call = call
        for name, part in parts.items():
            setattr(self, name, part)

    def __call__(self, x: Array) -> Any:
        return self.call(self, x)


def made(make: Callable[[nnx.Rngs], Any]) -> Any:
    """A module without values: nothing is compiled for it."""
    return nnx.eval_shape(lambda: make(nnx.Rngs(0)))


def conv(ins: int, outs: int, kernel: int | tuple[int, ...] = 3, **options: Any) -> nnx.Conv:
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    return made(lambda rngs: nnx.Conv(ins, outs, size, rngs=rngs, **options))


def of(call: Callable, shape: tuple[int, ...], at: tuple[int, ...] | None = None, **parts: Any) -> Analysis:
    return analyse(Model(call, **parts), shape, at)


def pixels(found: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(map(int, place)) for place in np.argwhere(found)}


# --- random graphs, path by path ---


def layer(op: str, args: dict, channels: list[int], rngs: nnx.Rngs) -> Any:
    ins = sum(channels)
    match op:
        case "conv":
            return nnx.Conv(
                ins,
                args["features"],
                args["kernel"],
                strides=args["strides"],
                kernel_dilation=args["rate"],
                feature_group_count=args["groups"],
                padding=args["padding"],
                rngs=rngs,
            )
        case "up_conv":
            strides = (args["stride"],) * 2
            kernel = (args["kernel"],) * 2
            return nnx.ConvTranspose(
                ins, args["features"], kernel, strides=strides, padding=args["padding"], rngs=rngs
            )
        case "batch_norm":
            return nnx.BatchNorm(ins, rngs=rngs)
        case "flat" | "average":
            return nnx.Linear(args["pixels"] * ins, args["features"], rngs=rngs)
    return None


def apply(op: str, args: dict, part: Any, x: Array, *more: Array) -> Array:
    batch, height, width, channels = x.shape
    match op:
        case "conv" | "up_conv" | "batch_norm":
            return part(x)
        case "pool":
            pool = nnx.max_pool if args["largest"] else nnx.avg_pool
            return pool(x, args["kernel"], strides=args["strides"], padding=args["padding"])
        case "relu":
            return nnx.relu(x)
        case "gelu":
            return nnx.gelu(x)
        case "gate":
            return x * nnx.sigmoid(x)
        case "add":
            return x + more[0]
        case "concat":
            return jnp.concatenate([x, *more], axis=-1)
        case "repeat":
            return jnp.repeat(jnp.repeat(x, args["by"], axis=1), args["by"], axis=2)
        case "nearest" | "bilinear":
            return jax.image.resize(x, (batch, *args["size"], channels), op)
        case "pad":
            return jnp.pad(x, ((0, 0), *args["pads"], (0, 0)))
        case "slice":
            return x[:, args["cuts"][0], args["cuts"][1]]
        case "part":
            return x[..., args["start"] : args["stop"]]
        case "shuffle":
            grouped = x.reshape(batch, height, width, args["groups"], -1)
            return grouped.swapaxes(3, 4).reshape(x.shape)
        case "to_depth":
            blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
            return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, -1)
        case "to_space":
            blocks = x.reshape(batch, height, width, 2, 2, channels // 4)
            return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, -1)
        case "flat":
            return part(x.reshape(batch, -1))
        case "average":
            return part(x.mean(axis=(1, 2)))
    raise ValueError(op)


def module(graph: Graph, shapes: list[tuple[int, int, int]]) -> Model:
    def call(model: Model, x: Array) -> Array:
        values = [x]
        for k, (op, sources, args) in enumerate(graph):
            part = getattr(model, f"part{k}", None)
            values.append(apply(op, args, part, *(values[source] for source in sources)))
        return values[-1]

    parts = {}
    for k, (op, sources, args) in enumerate(graph):
        channels = [shapes[source][2] for source in sources]
        part = made(lambda rngs, op=op, args=args, channels=channels: layer(op, args, channels, rngs))
        if part is not None:
            parts[f"part{k}"] = part
    return Model(call, **parts)


POINTWISE = ("relu", "gelu", "gate", "batch_norm")


@st.composite
def operation(draw: st.DrawFn, shape: tuple[int, int, int]) -> tuple[str, dict]:
    """An operation with one operand that a map of this shape allows."""
    height, width, channels = shape
    low, high = min(height, width), max(height, width)
    names = ["conv", "conv", "conv", "same", "same", "up_conv", "pool", "pad", "slice", *POINTWISE]
    names += ["nearest", "bilinear", *(["repeat"] if high <= 8 else [])]
    names += ["shuffle"] if channels % 2 == 0 else []
    names += ["part"] if channels > 1 else []
    names += ["to_depth"] if height % 2 == width % 2 == 0 and low >= 4 and channels <= 2 else []
    names += ["to_space"] if channels % 4 == 0 and high <= 8 else []
    name = draw(st.sampled_from(names))
    side = st.integers(1, 3)
    match name:
        case "same":
            args = {"features": channels, "groups": 1, "strides": (1, 1), "padding": "SAME"}
            rate = draw(st.integers(1, 3))
            return "conv", {**args, "kernel": (3, 3), "rate": (rate, rate)}
        case "conv":
            features = draw(st.integers(1, 4))
            groups = draw(st.sampled_from([g for g in (1, 2, 4) if channels % g == features % g == 0]))
            args = {"features": features, "groups": groups, "kernel": draw(st.tuples(side, side))}
            args["rate"] = draw(st.tuples(side, st.integers(1, 2)))
            args["strides"] = draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) if low > 3 else (1, 1)
            amount = st.tuples(st.integers(0, 2), st.integers(0, 2))
            pads = draw(st.one_of(st.just("SAME"), st.just("VALID"), st.tuples(amount, amount)))
            extent = max((k - 1) * r + 1 for k, r in zip(args["kernel"], args["rate"], strict=True))
            return name, {**args, "padding": pads if low > extent + 1 else "SAME"}
        case "up_conv":
            args = {"kernel": draw(st.integers(1, 4)), "stride": draw(st.integers(1, 2 if high <= 7 else 1))}
            return name, {**args, "padding": draw(st.sampled_from(["SAME", "VALID"])), "features": 2}
        case "pool":
            stride = draw(st.integers(1, 2)) if low > 3 else 1
            args = {"kernel": (draw(st.integers(1, 3)), 2), "strides": (stride, stride), "rate": (1, 1)}
            padding = draw(st.sampled_from(["SAME", "VALID"])) if low > 4 else "SAME"
            return name, {**args, "padding": padding, "largest": draw(st.booleans())}
        case "repeat":
            return name, {"by": 2}
        case "nearest" | "bilinear":
            return name, {"size": (draw(st.integers(3, 13)), draw(st.integers(3, 13)))}
        case "pad":
            return name, {"pads": ((draw(st.integers(0, 2)), 1), (0, draw(st.integers(0, 2))))}
        case "slice":
            cuts = [slice(draw(st.integers(0, 1)), n, draw(st.integers(1, 2)) if n > 4 else 1) for n in shape]
            return name, {"cuts": tuple(cuts[:2])}
        case "part":
            start = draw(st.integers(0, channels - 1))
            return name, {"start": start, "stop": draw(st.integers(start + 1, channels))}
        case "shuffle":
            return name, {"groups": 2}
    return name, {}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, list[tuple[int, int, int]]]:
    """Four to six operations with branches; nodes that are added share no operand but through a layer."""
    shapes = [(draw(st.integers(7, 11)), draw(st.integers(7, 11)), draw(st.integers(2, 4)))]
    graph: list[tuple[str, tuple[int, ...], dict]] = []
    roots: list[set[int]] = [{0}]
    length = draw(st.integers(4, 6))
    for node in range(1, length + 1):
        last = node - 1
        wide = [k for k in range(last) if shapes[k][:2] == shapes[last][:2]]
        alike = [k for k in wide if shapes[k] == shapes[last] and not roots[k] & roots[last]]
        ends = node == length and draw(st.integers(0, 3)) == 0
        if ends:
            op = draw(st.sampled_from(["flat", "average"]))
            pixels = shapes[last][0] * shapes[last][1] if op == "flat" else 1
            sources, args = (last,), {"features": 2, "pixels": pixels}
        elif alike and draw(st.booleans()):
            op, sources, args = "add", (last, draw(st.sampled_from(alike))), {}
        elif wide and draw(st.booleans()):
            op, sources, args = "concat", (last, draw(st.sampled_from(wide))), {}
        else:
            sources = (draw(st.sampled_from([last, last, max(0, last - 1)])),)
            op, args = draw(operation(shapes[sources[0]]))
        graph.append((op, sources, args))
        shapes.append(reference.node_shape(op, args, [shapes[source] for source in sources]))
        through = set().union(*(roots[source] for source in sources))
        roots.append(through if op in ("add", *POINTWISE) else {node})
    return tuple(graph), shapes


def shares(counts: dict, shape: tuple[int, int]) -> np.ndarray:
    result = np.zeros(shape)
    for place, paths in counts.items():
        result[place] = paths
    return result / result.sum()


@settings(max_examples=60)
@given(graphs(), st.data())
def test_every_path_of_a_random_graph_is_counted(
    graph: tuple[Graph, list[tuple[int, int, int]]], data: st.DataObject
) -> None:
    ops, shapes = graph
    height, width, _ = shapes[-1]
    model, shape = module(ops, shapes), (1, *shapes[0])
    vector = ops[-1][0] in ("flat", "average")
    at = (data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1)))
    place = None if vector else at
    counts = reference.paths(ops, shapes[0], at, edges=True)
    if not counts:
        with pytest.raises(InputError, match="does not depend"):
            analyse(model, shape, place)
        return
    analysis = analyse(model, shape, place)
    assert pixels(analysis.support) == set(counts)
    np.testing.assert_allclose(analysis.paths_inside, shares(counts, shapes[0][:2]), rtol=0, atol=1e-12)
    assert not analysis.couplings
    if analysis.whole_map:
        np.testing.assert_allclose(analysis.paths.counts.sum(), 1)
        assert vector or {op for op, _, _ in ops} & {"repeat", "nearest", "bilinear", "to_depth", "to_space"}
        return
    counts = reference.paths(ops, shapes[0], at, edges=False)
    low = [min(place[axis] for place in counts) for axis in (0, 1)]
    high = [max(place[axis] for place in counts) for axis in (0, 1)]
    moved = {(row - low[0], column - low[1]): paths for (row, column), paths in counts.items()}
    assert analysis.paths.origin == tuple(low)
    expected = shares(moved, (high[0] - low[0] + 1, high[1] - low[1] + 1))
    np.testing.assert_allclose(analysis.path_counts, expected, rtol=0, atol=1e-12)
