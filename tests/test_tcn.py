"""`net=tcn` against convolutions in NumPy: what it computes, sees and costs, and that it trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx

from hdc.errors import InputError
from hdc.lab import parts
from hdc.lab.config import from_dict
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.training import Trainer
from hdc.layers import evaluation
from hdc.networks import Tcn
from hdc.receptive import analyse
from hdc.registry import Signals
from hdc.schedules import DilationSchedule


def made(rates=(1, 1, 2, 3), task="dense", width=4, channels=2, **options) -> Tcn:
    about = {"in_channels": channels, "classes": 3, "task": task, "width": width}
    return Tcn(DilationSchedule(rates), rngs=nnx.Rngs(0), **about, **options)


def convolved(x: np.ndarray, layer: nnx.Module, rate: int, causal: bool) -> np.ndarray:
    sides = (2 * rate, 0) if causal else (rate, rate)
    kernel, bias = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
    maps = reference.conv2d(x[:, None], kernel[None], rate=(1, rate), padding=((0, 0), sides))
    return np.maximum(maps[:, 0] + bias, 0)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("task", ["dense", "classification"])
def test_it_is_blocks_of_two_layers_with_shortcuts_and_a_head(causal, task) -> None:
    model = reference.filled(lambda: made(task=task, causal=causal, weight_norm=False))
    x = np.random.default_rng(0).standard_normal((2, 20, 2)).astype(np.float32)
    y = x.astype(np.float64)
    for block, rates in zip(model.blocks, ((1, 1), (2, 3)), strict=True):
        before = y
        for conv, rate in zip(block.convs, rates, strict=True):
            y = convolved(y, conv, rate, causal)
        if block.shortcut is not None:
            before = before @ np.asarray(block.shortcut.kernel[0]) + np.asarray(block.shortcut.bias[...])
        y = np.maximum(y + before, 0)
    if task == "classification":
        y = y[:, -1] if causal else y.mean(1)
    expected = y @ np.asarray(model.head.kernel[...]) + np.asarray(model.head.bias[...])
    np.testing.assert_allclose(evaluation(model)(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-4)


def test_weight_norm_starts_as_what_it_wraps_and_its_lengths_scale_the_kernels() -> None:
    plain, normed = (evaluation(made(weight_norm=on)) for on in (False, True))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 20, 2)), jnp.float32)
    np.testing.assert_allclose(normed(x), plain(x), rtol=1e-4, atol=1e-5)
    first = normed.blocks[0].convs[0]
    first.lengths[0].set_value(3 * first.lengths[0][...])
    inner = first.layer
    expected = 3 * (inner(x) - inner.bias[...].reshape(1, 1, -1)) + inner.bias[...].reshape(1, 1, -1)
    np.testing.assert_allclose(first(x), expected, rtol=1e-4, atol=1e-5)
    inner.kernel.set_value(7 * inner.kernel[...])  # the direction alone counts
    np.testing.assert_allclose(first(x), expected, rtol=1e-4, atol=1e-5)


def test_it_sees_what_its_schedule_sees_and_nothing_later() -> None:
    rates = (1, 1, 4, 4)
    model = reference.filled(lambda: made(rates, weight_norm=False), positive=True)
    shape = (1, 50, 2)
    seen = analyse(made(rates), shape)
    gradient = jax.grad(lambda x: evaluation(model)(x)[0, seen.at[0]].sum())(jnp.ones(shape))
    np.testing.assert_array_equal(seen.support, np.abs(gradient[0]).sum(-1) > 0)
    assert seen.size == (DilationSchedule(rates).receptive_field,) == (21,)
    assert np.flatnonzero(seen.support)[-1] == seen.at[0]


@pytest.mark.parametrize("weight_norm", [False, True])
def test_parameters_and_a_training_run(weight_norm) -> None:
    net = {"name": "tcn", "width": 4, "weight_norm": weight_norm}
    groups = {"optim": {"warmup_steps": 1}, "train": {"epochs": 2, "batch_size": 6, "devices": 1}}
    config = from_dict(
        {"data": {"name": "npz"}, "net": net, "schedule": {"rates": [1, 1], "repeat": 1}, **groups}
    )
    signals = np.random.default_rng(0).standard_normal((12, 16, 2)).astype(np.float32)
    split = Split(signals, (signals[:, -2:, 0].sum(1) > 0).astype(int))
    trainer = Trainer(config, Dataset("mine", "classification", ("low", "high"), split, split, split))
    *_, last = trainer.fit([0])
    assert np.isfinite(last.loss)
    leaves = jax.tree.leaves(nnx.state(trainer.abstract, nnx.Param))
    first, second, shortcut, head = (3 * 2 + 1) * 4, (3 * 4 + 1) * 4, (2 + 1) * 4, (4 + 1) * 2
    assert sum(leaf.size for leaf in leaves) == first + second + shortcut + head + 8 * weight_norm


@pytest.mark.parametrize(
    ("net", "rates", "message"),
    [
        ({}, [1, 2, 4], "needs an even number of rates, got [1, 2, 4]: give each twice"),
        ({"dropout": 1.5}, [1, 1], "net.dropout must be between 0.0 and 0.95, got 1.5"),
        ({"width": 0}, [1, 1], "net.width must be between 1 and"),
    ],
)
def test_what_does_not_fit_is_one_line(net, rates, message) -> None:
    with pytest.raises(InputError) as caught:
        config = from_dict({"net": {"name": "tcn", **net}, "schedule": {"rates": rates, "repeat": 1}})
        parts.network(config, Signals(16, 2, 3, "dense"), rngs=nnx.Rngs(0))
    assert message in str(caught.value)
