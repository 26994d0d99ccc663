"""`net=wavenet` against NumPy in double precision: what it computes, sees and costs; even kernel sizes."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from rich.console import Console

from hdc.errors import InputError
from hdc.lab import experiment, parts, records
from hdc.lab import trained as networks
from hdc.lab.config import from_dict
from hdc.lab.data import arrays
from hdc.lab.report.tables import TableConfig, build
from hdc.layers import evaluation
from hdc.networks import Wavenet
from hdc.receptive import analyse
from hdc.registry import Signals
from hdc.schedules import DilationSchedule

WIDTH, CHANNELS, CLASSES = 4, 2, 3


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """The programs run once: compiling them fast matters more."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def made(rates=(1, 2, 5), task="dense", kernel_size=2, causal=True) -> Wavenet:
    about = {"in_channels": CHANNELS, "classes": CLASSES, "task": task, "width": WIDTH, "causal": causal}
    return Wavenet(DilationSchedule(rates, kernel_size), rngs=nnx.Rngs(0), **about)


def parameters(model: nnx.Module) -> dict:
    return jax.tree.map(np.float64, nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def linear(x: np.ndarray, layer: dict) -> np.ndarray:
    return x @ layer["kernel"].reshape(layer["kernel"].shape[-2:]) + layer["bias"]


def slow(values: dict, x: np.ndarray, rates, task: str, causal: bool) -> np.ndarray:
    """The network tap by tap."""
    x, skips = linear(x, values["stem"]), 0.0
    for number, rate in enumerate(rates):
        layer = values["layers"][number]
        kernel = layer["conv"]["kernel"]
        out = np.zeros((*x.shape[:2], kernel.shape[-1])) + layer["conv"]["bias"]
        reach = rate * (len(kernel) - 1)
        for step in range(x.shape[1]):
            for tap, matrix in enumerate(kernel):
                place = step + tap * rate - (reach if causal else reach // 2)
                if 0 <= place < x.shape[1]:
                    out[:, step] += x[:, place] @ matrix
        gated = np.tanh(out[..., :WIDTH]) / (1 + np.exp(-out[..., WIDTH:]))
        skips = skips + linear(gated, layer["skip"])
        if number < len(rates) - 1:
            x = x + linear(gated, layer["residual"])
    x = np.maximum(linear(np.maximum(skips, 0), values["mix"]), 0)
    if task == "classification":
        x = x[:, -1] if causal else x.mean(1)
    return linear(x, values["head"])


@pytest.mark.parametrize("task", ["dense", "classification"])
@pytest.mark.parametrize(("kernel_size", "causal"), [(2, True), (3, True), (3, False)])
def test_it_is_gated_layers_whose_skips_are_added(task, kernel_size, causal) -> None:
    rates = (1, 2, 5)
    model = reference.filled(lambda: made(rates, task, kernel_size, causal))
    x = np.random.default_rng(0).standard_normal((2, 15, CHANNELS))
    expected = slow(parameters(model), x, rates, task, causal)
    assert expected.shape == ((2, 15, CLASSES) if task == "dense" else (2, CLASSES))
    np.testing.assert_allclose(evaluation(model)(jnp.float32(x)), expected, rtol=1e-4, atol=1e-4)


def test_its_gradient_is_the_slope_of_every_parameter() -> None:
    rates, generator = (1, 2), np.random.default_rng(0)
    model = reference.filled(lambda: made(rates))
    x, weights = generator.standard_normal((1, 8, CHANNELS)), generator.standard_normal((1, 8, CLASSES))
    gradient = nnx.grad(lambda model: (model(jnp.float32(x)) * weights).sum())(model)
    found, at = nnx.to_pure_dict(gradient), parameters(model)
    assert jax.tree.structure(found) == jax.tree.structure(at)
    direction = jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape), at)

    def along(step: float) -> float:
        moved = jax.tree.map(lambda leaf, way: leaf + step * way, at, direction)
        return (slow(moved, x, rates, "dense", True) * weights).sum()

    slope = (along(1e-6) - along(-1e-6)) / 2e-6
    products = jax.tree.map(lambda leaf, way: np.sum(np.float64(leaf) * way), found, direction)
    assert sum(jax.tree.leaves(products)) == pytest.approx(slope, rel=1e-3)
    assert all(np.abs(leaf).sum() > 0 for leaf in jax.tree.leaves(found))  # no parameter is without use


