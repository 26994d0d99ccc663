"""Signals `[n, length, channels]` go the way of images: against loops, and from a file to a table."""

import os
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from hdc import gridding, layers, registry
from hdc.errors import InputError
from hdc.fields import Stack
from hdc.lab import metrics, parts, records, trained
from hdc.lab.augment import augment_of
from hdc.lab.commands.main import main
from hdc.lab.config import choose, from_dict
from hdc.lab.data import arrays
from hdc.lab.data.dataset import IGNORE, Dataset, Split
from hdc.lab.data.stream import Rows
from hdc.lab.records import packed
from hdc.layers import Conv, SeparableConv
from hdc.networks import ContextNetwork
from hdc.ops import backend, conv1d, separable_conv1d
from hdc.receptive import analyse
from hdc.schedules import DilationSchedule

WITH_PROGRAMS = os.environ["HDC_CACHE_DIR"]  # the tests' own, which has the native library
DOCS = Path(__file__).parent.parent / "docs"


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def network(rates, *, task="dense", padding="SAME", channels=2, width=3, **options) -> ContextNetwork:
    about = {"in_channels": channels, "classes": 3, "task": task, "padding": padding, "width": width}
    return ContextNetwork(DilationSchedule(rates), axes=1, rngs=nnx.Rngs(0), **about, **options)


# --- operations and layers ---


