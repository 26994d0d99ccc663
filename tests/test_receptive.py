"""`hdc.receptive.analyse` against path counts entry by entry, schedules, gradients and sums done by hand."""

import doctest
import math
import sys
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
from networks import context

from hdc import equations
from hdc.errors import InputError
from hdc.fields import PathCounts
from hdc.networks import ContextNetwork
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


def reached(model: nnx.Module, shape: tuple[int, ...], at: tuple[int, ...]) -> np.ndarray:
    """Where the output pixel `at` of a model with values changes with the input: bool `[space...]`."""
    graph, state = nnx.split(model)
    rng = np.random.default_rng(0)
    image, mix = jnp.asarray(rng.standard_normal(shape)), jnp.asarray(rng.standard_normal(99))

    @jax.jit
    def score(x: Array, state: nnx.State) -> Array:
        pixel = nnx.merge(graph, state)(x)[(0, *at)]  # type: ignore[operator]
        return (pixel * mix[: len(pixel)]).sum()

    return np.asarray(jax.grad(score)(image, state) != 0)[0].any(axis=-1)


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


@settings(max_examples=45)
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
    if analysis.within_edges:
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


# --- schedules ---

RATES = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@settings(max_examples=25)
@given(RATES, st.sampled_from([2, 3, 5]), st.booleans())
def test_a_context_network_sees_what_its_schedule_says(rates: list[int], taps: int, separable: bool) -> None:
    schedule = DilationSchedule(tuple(rates), kernel_size=taps)
    counts = np.convolve(np.ones(3), np.array(schedule.path_counts, float))
    side = len(counts) + 8
    model = made(
        lambda rngs: context(
            schedule, in_channels=2, classes=3, task="dense", width=4, separable=separable, rngs=rngs
        )
    )
    analysis = analyse(model, (1, side, side, 2))
    shared = np.outer(counts, counts) / counts.sum() ** 2
    assert analysis.size == (len(counts),) * 2
    np.testing.assert_allclose(analysis.path_counts, shared, rtol=0, atol=1e-12)
    np.testing.assert_allclose(analysis.paths_inside.sum(), 1, atol=1e-12)
    assert analysis.support.sum() == np.count_nonzero(shared)
    if taps == 3:
        whole = DilationSchedule((1, *rates))
        assert (analysis.size, analysis.gap_free) == ((whole.receptive_field,) * 2, whole.gap_free)
        assert analysis.coverage == pytest.approx(whole.coverage**2)
        hole = whole.first_hole
        assert analysis.paths.first_hole == (None if hole is None else (0, hole))
        assert analysis.gridding.index == pytest.approx(whole.gridding.index, abs=1e-9)
        if whole.gridding.index > 1e-9:
            assert analysis.gridding.frequency == pytest.approx(whole.gridding.frequency)
    assert [layer.rate[0] for layer in analysis.layers] == [1, *rates]
    for depth, layer in enumerate(analysis.layers):
        assert layer.size[0] == 3 + (taps - 1) * sum(rates[:depth])
        before = DilationSchedule((1, *rates[:depth])).coverage ** 2
        assert layer.coverage == pytest.approx(before) or taps != 3


@settings(max_examples=15)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.sampled_from([2, 3]))
def test_residuals_add_the_identity(rates: list[int], separable: bool, taps: int) -> None:
    schedule = DilationSchedule(tuple(rates), kernel_size=taps)
    model = made(
        lambda rngs: context(
            schedule,
            in_channels=3,
            classes=2,
            task="dense",
            width=2,
            separable=separable,
            residual=True,
            rngs=rngs,
        )
    )
    side = 2 * sum(rates) + 12
    analysis = analyse(model, (1, side, side, 3))
    counts = np.ones((1, 1))
    # The offset of the block's input in what its SAME convolution reads: the odd pixel comes after.
    for rate, k, identity in [(1, 3, False), *((rate, taps, True) for rate in rates)]:
        wide = np.zeros([n + (k - 1) * rate for n in counts.shape])
        for a, b in np.ndindex(k, k):
            wide[a * rate :, b * rate :][: counts.shape[0], : counts.shape[1]] += counts
        if identity:
            # From the output back, a tap's pixel lies before by what SAME adds before.
            low = (k - 1) * rate // 2
            wide[low : low + counts.shape[0], low : low + counts.shape[1]] += counts
        counts = wide
    np.testing.assert_allclose(analysis.path_counts, counts / counts.sum(), rtol=0, atol=1e-12)
    branches = PathCounts.of_layers([[1], *([0, rate] for rate in rates)], 3)
    if taps == 3:
        np.testing.assert_allclose(branches.counts, analysis.path_counts, rtol=0, atol=1e-12)
        most = max(1, *rates)
        assert analysis.gridding.index == pytest.approx(branches.gridding(most).index, abs=1e-9)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_a_causal_signal_model_sees_back_by_its_schedule(rates: list[int]) -> None:
    schedule = DilationSchedule(tuple(rates), kernel_size=2)
    layers = made(
        lambda rngs: nnx.List(
            nnx.Conv(2, 2, (2,), kernel_dilation=rate, padding="CAUSAL", rngs=rngs) for rate in rates
        )
    )
    length = schedule.receptive_field + 4
    model = nnx.Sequential(*(layer for conv in layers for layer in (conv, nnx.relu)))
    analysis = analyse(model, (1, length, 2), (length - 2,))
    counts = np.array(schedule.path_counts, float)
    np.testing.assert_allclose(analysis.path_counts, counts / counts.sum(), rtol=0, atol=1e-12)
    assert analysis.paths.origin == (length - 1 - schedule.receptive_field,)
    assert (analysis.paths.first_hole or (None,))[0] == schedule.first_hole
    assert analysis.coverage == pytest.approx(schedule.coverage)
    assert analysis.gridding.index == pytest.approx(schedule.gridding.index, abs=1e-9)
    assert analysis.offset == (-(schedule.receptive_field - 1) / 2,)


@settings(max_examples=15)
@given(st.lists(st.tuples(*[st.integers(1, 4)] * 2, *[st.integers(1, 4)] * 2), min_size=1, max_size=4))
def test_each_axis_has_its_own_rates_and_taps(layers: list[tuple[int, int, int, int]]) -> None:
    convs = [conv(1, 1, (k, m), kernel_dilation=(r, s)) for k, m, r, s in layers]
    side = 3 + sum(3 * max(r, s) for _, _, r, s in layers)
    analysis = analyse(nnx.Sequential(*convs), (1, side, side + 1, 1))
    rows, columns = np.ones(1), np.ones(1)
    for k, m, r, s in layers:
        rows = np.convolve(rows, np.bincount(r * np.arange(k)))
        columns = np.convolve(columns, np.bincount(s * np.arange(m)))
    shared = np.outer(rows, columns) / rows.sum() / columns.sum()
    np.testing.assert_allclose(analysis.path_counts, shared, rtol=0, atol=1e-12)
    assert analysis.paths.origin[0] == side // 2 - sum((k - 1) * r // 2 for k, _, r, _ in layers)


# --- gradients ---


