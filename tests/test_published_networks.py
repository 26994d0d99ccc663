"""The published networks: what each computes, sees and costs, that it trains, and what it refuses.

A network is a row of `ROWS`, or several with other options; every row goes through all tests.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from rich.console import Console

from hdc import layers, registry
from hdc.errors import InputError
from hdc.gridding import analyse_features
from hdc.lab import experiment, parts, records, trained
from hdc.lab.config import from_dict, registry_names
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.report import tables
from hdc.lab.report.tables import TableConfig
from hdc.lab.training import in_bfloat16
from hdc.layers import evaluation
from hdc.networks import ASPP
from hdc.networks import unet as unet_file
from hdc.ops.backends import served

CLASSES = 3


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """The programs run once: compiling them fast matters more."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@dataclass(frozen=True)
class Row:
    """A small network.

    Attributes:
        net: its options; `name` is the network's.
        rates: of the schedule.
        computed: `(model, x)` to its features and logits, in slow NumPy.
        parameters: how many there are, for three channels and three classes.
        shape: of an image.
        task: what it is built for.
        twin: (object, name, value) that are replaced for gradients to show all that the network sees.
        others: options with which it takes every kind of layer.
    """

    net: dict[str, Any]
    rates: list[int]
    computed: Callable[[Any, np.ndarray], tuple[np.ndarray, np.ndarray]]
    parameters: int
    shape: tuple[int, int, int] = (13, 10, 3)
    task: registry.Task = "dense"
    twin: tuple[tuple[Any, str, Any], ...] = ()
    others: tuple[tuple[str, Any], ...] = ()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """He-normal kernels drawn by NumPy: JAX would compile a program for each shape."""
    rng = np.random.default_rng(0)

    def initializer(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[:-1])), dtype)

    monkeypatch.setattr(layers, "_initializer", initializer)


def config(row: Row, **net: Any) -> Any:
    return from_dict({"net": {**row.net, **net}, "schedule": {"rates": row.rates, "repeat": 1}})


def made(row: Row, **net: Any) -> Any:
    images = registry.inputs(row.shape, CLASSES, row.task)
    return parts.network(config(row, **net), images, rngs=nnx.Rngs(0))


def filled(row: Row, **keywords: Any) -> Any:
    """A network with random parameters and running statistics."""
    model = reference.filled(lambda: made(row), **keywords)
    if not keywords:
        rng = np.random.default_rng(1)
        for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.BatchStat)):
            moved = rng.uniform(0.5, 1.5, leaf.shape) if path[-1] == "var" else rng.normal(0, 0.1, leaf.shape)
            leaf.set_value(jnp.asarray(moved, jnp.float32))
    return evaluation(model)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


# --- slow NumPy ---


def of(value: Any) -> np.ndarray:
    return np.asarray(value[...], np.float64)