@pytest.mark.parametrize(
    ("kernel_size", "causal", "seen"),
    [
        (2, True, {0, -2, -7, -9}),  # sums of 0 or 2 and of 0 or 7
        (3, False, {-9, -7, -5, -2, 0, 2, 5, 7, 9}),
    ],
)
def test_it_sees_what_its_schedule_sees(kernel_size, causal, seen) -> None:
    model = reference.filled(lambda: made((2, 7), kernel_size=kernel_size, causal=causal))
    shape = (1, 40, CHANNELS)
    found = analyse(made((2, 7), kernel_size=kernel_size, causal=causal), shape)
    x = jnp.float32(np.random.default_rng(0).standard_normal(shape))
    gradient = jax.grad(lambda x: evaluation(model)(x)[0, found.at[0]].sum())(x)
    np.testing.assert_array_equal(found.support, np.abs(gradient[0]).sum(-1) > 0)
    assert {int(place) - found.at[0] for place in np.flatnonzero(found.support)} == seen
    assert found.size == (DilationSchedule((2, 7), kernel_size).receptive_field,)


def test_a_run_is_trained_tabled_and_loaded(tmp_path, monkeypatch) -> None:
    signals = np.random.default_rng(0).standard_normal((24, 16, CHANNELS)).astype(np.float32)
    labels = (signals[:, -2:, 0].sum(1) > 0).astype(np.int32)
    file = tmp_path / "mine.npz"
    splits = {f"{split}_{part}": array for split in ("train", "validation", "test")
              for part, array in (("signals", signals), ("labels", labels))}  # fmt: skip
    np.savez(file, **splits)
    config = from_dict(
        {
            "data": {"name": "npz", "path": str(file)},
            "net": {"name": "wavenet", "width": WIDTH, "kernel_size": 2},
            "schedule": {"rates": [1, 2, 4], "repeat": 1},
            "optim": {"warmup_steps": 1},
            "train": {"epochs": 2, "batch_size": 6, "devices": 1},
            "gridding": {"images": 2},
        }
    )
    (run,) = records.plan(tmp_path / "mine", [config])
    experiment.run(run, Console(quiet=True))
    assert run.state == "done"
    taps = 2
    gated = (taps * WIDTH + 1) * 2 * WIDTH + (WIDTH + 1) * WIDTH  # and its skip
    pointwise = 2 * (WIDTH + 1) * WIDTH + (CHANNELS + 1) * WIDTH + (WIDTH + 1) * WIDTH + (WIDTH + 1) * 2
    assert run.info["network"]["parameters"] == 3 * gated + pointwise
    assert run.info["network"]["seen"]["row"] == [[-7, 0]]
    (row,) = build(
        TableConfig(study="mine", measured=("test/accuracy",)), records.load("mine", tmp_path)
    ).rows
    back = networks.load(run)
    correct = np.mean(np.argmax(back(arrays.dataset(file).test.images), -1) == labels)
    assert row.estimate("test/accuracy").mean == pytest.approx(correct)


@pytest.mark.parametrize(
    ("net", "layer"), [("tcn", "standard"), *(("wavenet", name) for name in ("separable", "soft_rate"))]
)
def test_causal_networks_take_even_kernel_sizes_and_see_nothing_later(net, layer) -> None:
    values = {"net": {"name": net, "kernel_size": 4, "layer": layer, "width": 4}}
    config = from_dict({**values, "schedule": {"rates": [3, 3], "repeat": 1}})
    model = parts.network(config, Signals(30, 1, 3, "dense"), rngs=nnx.Rngs(0))
    seen = {int(place) for place in np.flatnonzero(analyse(model, (1, 30, 1), at=(29,)).support)}
    assert seen >= {29 - 3 * sum for sum in range(7)} and max(seen) == 29


@pytest.mark.parametrize(
    ("net", "said"),
    [
        ({"name": "tcn", "causal": False}, "net=tcn with net.causal=false takes odd kernel sizes"),
        ({"name": "wavenet", "causal": False}, "net=wavenet with net.causal=false takes odd kernel sizes"),
        ({"name": "context"}, "net=context takes odd kernel sizes"),
        ({"name": "lei2019"}, "net=lei2019 takes odd kernel sizes"),
    ],
)
def test_other_networks_refuse_even_kernel_sizes_in_one_line(net, said) -> None:
    with pytest.raises(InputError) as caught:
        from_dict({"net": {**net, "kernel_size": 4}})
    half = "every layer would shift the map by half a pixel"
    assert str(caught.value) == f"net.kernel_size=4 is even: {half}; {said}"


def test_a_run_id_says_nothing_of_the_rule() -> None:
    net = {"name": "tcn", "kernel_size": 3}
    assert from_dict({"net": net}).run_id == from_dict({"net": {"name": "tcn"}}).run_id
    assert from_dict({"net": net}).run_id != from_dict({"net": {**net, "kernel_size": 2}}).run_id