class SmallUNet(nnx.Module):
    """Two halvings by average pooling, transposed convolutions back, and skips."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.first = nnx.Conv(2, 3, (3, 3), rngs=rngs)
        self.second = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.bottom = nnx.Conv(4, 4, (3, 3), kernel_dilation=2, rngs=rngs)
        self.up_second = nnx.ConvTranspose(4, 3, (2, 2), strides=(2, 2), rngs=rngs)
        self.up_first = nnx.ConvTranspose(7, 3, (2, 2), strides=(2, 2), rngs=rngs)
        self.last = nnx.Conv(6, 2, (3, 3), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        high = nnx.relu(self.first(x))
        middle = nnx.relu(self.second(nnx.avg_pool(high, (2, 2), strides=(2, 2))))
        low = nnx.relu(self.bottom(nnx.avg_pool(middle, (2, 2), strides=(2, 2))))
        middle = jnp.concatenate([middle, self.up_second(low)], axis=-1)
        return self.last(jnp.concatenate([high, self.up_first(middle)], axis=-1))


@pytest.mark.parametrize("at", [(0, 1), (9, 12)])
def test_gradients_are_not_zero_exactly_where_something_is_seen(at: tuple[int, int]) -> None:
    schedule = DilationSchedule((3, 4))
    context = reference.filled(
        lambda: ContextNetwork(
            schedule, in_channels=2, classes=2, task="dense", width=2, residual=True, rngs=nnx.Rngs(0)
        ),
        positive=True,
    )
    unet = reference.filled(lambda: SmallUNet(rngs=nnx.Rngs(0)), positive=True)
    for model, shape in ((context, (1, 14, 15, 2)), (unet, (1, 16, 20, 2))):

        def score(x: Array, model: nnx.Module = model) -> Array:
            return model(x)[0, at[0], at[1]].sum()

        gradient = np.asarray(jax.grad(score)(jnp.ones(shape)))[0]
        analysis = analyse(model, shape, at)
        np.testing.assert_array_equal(analysis.support, (gradient != 0).any(axis=-1))


def test_a_unet_by_hand() -> None:
    analysis = analyse(made(lambda rngs: SmallUNet(rngs=rngs)), (1, 64, 64, 2))
    names = [layer.name for layer in analysis.layers]
    assert names == ["first", "sum pool", "second", "sum pool (2)", "bottom", "up_second", "up_first", "last"]
    kinds = [layer.kind for layer in analysis.layers]
    assert kinds == [*["conv", "sum pool"] * 2, "conv", "transposed conv", "transposed conv", "conv"]
    assert [layer.output_stride[0] for layer in analysis.layers] == [1, 2, 2, 4, 4, 2, 1, 1]
    assert [layer.strides[1] for layer in analysis.layers] == [
        1,
        2,
        1,
        2,
        1,
        Fraction(1, 2),
        Fraction(1, 2),
        1,
    ]
    assert [layer.map for layer in analysis.layers] == [(n, n) for n in (64, 32, 32, 16, 16, 32, 64, 64)]
    # The 31 rows to 33 lie in quarters 7 and 8, which see 5 to 10, rows 20 to 43, widened by 2 and by 1.
    assert (analysis.size, analysis.paths.origin) == ((30, 30), (17, 17))
    assert (analysis.output_stride, analysis.within_edges, analysis.couplings) == ((1, 1), False, ())


@pytest.mark.parametrize("at", [(4, 4), (0, 3)])
@pytest.mark.parametrize("mode", ["edge", "mean", "reflect", "symmetric", "wrap", "linear_ramp"])
def test_padding_of_any_mode(mode: str, at: tuple[int, int]) -> None:
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    model = Model(
        lambda model, x: model.conv(jnp.pad(x, pads, mode=mode)),
        conv=reference.filled(lambda: nnx.Conv(2, 2, (3, 3), padding="VALID", rngs=nnx.Rngs(0))),
    )
    analysis = analyse(model, (1, 8, 9, 2), at)
    np.testing.assert_array_equal(analysis.support, reached(model, (1, 8, 9, 2), at))
    assert (analysis.size, analysis.within_edges) == ((3, 3), False) or at == (0, 3)


def recurrent(**options: Any) -> nnx.RNN:
    return nnx.RNN(nnx.GRUCell(3, 3, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0), **options)


def by_turns(model: Model, x: Array) -> list[Array]:
    state, states = jnp.zeros((1, 3)), []
    for turn in range(x.shape[1]):
        state = jnp.tanh(state + model.mix(x[:, turn]))
        states.append(state)
    return states


def put_in_place(model: Model, x: Array) -> Array:
    result = jnp.zeros(x.shape)
    for turn, state in enumerate(by_turns(model, x)):
        result = jax.lax.dynamic_update_slice(result, state[:, None], (0, turn, 0))
    return result


def set_in_place(model: Model, x: Array) -> Array:
    result = jnp.zeros(x.shape)
    for turn, state in enumerate(by_turns(model, x)):
        result = result.at[:, turn].set(state)
    return result


def padded_in_place(model: Model, x: Array) -> Array:
    states = enumerate(by_turns(model, x))
    last = x.shape[1] - 1
    return sum(jnp.pad(state[:, None], ((0, 0), (turn, last - turn), (0, 0))) for turn, state in states)


RECURRENCES: dict[str, Callable] = {
    "scan": lambda model, x: model.rnn(x),
    "backwards": lambda model, x: model.back(x),
    "rows of a map": lambda model, x: model.rnn(x.reshape(1, -1, 3)).reshape(x.shape),
    "stacked": lambda model, x: jnp.stack(by_turns(model, x), axis=1),
    "updated": put_in_place,
    "set": set_in_place,
    "padded": padded_in_place,
    "added up": lambda model, x: jax.lax.associative_scan(jnp.add, model.mix(x), axis=1),
}


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", list(RECURRENCES))
def test_a_recurrence_over_the_map_sees_all_that_came_before(name: str, residual: bool) -> None:
    def call(model: Model, x: Array) -> Array:
        return RECURRENCES[name](model, x) + (x if residual else 0)

    parts = {
        "rnn": recurrent(),
        "back": recurrent(reverse=True, keep_order=True),
        "mix": reference.filled(lambda: nnx.Linear(3, 3, rngs=nnx.Rngs(0))),
    }
    shape, at = ((1, 3, 4, 3), (1, 2)) if name == "rows of a map" else ((1, 7, 3), (4,))
    model = Model(call, **parts)
    analysis = analyse(model, shape, at)
    np.testing.assert_array_equal(analysis.support, reached(model, shape, at))
    assert analysis.support.sum() == {"rows of a map": 7, "backwards": 3}.get(name, 5)
    assert analysis.couplings == ()
    # A scan ends where the map does; of single steps nobody can tell.
    assert analysis.within_edges or name not in ("scan", "backwards", "rows of a map")


def test_a_recurrence_of_hundreds_of_turns() -> None:
    def call(model: Model, x: Array) -> Array:
        def turn(place: Array, held: tuple[Array, Array]) -> tuple[Array, Array]:
            state, states = held
            state = jnp.tanh(state + jax.lax.dynamic_index_in_dim(x, place, 1, keepdims=False))
            return state, states.at[:, place].set(state)

        first = jnp.zeros((1, 2)), jnp.zeros(x.shape)
        return jax.lax.fori_loop(0, x.shape[1], turn, first)[1] + x

    analysis = of(call, (1, 400, 2), (300,))
    assert pixels(analysis.support) == {(row,) for row in range(301)}


@pytest.mark.parametrize(("taps", "stride", "seen"), [(3, 1, 9), (3, 2, 4), (2, 2, 1), (4, 3, 4)])
@pytest.mark.parametrize("at", [None, (0, 1)])
def test_a_circular_transposed_convolution(
    taps: int, stride: int, seen: int, at: tuple[int, int] | None
) -> None:
    model = reference.filled(
        lambda: nnx.ConvTranspose(
            2, 2, (taps, taps), strides=(stride, stride), padding="CIRCULAR", rngs=nnx.Rngs(0)
        )
    )
    analysis = analyse(model, (1, 6, 8, 2), at)
    np.testing.assert_array_equal(analysis.support, reached(model, (1, 6, 8, 2), analysis.at))
    assert analysis.support.sum() == seen or at is not None
    assert analysis.output_stride == (Fraction(1, stride),) * 2


def test_a_layer_after_a_circular_transposed_convolution_sees_no_more_than_the_map() -> None:
    up = made(lambda rngs: nnx.ConvTranspose(2, 2, (3, 3), strides=(2, 2), padding="CIRCULAR", rngs=rngs))
    analysis = of(lambda model, x: model.conv(model.up(x)), (1, 16, 16, 2), up=up, conv=conv(2, 2))
    assert [layer.size for layer in analysis.layers] == [(2, 2), (2, 2)]
    assert analysis.size == (2, 2)


def mix_rows(model: Model, x: Array) -> Array:
    return model.mix(x.swapaxes(1, 3)).swapaxes(1, 3)


def mixer(model: Model, x: Array) -> Array:
    return model.back(nnx.gelu(model.there(x.swapaxes(1, 3)))).swapaxes(1, 3)


def dense(model: Model, x: Array) -> Array:
    return model.all(x.reshape(1, -1)).reshape(x.shape)


@pytest.mark.parametrize(
    ("call", "seen"),
    [
        (mix_rows, 6),
        (lambda model, x: model.conv(mix_rows(model, x)), 18),
        (mixer, 6),
        (lambda model, x: x + mixer(model, x), 6),
        (dense, 48),
    ],
)
def test_a_layer_along_an_axis_of_the_map_leaves_it_an_axis(call: Callable, seen: int) -> None:
    sizes = {"mix": (6, 6), "there": (6, 11), "back": (11, 6), "all": (96, 96)}
    parts = {
        name: reference.filled(lambda size=size: nnx.Linear(*size, rngs=nnx.Rngs(0)))
        for name, size in sizes.items()
    }
    parts["conv"] = reference.filled(lambda: nnx.Conv(2, 2, (3, 3), rngs=nnx.Rngs(0)))
    model = Model(call, **parts)
    analysis = analyse(model, (1, 6, 8, 2), (1, 5))
    np.testing.assert_array_equal(analysis.support, reached(model, (1, 6, 8, 2), (1, 5)))
    assert (analysis.support.sum(), analysis.output_stride) == (seen, (1, 1))


def test_an_output_along_one_axis_of_the_map_has_places_there() -> None:
    analysis = of(lambda model, x: model.conv(x).mean(axis=1), (1, 6, 8, 2), (2,), conv=conv(2, 2))
    assert pixels(analysis.support) == {(row, column) for row in range(6) for column in (1, 2, 3)}
    assert (analysis.at, analysis.output_stride, analysis.offset) == ((2,), None, None)


BAND = np.abs(np.arange(9)[:, None] - np.arange(9)) <= 2
FULL_ROW = BAND & (np.arange(9) != 4)[:, None]  # of which the fourth is masked out as a whole


def heads(x: Array) -> Array:
    return x.reshape(1, 9, 2, 2)


def attend(**options: Any) -> Callable:
    return lambda model, x: jax.nn.dot_product_attention(*[heads(x)] * 3, **options).reshape(x.shape)


def weighing(weigh: Callable) -> Callable:
    return lambda model, x: weigh(model.query(x) @ model.key(x).swapaxes(1, 2)) @ model.value(x)


ATTENTION: dict[str, tuple[Callable, int]] = {
    "all": (lambda model, x: model.attention(x), 9),
    "causal": (lambda model, x: model.attention(x, mask=nnx.make_causal_mask(x[..., 0])), 5),
    "causal, twice": (
        lambda model, x: model.attention(
            model.attention(x, mask=nnx.make_causal_mask(x[..., 0])), mask=nnx.make_causal_mask(x[..., 0])
        ),
        5,
    ),
    "kept": (lambda model, x: model.attention(x, mask=model.mask[...]), 5),
    "is_causal": (attend(is_causal=True), 5),
    "window": (attend(local_window_size=(2, 1)), 4),
    "bias": (attend(bias=np.where(BAND, 0, -1e9)[None, None]), 5),
    "infinity": (weighing(lambda scores: nnx.softmax(jnp.where(BAND, scores, -jnp.inf))), 5),
    "where": (weighing(lambda scores: jax.nn.softmax(scores, where=BAND)), 5),
    "added": (weighing(lambda scores: nnx.softmax(scores + (1.0 - jnp.float32(BAND[None])) * -10000)), 5),
    "times": (weighing(lambda scores: scores * BAND[None]), 5),
    "tril": (weighing(jnp.tril), 5),
    "sigmoid": (weighing(lambda scores: nnx.sigmoid(jnp.where(BAND, scores, -1e9))), 5),
    "a row without any": (weighing(lambda scores: nnx.softmax(jnp.where(FULL_ROW, scores, -1e9))), 9),
}


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", list(ATTENTION))
def test_attention_reads_what_its_mask_leaves(name: str, residual: bool) -> None:
    call, seen = ATTENTION[name]
    parts: dict[str, Any] = {
        part: reference.filled(lambda: nnx.Linear(4, 4, rngs=nnx.Rngs(0)), seed)
        for seed, part in enumerate(["query", "key", "value"])
    }
    parts["attention"] = reference.filled(
        lambda: nnx.MultiHeadAttention(2, 4, decode=False, rngs=nnx.Rngs(0)), 3
    )
    parts["mask"] = nnx.Variable(jnp.asarray(BAND[None, None]))
    model = Model(lambda model, x: call(model, x) + (x if residual else 0), **parts)
    analysis = analyse(model, (1, 9, 4), (4,))
    np.testing.assert_array_equal(analysis.support, reached(model, (1, 9, 4), (4,)))
    assert analysis.support.sum() == seen
    assert (analysis.couplings, analysis.within_edges) == ((), True)
    assert "also sees" not in repr(analysis)


def test_the_paths_of_masked_attention_are_those_that_are_left() -> None:
    query, key, value = (made(lambda rngs: nnx.Linear(4, 4, rngs=rngs)) for _ in range(3))
    weigh = weighing(lambda scores: nnx.softmax(jnp.where(BAND, scores, -1e9)))
    analysis = of(weigh, (1, 9, 4), (4,), query=query, key=key, value=value)
    # Five values, the key of each and, five times, the query of row 4.
    counts = np.where(BAND[4], 2.0, 0.0)
    counts[4] += 5
    np.testing.assert_allclose(analysis.paths_inside, counts / counts.sum(), atol=1e-12)


def test_a_mask_without_values_is_refused_and_weights_are_none() -> None:
    attention = made(lambda rngs: nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs))
    mask = nnx.Variable(jax.ShapeDtypeStruct((9, 9), bool))

    def masked(model: Model, x: Array) -> Array:
        return model.attention(x, mask=model.mask[...])

    with pytest.raises(InputError, match="mask, which is not known"):
        of(masked, (1, 9, 4), attention=attention, mask=mask)
    gate = nnx.Param(jax.ShapeDtypeStruct((9, 9), jnp.float32))
    gated = of(
        lambda model, x: model.attention(x, mask=model.gate[...] > 0),
        (1, 9, 4),
        attention=attention,
        gate=gate,
    )
    assert gated.support.all()


def test_a_softmax_over_the_map_that_nothing_is_summed_with_is_a_summary() -> None:
    analysis = of(lambda model, x: x * nnx.softmax(model.conv(x), axis=1), (1, 9, 2), conv=conv(2, 2, (3,)))
    assert (analysis.size, analysis.couplings) == ((3,), ("an operation without parameters",))


# --- by hand ---


def test_a_strided_network_by_hand() -> None:
    stem, block, skip = conv(3, 4, 7, strides=2), conv(4, 4, 3, strides=2), conv(4, 4, 1, strides=2)

    def call(model: Model, x: Array) -> Array:
        x = nnx.max_pool(nnx.relu(model.stem(x)), (3, 3), strides=(2, 2), padding="SAME")
        return nnx.relu(model.block(x) + model.skip(x))

    analysis = of(call, (1, 32, 32, 3), stem=stem, block=block, skip=skip)
    # SAME adds 2, 0 and 0 before: pixel 0 reads -2..4, then 0..2 of these, then 0..2 of those.
    assert (analysis.size, analysis.output_stride, analysis.offset) == ((19, 19), (8, 8), (7.0, 7.0))
    assert analysis.paths.origin == (2 * 8 - 2,) * 2
    assert [layer.name for layer in analysis.layers] == ["stem", "max pool", "block", "skip"]
    assert [layer.kind for layer in analysis.layers] == ["conv", "max pool", "conv", "conv"]
    assert [layer.kernel for layer in analysis.layers] == [(7, 7), (3, 3), (3, 3), (1, 1)]
    assert [layer.input_map for layer in analysis.layers] == [(32, 32), (16, 16), (8, 8), (8, 8)]
    assert [layer.map for layer in analysis.layers] == [(16, 16), (8, 8), (4, 4), (4, 4)]
    assert [layer.input_stride for layer in analysis.layers] == [(n, n) for n in (1, 2, 4, 4)]
    assert [layer.output_stride for layer in analysis.layers] == [(n, n) for n in (2, 4, 8, 8)]
    assert [layer.size for layer in analysis.layers] == [(7, 7), (11, 11), (19, 19), (11, 11)]
    # Of 16 x 7 taps 2 lie before the map, 1 + 3 after; of 8 x 3 and of 4 x 3 one after.
    inside = [1 - 6 / 112, 1 - 1 / 24, 1 - 1 / 12, 1.0]
    assert [layer.padding_share for layer in analysis.layers] == pytest.approx([1 - n**2 for n in inside])
    assert [layer.padded for layer in analysis.layers] == [True, True, True, False]
    line = np.convolve(np.ones(7), np.bincount([0, 2, 4]))
    deep = np.convolve(line, np.bincount([0, 4, 8]))
    counts = np.outer(deep, deep)
    counts[:11, :11] += np.outer(line, line)
    np.testing.assert_allclose(analysis.path_counts, counts / counts.sum(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("rate", "taps", "size"), [(1, 3, (5, 8)), (3, 3, (5, 7)), (2, 5, (9, 4)), (8, 3, (6, 6))]
)
def test_the_share_of_taps_in_the_padding(rate: int, taps: int, size: tuple[int, int]) -> None:
    (layer,) = analyse(conv(1, 1, taps, kernel_dilation=rate), (1, *size, 1)).layers
    assert layer.padding_share == pytest.approx(reference.padding_share(rate, taps, size))


def test_branches_weigh_by_their_channels() -> None:
    def call(model: Model, x: Array) -> Array:
        return model.head(jnp.concatenate([model.wide(x), x], axis=-1))

    shared = of(call, (1, 9, 9, 2), wide=conv(2, 6), head=conv(8, 1, 1)).path_counts
    # 6 of 8 channels are the sum of nine pixels, 2 are the pixel itself.
    assert shared[0, 0] == pytest.approx(6 / (6 * 9 + 2))
    assert shared[1, 1] == pytest.approx((6 + 2) / (6 * 9 + 2))


def test_some_channels_of_a_layer_weigh_as_many() -> None:
    def call(model: Model, x: Array) -> Array:
        return jnp.concatenate([model.wide(x)[..., :3], x], axis=-1)

    shared = of(call, (1, 9, 9, 2), wide=conv(2, 6)).path_counts
    assert shared[0, 0] == pytest.approx(3 / (3 * 9 + 2))


@pytest.mark.parametrize(
    "gate", [lambda x: x * nnx.sigmoid(x), nnx.gelu, lambda x: jnp.where(x > 0, x, x / 2)]
)
def test_a_pointwise_function_is_one_path(gate: Callable) -> None:
    def call(model: Model, x: Array) -> Array:
        return jnp.concatenate([model.wide(x), gate(model.single(x))], axis=-1)

    shared = of(call, (1, 9, 9, 2), wide=conv(2, 2), single=conv(2, 2, 1)).path_counts
    assert shared[1, 1] == pytest.approx(2 / 10)


def test_groups_are_kept_apart() -> None:
    def call(model: Model, x: Array) -> Array:
        return model.second(model.first(x))[..., :1]

    def first(x: Array) -> Array:
        return jnp.concatenate([x, jnp.roll(x, 3, axis=1)], axis=-1)

    parts = {"first": lambda x: first(x), "second": conv(2, 2, (1, 3), feature_group_count=2)}
    assert pixels(of(call, (1, 9, 9, 1), (4, 4), **parts).support) == {(4, 3), (4, 4), (4, 5)}


def summaries() -> dict[str, tuple[Callable, dict]]:
    def excited(model: Model, x: Array) -> Array:
        x = model.conv(x)
        weights = nnx.sigmoid(model.up(nnx.relu(model.down(x.mean(axis=(1, 2))))))
        return x * weights[:, None, None]

    def pyramid(model: Model, x: Array) -> Array:
        pooled = model.image(x.mean(axis=(1, 2), keepdims=True))
        return jnp.concatenate([model.conv(x), jnp.broadcast_to(pooled, x.shape)], axis=-1)

    def resized(model: Model, x: Array) -> Array:
        pooled = model.image(nnx.avg_pool(x, x.shape[1:3]))
        return jnp.concatenate([model.conv(x), jax.image.resize(pooled, x.shape, "bilinear")], axis=-1)

    def multiplied(model: Model, x: Array) -> Array:
        # As einsum may resize many channels: with the weights along both axes in one matrix.
        pooled = model.image(x.mean(axis=(1, 2), keepdims=True))
        weights = jnp.ones((1, 1, *x.shape[1:3]))
        return model.conv(x) + jnp.einsum("bhwc,hwHW->bHWc", pooled, weights)

    def columns(model: Model, x: Array) -> Array:
        x = model.conv(x)
        return x * nnx.sigmoid(model.image(x.mean(axis=1, keepdims=True)))  # coordinate attention

    def normal(model: Model, x: Array) -> Array:
        return model.norm(model.conv(x))

    def batch(model: Model, x: Array) -> Array:
        return model.norm(model.conv(x), use_running_average=False)

    first = {"conv": conv(4, 4)}
    squeeze = {
        "down": made(lambda r: nnx.Linear(4, 2, rngs=r)),
        "up": made(lambda r: nnx.Linear(2, 4, rngs=r)),
    }
    image = {"image": conv(4, 4, 1)}
    group = made(lambda rngs: nnx.GroupNorm(4, num_groups=2, rngs=rngs))
    return {
        "up": (excited, first | squeeze),
        "image": (pyramid, first | image),
        "image ": (resized, first | image),
        "image  ": (multiplied, first | image),
        "image   ": (columns, first | image),
        "norm": (normal, first | {"norm": group}),
        "norm ": (normal, first | {"norm": made(lambda rngs: nnx.InstanceNorm(4, rngs=rngs))}),
        "norm  ": (batch, first | {"norm": made(lambda rngs: nnx.BatchNorm(4, rngs=rngs))}),
    }


@pytest.mark.parametrize("name", list(summaries()))
def test_a_summary_of_the_map_that_returns_to_it_is_a_coupling_and_not_counted(name: str) -> None:
    call, parts = summaries()[name]
    analysis = of(call, (1, 12, 12, 4), **parts)
    assert analysis.couplings == (name.strip(),)
    assert (analysis.size, analysis.within_edges) == ((3, 3), False)
    np.testing.assert_allclose(analysis.path_counts, np.full((3, 3), 1 / 9), rtol=0, atol=1e-12)
    assert "also sees a summary of the map" in repr(analysis)


@pytest.mark.parametrize(
    "norm",
    [
        made(lambda rngs: nnx.LayerNorm(4, rngs=rngs)),
        made(lambda rngs: nnx.RMSNorm(4, rngs=rngs)),
        made(lambda rngs: nnx.BatchNorm(4, rngs=rngs)),
    ],
)
def test_a_normalisation_of_each_pixel_couples_nothing(norm: nnx.Module) -> None:
    analysis = of(lambda model, x: model.norm(model.conv(x)), (1, 12, 12, 4), conv=conv(4, 4), norm=norm)
    assert (analysis.couplings, analysis.size) == ((), (3, 3))
    np.testing.assert_allclose(analysis.path_counts, np.full((3, 3), 1 / 9), rtol=0, atol=1e-12)


def test_a_masked_kernel_has_only_its_own_taps() -> None:
    mask = np.ones((3, 3, 2, 2), np.float32)
    mask[1, 2:], mask[2] = 0, 0
    layers = [nnx.Conv(2, 2, (3, 3), mask=jnp.asarray(mask), rngs=nnx.Rngs(0)) for _ in range(2)]
    analysis = analyse(nnx.Sequential(*layers), (1, 11, 11, 2))
    taps = {(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0)}
    assert pixels(analysis.support) == {(5 + a + c, 5 + b + d) for a, b in taps for c, d in taps}
    assert analysis.paths_inside[4, 4] == pytest.approx(4 / 25)


def test_a_mask_may_differ_from_channel_to_channel() -> None:
    mask = np.zeros((1, 3, 2, 2), np.float32)
    mask[0, 0, 0, 0] = mask[0, 2, 1, 1] = 1
    layers = [nnx.Conv(2, 2, (1, 3), mask=jnp.asarray(mask), rngs=nnx.Rngs(0)) for _ in range(2)]
    analysis = analyse(nnx.Sequential(*layers), (1, 9, 9, 2))
    assert pixels(analysis.support) == {(4, 2), (4, 6)}


def test_a_dense_head_and_attention_take_in_the_within_edges() -> None:
    attention = made(lambda rngs: nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs))

    def attend(model: Model, x: Array) -> Array:
        return model.attention(x.reshape(1, -1, 4)).reshape(x.shape)

    head = made(lambda rngs: nnx.Linear(36, 5, rngs=rngs))
    dense = of(lambda model, x: model.head(x[..., 0].reshape(1, -1)), (1, 6, 6, 4), head=head)
    attended = of(attend, (1, 6, 6, 4), attention=attention)
    for analysis in (attended, dense):
        assert (analysis.within_edges, analysis.size, analysis.offset) == (True, (6, 6), None)
        assert analysis.gap_free
    np.testing.assert_allclose(dense.path_counts, np.full((6, 6), 1 / 36), rtol=0, atol=1e-12)
    # The query is of the pixel itself, keys and values are of all.
    assert pixels(attended.path_counts > attended.path_counts.min() + 1e-9) == {(3, 3)}
    assert (dense.at, dense.output_stride) == ((), None)


def test_loops_are_written_out() -> None:
    @nnx.split_rngs(splits=4)
    @nnx.vmap(in_axes=(0,), out_axes=0)
    def stack(rngs: nnx.Rngs) -> nnx.Conv:
        return nnx.Conv(2, 2, (3, 3), kernel_dilation=2, rngs=rngs)

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def through(layer: nnx.Conv, x: Array) -> Array:
        return nnx.relu(layer(x))

    scanned = of(lambda model, x: through(model.layers, x), (1, 20, 20, 2), layers=made(stack))
    counts = reference.path_counts([2] * 4, 3)
    shared = np.outer(counts, counts) / counts.sum() ** 2
    np.testing.assert_allclose(scanned.path_counts, shared, rtol=0, atol=1e-12)
    assert [layer.size[0] for layer in scanned.layers] == [5, 9, 13, 17]

    def again(model: Model, x: Array) -> Array:
        return jax.lax.scan(lambda x, _: (model.layer(x), None), x, None, length=3)[0]

    assert of(again, (1, 20, 20, 2), layer=conv(2, 2)).size == (7, 7)


def test_moving_and_adding_up_along_the_map() -> None:
    three = conv(1, 1, (3,))
    rolled = of(lambda model, x: model.conv(jnp.roll(x, 2, axis=1)), (1, 9, 1), (1,), conv=three)
    assert pixels(rolled.support) == {(7,), (8,), (0,)}
    summed = of(lambda model, x: jnp.cumsum(model.conv(x), axis=1), (1, 9, 1), (2,), conv=three)
    np.testing.assert_allclose(summed.paths_inside, np.array([2, 3, 2, 1, 0, 0, 0, 0, 0]) / 8, atol=1e-12)
    assert summed.within_edges
    turned = of(lambda model, x: model.conv(x[:, ::-1])[:, ::-1], (1, 9, 1), (1,), conv=three)
    assert pixels(turned.support) == {(0,), (1,), (2,)}
    wrapped = analyse(conv(1, 1, (3,), padding="CIRCULAR"), (1, 9, 1), (0,))
    assert pixels(wrapped.support) == {(8,), (0,), (1,)}


@pytest.mark.parametrize("at", [(0, 8), (15, 14), (7, 7)])
def test_around_a_circular_edge_the_field_goes_on(at: tuple[int, int]) -> None:
    analysis = analyse(conv(1, 1, kernel_dilation=2, padding="CIRCULAR"), (1, 16, 15, 1), at)
    rows, columns = (
        {(place + step) % n for step in (-2, 0, 2)} for place, n in zip(at, (16, 15), strict=True)
    )
    assert pixels(analysis.support) == {(row, column) for row in rows for column in columns}
    assert (analysis.size, analysis.within_edges, analysis.offset) == ((5, 5), False, (0, 0))
    assert analysis.paths.origin == (at[0] - 2, at[1] - 2)


def test_maps_that_are_joined_are_no_circular_padding() -> None:
    def call(model: Model, x: Array) -> Array:
        return model.conv(jnp.concatenate([x[:, 1::2], x, x[:, :3]], axis=1))

    analysis = of(call, (1, 8, 1), (2,), conv=conv(1, 1, (3,)))
    assert (pixels(analysis.support), analysis.paths.origin) == ({(3,), (5,), (7,)}, (3,))


def test_some_pixels_taken_by_their_numbers_keep_their_distance() -> None:
    def call(model: Model, x: Array) -> Array:
        return model.conv(x)[:, jnp.array([2, 3, 4])]

    analysis = of(call, (1, 9, 1), (0,), conv=conv(1, 1, (3,)))
    assert (pixels(analysis.support), analysis.output_stride, analysis.offset) == (
        {(1,), (2,), (3,)},
        (1,),
        (2.0,),
    )


def test_a_signal_held_as_a_map_has_no_other_edge() -> None:
    def call(model: Model, x: Array) -> Array:
        return model.conv(x.reshape(1, 9, 1, 2)).reshape(1, 9, 2)

    analysis = of(call, (1, 9, 2), conv=conv(2, 2))
    assert (analysis.size, analysis.within_edges, analysis.offset) == ((3,), False, (0.0,))


def test_axes_in_another_order_are_told_apart() -> None:
    def call(model: Model, x: Array) -> Array:
        turned = model.conv(x.swapaxes(1, 2))
        return nnx.max_pool(turned, (1, 3), strides=(1, 3)).swapaxes(1, 2)

    layer = conv(2, 2, (5, 3), strides=(2, 1))
    analysis = of(call, (1, 12, 16, 2), conv=layer)
    first, second = analysis.layers
    assert (first.kernel, first.strides, first.input_map, first.map) == ((3, 5), (1, 2), (12, 16), (12, 8))
    assert (second.kernel, second.strides, second.map) == ((3, 1), (3, 1), (4, 8))
    assert (analysis.size, analysis.output_stride) == ((5, 5), (3, 2))


def test_a_far_corner_with_few_paths_is_not_lost() -> None:
    layers = [conv(1, 1, (3,)) for _ in range(24)]

    def call(model: Model, x: Array) -> Array:
        x = jnp.repeat(x[:, ::2], 2, axis=1)
        for layer in model.layers:
            x = layer(x)
        return x

    large = of(call, (1, 96, 1), (47,), layers=nnx.List(layers))
    small = of(call, (1, 48, 1), (23,), layers=nnx.List(layers))
    assert (large.within_edges, large.size) == (False, (49,))
    assert small.within_edges or small.size == large.size


@pytest.mark.parametrize(("at", "seen"), [(5, {1, 2, 3}), (4, {2})])
def test_stacked_maps_stay_apart(at: int, seen: set[int]) -> None:
    def interleaved(model: Model, x: Array) -> Array:
        return jnp.stack([x, model.conv(x)], axis=2).reshape(1, 18, 2)

    def picked(model: Model, x: Array) -> Array:
        return jnp.stack([x, model.conv(x)], axis=-1)[..., at % 2]

    three = conv(2, 2, (3,))
    analysis = of(interleaved, (1, 9, 2), (at,), conv=three)
    assert ({row for (row,) in pixels(analysis.support)}, analysis.output_stride) == (seen, (Fraction(1, 2),))
    analysis = of(picked, (1, 9, 2), (2,), conv=three)
    assert {row for (row,) in pixels(analysis.support)} == seen


def test_a_tiled_map_sees_where_its_copy_does() -> None:
    analysis = of(
        lambda model, x: jnp.tile(model.conv(x), (1, 2, 1)), (1, 9, 2), (11,), conv=conv(2, 2, (3,))
    )
    assert pixels(analysis.support) == {(1,), (2,), (3,)}


def test_a_signal_layer_on_every_column_of_a_map() -> None:
    layer = nnx.Conv(2, 2, (3,), rngs=nnx.Rngs(0))
    call = jax.vmap(layer, in_axes=2, out_axes=2)
    for width in (7, 9):
        analysis = of(lambda model, x: call(x), (1, 9, width, 2), (4, 5))
        assert pixels(analysis.support) == {(3, 5), (4, 5), (5, 5)}


def test_a_branch_that_sees_only_padding_here_is_left_out() -> None:
    def call(model: Model, x: Array) -> Array:
        upsampled = jnp.repeat(jnp.repeat(model.conv(x)[:, 2:-2, 4:-4], 2, axis=1), 2, axis=2)
        return jnp.concatenate([x, jnp.pad(upsampled, ((0, 0), (0, 0), (2, 2), (0, 0)))], axis=-1)

    analysis = of(call, (1, 8, 12, 2), (0, 0), conv=conv(2, 2))
    assert pixels(analysis.support) == {(0, 0)}
    with pytest.raises(InputError, match="does not depend on its input at"):
        of(lambda model, x: call(model, x)[..., 2:], (1, 8, 12, 2), (0, 0), conv=conv(2, 2))


@pytest.mark.parametrize(("before", "after", "at", "seen"), [(7, 3, 2, 3), (11, 4, 3, 4), (3, 9, 4, 1)])
def test_weights_of_an_interpolation_that_are_zero_but_for_rounding_are_no_taps(
    before: int, after: int, at: int, seen: int
) -> None:
    analysis = of(lambda model, x: jax.image.resize(x, (1, after, 1), "bilinear"), (1, before, 1), (at,))
    assert analysis.support.sum() == seen


def test_a_constant_kernel_has_the_taps_that_each_channel_has() -> None:
    def call(model: Model, x: Array) -> Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        patches = jax.lax.conv_general_dilated_patches(x, (3, 3), (1, 1), "SAME", dimension_numbers=numbers)
        return patches[..., :1]

    assert pixels(of(call, (1, 9, 9, 1), (4, 4)).support) == {(3, 3)}


def test_hundreds_of_layers_do_not_overflow() -> None:
    def call(model: Model, x: Array) -> Array:
        return jax.lax.scan(lambda x, _: (model.layer(x), None), x, None, length=450)[0]

    analysis = of(call, (1, 5, 1), layer=conv(1, 1, (3,)))
    assert np.isfinite(analysis.path_counts).all()
    assert analysis.size == (901,)
    assert analysis.gap_free
    assert analysis.paths_inside.sum() == pytest.approx(1)


def test_the_paths_of_hundreds_of_residual_layers() -> None:
    def call(model: Model, x: Array) -> Array:
        return jax.lax.scan(lambda x, _: (x + model.layer(x), None), x, None, length=450)[0]

    analysis = of(call, (1, 5, 1), layer=conv(1, 1, (3,)))
    # Each layer multiplies by z + 2 + 1/z, which is (1 + z)^2 / z.
    expected = [float(Fraction(math.comb(900, k), 4**450)) for k in range(901)]
    assert analysis.path_counts == pytest.approx(expected, rel=1e-9, abs=1e-190)


def test_constants_that_a_loop_or_a_branch_returns() -> None:
    def call(model: Model, x: Array) -> Array:
        _, rows = jax.lax.scan(lambda c, row: (c + row, jnp.arange(3.0)), x[0, 0], x[0])
        chosen, by = jax.lax.cond(jnp.ones(()) > 0, lambda x: (x, 2.0), lambda x: (x, 0.0), x)
        return chosen * (by * rows[None, :, 1:2])

    analysis = of(call, (1, 5, 2))
    assert (analysis.size, pixels(analysis.support)) == ((1,), {(2,)})


def test_the_places_that_a_pooling_returns_depend_on_what_it_compares() -> None:
    def larger(one: tuple[Array, Array], two: tuple[Array, Array]) -> tuple[Array, ...]:
        return tuple(jnp.where(one[0] >= two[0], a, b) for a, b in zip(one, two, strict=True))

    def call(model: Model, x: Array) -> Array:
        numbers = jnp.arange(x.size, dtype=jnp.float32).reshape(x.shape)
        start = (jnp.float32(-jnp.inf), jnp.float32(0))
        window, strides = (1, 2, 3, 1), (1, 2, 2, 1)
        return jax.lax.reduce_window((x, numbers), start, larger, window, strides, "VALID")[1]

    analysis = of(call, (1, 8, 9, 1), (1, 2))
    assert pixels(analysis.support) == {(row, column) for row in (2, 3) for column in (4, 5, 6)}
    assert (analysis.layers[0].kernel, analysis.layers[0].strides) == ((2, 3), (2, 2))


def test_a_model_stays_as_it_is() -> None:
    class Counting(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.conv, self.norm = nnx.Conv(1, 1, (3, 3), rngs=rngs), nnx.BatchNorm(1, rngs=rngs)
            self.drop, self.calls = nnx.Dropout(0.5, rngs=rngs), nnx.Variable(jnp.zeros(()))

        def __call__(self, x: Array) -> Array:
            self.calls[...] += 1
            return self.drop(self.norm(self.conv(x)))

    model = reference.filled(lambda: Counting(nnx.Rngs(0)))
    graph, before = nnx.split(model)
    analyse(model, (1, 8, 8, 1))
    after_graph, after = nnx.split(model)
    assert graph == after_graph
    same = jax.tree.map(
        lambda a, b: (
            jnp.array_equal(jax.random.key_data(a), jax.random.key_data(b))
            if jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
            else jnp.array_equal(a, b)
        ),
        before,
        after,
    )
    assert all(jax.tree.leaves(same))
    assert not model.norm.use_running_average
    assert not model.drop.deterministic


def test_an_analysis_prints_and_draws() -> None:
    model = nnx.Sequential(conv(1, 2, kernel_dilation=2), conv(2, 1, (3, 3), kernel_dilation=2))
    analysis = analyse(model, (1, 20, 20, 1))
    text = repr(analysis)
    assert text.splitlines()[0] == "Sequential 1x20x20x1 -> 1x20x20x1, output pixel 10, 10"
    assert "receptive field 9x9 px, 30.9% seen, first hole at 0, 1" in text
    assert "gridding G 1.000 at 0.5 cycles per pixel (period 2 px)" in text
    assert "layers.0" in text and "layers.1" in text
    assert "problem, holes" in text
    assert analysis.figure().get_axes()


def test_the_example_of_analyse_runs() -> None:
    result = doctest.testmod(sys.modules[analyse.__module__])
    assert (result.failed, result.attempted) == (0, 6)


# --- what cannot be analysed ---


def loop(x: Array) -> Array:
    return jax.lax.while_loop(lambda y: y.sum() > 1, lambda y: y / 2, x)


BAD = {
    "has a while loop": loop,
    "at places that depend on its input": lambda x: x[:, jnp.argmax(x[0, :, 0, 0])],
    "does not know the operation": lambda x: jnp.linalg.cholesky(x[..., 0]),
    "returns 2 arrays": lambda x: (x, x),
    "returns 0 arrays": lambda x: None,
    "does not depend on its input": lambda x: jnp.ones(x.shape),
    "ZeroDivisionError": lambda x: x / (1 // 0),
}


@pytest.mark.parametrize("message", list(BAD))
def test_models_that_have_no_receptive_field(message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        of(lambda model, x: BAD[message](x), (1, 6, 6, 2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("at", [(6, 0), (-1, 2), (1,), (1, 2, 3), 3, "ab", (1.5, 2), (None, 1), ((1, 2), 3)])
def test_a_place_off_the_map(at: Any) -> None:
    with pytest.raises(InputError, match="is not a place") as caught:
        analyse(conv(2, 2), (1, 6, 6, 2), at)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "shape", [(6, 6), (1, 6, 6, 3), (1, 6, 0, 2), (1, 6.0, 6, 2), (1, 6, 6), 6, None, "1662", (True, 6, 6, 2)]
)
def test_a_shape_that_does_not_fit(shape: Any) -> None:
    with pytest.raises(InputError) as caught:
        analyse(conv(2, 2), shape)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "shape",
    [(1, 4096, 4097, 2), (1, 10**6, 10**6, 2), (10**12, 6, 6, 2), (1, 10**40, 1, 2), (1, 6, 6, 10**9)],
)
def test_a_shape_too_large_to_count_on(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"too large.* at most 16777216") as caught:
        analyse(conv(2, 2), shape)
    assert "\n" not in str(caught.value)
    assert "x".join(map(str, shape)) in str(caught.value)


def test_the_largest_shape_is_quick() -> None:
    assert analyse(conv(2, 2), (2**24, 4096, 4096, 2)).size == (3, 3)


@pytest.mark.parametrize("given", [np.zeros((1, 8, 8, 2)), jnp.zeros((1, 8, 8, 2)), [[1, 8, 8, 2]] * 40])
def test_an_array_in_place_of_a_shape_is_named_in_one_line(given: Any) -> None:
    for call in (lambda: analyse(conv(2, 2), given), lambda: analyse(conv(2, 2), (1, 8, 8, 2), given)):
        with pytest.raises(InputError, match=r"an array of shape|an object of type list") as caught:
            call()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 150


@pytest.mark.parametrize("model", [nnx.Conv, None, nnx.Dict(), 3, "model", np.ones(3)])
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises(InputError) as caught:
        analyse(model, (1, 6, 6, 2))
    assert "\n" not in str(caught.value)


def test_a_vector_has_no_places() -> None:
    with pytest.raises(InputError, match="no spatial axes"):
        of(lambda model, x: x.mean(axis=(1, 2)), (1, 6, 6, 2), (1, 1))


def test_space_to_depth_is_not_said_to_grid() -> None:
    def call(model: Model, x: Array) -> Array:
        phases = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return model.conv(jnp.concatenate(phases, axis=-1))

    analysis = of(call, (1, 32, 32, 2), conv=conv(8, 4))
    assert analysis.gap_free
    assert not [finding for finding in analysis.findings if finding.problem]


@pytest.mark.parametrize("padding", ["CAUSAL", "CIRCULAR", "REFLECT"])
def test_padding_that_is_a_step_of_its_own_counts_as_padding(padding: str) -> None:
    layers = {"conv": conv(1, 1, (3,), kernel_dilation=4, padding=padding)}
    analysis = of(lambda model, x: model.conv(x), (1, 20, 1), **layers)
    (layer,) = analysis.layers
    assert (layer.input_map, layer.map, layer.padded) == ((20,), (20,), True)
    reads = np.add.outer(np.arange(20), [-8, -4, 0] if padding == "CAUSAL" else [-4, 0, 4])
    if padding == "CIRCULAR":  # around the edge is the map again
        reads %= 20
    assert layer.padding_share == pytest.approx(np.mean((reads < 0) | (reads > 19)))
    assert not [finding for finding in analysis.findings if finding.rule == "VALID"]


@pytest.mark.parametrize(("rate", "left"), [(20, "one tap is left"), (10, "")])
def test_causal_padding_is_told_from_padding_on_both_sides(rate: int, left: str) -> None:
    layers = {"conv": conv(1, 1, (2,), kernel_dilation=rate, padding="CAUSAL")}
    analysis = of(lambda model, x: model.conv(x), (1, 20, 1), **layers)
    (layer,) = analysis.layers
    assert (layer.causal, layer.padding_share) == ((True,), pytest.approx(rate / 40))
    found = [finding.message for finding in analysis.findings if finding.rule in ("rate and map", "padding")]
    assert [left in message for message in found] == [True] * bool(left)
    same = of(lambda model, x: model.conv(x), (1, 20, 1), conv=conv(1, 1, (2,), kernel_dilation=rate))
    assert same.layers[0].causal == (False,)


def test_padding_is_one_number_in_the_table_and_in_the_advice() -> None:
    layers = {"conv": conv(1, 1, kernel_dilation=7, strides=2)}
    analysis = of(lambda model, x: model.conv(x), (1, 13, 10, 1), **layers)
    (finding,) = (finding for finding in analysis.findings if finding.rule == "padding")
    assert finding.where == "conv"
    assert finding.message == (
        f"{analysis.layers[0].padding_share:.1%} of its taps fall into the padding of the 13 x 10 px map"
    )


def test_padding_by_hand_does_not_hide_a_rate_that_is_larger_than_the_map() -> None:
    def call(model: Model, x: Array) -> Array:
        return model.conv(jnp.pad(x, ((0, 0), (16, 16), (16, 16), (0, 0))))

    analysis = of(call, (1, 8, 8, 1), conv=conv(1, 1, kernel_dilation=16, padding="VALID"))
    assert analysis.layers[0].padding_share == pytest.approx(1 - 1 / 9)
    assert "rate and map" in {finding.rule for finding in analysis.findings}


def test_an_empty_output_is_named() -> None:
    with pytest.raises(InputError, match=r"the output \(1, 0, 0, 2\) of Conv .* is empty"):
        analyse(conv(2, 2, kernel_dilation=20, padding="VALID"), (1, 32, 32, 2))


def test_a_forgotten_batch_is_refused() -> None:
    with pytest.raises(InputError, match="with the batch first"):
        analyse(nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), (32, 32, 3))


def test_a_layer_on_the_phases_of_a_map_sees_one_phase() -> None:
    def call(model: Model, x: Array) -> Array:
        b, h, w, c = x.shape
        phases = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 2, 4, 1, 3, 5)
        y = model.conv(phases.reshape(4 * b, h // 2, w // 2, c))
        return y.reshape(b, 2, 2, h // 2, w // 2, c).transpose(0, 3, 1, 4, 2, 5).reshape(x.shape)

    analysis = of(call, (1, 16, 16, 1), conv=conv(1, 1))
    (layer,) = analysis.layers
    assert (analysis.size, layer.size) == ((5, 5), (5, 5))
    assert layer.coverage == pytest.approx(9 / 25)


def test_a_kernel_made_from_the_image_sees_what_it_is_made_from() -> None:
    def call(model: Model, x: Array) -> Array:
        kernel = x[0, :3, :3, :, None]
        return jax.lax.conv_general_dilated(
            jnp.ones((1, 8, 8, 2)), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert pixels(of(call, (1, 8, 8, 2)).support) == {
        (row, column) for row in range(3) for column in range(3)
    }


# --- other versions of JAX ---


def test_the_parts_of_a_scan_are_told_by_their_shapes() -> None:
    def call(x: Array) -> Any:
        other = x.sum()
        return jax.lax.scan(lambda c, row: (c + row * other, c), jnp.zeros(2), x, reverse=True)

    (equation,) = [e for e in jax.make_jaxpr(call)(jnp.zeros((3, 2))).eqns if e.primitive.name == "scan"]
    found = equations.scan(equation)
    assert (found.constants, found.carried, found.length, found.reverse) == (1, 1, 3, True)
    unknown = equation.replace(invars=equation.invars[::-1])
    with pytest.raises(InputError, match=r"JAX .* the operation 'scan': its operands"):
        equations.scan(unknown)


@pytest.mark.parametrize("name", ["length", "reverse", "jaxpr"])
def test_a_parameter_that_jax_no_longer_has_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = equations.parameters

    def without(equation: Any) -> equations.Parameters:
        given = {key: value for key, value in whole(equation).items() if key != name}
        return equations.Parameters(equation.primitive.name, given)

    monkeypatch.setattr(equations, "parameters", without)
    with pytest.raises(InputError, match=f"the operation 'scan': it has no parameter '{name}'") as caught:
        of(lambda model, x: jax.lax.map(lambda row: 2 * row, x), (3, 6, 6, 2))
    assert "\n" not in str(caught.value)


def test_a_branch_is_no_continuation_of_the_trunk() -> None:
    def call(model: Model, x: Array) -> Array:
        x = model.stem(x)
        return jnp.concatenate([model.one(x), model.two(x)], axis=-1)

    layers = {"stem": conv(1, 1), "one": conv(1, 1, kernel_dilation=6), "two": conv(1, 1, kernel_dilation=12)}
    rules = {finding.rule for finding in of(call, (1, 64, 64, 1), **layers).findings}
    assert rules == {"holes"}
