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
from hdc.layers import evaluation
from hdc.networks import unet as unet_file

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
        for leaf in jax.tree.leaves(
            nnx.state(model, nnx.BatchStat), is_leaf=lambda x: isinstance(x, nnx.Variable)
        ):
            leaf.set_value(jnp.asarray(rng.uniform(0.1, 0.2, leaf.shape), jnp.float32))
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


def after(x: np.ndarray, norm: Any) -> np.ndarray:
    """Normalised as in evaluation, and ReLU."""
    scale = of(norm.scale) / np.sqrt(of(norm.var) + 1e-5)
    return np.maximum((x - of(norm.mean)) * scale + of(norm.bias), 0)


def normed(x: np.ndarray, block: Any, *, rate: int = 1, stride: int = 1) -> np.ndarray:
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


SEVEN = [1, 1, 2, 4, 8, 16, 1]
FRONT = 3 * 3 * 3 * 4 + 4 + 2 * (9 * 4 * 4 + 4)
SCORES = 4 * CLASSES + CLASSES
WIDE = [CLASSES * times for times in (1, 2, 2, 4, 8, 16, 32, 32)]

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
    assert trained.load(run)(images).shape == (6, *row.shape[:2], CLASSES)


@pytest.mark.parametrize("kind", registry_names("layer"))
def test_every_kind_of_layer_fits(row, kind) -> None:
    logits = nnx.eval_shape(lambda: made(row, layer=kind, **dict(row.others))(jnp.zeros((1, *row.shape))))
    assert logits.shape == (1, *row.shape[:2], CLASSES)


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