def conv(x: np.ndarray, layer: Any, rate: int = 1, stride: int = 1, relu: bool = False) -> np.ndarray:
    """Padded alike on both sides."""
    size = rate * (layer.kernel.shape[0] // 2)
    y = reference.conv2d(
        x, of(layer.kernel), rate=(rate, rate), strides=(stride, stride), padding=((size, size), (size, size))
    )
    y = y if layer.bias is None else y + of(layer.bias)
    return np.maximum(y, 0) if relu else y


def context_module(module: str, stride: int, rates: list[int]) -> Callable:
    def computed(model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = x
        for number, layer in enumerate(model.front):
            y = conv(y, layer, stride=2 if 2**number < stride else 1, relu=True)
        if module != "none":
            y = conv(y, model.scores)
            for block, rate in zip(model.blocks, rates, strict=True):
                y = conv(y, block.conv, rate, relu=True)
        return y, reference.bilinear(conv(y, model.head), x.shape[1:3])

    return computed


def norm(x: np.ndarray, layer: Any) -> np.ndarray:
    """Batch normalisation by running statistics."""
    return (x - of(layer.mean)) / np.sqrt(of(layer.var) + 1e-5) * of(layer.scale) + of(layer.bias)


def after(x: np.ndarray, layer: Any) -> np.ndarray:
    """Normalised, and ReLU."""
    return np.maximum(norm(x, layer), 0)


def normed(x: np.ndarray, block: Any, rate: int = 1, stride: int = 1) -> np.ndarray:
    return after(conv(x, block.conv, rate, stride), block.norm)


def unet(model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, kept = x, []
    for one, two in model.down:
        y = normed(normed(y, one), two)
        kept.append(y)
        y = reference.max_pool(y)
    for block, rate in zip(model.bottleneck, (2, 1), strict=True):
        y = normed(y, block, rate=rate)
    for one, two in model.up:
        fine = kept.pop()
        y = normed(normed(np.concatenate([fine, reference.bilinear(y, fine.shape[1:3])], -1), one), two)
    return y, conv(y, model.head)


def summed(x: jax.Array) -> jax.Array:
    """What max pooling may read."""
    return x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]


def esp(x: np.ndarray, module: Any, stride: int, rates: list[int], fused: bool) -> np.ndarray:
    reduced = conv(x, module.reduce, stride=stride)
    maps = [conv(reduced, branch, rate) for branch, rate in zip(module.branches, rates, strict=True)]
    if fused:
        maps[1:] = np.cumsum(maps[1:], axis=0)
    y = np.concatenate(maps, axis=-1)
    return after(y if x.shape != y.shape else x + y, module.norm)


def espnet(rates: list[int], fused: bool) -> Callable:
    def smaller(x: np.ndarray) -> np.ndarray:
        mean = np.full((3, 3, 1, 3), 1 / 9)
        return reference.conv2d(x, mean, groups=3, strides=(2, 2), padding=((1, 1), (1, 1)))

    def computed(model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = after(np.concatenate([normed(x, model.stem, stride=2), smaller(x)], -1), model.norms[0])
        for number, level in enumerate(model.levels):
            first = last = esp(y, level[0], 2, rates, fused)
            for module in list(level)[1:]:
                last = esp(last, module, 1, rates, fused)
            beside = [smaller(smaller(x))] if number == 0 else []
            y = after(np.concatenate([first, last, *beside], -1), model.norms[number + 1])
        return y, reference.bilinear(conv(y, model.head), x.shape[1:3])

    return computed


def bn(ins: int, outs: int, taps: int = 9) -> int:
    """Parameters of a convolution without bias and its normalisation."""
    return taps * ins * outs + 2 * outs


def in_esp(ins: int, outs: int, branches: int, taps: int) -> int:
    share = outs // branches
    return taps * ins * share + bn(share, outs)


# --- residual networks ---


def residual(x: np.ndarray, block: Any, rates: list[int], stride: int) -> np.ndarray:
    """A basic block or a bottleneck; takes its rates from the front of the list."""
    y = x
    if hasattr(block, "conv3"):
        y = np.maximum(norm(conv(y, block.conv1), block.bn1), 0)
        y = np.maximum(norm(conv(y, block.conv2, rates.pop(0), stride), block.bn2), 0)
        y = norm(conv(y, block.conv3), block.bn3)
    else:
        y = np.maximum(norm(conv(y, block.conv1, rates.pop(0), stride), block.bn1), 0)
        y = norm(conv(y, block.conv2, rates.pop(0)), block.bn2)
    if block.downsample is not None:
        shortcut, its_norm = block.downsample
        x = norm(conv(x, shortcut, stride=stride), its_norm)
    return np.maximum(x + y, 0)


def encoded(model: Any, x: np.ndarray, rates: list[int], strides: tuple[int, ...]) -> list[np.ndarray]:
    """The last map of each stage of a residual network with the small stem."""
    y, maps = np.maximum(norm(conv(x, model.conv1), model.bn1), 0), []
    early = [1] * 2 * sum(len(getattr(model, f"layer{stage}")) for stage in (1, 2))
    late = [*rates]
    for stage, stride in enumerate(strides, 1):
        for number, block in enumerate(getattr(model, f"layer{stage}")):
            y = residual(y, block, early if stage < 3 else late, stride if number == 0 else 1)
        maps.append(y)
    assert not late
    return maps


def linear(x: np.ndarray, layer: Any) -> np.ndarray:
    return x @ of(layer.kernel) + of(layer.bias)


def resnet(rates: list[int], strides: tuple[int, ...], whole: bool = False) -> Callable:
    def computed(model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = encoded(model, x, rates, strides)[-1]
        if whole:
            return y, linear(y.mean(axis=(1, 2)), model.fc)
        return y, reference.bilinear(linear(y, model.fc), x.shape[1:3])

    return computed


def pyramid(x: np.ndarray, aspp: Any, rates: list[int]) -> np.ndarray:
    maps = [normed(x, branch, rate) for branch, rate in zip(aspp.branches, [1, *rates], strict=True)]
    whole = normed(x.mean(axis=(1, 2), keepdims=True), aspp.image)
    return normed(np.concatenate([*maps, np.broadcast_to(whole, maps[0].shape)], axis=-1), aspp.project)


def head(kind: str, rates: list[int], strides: tuple[int, ...], aspp: list[int]) -> Callable:
    def computed(model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, *_, y = encoded(model.backbone, x, rates, strides)
        match kind:
            case "fcn":
                y = normed(y, model.last)
            case "deeplabv3":
                y = normed(pyramid(y, model.aspp, aspp), model.last)
            case "deeplabv3plus":
                fine = reference.bilinear(pyramid(y, model.aspp, aspp), first.shape[1:3])
                y = np.concatenate([fine, normed(first, model.low)], axis=-1)
                for layer in model.decoder:
                    y = normed(y, layer)
            case "duc":
                y = sum(conv(y, branch, rate) for branch, rate in zip(model.branches, aspp, strict=True))
                logits = np.zeros((*x.shape[:3], CLASSES))
                for place in np.ndindex(*x.shape[:3]):
                    image, row, column = place
                    cell = y[image, row // 2, column // 2].reshape(2, 2, CLASSES)
                    logits[place] = cell[row % 2, column % 2]
                return y, logits
        return y, reference.bilinear(conv(y, model.classes), x.shape[1:3])

    return computed


def drn(rates: list[int]) -> Callable:
    def computed(model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, late, levels = normed(x, model.stem), [*rates], list(model.levels)
        for _, count, stride in DRN_LEVELS[:4]:
            for number in range(count):
                block, step = levels.pop(0), stride if number == 0 else 1
                y = normed(y, block, 1, step) if hasattr(block, "norm") else residual(y, block, [1, 1], step)
        for block in levels:
            y = normed(y, block, late.pop(0)) if hasattr(block, "norm") else residual(y, block, late, 1)
        assert not late
        return y, reference.bilinear(linear(y, model.fc), x.shape[1:3])

    return computed


def block_parameters(ins: int, width: int, bottleneck: bool) -> int:
    """Without biases, two values for each normalised channel."""
    outs = 4 * width if bottleneck else width
    kernels = ins * width + 9 * width**2 + width * outs if bottleneck else 9 * (ins * width + width**2)
    norms = 2 * (2 * width + outs) if bottleneck else 4 * width
    return kernels + norms


def residual_parameters(
    widths: list[int], counts: list[int], strides: tuple[int, ...], stem: int, bottleneck: bool = False
) -> int:
    """Of stages behind `stem` channels: blocks, and a shortcut where a stage changes stride or channels."""
    total, ins = 0, stem
    for width, count, stride in zip(widths, counts, strides, strict=True):
        outs = 4 * width if bottleneck else width
        if stride > 1 or ins != outs:
            total += ins * outs + 2 * outs
        for _ in range(count):
            total += block_parameters(ins, width, bottleneck)
            ins = outs
    return total


EIGHT, NINE = [1, 2, 1, 2, 2, 3, 1, 2], [1, 2, 1, 2, 1, 2, 1, 3, 2]
TWOS, FOURTH = [2, 2, 2, 2], (1, 2, 1, 1)
SMALL = {"stem": "small", "output_stride": 2, "width_multiplier": 1 / 16}  # 4, 8, 16 and 32 channels
STEM = 9 * 3 * 4 + 2 * 4
ENCODER = STEM + residual_parameters([4, 8, 16, 32], TWOS, FOURTH, 4)
PYRAMID = 2 * bn(32, 16, 1) + 2 * bn(32, 16) + bn(4 * 16, 16, 1)

SEVEN = [1, 1, 2, 4, 8, 16, 1]
FRONT = 3 * 3 * 3 * 4 + 4 + 2 * (9 * 4 * 4 + 4)
SCORES = 4 * CLASSES + CLASSES
WIDE = [CLASSES * times for times in (1, 2, 2, 4, 8, 16, 32, 32)]

DRN_C, DRN_D = [1, 2, 1, 2, 2, 3, 1, 2, 2, 1, 1, 1], [1, 2, 1, 2, 2, 3, 1, 2, 2, 1]
DRN_LEVELS = [(4, 1, 1), (8, 1, 2), (16, 2, 2), (32, 2, 2), (64, 2, 1), (128, 2, 1)]  # width, blocks, stride
WITHOUT_IMAGE = ((ASPP, "summary", lambda pyramid, x: jnp.zeros_like(pyramid.branches[0](x))),)

ROWS = {
    "context_module": Row(
        {"name": "context_module", "width": 4},
        [1, 2, 3],
        context_module("basic", 1, [1, 2, 3]),
        FRONT + SCORES + 3 * (9 * CLASSES**2 + CLASSES) + CLASSES**2 + CLASSES,
        others=(("identity", False),),
    ),
    "context_module, large": Row(
        {"name": "context_module", "width": 4, "module": "large", "output_stride": 8},
        SEVEN,
        context_module("large", 8, SEVEN),
        FRONT
        + SCORES
        + sum(9 * a * b + b for a, b in itertools.pairwise(WIDE))
        + WIDE[-1] * CLASSES
        + CLASSES,
        (21, 18, 3),
        others=(("identity", False),),
    ),
    "context_module, none": Row(
        {"name": "context_module", "width": 4, "module": "none", "output_stride": 2},
        [1],
        context_module("none", 2, []),
        FRONT + SCORES,
    ),
    "unet": Row(
        {"name": "unet", "width": 2, "levels": 2, "norm": "batch"},
        [2, 1],
        unet,
        sum(bn(*pair) for pair in ((3, 2), (2, 2), (2, 4), (4, 4)))  # encoder
        + bn(4, 8) + bn(8, 8)
        + sum(bn(*pair) for pair in ((8 + 4, 4), (4, 4), (4 + 2, 2), (2, 2)))  # decoder
        + 2 * CLASSES + CLASSES,
        (8, 8, 3),
        twin=((unet_file, "max_pool", summed),),
    ),
    "espnet": Row(
        {"name": "espnet", "width_multiplier": 0.125, "modules": [1, 1]},
        [1, 2, 3],
        espnet([1, 2, 3], fused=True),
        bn(3, 2) + 2 * (2 + 3)
        + in_esp(2 + 3, 8, 3, 9) + in_esp(8, 8, 3, 1) + 2 * (2 * 8 + 3)
        + in_esp(2 * 8 + 3, 16, 3, 9) + in_esp(16, 16, 3, 1) + 2 * (2 * 16)
        + 2 * 16 * CLASSES + CLASSES,
    ),
    "espnet, without fusion": Row(
        {"name": "espnet", "width_multiplier": 0.125, "modules": [0, 0], "fused": False},
        [4, 1],
        espnet([4, 1], fused=False),
        bn(3, 2) + 2 * (2 + 3)
        + in_esp(2 + 3, 8, 2, 9) + 2 * (2 * 8 + 3)
        + in_esp(2 * 8 + 3, 16, 2, 9) + 2 * (2 * 16)
        + 2 * 16 * CLASSES + CLASSES,
        (24, 17, 3),
        "regression",
    ),
    "resnet": Row(
        {"name": "resnet", **SMALL},
        EIGHT,
        resnet(EIGHT, FOURTH),
        ENCODER + 32 * CLASSES + CLASSES,
        (9, 10, 3),
    ),
    "resnet, bottlenecks": Row(
        {"name": "resnet", "depth": 50, **SMALL, "width_multiplier": 1 / 32},
        NINE,
        resnet(NINE, FOURTH, whole=True),
        9 * 3 * 2 + 4
        + residual_parameters([2, 4, 8, 16], [3, 4, 6, 3], FOURTH, 2, bottleneck=True)
        + 64 * CLASSES + CLASSES,
        (7, 6, 3),
        "classification",
    ),
    "fcn": Row(
        {"name": "fcn", **SMALL},
        EIGHT,
        head("fcn", EIGHT, FOURTH, []),
        ENCODER + bn(32, 8) + 8 * CLASSES + CLASSES,
        (9, 10, 3),
    ),
    "deeplabv3": Row(
        {"name": "deeplabv3", **SMALL, "aspp_rates": [2, 3]},
        EIGHT,
        head("deeplabv3", EIGHT, FOURTH, [2, 3]),
        ENCODER + PYRAMID + bn(16, 16) + 16 * CLASSES + CLASSES,
        (9, 10, 3),
        twin=WITHOUT_IMAGE,
    ),
    "deeplabv3plus": Row(
        {"name": "deeplabv3plus", **SMALL, "aspp_rates": [2, 3]},
        EIGHT,
        head("deeplabv3plus", EIGHT, FOURTH, [2, 3]),
        ENCODER + PYRAMID + bn(4, 3, 1) + bn(19, 16)
        + bn(16, 16) + 16 * CLASSES + CLASSES,
        (9, 10, 3),
        twin=WITHOUT_IMAGE,
    ),
    "duc": Row(
        {"name": "duc", **SMALL, "aspp_rates": [2, 3]},
        EIGHT,
        head("duc", EIGHT, FOURTH, [2, 3]),
        ENCODER + 2 * (9 * 32 * 4 * CLASSES + 4 * CLASSES),
        (9, 10, 3),
    ),
    "drn": Row(
        {"name": "drn", "width_multiplier": 1 / 4},
        DRN_C,
        drn(DRN_C),
        49 * 3 * 4 + 8
        + residual_parameters(*zip(*DRN_LEVELS, strict=True), 4)
        + 4 * bn(128, 128) + 128 * CLASSES + CLASSES,
        (17, 18, 3),
    ),
    "drn, variant D": Row(
        {"name": "drn", "variant": "D", "depth": 22, "width_multiplier": 1 / 4},
        DRN_D,
        drn(DRN_D),
        49 * 3 * 4 + 8 + bn(4, 4) + bn(4, 8)
        + residual_parameters(*zip(*DRN_LEVELS[2:], strict=True), 8)
        + 2 * bn(128, 128) + 128 * CLASSES + CLASSES,
        (17, 18, 3),
    ),
}  # fmt: skip


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


def test_it_computes_what_its_paper_says_and_every_parameter_counts(row) -> None:
    model, x = filled(row), drawn(2, *row.shape)
    features, logits = row.computed(model, x.astype(np.float64))
    weights = drawn(*logits.shape)

    def weighed(parameters, rest, x):
        both = nnx.merge(graph, parameters, rest)
        found = both(x)
        return (found * weights).sum(), (both.features(x), found)

    graph, parameters, rest = nnx.split(model, nnx.Param, ...)
    gradients, found = jax.jit(jax.grad(weighed, has_aux=True))(parameters, rest, x)
    for one, expected in zip(found, (features, logits), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    for path, leaf in nnx.to_flat_state(gradients):
        assert np.isfinite(leaf[...]).all(), path
        assert np.abs(leaf[...]).max() > 0, path
    assert sum(leaf.size for leaf in jax.tree.leaves(parameters)) == row.parameters


def test_analyse_finds_what_the_gradients_of_a_twin_depend_on(row) -> None:
    shape = (1, *row.shape)
    seen = analyse_features(filled(row), shape)
    with contextlib.ExitStack() as stack:
        for change in row.twin:
            stack.enter_context(mock.patch.object(*change))
        graph, state = nnx.split(filled(row, positive=True))

        def gradient(state, x):
            return jax.grad(lambda x: nnx.merge(graph, state).features(x)[0, *seen.at].sum())(x)

        found = jax.jit(gradient)(state, jnp.ones(shape))
    found = np.abs(found[0]).sum(-1)
    np.testing.assert_array_equal(seen.support, found > 1e-6 * found.max())  # below: weights of interpolation


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("name", sorted({row.net["name"] for row in ROWS.values()}))
def test_it_trains_to_a_table_and_is_loaded_again(name, tmp_path, monkeypatch) -> None:
    row = ROWS[name]
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (6, *row.shape), dtype=np.uint8)
    labels = generator.integers(0, CLASSES, (6, *row.shape[:2])).astype(np.int32)
    split = Split(images, labels)
    dataset = Dataset("noise", row.task, ("a", "b", "c"), split, split, split)
    monkeypatch.setattr(experiment, "data_of", lambda _: dataset)
    groups = {"optim": {"warmup_steps": 0}, "train": {"epochs": 1, "batch_size": 6}}
    values = config(row).to_dict() | groups | {"gridding": {"images": 2, "max_period": 2}}
    experiment.run(*records.plan(tmp_path / "mine", [from_dict(values)]), Console(quiet=True))
    (run,) = records.load("mine", tmp_path)
    assert run.state == "done"
    assert run.info["network"]["parameters"] == row.parameters
    assert len(tables.build(TableConfig(study="mine"), [run]).rows) == 1
    assert trained.load(run)(images).shape[-1] == CLASSES


# Networks that share their dilated layers' code take every kind in one of them.
KINDS = [
    (name, kind)
    for name in ROWS
    for kind in registry_names("layer")
    if kind == "separable" or name in ("context_module", "unet", "espnet", "resnet")
]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_every_kind_of_layer_fits_and_computes_in_bfloat16(name, kind) -> None:
    row = ROWS[name]

    def both() -> tuple:
        model, images = made(row, layer=kind, **dict(row.others)), jnp.zeros((1, *row.shape))
        with served() as operations:
            short = in_bfloat16(model, images)
        assert {one.choice.backend for one in operations} <= {"native", "jax", "lax"}
        assert not [one for one in operations if one.choice.reason == "the others need float32"]
        return model(images), short

    logits, short = nnx.eval_shape(both)
    assert logits.shape == ((1, CLASSES) if row.task == "classification" else (1, *row.shape[:2], CLASSES))
    assert (short.shape, short.dtype) == (logits.shape, jnp.float32)


REFUSED = [
    (
        "context_module",
        {},
        [1, 2],
        (9, 9, 3),
        "classification",
        "net=context_module gives one label per pixel",
    ),
    ("context_module", {"output_stride": 8}, [1], (9, 7, 3), "dense", "images of 9 x 7 are smaller than the"),
    (
        "context_module",
        {"output_stride": 3},
        [1],
        None,
        "dense",
        "net.output_stride must be one of 1, 2, 4, 8",
    ),
    (
        "context_module",
        {"module": "huge"},
        [1],
        None,
        "dense",
        "net.module must be one of none, basic, large",
    ),
    (
        *("context_module", {"module": "large"}, [1, 2], (9, 9, 3), "dense"),
        "takes 7 rates, one for each dilated layer, but the schedule 1-2 has 2: "
        "give 7, such as schedule.repeat=1 'schedule.rates=[1,1,2,4,8,16,1]'",
    ),
    (
        "context_module",
        {"module": "none"},
        [2],
        (9, 9, 3),
        "dense",
        "has no dilated layers, but the schedule",
    ),
    ("context_module", {"layer": "gi"}, [2], (9, 9, 3), "dense", "give net.identity=false for others"),
    ("unet", {}, [1], (16, 8, 3), "classification", "net=unet gives one label per pixel"),
    (
        *("unet", {}, [1, 2], (30, 7, 3), "dense"),
        "net=unet halves maps 3 times and takes sides that 8 divides, such as 24 x 8; the images are 30 x 7",
    ),
    ("unet", {"levels": 9}, [1], None, "dense", "net.levels must be between 1 and 8, got 9"),
    ("espnet", {}, [1], (16, 8, 3), "classification", "net=espnet gives one label per pixel"),
    (
        "espnet",
        {},
        [1],
        (16, 7, 3),
        "dense",
        "images of 16 x 7 are smaller than the network's output stride of 8",
    ),
    ("espnet", {"modules": [2]}, [1], None, "dense", "net.modules must be two numbers from 0 to 100"),
    (
        *("espnet", {"width_multiplier": 0.05}, [1, 2, 3, 4], (16, 16, 3), "dense"),
        "a branch for each rate, but 4 rates for 3 channels: give fewer, such as schedule.repeat=1",
    ),
    (
        *("resnet", {}, [1, 2, 5], (9, 9, 3), "dense"),
        "takes 8 rates, one for each dilated layer, but the schedule 1-2-5 has 3: give 8, such as "
        "schedule.repeat=1 'schedule.rates=[1,2,2,2,2,4,4,4]'",
    ),
    ("resnet", {"output_stride": 12}, [1], None, "dense", "net.output_stride=12 is not possible with stem="),
    ("resnet", {"depth": 19}, [1], None, "dense", "net.depth must be one of 18, 34, 50, 101, 152, got 19"),
    ("resnet", {"output_stride": 16, "layer": "gi"}, [2] * 8, (9, 9, 3), "dense", "gi takes strides of 1"),
    ("resnet", {}, [1] * 8, (9, 7, 3), "dense", "images of 9 x 7 are smaller than the network's output"),
    ("deeplabv3", {"aspp_rates": [0]}, [1], None, "dense", "net.aspp_rates must be one or more numbers of"),
    ("deeplabv3", {}, [1] * 8, (9, 9, 3), "classification", "net=deeplabv3 gives one label per pixel"),
    ("drn", {"depth": 18}, [1], None, "dense", "net.variant=C with depth=18 does not exist: there are A"),
    ("drn", {}, [1], (9, 9, 3), "dense", "DRN-C-26 takes 12 rates, one for each dilated layer"),
]


@pytest.mark.parametrize(("name", "net", "rates", "shape", "task", "message"), REFUSED)
def test_what_does_not_fit_is_one_line(name, net, rates, shape, task, message) -> None:
    def start() -> None:
        chosen = from_dict({"net": {"name": name, **net}, "schedule": {"rates": rates, "repeat": 1}})
        images = registry.inputs(shape, CLASSES, task)
        model = nnx.eval_shape(lambda: parts.network(chosen, images, rngs=nnx.Rngs(0)))
        parts.output_shape(chosen, model, images)

    with pytest.raises(InputError) as caught:
        start()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- what one network alone has ---


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("name", ["context_module", "context_module, large"])
def test_the_context_module_starts_by_passing_on_what_the_front_end_predicts(name, monkeypatch) -> None:
    row, x = ROWS[name], jnp.asarray(drawn(1, *ROWS[name].shape))
    monkeypatch.setattr("hdc.networks.context_module.NOISE", 0)
    model = made(row)
    front = x
    for layer in model.front:
        front = layer(front, relu=True)
    expected = reference.bilinear(np.maximum(model.scores(front), 0), row.shape[:2])
    assert expected.max() > 0
    np.testing.assert_allclose(jax.jit(model.__call__)(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("started")
def test_the_large_context_module_starts_with_noise_that_keeps_channels_apart() -> None:
    kernels = [np.asarray(layer.conv.kernel[...]) for layer in made(ROWS["context_module, large"]).blocks]
    for kernel, times in zip(kernels[3:], (8, 16, 32, 32), strict=True):
        assert np.std(kernel[0]) == pytest.approx(0.01 / times, rel=0.1)
        ins = np.sort(kernel[1, 1], axis=0)[::-1]  # of each output, the largest first
        alike = kernel.shape[2] // CLASSES
        np.testing.assert_array_equal(ins[:alike], np.float32(1 / times))
        assert (ins[alike:] < 0.1 / times).all()
