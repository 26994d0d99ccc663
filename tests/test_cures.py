"""Layers against gridding: each equals what its paper says, in slow NumPy, and costs what it says."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx

import hdc
from hdc import cures, layers, registry
from hdc.cures.branches import halved
from hdc.errors import InputError
from hdc.lab import parts, records
from hdc.lab.config import from_dict
from hdc.lab.records.names import names as names_of
from hdc.layers import Conv

NAMES = ("ssc", "gi", "per_group", "hff", "ksac", "soft_rate", "dcls", "reparam")
SIZE = (9, 11)


def made(name: str, ins: int = 3, outs: int = 5, **keywords) -> nnx.Module:
    """A layer as networks make it, with all of its parameters moved from where they start."""
    with layers.layer(name, keywords.pop("options", None)):
        model = layers.dilated(ins, outs, rngs=nnx.Rngs(0), **keywords)
    rng = np.random.default_rng(0)
    graph, state, rest = nnx.split(model, nnx.Param, ...)
    moved = jax.tree.map(lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32), state)
    return nnx.merge(graph, moved, rest)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def of(value) -> np.ndarray:
    return np.asarray(value[...], np.float64)


def middle(x: np.ndarray, loss: int) -> np.ndarray:
    """Without `loss` pixels on every side."""
    return x[:, loss : x.shape[1] - loss, loss : x.shape[2] - loss]


def branch(
    x: np.ndarray, kernel: np.ndarray, rate: int, largest: int, padding: str, **keywords
) -> np.ndarray:
    x = x if padding == "SAME" else middle(x, largest - rate)
    return reference.conv2d(x, kernel, rate=(rate, rate), padding=padding, **keywords)


def expected(name: str, model, x: np.ndarray, rate: int, padding: str) -> np.ndarray:
    """What a layer of three taps per axis computes, in float64."""
    match name:
        case "ssc":
            taps = of(model.filter)
            smooth = np.broadcast_to(taps[..., None, None], (*taps.shape, 1, x.shape[-1]))
            x = reference.conv2d(x, smooth, groups=x.shape[-1])
            return reference.conv2d(x, of(model.conv.kernel), rate=(rate, rate), padding=padding) + of(
                model.conv.bias
            )
        case "gi":
            maps = reference.conv2d(x, of(model.conv.kernel), rate=(rate, rate), padding=padding) + of(
                model.conv.bias
            )
            result, matrix = np.zeros_like(maps), of(model.matrix)
            for row, column in np.ndindex(maps.shape[1:3]):
                cell = row - row % rate, column - column % rate
                to = (row % rate) * rate + column % rate
                for down, right in np.ndindex(rate, rate):
                    there = cell[0] + down, cell[1] + right
                    if there[0] < maps.shape[1] and there[1] < maps.shape[2]:
                        result[:, row, column] += (
                            matrix[to, down * rate + right] * maps[:, there[0], there[1]]
                        )
            return result
        case "per_group" | "hff":
            x = x if name == "per_group" else reference.conv2d(x, of(model.reduce.kernel))
            found = [
                branch(x, of(conv.kernel), conv.rate[0], rate, padding) + of(conv.bias)
                for conv in model.convs
            ]
            if name == "hff":
                found[1:] = np.cumsum(found[1:], axis=0)
            return np.concatenate(found, axis=-1)
        case "ksac" | "soft_rate":
            rates = [one for (one, _) in halved((rate, rate), 4)]
            weights = np.full(len(rates), len(rates) ** -0.5)
            if name == "soft_rate" and rate > 1:
                weights = np.exp(of(model.preference)) / np.exp(of(model.preference)).sum()
            kernel = of(model.conv.kernel)
            pairs = zip(weights, rates, strict=True)
            return of(model.conv.bias) + sum(w * branch(x, kernel, one, rate, padding) for w, one in pairs)
        case "dcls":
            return reference.conv2d(x, spread(model), padding=padding) + of(model.bias)
        case "reparam":
            maps = 0.0
            for conv, norm in zip(model.convs, model.norms, strict=True):
                y = reference.conv2d(x, of(conv.kernel), rate=conv.rate, groups=x.shape[-1])
                mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
                maps = maps + (y - mean) / np.sqrt(variance + 1e-5) * of(norm.scale) + of(norm.bias)
            return reference.conv2d(maps, of(model.pointwise.kernel)) + of(model.pointwise.bias)
    raise AssertionError(name)


def spread(model) -> np.ndarray:
    """The kernel of learnable spacings, tap by tap."""
    kernel, positions = of(model.kernel), of(model.positions)
    whole = np.zeros((*model.window, *kernel.shape[2:]))
    for a, b, i, o in np.ndindex(kernel.shape):
        shares = []
        for axis, size in enumerate(model.window):
            place = min(max(positions[axis, a, b, i, o], 0), size - 1)
            if model.widths is None:
                share = np.maximum(0, 1 - abs(np.arange(size) - place))
            else:
                width = 0.27 + abs(of(model.widths)[axis, a, b, i, o])
                share = np.exp(-(((np.arange(size) - place) / width) ** 2) / 2)
                share /= share.sum()
            shares.append(share)
        whole[..., i, o] += kernel[a, b, i, o] * np.outer(*shares)
    return whole


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rate", "padding"), [(1, "SAME"), (3, "SAME"), (4, "SAME"), (3, "VALID")])
def test_a_layer_computes_what_its_paper_says(name, rate, padding):
    if (name, padding) == ("reparam", "VALID"):
        with pytest.raises(InputError, match="takes padding SAME, got VALID"):
            made(name, rate=rate, padding=padding)
        return
    model, x = made(name, rate=rate, padding=padding), drawn(2, *SIZE, 3)
    found = expected(name, model, x, rate, padding)
    np.testing.assert_allclose(model(x), found, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model(x, relu=True), np.maximum(found, 0), rtol=1e-4, atol=1e-4)
    assert found.shape == (2, *(side - (0 if padding == "SAME" else 2 * rate) for side in SIZE), 5)


def test_gaussian_spacings_are_spread_by_their_widths():
    options = cures.spacings.SpacingsOptions("gauss")
    model, x = made("dcls", rate=2, options=options), drawn(2, *SIZE, 3)
    np.testing.assert_allclose(model(x), expected("dcls", model, x, 2, "SAME"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ssc", "gi", "dcls"])
@pytest.mark.parametrize("size", [(3,), (3, 3)])
def test_it_starts_as_the_convolution(name, size):
    x = drawn(2, *SIZE[: len(size)], 3)
    with layers.layer(name):
        model = layers.dilated(3, 5, size, rate=3, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(model(x), Conv(3, 5, size, rate=3, rngs=nnx.Rngs(0))(x), rtol=1e-5, atol=1e-5)


def test_dilated_branches_merge_into_one_large_kernel():
    model, x = made("reparam", rate=4), drawn(3, *SIZE, 3)
    for _ in range(3):
        model(x)  # so that the statistics move
    parts = [
        nnx.view(norm, use_running_average=True)(conv(x))
        for conv, norm in zip(model.convs, model.norms, strict=True)
    ]
    assert len(parts) == 4
    frozen = layers.evaluation(model)
    kernel, _ = frozen.merged()
    assert kernel.shape == (9, 9, 1, 3)
    np.testing.assert_allclose(frozen(x), model.pointwise(sum(parts)), rtol=1e-5, atol=1e-5)


COSTS = {  # of 3 channels to 5, three taps per axis, at rate 4 on two axes; biases included
    "ssc": 3 * 5 * 9 + 5 + 7**2,
    "gi": 3 * 5 * 9 + 5 + 4**4,
    "per_group": 3 * 5 * 9 + 5,
    "hff": 3 * 1 + 9 * 5 + 5,  # three rates: 5 channels are 3, 1 and 1, of one channel each
    "ksac": 3 * 5 * 9 + 5,
    "soft_rate": 3 * 5 * 9 + 5 + 3,
    "dcls": 3 * 5 * 9 * 3 + 5,
    "reparam": 3 * (9**2 + 3 * 9) + 4 * 2 * 3 + 3 * 5 + 5,
}


@pytest.mark.parametrize("name", NAMES)
def test_its_parameters_are_as_many_as_its_page_says(name):
    state = nnx.state(made(name, rate=4), nnx.Param)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == COSTS[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["dense", "signals"])
def test_a_network_of_such_layers_has_a_gradient_everywhere(name, task):
    values = {"schedule": {"rates": [1, 4], "repeat": 1}, "net": {"width": 6, "layer": name, "norm": "batch"}}
    shape = (16, 16, 2) if task == "dense" else (40, 2)
    inputs = registry.inputs(shape, 3, "dense")
    model = parts.network(from_dict(values), inputs, rngs=nnx.Rngs(0))
    x = drawn(2, *shape)

    def loss(model):
        return jnp.mean(jnp.sum(model(x) ** 2, range(x.ndim - 1)) * (1 + jnp.arange(3)))

    for path, leaf in nnx.to_flat_state(nnx.grad(loss)(model)):
        assert np.isfinite(leaf[...]).all(), path
        assert np.abs(leaf[...]).max() > 0 or path[-1] == "bias", path
    assert model(x).shape == (2, *shape[:-1], 3)


# Three rates have eight pixels each around the common middle; smoothing fills 15 x 15, a large kernel 9 x 9.
@pytest.mark.parametrize(
    ("name", "seen"), [("ssc", 225), ("per_group", 25), ("ksac", 25), ("hff", 25), ("reparam", 81)]
)
def test_what_one_layer_of_rate_4_sees(name, seen):
    found = hdc.analyse(made(name, rate=4), (1, 32, 32, 3))
    assert found.support.sum() == seen
    assert found.gap_free == (name in ("ssc", "reparam"))


def test_interleaved_maps_are_mixed_within_a_cell():
    found = hdc.analyse(made("gi", rate=2), (1, 16, 16, 3), at=(8, 8))
    rows = np.flatnonzero(found.support.any(1))
    assert rows.tolist() == [6, 7, 8, 9, 10, 11]  # of both outputs of a cell, 6 8 10 and 7 9 11
    assert found.support.sum() == 36


def test_rows_are_named_by_their_layer_alone(tmp_path):
    def names(*kinds: str) -> list[str]:
        configs = [from_dict({"net": {"layer": kind}}) for kind in kinds]
        return [", ".join(name[1:]) for name in names_of(records.plan(tmp_path / kinds[-1], configs))]

    assert names("standard", "separable", "gi") == [
        "net.layer=standard",
        "net.layer=separable",
        "net.layer=gi",
    ]
    assert names("standard", "separable") == ["net.separable=false", "net.separable=true"]


def test_halves():
    assert halved((6,), 3) == [(1,), (3,), (6,)]
    assert halved((5, 2), 9) == [(1, 1), (2, 1), (5, 2)]
    assert halved((8,), 1) == [(8,)]


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("gi", {"strides": 2}, r"net.layer=gi takes strides of 1, got \(2, 2\)"),
        ("gi", {"kernel_size": (3,), "padding": "CAUSAL"}, "causal padding rules out"),
        ("ksac", {"padding": ((1, 1), (1, 1))}, "take padding SAME, VALID or CAUSAL"),
        ("reparam", {"kernel_size": 4}, r"kernels with a middle tap, got kernel_size=\(4, 4\)"),
    ],
)
def test_what_a_layer_does_not_take_is_one_line(name, keywords, message):
    with pytest.raises(InputError, match=message):
        made(name, rate=2, **keywords)(drawn(1, *SIZE[: 1 if keywords.get("kernel_size") == (3,) else 2], 3))


@pytest.mark.parametrize("options", [("hff", {"branches": 0}), ("dcls", {"interpolation": "cubic"})])
def test_options_out_of_range_are_refused(options):
    name, values = options
    with pytest.raises(InputError, match=r"branches must be|interpolation must be one of bilinear, gauss"):
        from_dict({"net": {"layer": name}, "layer": values})


@pytest.mark.parametrize("name", ["ssc", "per_group", "hff", "ksac", "dcls"])
def test_causal_layers_do_not_look_ahead(name):
    found = hdc.analyse(made(name, kernel_size=(3,), rate=4, padding="CAUSAL"), (1, 64, 3), at=(40,))
    assert np.flatnonzero(found.support).max() == 40
    assert np.flatnonzero(found.support).min() == 40 - 8 - (6 if name == "ssc" else 0)
    assert math.isfinite(float(found.gridding.index))