@settings(max_examples=10)
@pytest.mark.parametrize("name", ["lax", "auto"])
@given(
    seed=st.integers(0, 99),
    batch=st.integers(1, 3),
    length=st.integers(1, 20),
    taps=st.integers(1, 4),
    rate=st.integers(1, 5),
    strides=st.integers(1, 3),
    channels=st.sampled_from([(1, 1, 1), (3, 2, 1), (4, 6, 2), (3, 3, 3)]),
    padding=st.sampled_from(["SAME", "VALID", "CAUSAL", (2, 0), (1, 4)]),
)
def test_conv1d_and_its_gradients_equal_the_loops(
    name, seed, batch, length, taps, rate, strides, channels, padding
) -> None:
    ins, outs, groups = channels
    extent = (taps - 1) * rate + 1
    length = max(length, extent if padding != "SAME" else 1)
    x, kernel, bias = drawn(seed, batch, length, ins), drawn(1, taps, ins // groups, outs), drawn(2, outs)
    with backend(name):
        y, pullback = jax.vjp(
            lambda *three: conv1d(*three, rate=rate, groups=groups, strides=strides, padding=padding),
            *map(jnp.asarray, (x, kernel, bias)),
        )
        dy = drawn(3, *y.shape)
        found = pullback(jnp.asarray(dy))
    before = {"CAUSAL": (extent - 1, 0)}.get(padding, padding)
    options = {"rate": (1, rate), "groups": groups, "strides": (1, strides)}
    options["padding"] = before if isinstance(before, str) else ((0, 0), before)
    maps = x[:, None], kernel[None]
    np.testing.assert_allclose(y, reference.conv2d(*maps, **options)[:, 0] + bias, rtol=1e-4, atol=1e-4)
    dx, dk = reference.conv2d_gradients(*maps, dy[:, None], **options)
    for one, other in zip(found, (dx[:, 0], dk[0], dy.sum((0, 1))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["SAME", "CAUSAL", "VALID"])
def test_layers_of_signals_are_their_operations_with_relu_in_the_same_pass(padding) -> None:
    x = jnp.asarray(drawn(0, 2, 17, 3))
    options = {"rate": 2, "padding": padding}
    dense, both = (
        reference.filled(lambda kind=kind: kind(3, 5, (3,), rngs=nnx.Rngs(0), **options))
        for kind in (Conv, SeparableConv)
    )
    depthwise, pointwise = both.depthwise.kernel[...], both.pointwise.kernel[...]
    assert (dense.kernel.shape, depthwise.shape, pointwise.shape) == ((3, 3, 5), (3, 1, 3), (1, 3, 5))
    between = conv1d(x, depthwise, groups=3, **options)
    for layer, expected in (
        (dense, conv1d(x, dense.kernel[...], dense.bias[...], **options)),
        (both, conv1d(between, pointwise, both.pointwise.bias[...])),
    ):
        np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(layer(x, relu=True), np.maximum(expected, 0), rtol=1e-5, atol=1e-5)


def test_what_is_causal_sees_nothing_later() -> None:
    layer = Conv(1, 1, (3,), rate=4, padding="CAUSAL", rngs=nnx.Rngs(0))
    moved = np.flatnonzero(jax.grad(lambda x: layer(x)[0, 12, 0])(jnp.ones((1, 20, 1)))[0, :, 0])
    assert moved.tolist() == [4, 8, 12]


@pytest.mark.parametrize(
    ("call", "mentions"),
    [
        (
            lambda x, k: conv1d(x[0], k),
            "conv1d takes x [batch, length, channels] and kernel [length, in, out]",
        ),
        (lambda x, k: conv1d(x, k, rate=0), "rate must be a positive integer, got 0"),
        (lambda x, k: conv1d(x, k, rate=(1, 2)), "rate must be a positive integer, got (1, 2)"),
        (lambda x, k: conv1d(x, k, padding="SAM"), "'SAME', 'VALID', 'CAUSAL' or (before, after), got 'SAM'"),
        (lambda x, k: conv1d(x, k, padding=((0, 1), (0, 1))), "explicit padding is (before, after)"),
        (lambda x, k: conv1d(x, k, padding=(0, -1)), "not negative, got (0, -1)"),
        (lambda x, k: conv1d(x, k, rate=5, padding="VALID"), "leaves no step: length 8 is smaller than"),
        (lambda x, k: conv1d(x, k, groups=2), "kernel (3, 4, 2) with groups=2 takes 8 channels, x has 4"),
        (lambda x, k: separable_conv1d(x, k[:, :1], k[:1]), "groups=4 must divide the 4 input and 2 output"),
        (lambda x, k: separable_conv1d(x[0], k, k), "separable_conv1d takes x [batch, length, channels]"),
        (lambda x, k: Conv(4, 2, (3,), rate=(1, 1), rngs=nnx.Rngs(0)), "rate must be a positive integer"),
        (lambda x, k: Conv(4, 2, rngs=nnx.Rngs(0))(x), "conv2d takes x [batch, height, width, channels]"),
    ],
)
def test_bad_operations_are_one_line(call, mentions) -> None:
    with pytest.raises(InputError) as caught:
        call(jnp.ones((1, 8, 4)), jnp.ones((3, 4, 2)))
    assert mentions in str(caught.value)
    assert "\n" not in str(caught.value)


# --- what the network sees ---


@settings(max_examples=6)
@given(
    rates=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    padding=st.sampled_from(["SAME", "VALID"]),
    separable=st.booleans(),
)
def test_a_network_sees_what_its_gradient_and_hdc_check_say(rates, padding, separable) -> None:
    def build() -> ContextNetwork:
        with layers.layer("separable" if separable else "standard"):
            return network(rates, padding=padding)

    model, shape = reference.filled(build, positive=True), (1, 50, 2)
    seen = analyse(model, shape)
    gradient = jax.grad(lambda x: model(x)[(0, *seen.at)].sum())(jnp.ones(shape))
    np.testing.assert_array_equal(seen.support, np.abs(gradient[0]).sum(-1) > 0)
    certificate = Stack.parse(",".join(map(str, (1, *rates))), axes=1)  # the stem has rate 1
    assert seen.size == certificate.receptive_field
    assert seen.coverage == pytest.approx(certificate.seen)
    assert seen.paths.along(0).tolist() == pytest.approx(
        (certificate.along(0) / certificate.along(0).sum()).tolist()
    )


def test_classes_of_whole_signals_are_read_from_the_mean_over_all_steps() -> None:
    model = network([1, 2], task="classification")
    x = jnp.asarray(drawn(0, 4, 20, 2))
    expected = model.head(model.features(x).mean(1))
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-5)


# --- gridding ---


def slow_ripple(signals: np.ndarray, max_period: int) -> dict[float, float]:
    def power(frequency: float) -> float:
        total = 0.0
        for signal in signals:
            length, values = len(signal), signal - signal.mean()
            sums = 0j
            for step, value in enumerate(values):
                window = np.sin(np.pi * (step + 0.5) / length) ** 2
                sums += window * value * np.exp(-2j * np.pi * frequency * step)
            total += abs(sums) ** 2
        return total / len(signals)

    found = {}
    for q in range(2, min(max_period, signals.shape[1] // 4) + 1):
        for m in (m for m in range(1, q // 2 + 1) if np.gcd(m, q) == 1):
            valleys = (power((m - 0.5) / q) + power((m + 0.5) / q)) / 2
            found[m / q] = 10 * np.log10(power(m / q) / valleys)
    return found


def slow_products(signals: np.ndarray, r: int) -> tuple[float, float, float]:
    """Sums over windows of 3 blocks: mean products of different blocks, squares of blocks, and variances."""
    reach, side, between, squares, total = r // 2, 3 * r, 0.0, 0.0, 0.0
    weight = dict.fromkeys(range(-reach, reach + 1), 1 / r)
    if r % 2 == 0:
        weight[-reach] = weight[reach] = 1 / (2 * r)
    for signal in signals:
        room = len(signal) - 2 * reach
        for start in range(reach + room % side // 2, reach + room // side * side, side):
            steps = range(start, start + side)
            mean = sum(signal[t] for t in steps) / side
            total += sum((signal[t] - mean) ** 2 for t in steps)
            left = [signal[t] - sum(w * signal[t + d] for d, w in weight.items()) for t in steps]
            blocks = [np.array(left[at : at + r]) - np.mean(left[at : at + r]) for at in range(0, side, r)]
            pairs = [a @ b for i, a in enumerate(blocks) for j, b in enumerate(blocks) if i != j]
            between += sum(pairs) * 3 / len(pairs)
            squares += sum(a @ a for a in blocks)
    return between, squares, total


@pytest.mark.parametrize(("length", "max_period"), [(41, 8), (20, 8), (64, 3)])
def test_ripple_and_phases_of_signals_equal_the_loops(length, max_period) -> None:
    signals = drawn(length, 3, length).astype(np.float64) + np.arange(length) % 3
    ripple = gridding.ripple(signals, max_period, axes=1)
    expected = slow_ripple(signals, max_period)
    found = dict(zip(ripple.frequencies.tolist(), ripple.decibels.tolist(), strict=True))
    assert found == pytest.approx(expected, rel=1e-6)
    phases = gridding.phase_imbalance(signals, max_period, axes=1)
    assert len(phases) == min(max_period, length // 4) - 1
    for r, value in enumerate(phases, 2):
        between, squares, total = slow_products(signals, r)
        noise = slow_products(np.eye(3 * r + 2 * (r // 2)), r)  # white: the sum of independent impulses
        chance = noise[0] / noise[1]
        assert value == pytest.approx((between - chance * squares) / (1 - chance) / total, rel=1e-6)


def test_known_signals() -> None:
    generator, step = np.random.default_rng(0), np.arange(120)
    tiled = np.tile(generator.standard_normal(5), 24)
    assert gridding.phase_imbalance(tiled, axes=1)[3] == pytest.approx(1)
    assert gridding.ripple(tiled, axes=1).frequency in (0.2, 0.4)
    white = gridding.phase_imbalance(generator.standard_normal((3000, 96)), axes=1)
    assert np.abs(white).max() < 0.005
    assert np.abs(gridding.phase_imbalance(step * 1.0, axes=1)).max() < 1e-6
    assert gridding.phase_imbalance((-1.0) ** (step // 3), 3, axes=1)[1] < -0.1  # the opposite next period
    assert np.isnan(gridding.phase_imbalance(np.ones(40), axes=1)).all()
    assert len(gridding.ripple(np.ones(7), axes=1).frequencies) == 0


@given(st.integers(1, 30), st.floats(0.01, 1), st.integers(0, 60), st.integers(0, 9))
def test_the_erf_of_a_signal_has_the_length_of_the_first_interval(length, share, twice, seed) -> None:
    erf, middle = np.random.default_rng(seed).random(length) + 0.01, min(twice, 2 * length - 2) / 2
    for side in range(1 + (middle % 1 > 0), 2 * length + 2, 2):
        inside = [erf[t] for t in range(length) if abs(t - middle) <= (side - 1) / 2]
        if sum(inside) >= share * erf.sum() * (1 - 1e-12):
            break
    assert gridding.erf_area(erf, share, (middle,)) == len(inside)


def test_measured_on_signals_a_comb_stands_out_and_the_erf_is_the_paths() -> None:
    signals = drawn(0, 4, 64, 1)
    found = {}
    for rates in ([2, 2, 2], [1, 1, 1]):
        model = reference.filled(lambda rates=rates: network(rates, channels=1, width=1), positive=True)
        measured = gridding.measure(*nnx.split(model), lambda x: jnp.abs(x) + 1, signals)
        paths = np.convolve(*(reference.path_counts(some, 3) > 0 for some in ([1], rates)))
        assert (measured.arrays["erf"] > 0).sum() == (paths > 0).sum()
        field = 1 + 2 * (1 + sum(rates))
        assert measured.metrics["erf_fill_99"] == measured.metrics["erf_area_99"] / field
        assert measured.metrics["erf_area_99"] <= field
        found[rates[0]] = measured.metrics["erf_ripple"]
    assert found[2] > found[1] + 6
    expected = gridding.expected_ripple(network([3, 3, 3]), (48, 2), draws=2)
    assert expected.frequency == pytest.approx(1 / 3)


# --- metrics ---


def test_metrics_of_steps_equal_the_loops() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(generator.integers(0, 3, (5, 8)), 4, axis=1)
    labels[0, :5] = labels[3, 20:22] = IGNORE
    split = Split(drawn(0, 5, 32, 2), labels.astype(np.uint8))
    model = network([1, 2], padding="VALID")
    found = metrics.evaluator(nnx.graphdef(model), lambda x: x, 3)(nnx.state(model), split)
    predicted = np.asarray(model(jnp.asarray(split.images)).argmax(-1))
    margin = (32 - predicted.shape[1]) // 2
    truth = labels[:, margin:-margin]
    np.testing.assert_array_equal(found.predictions, predicted)
    known = truth != IGNORE
    assert found.summary()["accuracy"] == pytest.approx((truth == predicted)[known].mean())

    def differ(signal: np.ndarray, t: int) -> bool:
        sides = [signal[t + d] for d, ok in ((-1, counted[t - 1]), (1, counted[t + 1])) if ok]
        return all(signal[t] != side for side in sides)

    def near(signal: np.ndarray, t: int) -> bool:
        around = range(max(0, t - metrics.BAND), min(len(signal), t + metrics.BAND + 1))
        return counted[t] and len({int(signal[s]) for s in around if counted[s]}) > 1

    sites = speckles = 0
    both, either = np.zeros(3), np.zeros(3)
    for one, other, counted in zip(truth, predicted, known, strict=True):
        for t in range(1, len(one) - 1):
            site = counted[t] and not differ(one, t)
            sites, speckles = sites + site, speckles + (site and differ(other, t))
        for t, k in np.ndindex(len(one), 3):
            real, said = (signal[t] == k and near(signal, t) for signal in (one, other))
            both[k] += counted[t] and real and said
            either[k] += counted[t] and (real or said)
    assert (found.speckles, found.speckle_sites) == (speckles, sites)
    assert sites > 0
    expected = np.mean(both[either > 0] / either[either > 0])
    assert found.summary()["boundary_iou"] == pytest.approx(expected)


# --- data ---


def dataset(labels: np.ndarray, task="dense", classes=("a", "b", "c"), signals=None) -> Dataset:
    split = Split(drawn(0, *labels.shape[:1], 8, 2) if signals is None else signals, labels)
    return Dataset("mine", task, classes, split, split, split)


def test_reversed_and_cropped_signals_take_their_labels_with_them() -> None:
    labels = np.arange(200 * 8).reshape(200, 8) % 200
    signals = np.repeat(labels[..., None], 2, axis=-1).astype(np.uint8)
    whole = dataset(labels, classes=tuple(map(str, range(200))), signals=signals)
    augment = augment_of(choose("data", name="npz", flips=["time"], crop=5), whole)
    found, moved = augment(jnp.asarray(signals), jnp.asarray(whole.train.labels), jax.random.key(0))
    np.testing.assert_array_equal(found[..., 1], moved)
    ways = {
        (int(x[0] - y[0]), int(np.sign(x[1] - x[0])))
        for x, y in zip(found[..., 0].astype(int), labels, strict=True)
    }
    assert {way for way in ways if abs(way[0]) < 8} == {
        *((place, 1) for place in range(4)), *((place + 4, -1) for place in range(4))
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"flips": ["horizontal"]}, "data.flips=[horizontal] is for images, and mine has signals"),
        ({"rotations": True}, "data.rotations=true is for images"),
        ({"scale": [0.5, 2]}, "data.scale=(0.5, 2.0) is for images"),
        ({"brightness": 0.5}, "data.brightness=0.5 is for images"),
        ({"contrast": 0.5}, "data.contrast=0.5 is for images"),
        ({"crop": 9}, "data.crop=9 is longer than the signals of mine, 8 steps"),
    ],
)
def test_augmentation_that_is_not_for_signals_is_one_line(keys, message) -> None:
    with pytest.raises(InputError) as caught:
        augment_of(choose("data", name="npz", **keys), dataset(np.zeros((3, 8), int)))
    assert message in str(caught.value)


def test_time_is_no_axis_of_images() -> None:
    split = Split(np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, int))
    images = Dataset("photos", "classification", ("a",), split, split, split)
    with pytest.raises(InputError, match=r"data.flips=\[time\] is for signals, and photos has images"):
        augment_of(choose("data", name="npz", flips=["time"]), images)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    ("shape", "labels", "task"),
    [
        ((30, 9, 2), np.arange(30) % 3, "classification"),
        ((30, 9), np.arange(270).reshape(30, 9) % 3, "dense"),
        ((30, 9, 1), np.zeros((30, 9, 2), np.float32), "regression"),
    ],
)
def test_signals_come_out_of_an_npz_as_they_are(tmp_path, dtype, shape, labels, task) -> None:
    signals = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
    path = tmp_path / "x.npz"
    np.savez(
        path,
        train_signals=signals[:20],
        train_labels=labels[:20],
        test_signals=signals[20:],
        test_labels=labels[20:],
    )
    found = arrays.dataset(path)
    assert (found.task, found.kind, found.image_shape) == (task, "signals", (9, shape[2] if shape[2:] else 1))
    np.testing.assert_array_equal(found.test.images.reshape(signals[20:].shape), signals[20:])
    np.testing.assert_array_equal(found.test.labels, labels[20:])
    assert found.about["image_shape"] == list(found.image_shape)


def test_signals_larger_than_memory_are_the_same(tmp_path, monkeypatch) -> None:
    signals, labels = drawn(0, 12, 40), np.arange(480, dtype=np.uint8).reshape(12, 40) % 3
    parts = {"signals": signals, "labels": labels}
    names = {
        f"{split}_{part}": array[at : at + 4]
        for part, array in parts.items()
        for at, split in ((0, "train"), (4, "val"), (8, "test"))
    }
    np.savez(tmp_path / "x.npz", **names)
    whole = arrays.dataset(tmp_path / "x.npz")
    monkeypatch.setattr("hdc.lab.memory.limit", lambda: 3000)
    streamed = arrays.dataset(tmp_path / "x.npz")
    assert isinstance(streamed.train.images, Rows)
    assert streamed.train.images.shape == (4, 40, 1)
    assert streamed.fingerprint == whole.fingerprint


SIGNALS, STEPS = np.zeros((20, 8, 2), np.float32), np.zeros((20, 8), int)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_signals": SIGNALS}, "has train_signals without train_labels"),
        ({"train_labels": STEPS}, "has train_labels without train_images"),
        ({"signals": SIGNALS}, "has no train_images (or train_signals), only: signals"),
        (
            {"train_signals": SIGNALS, "train_labels": STEPS, "test_images": SIGNALS},
            "has test_images and train_signals: it must have images or signals",
        ),
        ({"train_signals": SIGNALS[0, 0], "train_labels": STEPS}, "must be [n, length, c] or [n, length]"),
        ({"train_signals": SIGNALS[..., None], "train_labels": STEPS}, "must be [n, length, c]"),
        ({"train_signals": SIGNALS.astype(int), "train_labels": STEPS}, "must be uint8, uint16, float32"),
        ({"train_signals": SIGNALS, "train_labels": SIGNALS.astype(int)}, "but must be [n] or [n, length]"),
        (
            {"train_signals": SIGNALS, "train_labels": STEPS * 0.5},
            "for regression float32 [n, length, outputs]",
        ),
        ({"train_signals": SIGNALS, "train_labels": STEPS[:, :7]}, "do not fit signals"),
        ({"train_signals": SIGNALS * np.nan, "train_labels": STEPS}, "signals must be finite"),
        (
            {"train_signals": SIGNALS[:1], "train_labels": STEPS[:1]},
            "_signals, and too few train_signals to take",
        ),
    ],
)
def test_what_is_wrong_with_a_file_of_signals_is_one_line(tmp_path, given, message) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **given)
    with pytest.raises(InputError) as caught:
        arrays.dataset(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the registry, and the whole way ---


def test_a_network_gets_what_it_takes_and_nothing_else(monkeypatch) -> None:
    monkeypatch.setitem(registry._parts, ("network", "only_signals"), None)  # and no longer after the test

    @registry.network("only_signals", takes=("signals",))
    def only_signals(options, schedule, images, *, rngs):
        assert images == registry.Signals(8, 2, 3, "dense")
        assert images.shape == (8, 2)
        return network([1])

    signals, images = registry.inputs((8, 2), 3, "dense"), registry.inputs((8, 8, 2), 3, "dense")
    mine = from_dict({"net": {"name": "only_signals"}})
    assert parts.output_shape(mine, parts.network(mine, signals, rngs=nnx.Rngs(0)), signals) == (1, 8, 3)
    with pytest.raises(InputError, match="net=only_signals is for signals, and data=terrain has images"):
        parts.network(mine, images, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="net=lei2019 is for images, and data=terrain has signals: use net="):
        parts.network(from_dict({"net": {"name": "lei2019"}}), signals, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="takes must be a tuple of 'images' or 'signals', got 'signals'"):
        registry.network("another", takes="signals")(only_signals)


def test_the_part_of_the_page_on_signals_runs_as_it_is_written(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HDC_CACHE_DIR", WITH_PROGRAMS)
    page = (DOCS / "how-to" / "signals.md").read_text().partition("\n## Your own\n")[2].partition("\n## ")[0]
    said = {}
    for language, text in re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            exec(compile(text, "data.md", "exec"), {})
            continue
        for command in text.splitlines():
            program, *arguments = shlex.split(command)
            assert program == "hdc"
            assert main(arguments) == 0, command
            said[arguments[0]] = said.get(arguments[0], "") + capsys.readouterr().out
    assert "npz: dense, signals of 64 x 2 float32" in said["data"]
    assert "step" in said["table"]
    assert "gap-free" in said["check"]
    runs = records.load("sensors")
    assert [run.state for run in runs] == ["done", "done"]
    for run in runs:  # the network's own numbers are those of the schedule after the stem
        rates, seen = run.config.schedule.rates, run.info["network"]["seen"]
        stack = Stack.parse(",".join(map(str, (1, *rates))), axes=1)
        assert seen["size"] == [*stack.receptive_field]
        assert seen["gridding"] == pytest.approx(stack.gridding.index)
        assert seen["row"][0][0] == seen["origin"][0] == -(stack.receptive_field[0] // 2)
    network = trained.load(runs[0])
    assert network(np.zeros((2, 64, 2), np.float32)).shape == (2, 64, 3)
    with pytest.raises(
        InputError, match=r"signals are \[2, 2\], but the network was trained on \[b, length, 2\]"
    ):
        network(np.zeros((2, 2), np.float32))
    # One label for each signal: the most frequent of its steps.
    with np.load("sensors.npz") as kept:
        whole = dict(kept)
    whole["train_labels"] = np.array([np.bincount(steps).argmax() for steps in whole["train_labels"]])
    np.savez("one.npz", **whole)
    options = ["data=npz", "data.path=one.npz", "schedule.rates=[1,2]", "train=quick", "optim.warmup_steps=4"]
    assert (
        main(["train", *options, "net.width=4", "net.layer=separable", "gridding.images=4", "name=one"]) == 0
    )
    assert main(["figure", "study=one"]) == 0
    assert "accuracy %" in capsys.readouterr().out
    packed.save(packed.pack(records.load("one"), None), tmp_path / "findings" / "one")
    (before,), (after,) = records.load("one"), records.load("one", "findings")
    erfs = [run.artifact("gridding", 0)["erf"] for run in (before, after)]
    assert erfs[1].dtype == np.float32
    np.testing.assert_array_equal(erfs[0].astype(np.float32), erfs[1])
    assert main(["figure", "study=one", "results=findings", "out=drawn"]) == 0
